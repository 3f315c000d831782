"""What a cross-validation gives: ``out_of_fold.csv``, ``crossval.json`` and a page."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mrn_components.app.calibration import calibrate_rows
from mrn_components.app.evaluate import evaluate
from mrn_components.app.report.cohort import write_cohort_report
from mrn_components.data.predictions import OUT_OF_FOLD, write_predictions
from mrn_components.data.target import Target
from mrn_components.metrics import Metric
from mrn_components.system.files import write_json

CROSSVAL = "crossval.json"


def write_out_of_fold(
    output: Path,
    rows: Sequence[Mapping[str, Any]],
    labels: Mapping[str, Any],
    target: Target,
    further: Mapping[str, Any],
    *,
    group_by: str | None = None,
) -> str:
    """Write ``out_of_fold.csv`` and ``crossval.json``; return a table of the metrics, and a note.

    Predictions get calibrated ones and sets beside them, each fold's by the others.

    Args:
        output: folder of the files.
        rows: cells of each subject, with ``fold``, and as ``value`` what ``target.metrics`` takes.
        labels: {subject: label}.
        target: what the labels are.
        further: what else ``crossval.json`` says, with the ``note``.
        group_by: cell of the rows that is a column of its own, such as site.
    """
    rows, fitted = calibrate_rows(sorted(rows, key=lambda row: row["subject"]), labels, target)
    columns = [] if group_by is None else [group_by]
    write_predictions(output / OUT_OF_FOLD, rows, target, columns)

    def score(members: Sequence[Mapping[str, Any]]) -> dict[str, Metric]:
        truth = [labels[row["subject"]] for row in members]
        return target.metrics(np.array([row["value"] for row in members]), truth)

    folds = sorted({row["fold"] for row in rows})
    by_fold = [score([row for row in rows if row["fold"] == fold]) for fold in folds]
    summary = {
        name: _summary([metrics[name]["value"] for metrics in by_fold]) for name in by_fold[0]
    }
    content = {"num_subjects": len(rows), "folds": by_fold, "summary": summary}
    content |= {"overall": score(rows), **fitted, **further}
    if group_by is not None:
        pairs = {(row["fold"], row[group_by]) for row in rows}
        content["groups"] = [sorted(group for of, group in pairs if of == fold) for fold in folds]
    write_json(output / CROSSVAL, content)
    return f"{_table(content, target.main_metrics)}\n{content['note']}"


def write_page(output: Path, name: str, **options: Any) -> Path:
    """Evaluate the out-of-fold predictions in ``evaluation``; return a page that shows the folds.

    The options are those of ``evaluate``; ``names`` is for a comparison.
    """
    table = output / OUT_OF_FOLD
    options = {"names": [name], **options}
    evaluation = evaluate(table, table, output=output / "evaluation", **options)
    folds = json.loads((output / CROSSVAL).read_text(encoding="utf-8"))
    return write_cohort_report(evaluation, crossval=folds)


def _summary(folds: Sequence[float | None]) -> dict[str, float | None]:
    """Mean and deviation over the folds; None where a fold has no value."""
    if None in folds:
        return {"mean": None, "sd": None}
    values = np.array(folds, float)
    return {"mean": float(values.mean()), "sd": float(values.std(ddof=1))}


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
