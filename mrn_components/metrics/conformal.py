"""Conformal sets of classes: those that a subject may have at a level, rather than a guess.

A class stays in a subject's set unless the subject has less of its probability than nearly all
calibration subjects of that class had: at a level of 0.9 than nine of ten. Each class is compared
with its own subjects alone (Mondrian or class-conditional: Vovk et al. 2005), so that the level
holds of each class, whatever their shares. One class in the set is an answer, several are
"uncertain", none is "unlike the training".

What is exact: where one network, which learned from no calibration subject, gives all numbers, and
subjects are exchangeable with the calibration's, the set of a subject holds its class with at least
the level's probability (split conformal). Where each calibration subject was held out from one
fold's network and is compared with what that network says of the new subject, the p values are
Vovk's cross-conformal ones (2015, doi:10.1007/s10472-013-9368-4), CV+ for sets of classes: in
practice they cover as the level says, and proven is 1 - 2 (1 - level), about, alone (Barber et al.
2021, doi:10.1214/20-AOS1965). Epochs that were chosen on the calibration subjects make sets a
little too small. Another scanner is not exchangeable: nothing is promised there.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import ceil

import numpy as np

from mrn_components.metrics.intervals import proportion
from mrn_components.metrics.scores import Metric

Own = Sequence[Sequence[np.ndarray]]  # of each fold and class: see ``own_probabilities``

LEVEL = 0.9
ALL = "all subjects"  # in tables of coverage; no name of a class has a space
_DECIMALS = 6  # of tables, from which calibration subjects come: new ones are rounded alike


def least_subjects(level: float) -> int:
    """Return how many calibration subjects a class needs at least.

    With fewer no probability is small enough to leave the class out: 9 at 0.9, 19 at 0.95.

    Raises:
        ValueError: for a level that is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"set_level must lie between 0 and 1, e.g. {LEVEL}, got {level!r}.")
    return ceil(1 / (1 - Fraction(str(level)))) - 1


def own_probabilities(prob: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> list[list]:
    """Return of each fold and class, sorted, what its subjects had of their own class.

    Args:
        prob: out-of-fold probabilities (N, K).
        labels: numbers of the classes (N,).
        folds: the fold that each subject was held out from (N,).
    """
    rounded = np.round(prob, _DECIMALS)
    classes = range(prob.shape[1])
    return [
        [np.sort(rounded[(folds == fold) & (labels == number), number]) for number in classes]
        for fold in np.unique(folds)
    ]


def p_values(own: Own, prob: np.ndarray) -> np.ndarray:
    """Return how usual a subject would be in each class (N, K).

    It is the share, the subject included, of those calibration subjects of the class that had no
    more of its probability than the subject has, each by the network that it was held out from.

    Args:
        own: what ``own_probabilities`` returns.
        prob: probabilities by the network of each fold (F, N, K).
    """
    rounded = np.round(prob, _DECIMALS)
    below = np.zeros(prob.shape[1:])
    for fold, classes in enumerate(own):
        for number, known in enumerate(classes):
            below[:, number] += np.searchsorted(known, rounded[fold, :, number], side="right")
    sizes = np.array([sum(map(len, known)) for known in zip(*own, strict=True)])
    return (below + 1) / (sizes + 1)


def conformal_sets(p: np.ndarray, level: float) -> np.ndarray:
    """Say which classes are in each subject's set (N, K), by ``p_values``."""
    return p > 1 - level + 1e-9  # 1 - 0.9 is a little less than 0.1


def left_out_sets(
    prob: np.ndarray, labels: np.ndarray, folds: np.ndarray, level: float
) -> np.ndarray | None:
    """Return each fold's sets by the subjects of the others, or None where these are too few.

    The networks differ: that of the subject's fold is compared with what the others gave to theirs.
    """
    sets = np.zeros(prob.shape, dtype=bool)
    for fold in np.unique(folds):
        own = folds == fold
        if np.bincount(labels[~own], minlength=prob.shape[1]).min() < least_subjects(level):
            return None
        pooled = own_probabilities(prob[~own], labels[~own], np.zeros(sum(~own)))
        sets[own] = conformal_sets(p_values(pooled, prob[own][None]), level)
    return sets


def set_coverage(sets: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> dict[str, Metric]:
    """Return the share of each class's subjects, and of all, whose set holds their class.

    Each share has Wilson's interval, the number of subjects ``n``, and how many sets hold ``one``
    class, ``several`` or ``none``.
    """
    right = sets[np.arange(len(labels)), labels]
    parts: Mapping[str, np.ndarray] = {
        **{name: labels == number for number, name in enumerate(names)},
        ALL: np.ones(len(labels), dtype=bool),
    }
    coverage = {}
    for name, inside in parts.items():
        count, sizes = int(inside.sum()), sets[inside].sum(axis=1)
        metric = proportion(int(right[inside].sum()), count)
        told = {"one": sizes == 1, "several": sizes > 1, "none": sizes == 0}
        coverage[name] = {**metric, "n": count, **{key: int(v.sum()) for key, v in told.items()}}
    return coverage
