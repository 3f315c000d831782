"""Conformal intervals of scores: what ``metrics.conformal`` does for classes.

The interval is CV+ (Barber et al. 2021, doi:10.1214/20-AOS1965): the network that a calibration
subject was held out from predicts the new one, and that subject's own error is added and taken
away; of these ends the interval takes the quantiles. It is as wide for a low score as for a high
one. What is promised stands in ``metrics.conformal``: in practice a share of subjects as the level
says, of those that are like the calibration's; proven is about 1 - 2 (1 - level).
"""

from collections.abc import Sequence
from fractions import Fraction
from math import ceil

import numpy as np

from mrn_components.metrics.conformal import ALL, Own, least_subjects
from mrn_components.metrics.intervals import proportion
from mrn_components.metrics.recalibration import SCORES, fit_recalibration
from mrn_components.metrics.scores import Metric


def own_errors(scores: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> list[list]:
    """Return of each fold, sorted, how far its subjects' scores (N,) are from their labels (N,).

    Args:
        scores: out-of-fold scores, as they are shown.
        labels: what is true.
        folds: the fold that each subject was held out from (N,).
    """
    errors = np.abs(scores - labels)
    return [[np.sort(errors[folds == fold])] for fold in np.unique(folds)]


def score_intervals(own: Own, scores: np.ndarray, level: float) -> np.ndarray:
    """Return the lower and upper end (N, 2) of the interval of each subject.

    Networks that differ by more than their errors turn the ends of a low level round. What lies
    between is returned then, which holds no less than the empty interval of the paper.

    Args:
        own: what ``own_errors`` returns, of ``least_subjects`` subjects at least.
        scores: by the network of each fold (F, N).
        level: of the intervals, 0 to 1.
    """
    errors = [errors for (errors,) in own]
    pairs = list(zip(scores, errors, strict=True))
    low = np.concatenate([of_fold[:, None] - known for of_fold, known in pairs], axis=1)
    high = np.concatenate([of_fold[:, None] + known for of_fold, known in pairs], axis=1)
    count = low.shape[1]
    rank = ceil(Fraction(str(level)) * (count + 1))
    ends = np.stack([np.sort(low)[:, count - rank], np.sort(high)[:, rank - 1]], axis=1)
    return np.sort(ends, axis=1)


def left_out_intervals(
    scores: np.ndarray, labels: np.ndarray, folds: np.ndarray, level: float
) -> np.ndarray | None:
    """Return each fold's intervals (N, 2) by the subjects of the others; None where too few are.

    Scores (N,) are the networks' own. Those of the others choose and fit the map, too.
    """
    intervals = np.zeros((len(scores), 2))
    for fold in np.unique(folds):
        own = folds == fold
        if sum(~own) < least_subjects(level):
            return None
        found, _ = fit_recalibration(scores[~own], labels[~own], folds[~own], SCORES)
        errors = own_errors(found.apply(scores[~own]), labels[~own], np.zeros(sum(~own)))
        intervals[own] = score_intervals(errors, found.apply(scores[own])[None], level)
    return intervals


def interval_coverage(
    intervals: np.ndarray, labels: np.ndarray, parts: Sequence[str], part_of: np.ndarray
) -> dict[str, Metric]:
    """Return the share of subjects, of each part and of all, whose interval holds their label.

    Each share has Wilson's interval, the number of subjects ``n`` and the mean ``width``.

    Args:
        intervals: lower and upper ends (N, 2).
        labels: what is true (N,).
        parts: names of parts of the cohort, such as thirds of the score.
        part_of: the number of the part of each subject (N,).
    """
    right = (intervals[:, 0] <= labels) & (labels <= intervals[:, 1])
    widths = intervals[:, 1] - intervals[:, 0]
    members = {name: part_of == number for number, name in enumerate(parts)}
    coverage = {}
    for name, inside in {**members, ALL: np.ones(len(labels), dtype=bool)}.items():
        count = int(inside.sum())
        width = float(widths[inside].mean()) if count else None
        metric = proportion(int(right[inside].sum()), count)
        coverage[name] = {**metric, "n": count, "width": width}
    return coverage
