"""Whether two models differ on the same subjects by more than chance."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar

from mrn_components.metrics.intervals import (
    FEW_SUBJECTS,
    ZERO_VARIANCE,
    Z,
    auc_variance,
    placements,
)
from mrn_components.metrics.scores import THRESHOLD, Labels, Scores, checked_scores

Comparison = dict[str, dict[str, Any]]

_SIGNIFICANCE = 0.05


def compare_diagnoses(prob_a: Scores, prob_b: Scores, labels: Labels) -> Comparison:
    """Test whether models A and B differ on the same subjects.

    The ROC AUCs are compared by DeLong's paired test, two-sided, the accuracies by McNemar's
    exact test. Neither p value is corrected for other comparisons.

    Args:
        prob_a: P(PD) of each subject by model A, 0 to 1.
        prob_b: P(PD) of the same subjects in the same order by model B.
        labels: diagnosis of each subject, 0 healthy or 1 Parkinson's disease.

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
    comparison = {"roc_auc": _delong(a, b, truth), "accuracy": _mcnemar(a, b, truth)}
    for test in comparison.values():
        test["verdict"] = _verdict(test["p"])
    return comparison


def format_comparison(comparison: Comparison, names: Sequence[str]) -> str:
    """Lay a comparison out as text, one line a test.

    Args:
        comparison: what ``compare_diagnoses`` returns.
        names: of models A and B.
    """
    auc, accuracy = comparison["roc_auc"], comparison["accuracy"]
    a, b = names
    interval = "" if auc["low"] is None else f" ({auc['low']:+.3f} to {auc['high']:+.3f})"
    reason = f" ({auc['reason']})" if "reason" in auc else ""
    right = f"{accuracy['only_a_right']} subjects only {a} has right, "
    right += f"{accuracy['only_b_right']} only {b}"
    return "\n".join(
        [
            f"{a} minus {b}",
            f"roc_auc   {_number(auc['difference'])}{interval}, {_conclusion(auc)}{reason}",
            f"accuracy  {_number(accuracy['difference'])}; {right}; {_conclusion(accuracy)}",
        ]
    )


def _delong(a: np.ndarray, b: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    test: dict[str, Any] = dict.fromkeys(("difference", "low", "high", "p"))
    test["method"] = "DeLong"
    disease, healthy = int(np.sum(truth == 1)), int(np.sum(truth == 0))
    if min(disease, healthy) < 2:
        return test | {"reason": FEW_SUBJECTS}
    (below_a, above_a), (below_b, above_b) = placements(a, truth), placements(b, truth)
    below, above = below_a - below_b, above_a - above_b
    difference = float(below.mean() / healthy)
    test["difference"] = difference
    variance = auc_variance(below, above)
    if variance == 0:
        alike = difference == 0
        reason = "both place every subject alike" if alike else ZERO_VARIANCE
        return test | {"p": 1.0 if alike else None, "reason": reason}
    error = float(np.sqrt(variance))
    low, high = max(difference - Z * error, -1.0), min(difference + Z * error, 1.0)
    return test | {"low": low, "high": high, "p": float(2 * stats.norm.sf(abs(difference) / error))}


def _mcnemar(a: np.ndarray, b: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    right_a, right_b = ((prob > THRESHOLD) == truth for prob in (a, b))
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    return {
        "difference": (only_a - only_b) / len(truth),
        "only_a_right": only_a,
        "only_b_right": only_b,
        "p": float(mcnemar([[0, only_a], [only_b, 0]], exact=True).pvalue),
        "method": "McNemar",
    }


def _verdict(p: float | None) -> str:
    if p is None:
        return "undefined"
    return f"{'' if p < _SIGNIFICANCE else 'not '}separable at {100 * _SIGNIFICANCE:.0f} %"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3f}"


def _conclusion(test: Mapping[str, Any]) -> str:
    if test["p"] is None:
        return test["verdict"]
    p = "p < 0.001" if test["p"] < 0.001 else f"p = {test['p']:.3f}"
    return f"{p} ({test['method']}): {test['verdict']}"
