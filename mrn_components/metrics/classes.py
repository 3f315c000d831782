"""Metrics of a diagnosis among several classes, with 95 % intervals.

N subjects, K classes, R resamples. Statistics take, of each class, the numbers of its subjects in
every resample (R, n), so that one bootstrap serves them all.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from sklearn.metrics import f1_score, recall_score, roc_auc_score

from mrn_components.metrics.intervals import (
    bootstrap_interval,
    delong_interval,
    undefined_interval,
    wilson_interval,
)
from mrn_components.metrics.resampled import roc_auc
from mrn_components.metrics.scores import Metric

_NEEDS_ALL = "needs subjects of every class"


def class_metrics(
    prob: Any, labels: Any, *, names: Sequence[str], seed: int = 1
) -> dict[str, Metric]:
    """Score a diagnosis among several classes; the most probable one is the decision.

    Intervals: Wilson's for the accuracy, DeLong's for the ROC AUC of each class against the rest,
    else percentiles of 2000 bootstrap resamples that keep the number of subjects of each class.

    Args:
        prob: probability of each class (N, K), 0 to 1.
        labels: number of each subject's class (N,).
        names: of the classes.
        seed: seed of the bootstrap.

    Returns:
        ``{"accuracy": {"value", "low", "high", "method"}, "balanced_accuracy": ..., "f1_macro":
        ..., "roc_auc": the mean of each class against the rest, "roc_auc_hc": HC against the rest,
        ...}``. What is not defined is None and comes with a ``reason``.

    Raises:
        ValueError: for no subjects, unequal lengths, or values outside their range.
    """
    prob, truth = _checked(prob, labels, len(names))
    found = prob.argmax(axis=1)
    numbers = list(range(len(names)))
    members = [np.flatnonzero(truth == number) for number in numbers]
    interval = partial(bootstrap_interval, members, seed=seed)
    average: dict[str, Any] = {"labels": numbers, "average": "macro", "zero_division": 0.0}
    metrics: dict[str, Metric] = {
        "accuracy": {
            "value": float(np.mean(found == truth)),
            **wilson_interval(int(np.sum(found == truth)), len(truth)),
        },
        "f1_macro": {
            "value": float(f1_score(truth, found, **average)),
            **interval(partial(_f1_macro, found)),
        },
    }
    macro = {
        "balanced_accuracy": lambda: recall_score(truth, found, **average),
        "roc_auc": lambda: np.mean([roc_auc_score(truth == k, prob[:, k]) for k in numbers]),
    }
    statistics = {"balanced_accuracy": partial(_recall, found), "roc_auc": partial(mean_auc, prob)}
    for name, value in macro.items():
        metrics[name] = {"value": None, **undefined_interval("bootstrap", _NEEDS_ALL)}
        if all(map(len, members)):
            metrics[name] = {"value": float(value()), **interval(statistics[name])}
    for number, name in enumerate(names):
        one, column = truth == number, prob[:, number]
        auc = float(roc_auc_score(one, column)) if len(set(one.tolist())) > 1 else None
        metrics[f"roc_auc_{name.lower()}"] = {
            "value": auc,
            **delong_interval(column, one.astype(int)),
        }
    return metrics


def mean_auc(prob: np.ndarray, *members: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return the mean over the classes of the ROC AUC of each against the rest.

    Args:
        prob: probabilities (N, K).
        members: numbers of the resampled subjects of each class (..., n).
        axis: of the subjects.
    """
    aucs = []
    for number, own in enumerate(members):
        rest = np.concatenate([other for other in members if other is not own], axis)
        aucs.append(roc_auc(prob[rest, number], prob[own, number], axis))
    return np.mean(aucs, axis=0)


def _recall(found: np.ndarray, *members: np.ndarray, axis: int = -1) -> np.ndarray:
    return np.mean([(found[own] == k).mean(axis) for k, own in enumerate(members)], axis=0)


def _f1_macro(found: np.ndarray, *members: np.ndarray, axis: int = -1) -> np.ndarray:
    everyone = np.concatenate(members, axis)
    scores = []
    for number, own in enumerate(members):
        true = (found[own] == number).sum(axis)
        scores.append(2 * true / ((found[everyone] == number).sum(axis) + own.shape[axis]))
    return np.mean(scores, axis=0)


def _checked(prob: Any, labels: Any, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return both as arrays.

    Raises:
        ValueError: for no subjects, unequal lengths, or values outside their range.
    """
    prob, truth = np.asarray(prob, dtype=float), np.asarray(labels)
    if prob.shape != (len(truth), num_classes) or not len(truth):
        raise ValueError(
            f"probabilities must be one of each of {num_classes} classes for each of "
            f"{len(truth)} labels, at least one, got the shape {prob.shape}."
        )
    if not ((prob >= 0) & (prob <= 1)).all():  # also refuses NaN
        raise ValueError(f"probabilities must lie in 0 to 1, got {prob.min()} to {prob.max()}.")
    if not np.isin(truth, range(num_classes)).all():
        raise ValueError(
            f"labels must be 0 to {num_classes - 1}, got {sorted(set(truth.tolist()))}."
        )
    return prob, truth
