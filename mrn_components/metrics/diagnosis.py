"""Metrics of a diagnosis with their 95 % intervals (section 4.1.3)."""

from collections.abc import Mapping

import numpy as np
from sklearn.metrics import brier_score_loss, confusion_matrix, f1_score, roc_auc_score

from mrn_components.metrics.calibration import expected_calibration_error, reliability_bins
from mrn_components.metrics.intervals import (
    CONFIDENCE,
    bootstrap_interval,
    delong_interval,
    undefined_interval,
    wilson_interval,
)
from mrn_components.metrics.resampled import f1_macro, roc_auc
from mrn_components.metrics.scores import THRESHOLD, Labels, Metric, Scores, checked_scores


def diagnosis_metrics(prob_pd: Scores, labels: Labels, seed: int = 1) -> dict[str, Metric]:
    """Score a diagnosis: the paper's accuracy, ROC AUC and macro F1, and what reviewers ask for.

    Intervals: Wilson's for accuracy, sensitivity and specificity; DeLong's for ``roc_auc``; for
    ``roc_auc_bootstrap`` (the same value), macro F1 and Brier score the percentiles of 2000
    bootstrap resamples that keep the number of subjects of each class. All take the subjects as
    independent. The expected calibration error has none: resamples overestimate it.

    Args:
        prob_pd: probability of Parkinson's disease of each subject, 0 to 1.
        labels: diagnosis of each subject, 0 healthy or 1 Parkinson's disease.
        seed: seed of the bootstrap.

    Returns:
        ``{"accuracy": {"value", "low", "high", "method"}, "sensitivity": ..., "specificity": ...,
        "roc_auc": ..., "roc_auc_bootstrap": ..., "f1_macro": ..., "brier": ..., "ece": ...}``,
        each a fraction. What is not defined is None and comes with a ``reason``.

    Raises:
        ValueError: for no subjects, unequal lengths, or values outside their range.
    """
    prob, truth = checked_scores(prob_pd, labels)
    decision = prob > THRESHOLD
    classes = [prob[truth == label] for label in (0, 1)]
    counts = confusion_counts(prob, truth)
    true_hc, true_pd = counts["true_hc"], counts["true_pd"]
    auc = float(roc_auc_score(truth, prob)) if all(map(len, classes)) else None
    f1 = f1_score(truth, decision, labels=[0, 1], average="macro", zero_division=0.0)
    brier = brier_score_loss(truth, prob, pos_label=1)
    return {
        "accuracy": _proportion(true_hc + true_pd, len(truth), "subject"),
        "sensitivity": _proportion(true_pd, len(classes[1]), "PD subject"),
        "specificity": _proportion(true_hc, len(classes[0]), "HC subject"),
        "roc_auc": {"value": auc, **delong_interval(prob, truth)},
        "roc_auc_bootstrap": {"value": auc, **bootstrap_interval(classes, roc_auc, seed)},
        "f1_macro": {"value": float(f1), **bootstrap_interval(classes, f1_macro, seed)},
        "brier": {"value": float(brier), **bootstrap_interval(classes, _brier, seed)},
        "ece": {
            "value": expected_calibration_error(reliability_bins(prob, truth)),
            "low": None,
            "high": None,
            "reason": "none: resamples overestimate it",
        },
    }


def confusion_counts(prob_pd: Scores, labels: Labels) -> dict[str, int]:
    """Count right and wrong decisions for PD (P(PD) above 0.5) and HC.

    Args:
        prob_pd: probability of Parkinson's disease of each subject, 0 to 1.
        labels: diagnosis of each subject, 0 healthy or 1 Parkinson's disease.

    Returns:
        ``{"true_hc", "false_pd", "false_hc", "true_pd"}``: scikit-learn's order tn, fp, fn, tp.

    Raises:
        ValueError: for no subjects, unequal lengths, or values outside their range.
    """
    prob, truth = checked_scores(prob_pd, labels)
    counts = confusion_matrix(truth, prob > THRESHOLD, labels=[0, 1]).ravel().tolist()
    return dict(zip(("true_hc", "false_pd", "false_hc", "true_pd"), counts, strict=True))


def format_metrics(metrics: Mapping[str, Metric]) -> str:
    """Lay metrics out as an aligned text table.

    Args:
        metrics: what ``diagnosis_metrics`` returns.
    """
    rows = [("metric", "value", f"{CONFIDENCE:.0%} interval")]
    for name, metric in metrics.items():
        value = "-" if metric["value"] is None else f"{metric['value']:.3f}"
        interval = (
            metric["reason"]
            if metric["low"] is None
            else f"{metric['low']:.3f} to {metric['high']:.3f} ({metric['method']})"
        )
        rows.append((name, value, interval))
    width = max(len(name) for name, _, _ in rows)
    return "\n".join(f"{name:<{width}}  {value:>5}  {interval}" for name, value, interval in rows)


def _proportion(successes: int, total: int, of: str) -> Metric:
    if not total:
        return {"value": None, **undefined_interval("Wilson", f"needs {of}s")}
    return {"value": successes / total, **wilson_interval(successes, total)}


def _brier(healthy: np.ndarray, disease: np.ndarray, axis: int) -> np.ndarray:
    total = (healthy**2).sum(axis) + ((1 - disease) ** 2).sum(axis)
    return total / (healthy.shape[axis] + disease.shape[axis])
