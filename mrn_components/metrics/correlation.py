"""Metrics of a predicted score, with 95 % bootstrap intervals.

N subjects, R resamples. Statistics take the numbers of the subjects in every resample (R, N).
"""

from functools import partial
from typing import Any

import numpy as np
from scipy import stats

from mrn_components.metrics.intervals import bootstrap_interval, undefined_interval
from mrn_components.metrics.scores import Metric


def score_metrics(values: Any, labels: Any, seed: int = 1) -> dict[str, Metric]:
    """Score predictions (N,) of a number by correlation with the labels (N,), and by the error.

    Returns:
        ``{"pearson": {"value", "low", "high", "method"}, "spearman": ..., "mae": ...}``, the mean
        absolute error in the unit of the score. What is not defined, such as the correlation of a
        constant, is None and comes with a ``reason``.

    Raises:
        ValueError: for no subjects, unequal lengths, or values that are not finite.
    """
    predicted, truth = (np.asarray(each, dtype=float) for each in (values, labels))
    if predicted.ndim != 1 or predicted.shape != truth.shape or not predicted.size:
        raise ValueError(
            "values and labels must be equally long lists with at least one subject, got the "
            f"shapes {predicted.shape} and {truth.shape}."
        )
    if not (np.isfinite(predicted) & np.isfinite(truth)).all():
        raise ValueError("values and labels must be finite; a NaN means that the network diverged.")
    everyone = np.arange(len(truth))
    metrics: dict[str, Metric] = {}
    undefined = undefined_interval("bootstrap", "labels or predictions are constant")
    for name, statistic in {"pearson": pearson, "spearman": spearman, "mae": mean_error}.items():
        of_resamples = partial(statistic, predicted, truth)
        value = float(of_resamples(everyone))
        metrics[name] = {"value": None, **undefined}
        if np.isfinite(value):
            metrics[name] = {"value": value, **bootstrap_interval([everyone], of_resamples, seed)}
    return metrics


def pearson(values: np.ndarray, truth: np.ndarray, who: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return Pearson's correlation of the resampled subjects ``who`` (..., N)."""
    return _correlation(values[who], truth[who], axis)


def spearman(values: np.ndarray, truth: np.ndarray, who: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return Spearman's correlation, that of the ranks, of the subjects ``who`` (..., N)."""
    ranks = [stats.rankdata(each[who], axis=axis) for each in (values, truth)]
    return _correlation(ranks[0], ranks[1], axis)


def mean_error(
    values: np.ndarray, truth: np.ndarray, who: np.ndarray, axis: int = -1
) -> np.ndarray:
    """Return the mean absolute error of the resampled subjects ``who`` (..., N)."""
    return np.abs(values[who] - truth[who]).mean(axis)


def _correlation(a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:
    constant = (np.ptp(a, axis) == 0) | (np.ptp(b, axis) == 0)  # rounding would hide it
    a, b = (each - each.mean(axis, keepdims=True) for each in (a, b))
    with np.errstate(invalid="ignore"):
        result = (a * b).sum(axis) / np.sqrt((a**2).sum(axis) * (b**2).sum(axis))
    return np.where(constant, np.nan, result)
