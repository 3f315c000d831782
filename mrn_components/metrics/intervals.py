"""Confidence intervals: Wilson's, DeLong's and the bootstrap's.

Each function returns ``{"low", "high", "method"}``. Where an interval is not defined, both ends
are None and a ``reason`` says why; an interval without width would claim certainty.
"""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

from mrn_components.metrics.scores import Metric

CONFIDENCE = 0.95  # of every interval in this package
Z = float(stats.norm.ppf((1 + CONFIDENCE) / 2))  # half its width in standard errors, 1.96
NUM_RESAMPLES = 2000
FEW_SUBJECTS = "needs two subjects of each class"
ZERO_VARIANCE = "the variance is 0"


def proportion(successes: int, total: int, needs: str = "needs subjects") -> Metric:
    """Return a share of ``total`` subjects with Wilson's interval; of none, what it ``needs``."""
    if not total:
        return {"value": None, **undefined_interval("Wilson", needs)}
    return {"value": successes / total, **wilson_interval(successes, total)}


def wilson_interval(successes: int, total: int) -> Metric:
    """Wilson's interval of a proportion, of ``total`` subjects, at least 1."""
    interval = stats.binomtest(successes, total).proportion_ci(CONFIDENCE, method="wilson")
    return {"low": float(interval.low), "high": float(interval.high), "method": "Wilson"}


def delong_interval(prob: np.ndarray, truth: np.ndarray) -> Metric:
    """DeLong's interval of the ROC AUC of P(PD), cut to 0 to 1, given labels 0 and 1."""
    if min(np.sum(truth == label) for label in (0, 1)) < 2:
        return undefined_interval("DeLong", FEW_SUBJECTS)
    auc, error = auc_and_error(*placements(prob, truth))
    if error == 0:
        return undefined_interval("DeLong", ZERO_VARIANCE)
    return {"low": max(auc - Z * error, 0.0), "high": min(auc + Z * error, 1.0), "method": "DeLong"}


def placements(prob: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count the subjects of the other class on the right side of each subject, ties half.

    Midranks count in O(n log n) (Sun and Xu 2014, doi:10.1109/LSP.2014.2337313). The counts are
    multiples of 1/2, so that equal ones are equal to the last bit.

    Returns:
        Of each PD subject the number of HC subjects below it, and of each HC subject the number
        of PD subjects above it.
    """
    disease, healthy = prob[truth == 1], prob[truth == 0]
    ranks = stats.rankdata(np.concatenate([disease, healthy]))
    below = ranks[: len(disease)] - stats.rankdata(disease)
    above = len(disease) - (ranks[len(disease) :] - stats.rankdata(healthy))
    return below, above


def auc_and_error(below: np.ndarray, above: np.ndarray) -> tuple[float, float]:
    """Return an AUC and DeLong's standard error, or those of a difference, from ``placements``.

    Of a difference of AUCs it takes the differences; of each class at least two. The error is
    exactly 0 where neither array varies. DeLong et al. 1988, doi:10.2307/2531595.
    """
    m, n = len(below), len(above)
    variance = below.var(ddof=1) / (m * n**2) + above.var(ddof=1) / (n * m**2)
    return float(below.mean() / n), float(np.sqrt(variance))


def bootstrap_interval(classes: Sequence[np.ndarray], statistic: Callable, seed: int) -> Metric:
    """Percentiles of 2000 resamples that keep the number of subjects of each class.

    A class is its subjects' numbers, P(PD) or their place in an array; the statistic is a
    vectorised function of the classes and of ``axis``.
    """
    if min(map(len, classes)) < 2:
        few = FEW_SUBJECTS if len(classes) > 1 else "needs two subjects"
        return undefined_interval("bootstrap", few)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # the reason says it
        interval = stats.bootstrap(
            classes,
            statistic,
            n_resamples=NUM_RESAMPLES,
            vectorized=True,
            axis=-1,
            confidence_level=CONFIDENCE,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).confidence_interval
    if np.isnan(interval.low):
        return undefined_interval("bootstrap", "too few subjects: resamples are constant")
    if interval.low == interval.high:
        return undefined_interval("bootstrap", "the resamples do not differ")
    return {"low": float(interval.low), "high": float(interval.high), "method": "bootstrap"}


def undefined_interval(method: str, reason: str) -> Metric:
    """Stand for the interval that ``method`` cannot give, with a ``reason`` in a few words."""
    return {"low": None, "high": None, "method": method, "reason": reason}
