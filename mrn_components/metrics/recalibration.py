"""Recalibration: a map of predictions, fitted to subjects that the network did not learn from.

A network that was trained to certainty says 0.99 where 0.8 of the subjects are diseased. The maps
of probabilities (N, K) keep what it knows and change how sure it sounds: temperature scaling (Guo
et al. 2017, arXiv:1706.04599) multiplies the logits, Platt's also moves them, by a number a class
(Platt 1999; of more than two classes "vector scaling" with one slope). Logits are logarithms of
probabilities, which differ from a network's by a number that a softmax does not see.

Scores (N,) that lie too high on average are shifted; those that lie too far apart, as of a network
that learned its training by heart, are drawn together by a line (calibration in the large, and
slope: Steyerberg 2019, doi:10.1007/978-3-030-16399-0).
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

_LEAST = 5e-7  # tables have six decimals, so that less may stand there as 0
SLOPES = (0.01, 100.0)  # a network that knows nothing, or less, is flattened and not turned round


class Recalibration(NamedTuple):
    """A map of probabilities: the softmax of ``slope * log(probability) + intercept``."""

    method: str
    slope: float  # 1 / temperature
    intercepts: tuple[float, ...]  # one a class, the first 0

    def apply(self, prob: np.ndarray) -> np.ndarray:
        """Map probabilities (N, K); none leaves them to the last bit."""
        if self.method == "none":
            return prob
        return softmax(self.slope * log_prob(prob) + np.array(self.intercepts), axis=1)


class Line(NamedTuple):
    """A map of scores: ``slope * score + intercept``."""

    method: str
    slope: float
    intercepts: tuple[float, ...]  # one

    def apply(self, scores: np.ndarray) -> np.ndarray:
        """Map scores; none leaves them to the last bit."""
        if self.method == "none":
            return scores
        mapped: np.ndarray = self.slope * scores + self.intercepts[0]
        return mapped


Map: TypeAlias = Recalibration | Line


class Family(NamedTuple):
    """Maps of one kind of prediction, of which the best is chosen.

    ``values`` are predictions of N subjects, ``labels`` (N,) what is true of them.
    """

    methods: tuple[str, ...]  # the first is none
    of_one_fold: str  # where nothing is left to choose by
    fit: Callable[[str, np.ndarray, np.ndarray], Map]  # of method, values and labels
    losses: Callable[[np.ndarray, np.ndarray], np.ndarray]  # of values and labels: (N,)
    loss: str  # its name
    make: Callable[[str, float, tuple[float, ...]], Map] = Recalibration


def log_prob(prob: np.ndarray) -> np.ndarray:
    """Return logarithms of probabilities, which tables may have rounded to 0."""
    return np.log(np.maximum(prob, _LEAST))


def cross_entropy(prob: np.ndarray, labels: np.ndarray) -> float:
    """Mean of the subjects' losses."""
    return float(subject_losses(prob, labels).mean())


def subject_losses(prob: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return -log(probability of the own class) of each subject (N,)."""
    return -log_prob(prob)[np.arange(len(labels)), labels]


def score_losses(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return of each subject the square of score less label (N,)."""
    errors: np.ndarray = (scores - labels) ** 2
    return errors


def _fit_softmax(method: str, prob: np.ndarray, labels: np.ndarray) -> Recalibration:
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


def _fit_line(method: str, scores: np.ndarray, labels: np.ndarray) -> Line:
    """Minimise the squared error."""
    if method == "none":
        return Line(method, 1.0, (0.0,))
    slope = 1.0
    if method == "line" and (spread := float(np.var(scores))) > 0:
        slope = float(np.mean((scores - scores.mean()) * (labels - labels.mean()))) / spread
        slope = min(max(slope, SLOPES[0]), SLOPES[1])
    return Line(method, slope, (float(labels.mean() - slope * scores.mean()),))


PROBABILITIES = Family(
    ("none", "temperature", "platt"), "temperature", _fit_softmax, subject_losses, "cross_entropy"
)
SCORES = Family(("none", "shift", "line"), "shift", _fit_line, score_losses, "squared_error", Line)


def fit_recalibration(
    values: np.ndarray, labels: np.ndarray, folds: np.ndarray, family: Family = PROBABILITIES
) -> tuple[Any, dict[str, float]]:
    """Fit the map that lowers the loss most on folds that it was not fitted to.

    Each method, none included, is fitted to all folds but one and scored on that one; the best is
    fitted to all.

    Args:
        values: out-of-fold probabilities (N, K), or scores (N,).
        labels: numbers of the classes, or true scores (N,).
        folds: the fold that each subject was held out from (N,).
        family: of the maps.

    Returns:
        The map, and the mean loss of each method on the folds left out; empty of a single fold.
    """
    if len(np.unique(folds)) < 2:
        return family.fit(family.of_one_fold, values, labels), {}
    held_out = {}
    for method in family.methods:
        mapped = np.array(values, dtype=float)
        for fold in np.unique(folds):
            own = folds == fold
            mapped[own] = family.fit(method, values[~own], labels[~own]).apply(values[own])
        held_out[method] = float(family.losses(mapped, labels).mean())
    best = min(family.methods, key=lambda method: held_out[method])
    return family.fit(best, values, labels), held_out


def recalibrate_folds(
    values: np.ndarray, labels: np.ndarray, folds: np.ndarray, family: Family = PROBABILITIES
) -> np.ndarray:
    """Map each fold's values, as of ``fit_recalibration``, by what the others choose and fit.

    So no label has a part in its own subject's number, and the result may be scored.
    """
    mapped = np.array(values, dtype=float)
    for fold in np.unique(folds):
        own = folds == fold
        if not own.all():
            chosen, _ = fit_recalibration(values[~own], labels[~own], folds[~own], family)
            mapped[own] = chosen.apply(values[own])
    return mapped
