"""Metrics of a diagnosis with their 95 % intervals (section 4.1.3)."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from sklearn.metrics import brier_score_loss, f1_score, roc_auc_score

from mrn_components.metrics.calibration import (
    expected_calibration_error,
    probability_metrics,
    reliability_bins,
    squared_errors,
)
from mrn_components.metrics.intervals import (
    CONFIDENCE,
    bootstrap_interval,
    delong_interval,
    proportion,
    undefined_interval,
)
from mrn_components.metrics.resampled import (
    average_precision,
    class_f1,
    class_recall,
    mean,
    mean_auc,
    roc_auc,
    sensitivity_at_specificity,
)
from mrn_components.metrics.scores import THRESHOLD, Labels, Metric, Scores, checked_scores


def diagnosis_metrics(prob_pd: Scores, labels: Labels, seed: int = 1) -> dict[str, Metric]:
    """Score a diagnosis: the paper's accuracy, ROC AUC and macro F1, and what reviewers ask for.

    Intervals: Wilson's for accuracy, sensitivity and specificity; DeLong's for ``roc_auc``; for
    ``roc_auc_bootstrap`` (the same value), average precision, the sensitivity at the threshold that
    leaves 90 % of these healthy subjects right, macro F1 and Brier score the percentiles of 2000
    bootstrap resamples that keep the number of subjects of each class. All take the subjects as
    independent. The expected calibration error has none: resamples overestimate it. Probabilities
    of Parkinson's disease are (N,), 0 to 1; labels are 0, healthy, or 1, Parkinson's disease.

    Returns:
        ``{"accuracy": {"value", "low", "high", "method"}, "sensitivity": ..., "specificity": ...,
        "roc_auc": ..., "roc_auc_bootstrap": ..., "average_precision": ...,
        "sensitivity_at_90_specificity": ..., "f1_macro": ..., "brier": ..., "ece": ...}``, each a
        fraction. What is not defined is None and comes with a ``reason``.

    Raises:
        ValueError: for no subjects, unequal lengths, or values outside their range.
    """
    prob, truth = checked_scores(prob_pd, labels)
    found = (prob > THRESHOLD).astype(int)
    right = found == truth
    classes = [prob[truth == label] for label in (0, 1)]
    auc = _roc_auc(prob, truth)
    brier = float(brier_score_loss(truth, prob, pos_label=1))
    return {
        "accuracy": _proportion(right, "subject"),
        "sensitivity": _proportion(right[truth == 1], "positive subject"),
        "specificity": _proportion(right[truth == 0], "negative subject"),
        "roc_auc": auc,
        "roc_auc_bootstrap": {"value": auc["value"], **bootstrap_interval(classes, roc_auc, seed)},
        "average_precision": _of_classes(classes, average_precision, seed),
        "sensitivity_at_90_specificity": _of_classes(classes, sensitivity_at_specificity, seed),
        "f1_macro": _f1_macro(found, truth, 2, seed),
        "brier": {"value": brier, **bootstrap_interval(classes, _brier, seed)},
        "ece": _without_interval(expected_calibration_error(reliability_bins(prob, truth))),
    }


def class_metrics(
    prob: Scores, labels: Labels, *, names: Sequence[str], seed: int = 1
) -> dict[str, Metric]:
    """Score a diagnosis among more than two classes; the most probable one is the decision.

    Intervals: Wilson's for the accuracy, and for the sensitivity and specificity of each class
    against the rest; DeLong's for its ROC AUC; else percentiles of 2000 bootstrap resamples that
    keep the number of subjects of each class. The Brier score is the sum over the classes, the
    calibration error that of the most probable class. Probabilities are (N, K), 0 to 1, labels the
    numbers of the classes (N,).

    Returns:
        ``{"accuracy": {"value", "low", "high", "method"}, "f1_macro": ..., "balanced_accuracy":
        ..., "roc_auc": the mean of each class against the rest, "brier": ..., "ece": ...,
        "roc_auc_hc": HC against the rest, "sensitivity_hc": ..., "specificity_hc": ..., ...}``.
        What is not defined is None and comes with a ``reason``.

    Raises:
        ValueError: for no subjects, unequal lengths, or values outside their range.
    """
    prob, truth = checked_scores(prob, labels, len(names))
    found = prob.argmax(axis=1)
    members = [np.flatnonzero(truth == number) for number in range(len(names))]
    errors = squared_errors(prob, truth)
    brier = bootstrap_interval([errors[own] for own in members], mean, seed)
    against_rest = {
        name: _against_rest(prob[:, number], found == number, truth == number, name)
        for number, name in enumerate(names)
    }
    needs_all = undefined_interval("bootstrap", "needs subjects of every class")
    metrics: dict[str, Metric] = {
        "accuracy": _proportion(found == truth, "subject"),
        "f1_macro": _f1_macro(found, truth, len(names), seed),
        "balanced_accuracy": {"value": None, **needs_all},
        "roc_auc": {"value": None, **needs_all},
        "brier": {"value": float(errors.mean()), **brier},
        "ece": _without_interval(probability_metrics(prob, truth)["ece"]),
    }
    if all(map(len, members)):
        decisions = [found[own] for own in members]
        metrics["balanced_accuracy"] = {
            "value": float(class_recall(*decisions)),
            **bootstrap_interval(decisions, class_recall, seed),
        }
        metrics["roc_auc"] = {
            "value": float(np.mean([own["roc_auc"]["value"] for own in against_rest.values()])),
            **bootstrap_interval(members, partial(mean_auc, prob), seed),
        }
    each = {f"{k}_{name.lower()}": m for name, own in against_rest.items() for k, m in own.items()}
    return metrics | each


def _against_rest(
    prob: np.ndarray, found: np.ndarray, truth: np.ndarray, name: str
) -> dict[str, Metric]:
    """Score one class of more than two: its probability, who was decided to have it, who has."""
    return {
        "roc_auc": _roc_auc(prob, truth),
        "sensitivity": _proportion(found[truth], f"{name} subject"),
        "specificity": _proportion(~found[~truth], "other subject"),
    }


def format_metrics(metrics: Mapping[str, Metric]) -> str:
    """Lay metrics out as an aligned text table."""
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


def _proportion(right: np.ndarray, of: str) -> Metric:
    """Share of the decisions that are right, with Wilson's interval."""
    return proportion(int(right.sum()), right.size, f"needs {of}s")


def _without_interval(error: float) -> Metric:
    """A calibration error, whose resamples are larger than itself."""
    reason = "none: resamples overestimate it"
    return {"value": error, "low": None, "high": None, "reason": reason}


def _roc_auc(prob: np.ndarray, truth: np.ndarray) -> Metric:
    """ROC AUC of the subjects that are true, with DeLong's interval."""
    auc = float(roc_auc_score(truth, prob)) if len(np.unique(truth)) == 2 else None
    return {"value": auc, **delong_interval(prob, truth)}


def _of_classes(classes: Sequence[np.ndarray], statistic: Callable, seed: int) -> Metric:
    """A statistic of the probabilities of both classes, by bootstrap."""
    value = float(statistic(*classes)) if all(map(len, classes)) else None
    return {"value": value, **bootstrap_interval(classes, statistic, seed)}


def _f1_macro(found: np.ndarray, truth: np.ndarray, num_classes: int, seed: int) -> Metric:
    numbers = list(range(num_classes))
    value = f1_score(truth, found, labels=numbers, average="macro", zero_division=0.0)
    decisions = [found[truth == number] for number in numbers]
    return {"value": float(value), **bootstrap_interval(decisions, class_f1, seed)}


def _brier(healthy: np.ndarray, disease: np.ndarray, axis: int) -> np.ndarray:
    total = (healthy**2).sum(axis) + ((1 - disease) ** 2).sum(axis)
    return total / (healthy.shape[axis] + disease.shape[axis])
