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

    Calibration is whether predictions are right on average, at every height: ``bias``, the mean of
    prediction less label, would be 0, and ``slope``, of the line that best tells the labels by the
    predictions, 1. Less than 1 says that predictions lie too far apart.

    Returns:
        ``{"pearson": {"value", "low", "high", "method"}, "spearman": ..., "mae": ..., "bias": ...,
        "slope": ...}``, the mean absolute error and the bias in the unit of the score. What is not
        defined, such as the correlation of a constant, is None and comes with a ``reason``.

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
    for name, statistic in _STATISTICS.items():
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


def bias(values: np.ndarray, truth: np.ndarray, who: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return the mean of prediction less label of the resampled subjects ``who`` (..., N)."""
    return np.asarray((values[who] - truth[who]).mean(axis))


def slope(values: np.ndarray, truth: np.ndarray, who: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return the slope of the labels over the predictions of the subjects ``who`` (..., N)."""
    constant = np.ptp(values[who], axis) == 0  # rounding would hide it
    a, b = (each[who] - each[who].mean(axis, keepdims=True) for each in (values, truth))
    with np.errstate(invalid="ignore"):
        result = (a * b).sum(axis) / (a**2).sum(axis)
    return np.where(constant, np.nan, result)


def _correlation(a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:
    constant = (np.ptp(a, axis) == 0) | (np.ptp(b, axis) == 0)  # rounding would hide it
    a, b = (each - each.mean(axis, keepdims=True) for each in (a, b))
    with np.errstate(invalid="ignore"):
        result = (a * b).sum(axis) / np.sqrt((a**2).sum(axis) * (b**2).sum(axis))
    return np.where(constant, np.nan, result)


_STATISTICS = {
    "pearson": pearson,
    "spearman": spearman,
    "mae": mean_error,
    "bias": bias,
    "slope": slope,
}
