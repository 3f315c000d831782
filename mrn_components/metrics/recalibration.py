"""Recalibration: a map of probabilities, fitted to subjects that the network did not learn from.

A network that was trained to certainty says 0.99 where 0.8 of the subjects are diseased. The maps
keep what it knows and change how sure it sounds: temperature scaling (Guo et al. 2017,
arXiv:1706.04599) multiplies the logits, Platt's also moves them, by a number a class (Platt 1999;
of more than two classes "vector scaling" with one slope). Logits are logarithms of probabilities,
which differ from a network's by a number that a softmax does not see. Probabilities are (N, K).
"""

from typing import Literal, NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

Method = Literal["none", "temperature", "platt"]
METHODS: tuple[Method, ...] = ("none", "temperature", "platt")

_LEAST = 5e-7  # tables have six decimals, so that less may stand there as 0
SLOPES = (0.01, 100.0)  # a network that knows nothing, or less, is flattened and not turned round
_ONE_FOLD: Method = "temperature"  # where nothing is left to choose by


class Recalibration(NamedTuple):
    """A map of probabilities: the softmax of ``slope * log(probability) + intercept``."""

    method: Method
    slope: float  # 1 / temperature
    intercepts: tuple[float, ...]  # one a class, the first 0

    def apply(self, prob: np.ndarray) -> np.ndarray:
        """Map probabilities (N, K); none leaves them to the last bit."""
        if self.method == "none":
            return prob
        return softmax(self.slope * log_prob(prob) + np.array(self.intercepts), axis=1)


def log_prob(prob: np.ndarray) -> np.ndarray:
    """Return logarithms of probabilities, which tables may have rounded to 0."""
    return np.log(np.maximum(prob, _LEAST))


def cross_entropy(prob: np.ndarray, labels: np.ndarray) -> float:
    """Mean of the subjects' losses."""
    return float(subject_losses(prob, labels).mean())


def subject_losses(prob: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return -log(probability of the own class) of each subject (N,)."""
    return -log_prob(prob)[np.arange(len(labels)), labels]


def fit_recalibration(
    prob: np.ndarray, labels: np.ndarray, folds: np.ndarray
) -> tuple[Recalibration, dict[Method, float]]:
    """Fit the map that lowers the cross entropy most on folds that it was not fitted to.

    Each method, none included, is fitted to all folds but one and scored on that one; the best is
    fitted to all. Of a single fold it is the temperature.

    Args:
        prob: out-of-fold probabilities (N, K).
        labels: numbers of the classes (N,).
        folds: the fold that each subject was held out from (N,).

    Returns:
        The map, and the cross entropy of each method on the folds left out; empty of a single fold.
    """
    if len(np.unique(folds)) < 2:
        return _fit(_ONE_FOLD, prob, labels), {}
    held_out = {
        method: cross_entropy(_left_out(method, prob, labels, folds), labels) for method in METHODS
    }
    best = min(METHODS, key=lambda method: held_out[method])
    return _fit(best, prob, labels), held_out


def recalibrate_folds(prob: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Map each fold's probabilities (N, K) by what the others alone choose and fit.

    So no label has a part in its own subject's number, and the result may be scored.
    """
    mapped = np.array(prob, dtype=float)
    for fold in np.unique(folds):
        own = folds == fold
        if not own.all():
            chosen, _ = fit_recalibration(prob[~own], labels[~own], folds[~own])
            mapped[own] = chosen.apply(prob[own])
    return mapped


def _left_out(
    method: Method, prob: np.ndarray, labels: np.ndarray, folds: np.ndarray
) -> np.ndarray:
    """Map each fold by a method that was fitted to the others."""
    mapped = np.array(prob, dtype=float)
    for fold in np.unique(folds):
        own = folds == fold
        mapped[own] = _fit(method, prob[~own], labels[~own]).apply(prob[own])
    return mapped


def _fit(method: Method, prob: np.ndarray, labels: np.ndarray) -> Recalibration:
    """Minimise the cross entropy, which is convex, with Platt's targets.

    A subject of a class of n counts (n + 1) / (n + K) for it and 1 / (n + K) for each other, so
    that classes told apart without an error do not ask for certainty.
    """
    count = prob.shape[1]
    if method == "none":
        return Recalibration(method, 1.0, (0.0,) * count)
    logits = log_prob(prob)
    sizes = np.bincount(labels, minlength=count)
    targets = (np.eye(count) + 1 / np.maximum(sizes, 1)[:, None])[labels]
    targets /= targets.sum(axis=1, keepdims=True)
    free = count - 1 if method == "platt" else 0  # intercepts besides the first

    def loss(numbers: np.ndarray) -> tuple[float, np.ndarray]:
        scaled = numbers[0] * logits
        scaled[:, 1 : 1 + free] += numbers[1:]
        log_mapped = log_softmax(scaled, axis=1)
        gap = (np.exp(log_mapped) - targets) / len(labels)
        slopes = [(gap * logits).sum(), *gap.sum(axis=0)[1 : 1 + free]]
        return float(-(targets * log_mapped).sum() / len(labels)), np.array(slopes)

    found = minimize(
        loss,
        np.array([1.0, *np.zeros(free)]),
        jac=True,
        bounds=[SLOPES, *[(None, None)] * free],
        method="L-BFGS-B",
        options={"ftol": 1e-15, "gtol": 1e-9, "maxiter": 1000},
    ).x
    slope, *intercepts = found.tolist()
    return Recalibration(method, slope, (0.0, *intercepts, *[0.0] * (count - 1 - free)))
