"""The page of an evaluation or a cross-validation."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mrn_components
from mrn_components.app.report.pages import data_uri, write_page
from mrn_components.app.report.subject import flatten
from mrn_components.data.target import HC_PD, Classes, Score, Target, make_target
from mrn_components.metrics import THRESHOLD

METRIC_NAMES = {
    "accuracy": "Accuracy",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "roc_auc": "ROC AUC",
    "roc_auc_bootstrap": "ROC AUC, bootstrap",
    "f1_macro": "Macro F1",
    "brier": "Brier score (0 is best)",
    "ece": "Calibration error (0 is best)",
    "balanced_accuracy": "Balanced accuracy",
    "pearson": "Pearson's correlation",
    "spearman": "Spearman's correlation",
    "mae": "Mean absolute error (0 is best)",
}
_NOT_BY_FOLD = ("roc_auc_bootstrap", "ece")
# Figures of ``write_figures``, and what a reader who cannot see them is told.
_FIGURES = {
    "roc": "ROC curve: sensitivity against 1 - specificity; the area is in the table below.",
    "reliability": "Reliability: share of {positive} against mean {title} in ten bins.",
    "confusion": "Confusion matrix: labels in rows, predictions in columns.",
    "scatter": "Predictions against labels; on the line they agree.",
}


def write_cohort_report(
    folder: Path, *, crossval: Mapping[str, Any] | None = None, name: str = "report.html"
) -> Path:
    """Write the page of what ``mrn evaluate`` left in a folder.

    Args:
        folder: of ``metrics.json`` and the figures; the page is written there.
        crossval: content of ``crossval.json``, for the folds.
        name: of the page.

    Returns:
        The path of the page.
    """
    report = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    target = make_target(report["target"]) if "target" in report else HC_PD
    names = metric_names(target)
    models = [report, *([report["against"]] if "against" in report else [])]
    rest = {key: report[key] for key in ("labels", "predictions", "bootstrap", "versions")}
    if "against" in report:
        rest["against"] = report["against"]["predictions"]
    write_page(
        folder / name,
        "cohort.html.j2",
        version=mrn_components.__version__,
        title="Cross-validation" if crossval is not None else "Evaluation",
        report=report,
        models=models,
        target=target,
        cohort=_cohort(report, target),
        rule=_rule(target),
        tiles=[(names[key], report[key]) for key in target.main_metrics],
        metrics=[
            (name, [model[key] for model in models]) for key, name in names.items() if key in report
        ],
        figures=[
            (name, data_uri(path.read_bytes(), "svg+xml"), _caption(name, target))
            for name in _FIGURES
            if (path := folder / f"{name}.svg").is_file()
        ],
        comparison=[
            {"name": names[key], **test} for key, test in report.get("comparison", {}).items()
        ],
        folds=_folds(crossval, names) if crossval is not None else [],
        num_folds=len(crossval["folds"]) if crossval is not None else 0,
        provenance=list(flatten(rest)),
    )
    return folder / name


def metric_names(target: Target) -> dict[str, str]:
    """Names of the metrics for pages, in their order."""
    if not isinstance(target, Classes) or target.is_binary:
        return METRIC_NAMES
    each = {f"roc_auc_{n.lower()}": f"ROC AUC, {n} against the rest" for n in target.names}
    return METRIC_NAMES | {"roc_auc": "ROC AUC, mean over the classes"} | each


def _cohort(report: Mapping[str, Any], target: Target) -> str:
    """Of how many subjects of which classes the cohort is, after their number."""
    if isinstance(target, Score):
        return "subjects"
    positive = round(report["n"] * report.get("prevalence", 0))
    counts = report.get("classes", {target.positive: positive})
    return ", ".join(["subjects", *(f"{count} {name}" for name, count in counts.items())])


def _rule(target: Target) -> str:
    """How a class follows from a prediction."""
    if isinstance(target, Score):
        return f"Predictions and errors are {target.title}"
    if target.is_binary:
        return f"Class {target.positive} is {target.title} above {THRESHOLD}"
    return "The class is the most probable one"


def _caption(figure: str, target: Target) -> str:
    """What a reader who cannot see a figure is told."""
    if isinstance(target, Classes):
        return _FIGURES[figure].format(positive=target.positive, title=target.title)
    return _FIGURES[figure]


def _folds(crossval: Mapping[str, Any], names: Mapping[str, str]) -> Sequence[dict[str, Any]]:
    """A row a metric: its value in each fold, their mean and deviation, and of all subjects."""
    return [
        {
            "name": name,
            "folds": [fold[key]["value"] for fold in crossval["folds"]],
            **crossval["summary"][key],
            "overall": crossval["overall"][key]["value"],
        }
        for key, name in names.items()
        if key in crossval["summary"] and key not in _NOT_BY_FOLD
    ]
