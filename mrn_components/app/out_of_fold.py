"""The out-of-fold predictions of a cross-validation, and their metrics."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mrn_components.app.bundle_run import BundleRun
from mrn_components.data import DataLeakageError, Subject
from mrn_components.data.ledger import KEPT_WEIGHTS, read_record
from mrn_components.data.predictions import read_predictions, write_predictions
from mrn_components.data.tables import read_rows
from mrn_components.data.target import read_target
from mrn_components.metrics import Metric
from mrn_components.system.files import write_text

_CHOSEN = (
    "Each fold's epoch was chosen on the subjects that it is scored on, so that the numbers are a "
    "little too good; folds trained with --keep last, mean or teacher choose none."
)
_NOT_CHOSEN = "No epoch was chosen on the subjects that a fold is scored on."


def write_results(runs: Sequence[BundleRun], subjects: Sequence[Subject], output: Path) -> str:
    """Write ``out_of_fold.csv`` and ``crossval.json``; return a table of the metrics, and a note.

    The note tells whether the epochs were chosen on the subjects that a fold is scored on.

    Raises:
        DataLeakageError: if a fold's network was trained on a subject that it predicts.
        ValueError: if a subject has no prediction.
    """
    labels = {subject["subject"]: subject["label"] for subject in subjects}
    target = read_target(runs[0].predictions.parent)
    kept = ("subject", *target.columns, "class")
    rows: list[dict[str, Any]] = []
    for fold, run in enumerate(runs):
        try:
            predicted = read_predictions(run.predictions, target)
        except DataLeakageError as error:
            raise DataLeakageError(f"fold {fold}: {error}") from None
        for where, row in read_rows(run.predictions, target.columns):
            name = row["subject"]
            if name not in predicted:
                raise ValueError(f"{where}: {name} has no prediction: {row.get('error', '')}")
            cells = {column: row[column] for column in kept if column in row}
            label = target.shown(labels[name])
            rows.append({**cells, "fold": fold, "label": label, "value": predicted[name]})
    rows.sort(key=lambda row: row["subject"])
    write_predictions(output / "out_of_fold.csv", rows, target)

    def score(members: Sequence[Mapping[str, Any]]) -> dict[str, Metric]:
        truth = [labels[row["subject"]] for row in members]
        return target.metrics(np.array([row["value"] for row in members]), truth)

    by_fold = [score([row for row in rows if row["fold"] == fold]) for fold in range(len(runs))]
    summary = {
        name: _summary([metrics[name]["value"] for metrics in by_fold]) for name in by_fold[0]
    }
    content = {"num_subjects": len(rows), "folds": by_fold, "summary": summary}
    content["overall"] = score(rows)
    weights = [read_record(run.folder / "models" / "model.pt", KEPT_WEIGHTS) for run in runs]
    chosen = any(record is None or record["chosen_on_validation"] for record in weights)
    content |= {"kept_weights": weights, "note": _CHOSEN if chosen else _NOT_CHOSEN}
    write_text(output / "crossval.json", json.dumps(content, indent=2) + "\n")
    return f"{_table(content, target.main_metrics)}\n{content['note']}"


def _summary(folds: Sequence[float | None]) -> dict[str, float | None]:
    """Mean and deviation over the folds; None where a fold has no value."""
    values = [value for value in folds if value is not None]
    if len(values) < len(folds):
        return {"mean": None, "sd": None}
    return {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1))}


def _table(content: Mapping[str, Any], names: Sequence[str]) -> str:
    """The metrics of some names as text."""

    def cells(metrics: Mapping[str, Metric]) -> list[str]:
        return [_shown(metrics[name]["value"]) for name in names]

    means = [content["summary"][name] for name in names]
    lines = [
        ["fold", *names],
        *([str(number), *cells(metrics)] for number, metrics in enumerate(content["folds"])),
        ["mean (sd)", *(f"{_shown(mean['mean'])} ({_shown(mean['sd'])})" for mean in means)],
        ["all subjects", *cells(content["overall"])],
    ]
    return "\n".join("  ".join(f"{cell:<13}" for cell in line).rstrip() for line in lines)


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
