"""Metrics of a diagnosis with their 95 % intervals (section 4.1.3)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

Metric = dict[str, Any]  # {"value", "low", "high"[, "reason"]}; None where undefined

_CONFIDENCE = 0.95
_NUM_RESAMPLES = 2000
_THRESHOLD = 0.5  # above it lies PD, as argmax decides


def diagnosis_metrics(
    prob_pd: Sequence[float] | np.ndarray, labels: Sequence[int] | np.ndarray, seed: int = 1
) -> dict[str, Metric]:
    """Score a diagnosis as the paper does: accuracy, ROC AUC and macro F1.

    Intervals: Wilson's for the accuracy, and for the other two the percentiles of 2000 bootstrap
    resamples that keep the number of subjects of each class.

    Args:
        prob_pd: probability of Parkinson's disease of each subject, 0 to 1.
        labels: diagnosis of each subject, 0 healthy or 1 Parkinson's disease.
        seed: seed of the bootstrap.

    Returns:
        ``{"accuracy": {"value", "low", "high"}, "roc_auc": ..., "f1_macro": ...}``. What is not
        defined is None and comes with a ``reason``.

    Raises:
        ValueError: for no subjects, unequal lengths, or values outside their range.
    """
    prob, truth = np.asarray(prob_pd, dtype=float), np.asarray(labels)
    _check(prob, truth)
    decision = prob > _THRESHOLD
    right = int((decision == truth).sum())
    wilson = stats.binomtest(right, len(truth)).proportion_ci(_CONFIDENCE, method="wilson")
    classes = [prob[truth == label] for label in (0, 1)]
    metrics: dict[str, Metric] = {
        "accuracy": {
            "value": float(accuracy_score(truth, decision)),
            "low": float(wilson.low),
            "high": float(wilson.high),
        },
        "roc_auc": {"value": float(roc_auc_score(truth, prob)) if all(map(len, classes)) else None},
        "f1_macro": {
            "value": float(
                f1_score(truth, decision, labels=[0, 1], average="macro", zero_division=0.0)
            )
        },
    }
    for name, statistic in {"roc_auc": _auc, "f1_macro": _f1_macro}.items():
        metrics[name] |= _bootstrap(classes, statistic, seed)
    return metrics


def format_metrics(metrics: Mapping[str, Metric]) -> str:
    """Lay metrics out as an aligned text table.

    Args:
        metrics: what ``diagnosis_metrics`` returns.
    """
    rows = [("metric", "value", f"{_CONFIDENCE:.0%} interval")]
    for name, metric in metrics.items():
        value = "-" if metric["value"] is None else f"{metric['value']:.3f}"
        interval = (
            metric["reason"]
            if metric["low"] is None
            else f"{metric['low']:.3f} to {metric['high']:.3f}"
        )
        rows.append((name, value, interval))
    width = max(len(name) for name, _, _ in rows)
    return "\n".join(f"{name:<{width}}  {value:>5}  {interval}" for name, value, interval in rows)


def _check(prob: np.ndarray, truth: np.ndarray) -> None:
    if prob.ndim != 1 or prob.shape != truth.shape or not prob.size:
        raise ValueError(
            "prob_pd and labels must be equally long lists with at least one subject, got the "
            f"shapes {prob.shape} and {truth.shape}."
        )
    if not np.isin(truth, (0, 1)).all():
        raise ValueError(f"labels must be 0 or 1, got {sorted(set(truth.tolist()))}.")
    if not ((prob >= 0) & (prob <= 1)).all():  # also refuses NaN
        raise ValueError(
            f"prob_pd must lie in 0 to 1, got {prob.min()} to {prob.max()}; a NaN means that the "
            "network diverged."
        )


def _bootstrap(classes: list[np.ndarray], statistic: Callable, seed: int) -> Metric:
    if min(len(members) for members in classes) < 2:
        return {"low": None, "high": None, "reason": "needs two subjects of each class"}
    interval = stats.bootstrap(
        classes,
        statistic,
        n_resamples=_NUM_RESAMPLES,
        vectorized=True,
        axis=-1,
        confidence_level=_CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return {"low": float(interval.low), "high": float(interval.high)}


def _auc(healthy: np.ndarray, disease: np.ndarray, axis: int) -> np.ndarray:
    """Share of (healthy, disease) pairs in the right order, ties half: Mann-Whitney's U."""
    ranks = stats.rankdata(np.concatenate([healthy, disease], axis), axis=axis)
    n, m = healthy.shape[axis], disease.shape[axis]
    return (ranks[..., n:].sum(axis) - m * (m + 1) / 2) / (n * m)


def _f1_macro(healthy: np.ndarray, disease: np.ndarray, axis: int) -> np.ndarray:
    false_pd = (healthy > _THRESHOLD).sum(axis)
    true_pd = (disease > _THRESHOLD).sum(axis)
    true_hc = healthy.shape[axis] - false_pd
    wrong = false_pd + disease.shape[axis] - true_pd
    # No 0 / 0: where nobody of a class is right, somebody is wrong.
    return (2 * true_pd / (2 * true_pd + wrong) + 2 * true_hc / (2 * true_hc + wrong)) / 2
