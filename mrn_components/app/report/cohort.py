"""The page of an evaluation or a cross-validation."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mrn_components.app.by_group import say_test
from mrn_components.app.figures import FIGURES
from mrn_components.app.report.pages import data_uri, write_page
from mrn_components.app.report.subject import flatten
from mrn_components.data.target import HC_PD, Classes, Target, make_target
from mrn_components.metrics import THRESHOLD

_METRIC_NAMES = {
    "accuracy": "Accuracy",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "roc_auc": "ROC AUC",
    "roc_auc_bootstrap": "ROC AUC, bootstrap",
    "average_precision": "Average precision",
    "sensitivity_at_90_specificity": "Sensitivity at 90 % specificity, of these subjects",
    "accuracy_at_threshold": "Accuracy at the threshold of other subjects",
    "sensitivity_at_threshold": "Sensitivity at that threshold",
    "specificity_at_threshold": "Specificity at that threshold",
    "f1_macro": "Macro F1",
    "brier": "Brier score (0 is best)",
    "ece": "Calibration error (0 is best)",
    "balanced_accuracy": "Balanced accuracy",
    "pearson": "Pearson's correlation",
    "spearman": "Spearman's correlation",
    "mae": "Mean absolute error (0 is best)",
    "bias": "Prediction less label, mean (0 is best)",
    "slope": "Slope of labels over predictions (1 is best)",
}
_AGAINST_REST = ("roc_auc", "sensitivity", "specificity")  # of each of more than two classes
_PROVENANCE = ("labels", "predictions", "bootstrap", "versions")


def write_cohort_report(folder: Path, *, crossval: Mapping[str, Any] | None = None) -> Path:
    """Write ``report.html`` beside what ``mrn evaluate`` left in a folder, and return its path.

    ``crossval``, the content of ``crossval.json``, adds the folds.
    """
    report = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    target = make_target(report["target"]) if "target" in report else HC_PD
    models, rest = [report], {key: report[key] for key in _PROVENANCE}
    if "against" in report:
        models.append(report["against"])
        rest["against"] = report["against"]["predictions"]
    against_rest = _against_rest(target)
    path = folder / "report.html"
    write_page(
        path,
        "cohort.html.j2",
        report=report,
        models=models,
        target=target,
        names=_metric_names(target),
        against_rest=against_rest,
        of_classes={key for keys in against_rest.values() for key in keys.values()},
        metric_kinds=_METRIC_NAMES,
        threshold=THRESHOLD,
        say_test=say_test,
        figures=[
            (name, data_uri(figure.read_bytes(), "svg+xml"))
            for name in FIGURES
            if (figure := folder / f"{name}.svg").is_file()
        ],
        crossval=crossval,
        provenance=flatten(rest),
    )
    return path


def _metric_names(target: Target) -> dict[str, str]:
    """Names of the metrics for pages, in their order."""
    each = {
        key: f"{_METRIC_NAMES[kind]}, {name} against the rest"
        for name, kinds in _against_rest(target).items()
        for kind, key in kinds.items()
    }
    mean = {"roc_auc": "ROC AUC, mean over the classes"} if each else {}
    return _METRIC_NAMES | mean | each


def _against_rest(target: Target) -> dict[str, dict[str, str]]:
    """Keys of the metrics of each class, {class: {kind: key}}; none of two classes or a score."""
    if not isinstance(target, Classes) or target.is_binary:
        return {}
    return {name: {k: f"{k}_{name.lower()}" for k in _AGAINST_REST} for name in target.names}
