"""What can be fitted to out-of-fold predictions of classes, and of a score."""

from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

import numpy as np

from mrn_components.data.predictions import calibrated, interval_columns
from mrn_components.data.target import Classes, Score, Target
from mrn_components.metrics.conformal import (
    Own,
    conformal_sets,
    left_out_sets,
    own_probabilities,
    p_values,
)
from mrn_components.metrics.conformal_intervals import (
    left_out_intervals,
    own_errors,
    score_intervals,
)
from mrn_components.metrics.recalibration import (
    PROBABILITIES,
    SCORES,
    SLOPES,
    Family,
    Map,
    recalibrate_folds,
)

_T = TypeVar("_T", Classes, Score)


class Kind(ABC, Generic[_T]):
    """How a target's predictions are recalibrated, and what set goes with them.

    N subjects, F folds; ``values`` are what ``stack`` returns.

    Args:
        target: what is predicted.
    """

    family: Family
    of_each = ""  # whose number a set needs
    maps_first = True  # whether sets compare values after the map
    most = np.inf  # of the numbers that ``own`` returns
    farthest = np.inf  # of an intercept from 0

    def __init__(self, target: _T) -> None:
        self.target: _T = target

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The groups of subjects whose own numbers a calibration keeps."""

    @abstractmethod
    def stack(self, values: Any) -> np.ndarray:
        """Return as probabilities (..., K) or scores (...) what ``target.metrics`` takes."""

    @abstractmethod
    def cells(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """Return the columns (N,) of tables."""

    @abstractmethod
    def own(self, values: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> Own:
        """Return of each fold and of ``names`` what sets compare new values with."""

    @abstractmethod
    def set_cells(self, own: Own, values: np.ndarray, level: float) -> dict[str, Any]:
        """Return the set of a subject, by the values (F, ...) of the network of each fold."""

    @abstractmethod
    def left_out(
        self, values: np.ndarray, labels: np.ndarray, folds: np.ndarray, level: float
    ) -> list[dict[str, Any]] | None:
        """Return the set of each subject by the other folds; None where these are too few."""

    def compared(self, found: Map, values: np.ndarray) -> np.ndarray:
        """Return what ``own`` and ``set_cells`` take of values."""
        return found.apply(values) if self.maps_first else values

    def mapped(
        self, values: np.ndarray, labels: np.ndarray, folds: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Return the columns (N,) of each fold's values, mapped by the other folds."""
        return self.cells(recalibrate_folds(values, labels, folds, self.family))

    def check(self, found: Map, own: Own) -> None:
        """Refuse by a ``ValueError`` numbers that no fit can have given."""
        if found.method not in self.family.methods or not SLOPES[0] <= found.slope <= SLOPES[1]:
            raise ValueError(f"method {found.method!r} and slope {found.slope} are none of a fit")
        intercepts, count = list(found.intercepts), len(self.names)
        finite = np.isfinite(intercepts).all()
        if len(intercepts) != count or not finite or np.abs(intercepts).max() > self.farthest:
            raise ValueError(f"intercepts must be {count} numbers, got {intercepts}")
        if not all(((n >= 0) & (n <= self.most) & (n < np.inf)).all() for f in own for n in f):
            raise ValueError(f"what subjects had must lie in 0 to {self.most:g}")


class OfClasses(Kind[Classes]):
    """Probabilities, and sets of classes."""

    family = PROBABILITIES
    of_each = " of each class"
    maps_first = False  # the map keeps the order, which is all that they look at
    most = 1.0
    farthest = 1000.0  # of logits: beyond, somebody wrote it

    @property
    def names(self) -> tuple[str, ...]:
        """The classes."""
        return tuple(self.target.names)

    def stack(self, values: Any) -> np.ndarray:
        """Return probabilities (..., K)."""
        return self.target.by_class(values)

    def cells(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """Return the calibrated probabilities that tables show."""
        return {calibrated(name): own for name, own in self.target.in_tables(values).items()}

    def own(self, values: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> Own:
        """Return what subjects had of their own class."""
        return own_probabilities(values, labels, folds)

    def set_cells(self, own: Own, values: np.ndarray, level: float) -> dict[str, Any]:
        """Return the classes in the set."""
        (members,) = conformal_sets(p_values(own, values[:, None]), level)
        return self._set(members)

    def left_out(
        self, values: np.ndarray, labels: np.ndarray, folds: np.ndarray, level: float
    ) -> list[dict[str, Any]] | None:
        """Return the classes in each set."""
        sets = left_out_sets(values, labels, folds, level)
        return None if sets is None else [self._set(members) for members in sets]

    def _set(self, members: np.ndarray) -> dict[str, Any]:
        return {"set": [self.target.names[number] for number in np.flatnonzero(members).tolist()]}


class OfScore(Kind[Score]):
    """Scores, and intervals, both cut off at the ends of the range."""

    family = SCORES

    @property
    def names(self) -> tuple[str, ...]:
        """The score."""
        return (self.target.name,)

    def stack(self, values: Any) -> np.ndarray:
        """Return scores (...)."""
        return np.asarray(values, dtype=float)

    def cells(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """Return the calibrated scores."""
        return {calibrated(self.target.name): np.clip(values, *self.target.span)}

    def own(self, values: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> Own:
        """Return how far from their labels subjects are."""
        return own_errors(values, labels, folds)

    def set_cells(self, own: Own, values: np.ndarray, level: float) -> dict[str, Any]:
        """Return the ends of the interval."""
        return self._ends(score_intervals(own, values[:, None], level)[0])

    def left_out(
        self, values: np.ndarray, labels: np.ndarray, folds: np.ndarray, level: float
    ) -> list[dict[str, Any]] | None:
        """Return the ends of each interval."""
        intervals = left_out_intervals(values, labels, folds, level)
        return None if intervals is None else [self._ends(pair) for pair in intervals]

    def _ends(self, pair: np.ndarray) -> dict[str, Any]:
        pair = np.clip(pair, *self.target.span)
        return dict(zip(interval_columns(self.target), pair.tolist(), strict=True))


def kind_of(target: Target) -> Kind:
    """Return how a target's predictions are calibrated."""
    return OfClasses(target) if isinstance(target, Classes) else OfScore(target)
