"""Whether two models differ on the same subjects by more than chance."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from scipy import stats

from mrn_components.metrics.correlation import mean_error, pearson
from mrn_components.metrics.intervals import (
    FEW_SUBJECTS,
    ZERO_VARIANCE,
    Z,
    auc_and_error,
    bootstrap_interval,
    placements,
    undefined_interval,
)
from mrn_components.metrics.resampled import mean_auc
from mrn_components.metrics.scores import THRESHOLD, Labels, Scores, checked_scores

Comparison = dict[str, dict[str, Any]]

SIGNIFICANCE = 0.05


def compare_diagnoses(prob_a: Scores, prob_b: Scores, labels: Labels) -> Comparison:
    """Test whether models A and B differ on the same subjects.

    The ROC AUCs are compared by DeLong's paired test, two-sided, the accuracies by McNemar's
    exact test. Neither p value is corrected for other comparisons. P(PD) is 0 to 1 of each subject,
    labels are 0, healthy, or 1, Parkinson's disease.

    Returns:
        ``{"roc_auc": {"difference", "low", "high", "p", "method", "verdict"},
        "accuracy": {"difference", "only_a_right", "only_b_right", "p", "method", "verdict"}}``.
        Differences are A minus B; ``low`` and ``high`` are their 95 % interval; ``verdict`` is
        "separable at 5 %" or "not separable at 5 %". What is not defined is None and comes with a
        ``reason``; the verdict is then "undefined".

    Raises:
        ValueError: for no subjects, unequal lengths, or values outside their range.
    """
    a, truth = checked_scores(prob_a, labels)
    b, _ = checked_scores(prob_b, labels)
    right_a, right_b = ((prob > THRESHOLD) == truth for prob in (a, b))
    return {"roc_auc": _delong(a, b, truth), "accuracy": _mcnemar(right_a, right_b)}


def compare_classes(prob_a: Scores, prob_b: Scores, labels: Labels) -> Comparison:
    """Test whether models A and B differ on the same subjects of several classes.

    The mean ROC AUCs of each class against the rest are compared by a paired bootstrap that keeps
    the number of subjects of each class, the accuracies by McNemar's exact test. Probabilities are
    (N, K), labels the numbers of the classes.

    Returns:
        ``{"roc_auc": ..., "accuracy": ...}`` with the keys of ``compare_diagnoses``; the bootstrap
        has an interval, and no p value.
    """
    a, b, truth = np.asarray(prob_a), np.asarray(prob_b), np.asarray(labels)
    members = [np.flatnonzero(truth == number) for number in range(a.shape[1])]
    auc = _bootstrap(members, partial(mean_auc, a), partial(mean_auc, b))
    return {"roc_auc": auc, "accuracy": _mcnemar(a.argmax(1) == truth, b.argmax(1) == truth)}


def compare_scores(values_a: Scores, values_b: Scores, labels: Scores) -> Comparison:
    """Test by a paired bootstrap whether models A and B predict a score differently.

    Returns:
        ``{"pearson": {"difference", "low", "high", "p": None, "method", "verdict"}, "mae": ...}``.
    """
    a, b, truth = (np.asarray(each, dtype=float) for each in (values_a, values_b, labels))
    everyone = [np.arange(len(truth))]
    return {
        name: _bootstrap(everyone, partial(statistic, a, truth), partial(statistic, b, truth))
        for name, statistic in {"pearson": pearson, "mae": mean_error}.items()
    }


def format_comparison(comparison: Comparison, names: Sequence[str]) -> str:
    """Lay a comparison of models with two names out as text, one line a test."""
    lines = ["{} minus {}".format(*names)]
    for name, test in comparison.items():
        value = "-" if test["difference"] is None else f"{test['difference']:+.3f}"
        if "only_a_right" in test:
            value += f"; {test['only_a_right']} subjects only {names[0]} has right, "
            value += f"{test['only_b_right']} only {names[1]}; "
        else:
            value += "" if test["low"] is None else f" ({test['low']:+.3f} to {test['high']:+.3f})"
            value += ", "
        if test["p"] is not None:
            p = "p < 0.001" if test["p"] < 0.001 else f"p = {test['p']:.3f}"
            value += f"{p} ({test['method']}): "
        reason = f" ({test['reason']})" if "reason" in test else ""
        lines.append(f"{name:<8}  {value}{test['verdict']}{reason}")
    return "\n".join(lines)


def _delong(a: np.ndarray, b: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    test: dict[str, Any] = dict.fromkeys(("difference", "low", "high", "p")) | {"method": "DeLong"}
    if min(np.sum(truth == label) for label in (0, 1)) < 2:
        return test | {"reason": FEW_SUBJECTS, "verdict": _verdict(None)}
    (below_a, above_a), (below_b, above_b) = placements(a, truth), placements(b, truth)
    difference, error = auc_and_error(below_a - below_b, above_a - above_b)
    test["difference"] = difference
    if error:
        test["low"] = max(difference - Z * error, -1.0)
        test["high"] = min(difference + Z * error, 1.0)
        test["p"] = float(2 * stats.norm.sf(abs(difference) / error))
    elif difference:
        test["reason"] = ZERO_VARIANCE
    else:
        test |= {"p": 1.0, "reason": "both place every subject alike"}
    return test | {"verdict": _verdict(test["p"])}


def _bootstrap(
    classes: Sequence[np.ndarray], statistic_a: Callable, statistic_b: Callable
) -> dict[str, Any]:
    """Compare two statistics of the same subjects; the interval decides."""

    def difference(*members: np.ndarray, axis: int = -1) -> np.ndarray:
        return statistic_a(*members, axis=axis) - statistic_b(*members, axis=axis)

    test: dict[str, Any] = {"difference": None, "p": None, "verdict": _verdict(None)}
    if not all(map(len, classes)):
        return test | undefined_interval("bootstrap", FEW_SUBJECTS)
    value = float(difference(*classes))
    if np.isfinite(value):
        test["difference"] = value
    test |= bootstrap_interval(classes, difference, seed=1)
    if test["low"] is not None:
        test["verdict"] = _verdict(0.0 if test["low"] > 0 or test["high"] < 0 else 1.0)
    return test


def _mcnemar(right_a: np.ndarray, right_b: np.ndarray) -> dict[str, Any]:
    from statsmodels.stats.contingency_tables import mcnemar  # slow to import, seldom needed

    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    test: dict[str, Any] = {
        "difference": (only_a - only_b) / len(right_a),
        "only_a_right": only_a,
        "only_b_right": only_b,
        "p": float(mcnemar([[0, only_a], [only_b, 0]], exact=True).pvalue),
        "method": "McNemar",
    }
    return test | {"verdict": _verdict(test["p"])}


def _verdict(p: float | None) -> str:
    if p is None:
        return "undefined"
    return f"{'' if p < SIGNIFICANCE else 'not '}separable at {100 * SIGNIFICANCE:.0f} %"
