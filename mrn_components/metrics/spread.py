"""How far a subject lies from those that a network was trained on, in a representation."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
from scipy import stats
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.model_selection import KFold

FAR = 0.99  # of the share of subjects outside the training that lie nearer: above it is unlike it
LEAST = 8  # subjects that a spread is measured on
_NUM_AXES = 32
_NUM_FOLDS = 5
_LEAST_HELD_OUT = 5  # of fewer, the training subjects' own distances are taken


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Mean and covariance of vectors (N, P), the latter shrunk as Ledoit and Wolf (2004) do.

    Of the covariance the largest principal axes are kept, the others share their mean variance; no
    vector of a subject is kept. ``level``, ``deviation`` and ``count`` are of the logarithms of the
    distances of subjects that the statistics do not rest on.
    """

    mean: np.ndarray  # (P,)
    axes: np.ndarray  # (K, P), orthonormal
    variances: np.ndarray  # (K,) along them
    rest: float  # variance along every other direction
    level: float = 0.0
    deviation: float = 1.0
    count: int = 0

    @classmethod
    def fit(cls, training: np.ndarray, held_out: np.ndarray | None = None) -> Self | None:
        """Measure the spread of training vectors (N, P); None of fewer than eight, or equal ones.

        Distances are compared with those of ``held_out`` vectors (M, P), or of few such with those
        of parts of the training from the others.
        """
        if len(training) < LEAST or (own := cls._of(training)) is None:
            return None
        if held_out is None or len(held_out) < _LEAST_HELD_OUT:
            folds = KFold(_NUM_FOLDS, shuffle=True, random_state=1).split(training)
            parts = [(cls._of(training[others]), training[part]) for others, part in folds]
            found = [of.distance(part) for of, part in parts if of is not None]
            distances = np.concatenate(found)
        else:
            distances = own.distance(held_out)
        logs = np.log(np.maximum(distances, np.finfo(float).tiny))
        deviation = float(logs.std(ddof=1))
        return replace(own, level=float(logs.mean()), deviation=deviation, count=len(logs))

    @classmethod
    def _of(cls, vectors: np.ndarray) -> Self | None:
        mean = vectors.mean(axis=0, dtype=float)
        centred = vectors - mean
        count, width = centred.shape
        _, singular, axes = np.linalg.svd(centred, full_matrices=False)
        variances = singular**2 / count
        average = variances.sum() / width
        if not average > 0:
            return None
        shrinkage = ledoit_wolf_shrinkage(centred, assume_centered=True)
        kept = min(_NUM_AXES, len(variances))
        left = variances[kept:].sum() / max(width - kept, 1)
        return cls(
            mean=mean,
            axes=axes[:kept],
            variances=(1 - shrinkage) * variances[:kept] + shrinkage * average,
            rest=float((1 - shrinkage) * left + shrinkage * average),
        )

    def distance(self, vectors: np.ndarray) -> np.ndarray:
        """Return Mahalanobis' distance of vectors (N, P) from the mean, squared: (N,)."""
        centred = vectors - self.mean
        along = centred @ self.axes.T
        outside = np.maximum((centred**2).sum(axis=1) - (along**2).sum(axis=1), 0)
        return (along**2 / self.variances).sum(axis=1) + outside / self.rest

    def share_nearer(self, vectors: np.ndarray) -> np.ndarray:
        """Return which share of subjects outside the training lies nearer: (N,), 0 to 1.

        Logarithms of distances are taken as normally distributed; few of them give the wider tails
        of Student's t.
        """
        logs = np.log(np.maximum(self.distance(vectors), np.finfo(float).tiny))
        scale = max(self.deviation, 1e-6) * np.sqrt(1 + 1 / self.count)
        return stats.t.cdf((logs - self.level) / scale, self.count - 1)

    def to_record(self) -> dict[str, Any]:
        """Return what ``from_record`` reads: lists of numbers with six digits."""

        def rounded(value: Any) -> Any:
            if isinstance(value, list):
                return [rounded(each) for each in value]
            return value if isinstance(value, int) else float(f"{value:.6g}")

        return {key: rounded(np.asarray(value).tolist()) for key, value in asdict(self).items()}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Read a record; a ValueError says that it is none."""
        try:
            told: dict[str, Any] = {
                key: np.array(record[key], float) for key in ("mean", "axes", "variances")
            }
            told |= {key: float(record[key]) for key in ("rest", "level", "deviation")}
            own = cls(**told, count=int(record["count"]))
            sound = own.axes.shape == (len(own.variances), len(own.mean)) and own.count > 1
            finite = all(np.isfinite(each).all() for each in told.values())
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"no statistics of a representation ({error!r})") from error
        if not (sound and finite and own.rest > 0 and (own.variances > 0).all()):
            raise ValueError("statistics of a representation that do not fit together")
        return own
