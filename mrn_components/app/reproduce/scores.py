"""How a row of a table scores, and whether two rows differ by more than chance.

S training seeds, N subjects, R resamples.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mrn_components.app.paper import METRICS
from mrn_components.metrics import CONFIDENCE, NUM_RESAMPLES, RESAMPLED


@dataclass(frozen=True)
class Score:
    """A metric of a row: its mean over the seeds, and what resampling gives in its place."""

    value: float  # mean over the seeds, 0 to 1
    resampled: np.ndarray  # the same of each resample (R,)
    by_seed: np.ndarray  # of each seed (S,)

    @property
    def interval(self) -> tuple[float, float]:
        """Limits of the 95 % interval."""
        return _limits(self.resampled)

    def minus(self, other: "Score") -> tuple[float, float, float]:
        """The difference to another row and the limits of its 95 % interval."""
        return (self.value - other.value, *_limits(self.resampled - other.resampled))


def score_rows(
    rows: Mapping[str, np.ndarray], labels: np.ndarray, seed: int = 1
) -> dict[str, dict[str, Score]]:
    """Score every row on the same subjects.

    One bootstrap serves all rows: each resample draws subjects, as many of each class as there
    are, and training seeds, the same for every row. The difference of two rows is thus a paired
    one, and its interval holds the chance of the training where there are several seeds.

    Args:
        rows: P(PD) of each row (S, N), S the same for all.
        labels: diagnosis (N,), 0 healthy or 1 Parkinson's disease.
        seed: seed of the bootstrap.

    Returns:
        {row: {metric: score}}.

    Raises:
        ValueError: for subjects of one class only.
    """
    if not rows:
        return {}
    found = sorted(set(labels.tolist()))
    if found != [0, 1]:
        raise ValueError(
            f"the test subjects must be of both classes, got the labels {found}; name another "
            "data set by --test_dir DIR."
        )
    rng = np.random.default_rng(seed)
    num_seeds = len(next(iter(rows.values())))
    members = [np.flatnonzero(labels == label) for label in (0, 1)]
    subjects = [rng.choice(of, (NUM_RESAMPLES, len(of))) for of in members]  # (R, n)
    seeds = rng.integers(num_seeds, size=(NUM_RESAMPLES, num_seeds))  # (R, S)
    scores: dict[str, dict[str, Score]] = {}
    for name, prob in rows.items():
        scores[name] = {}
        for metric in METRICS:
            statistic = RESAMPLED[metric]
            by_seed = statistic(prob[:, members[0]], prob[:, members[1]])  # (S,)
            values = statistic(prob[:, subjects[0]], prob[:, subjects[1]])  # (S, R)
            resampled = np.take_along_axis(values.T, seeds, axis=1).mean(axis=1)  # (R,)
            scores[name][metric] = Score(float(by_seed.mean()), resampled, by_seed)
    return scores


def _limits(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
