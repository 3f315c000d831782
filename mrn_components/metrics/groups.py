"""Metrics of groups of subjects, such as sites, and whether these differ by more than chance."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import expit, logit

from mrn_components.metrics.intervals import (
    CONFIDENCE,
    FEW_SUBJECTS,
    ZERO_VARIANCE,
    auc_and_error,
    placements,
)
from mrn_components.metrics.scores import THRESHOLD

Effect = tuple[float, float]  # on a scale without ends, and its variance


def auc_effect(prob: np.ndarray, truth: np.ndarray) -> Effect | str:
    """Return the logit of an ROC AUC with DeLong's variance, or in words why there is none.

    Probabilities of PD and labels 0 and 1 are (N,). Variances of a logit are those of an AUC
    divided by (AUC (1 - AUC))^2 (Debray et al. 2017, doi:10.1136/bmj.i6460).
    """
    if min(np.sum(truth == label) for label in (0, 1)) < 2:
        return FEW_SUBJECTS
    auc, error = auc_and_error(*placements(prob, truth))
    if error == 0 or not 0 < auc < 1:
        return ZERO_VARIANCE
    return float(logit(auc)), (error / (auc * (1 - auc))) ** 2


def accuracy_effect(right: np.ndarray) -> Effect:
    """Return the logit of the share of decisions (N,) that are right, with its variance.

    Half a subject is added to those right and wrong, so that all or none right have one too.
    """
    hits, misses = right.sum() + 0.5, (~right).sum() + 0.5
    return float(np.log(hits / misses)), float(1 / hits + 1 / misses)


def correlation_effect(values: np.ndarray, truth: np.ndarray) -> Effect | str:
    """Return Fisher's z of Pearson's correlation, with its variance, or why there is none."""
    if len(truth) < 4 or not np.ptp(values) or not np.ptp(truth):
        return "needs four subjects that differ"
    r = float(np.corrcoef(values, truth)[0, 1])
    if abs(r) >= 1:
        return ZERO_VARIANCE
    return float(np.arctanh(r)), 1 / (len(truth) - 3)


def right_decisions(prob: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Whether each decision is right, of P(PD) (N,) or of the probabilities of classes (N, K)."""
    return (prob > THRESHOLD if prob.ndim == 1 else prob.argmax(axis=1)) == truth


def heterogeneity(effects: Sequence[Effect], kind: str) -> dict[str, Any]:
    """Test whether effects of groups differ: Cochran's Q, I2, and their mean over groups.

    The mean is that of a random-effects model (DerSimonian and Laird).

    Args:
        effects: of two groups or more.
        kind: of the effects, "logit" or "fisher", whose inverse gives the mean's scale.

    Returns:
        ``{"q", "df", "p", "i2", "mean": {"value", "low", "high", "method"}}``.
    """
    from statsmodels.stats.meta_analysis import combine_effects  # slow to import, seldom needed

    values, variances = map(np.array, zip(*effects, strict=True))
    with np.errstate(invalid="ignore", divide="ignore"):  # of what is not taken
        found = combine_effects(values, variances, method_re="dl", alpha=1 - CONFIDENCE)
        fixed, random, *_ = found.conf_int()
    alike = found.tau2 <= 0  # statsmodels does not cut it off, and its interval is too narrow then
    value, interval = (found.mean_effect_fe, fixed) if alike else (found.mean_effect_re, random)
    q, df = max(float(found.q), 0.0), len(effects) - 1  # rounding may leave -1e-17
    back = {"logit": expit, "fisher": np.tanh}[kind]
    mean = {"value": float(back(value)), "method": "random effects"}
    mean |= {"low": float(back(interval[0])), "high": float(back(interval[1]))}
    return {
        "q": q,
        "df": df,
        "p": float(found.test_homogeneity().pvalue),
        "i2": max(float(found.i2), 0.0) if q else 0.0,
        "mean": mean,
    }
