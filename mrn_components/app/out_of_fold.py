"""The out-of-fold predictions of a cross-validation, and their metrics."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mrn_components.app.bundle_run import BundleRun
from mrn_components.data import DataLeakageError, Subject
from mrn_components.metrics import Metric, diagnosis_metrics
from mrn_components.system.files import write_text

_SHOWN = ("accuracy", "roc_auc", "f1_macro")  # the paper's; crossval.json has all


def write_results(runs: Sequence[BundleRun], subjects: Sequence[Subject], output: Path) -> str:
    """Write ``out_of_fold.csv`` and ``crossval.json``.

    Returns:
        A table of the metrics.

    Raises:
        DataLeakageError: if a fold's network was trained on a subject that it predicts.
    """
    labels = {subject["subject"]: subject["label"] for subject in subjects}
    rows = []
    for fold, run in enumerate(runs):
        for name, row in run.read_predictions().items():
            if row["trained_on"] == "1":
                raise DataLeakageError(f"fold {fold} was trained on {name}, which it predicts.")
            rows.append((name, fold, row["prob_pd"], row["class"], labels[name]))
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["subject", "fold", "prob_pd", "class", "label"])
    writer.writerows(sorted(rows))
    write_text(output / "out_of_fold.csv", table.getvalue())

    def score(members: Sequence[tuple]) -> dict[str, Metric]:
        return diagnosis_metrics([float(row[2]) for row in members], [row[4] for row in members])

    by_fold = [score([row for row in rows if row[1] == fold]) for fold in range(len(runs))]
    values = {name: [metrics[name]["value"] for metrics in by_fold] for name in by_fold[0]}
    summary = {
        name: {"mean": float(np.mean(fold)), "sd": float(np.std(fold, ddof=1))}
        for name, fold in values.items()
    }
    overall = score(sorted(rows))
    content = {"num_subjects": len(rows), "folds": by_fold, "summary": summary, "overall": overall}
    write_text(output / "crossval.json", json.dumps(content, indent=2) + "\n")
    return _format(by_fold, summary, overall)


def _format(
    by_fold: Sequence[Mapping[str, Metric]],
    summary: Mapping[str, Mapping[str, float]],
    overall: Mapping[str, Metric],
) -> str:
    lines = [["fold", *_SHOWN]]
    for number, metrics in enumerate(by_fold):
        lines.append([str(number), *(f"{metrics[name]['value']:.3f}" for name in _SHOWN)])
    means = [f"{summary[name]['mean']:.3f} ({summary[name]['sd']:.3f})" for name in _SHOWN]
    lines.append(["mean (sd)", *means])
    lines.append(["all subjects", *(f"{overall[name]['value']:.3f}" for name in _SHOWN)])
    return "\n".join("  ".join(f"{cell:<13}" for cell in line).rstrip() for line in lines)
