"""The page of an evaluation or a cross-validation."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mrn_components
from mrn_components.app.report.pages import data_uri, write_page
from mrn_components.app.report.subject import flatten

METRIC_NAMES = {
    "accuracy": "Accuracy",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "roc_auc": "ROC AUC",
    "roc_auc_bootstrap": "ROC AUC, bootstrap",
    "f1_macro": "Macro F1",
    "brier": "Brier score (0 is best)",
    "ece": "Calibration error (0 is best)",
}
_TILES = ("accuracy", "roc_auc", "f1_macro")  # the paper's
_FOLD_METRICS = ("accuracy", "sensitivity", "specificity", "roc_auc", "f1_macro", "brier")
# Figures of ``write_figures``, and what a reader who cannot see them is told.
_FIGURES = {
    "roc": "ROC curve: sensitivity against 1 - specificity; the area is in the table below.",
    "reliability": "Reliability: share of PD against mean P(PD) in ten bins.",
    "confusion": "Confusion matrix: labels in rows, predictions in columns.",
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
        tiles=[(METRIC_NAMES[key], report[key]) for key in _TILES],
        metrics=[
            (METRIC_NAMES[key], [model[key] for model in models])
            for key in METRIC_NAMES
            if key in report
        ],
        figures=[
            (name, data_uri((folder / f"{name}.svg").read_bytes(), "svg+xml"), text)
            for name, text in _FIGURES.items()
        ],
        comparison=_comparison(report.get("comparison")),
        folds=_folds(crossval) if crossval is not None else [],
        num_folds=len(crossval["folds"]) if crossval is not None else 0,
        provenance=list(flatten(rest)),
    )
    return folder / name


def _comparison(comparison: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Rows of the comparison of two models."""
    if comparison is None:
        return []
    return [{"name": METRIC_NAMES[key], **comparison[key]} for key in ("roc_auc", "accuracy")]


def _folds(crossval: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
    """A row a metric: its value in each fold, their mean and deviation, and of all subjects."""
    return [
        {
            "name": METRIC_NAMES[key],
            "folds": [fold[key]["value"] for fold in crossval["folds"]],
            **crossval["summary"][key],
            "overall": crossval["overall"][key]["value"],
        }
        for key in _FOLD_METRICS
    ]
