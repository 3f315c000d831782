"""Conformal intervals against the definition in fractions, and what they promise."""

from fractions import Fraction
from math import ceil, floor

import numpy as np
import pytest
from scipy.stats import binomtest

from mrn_components.metrics.conformal import ALL
from mrn_components.metrics.conformal_intervals import (
    interval_coverage,
    left_out_intervals,
    own_errors,
    score_intervals,
)


def by_hand(scores, labels, folds, new, level):
    """Barber et al. 2021, section 3 (CV+): the k-th smallest of the subjects' ends."""
    count = len(labels)
    alpha = 1 - Fraction(str(level))
    errors = [abs(s - y) for s, y in zip(scores, labels, strict=True)]
    low = sorted(new[int(fold)] - error for fold, error in zip(folds, errors, strict=True))
    high = sorted(new[int(fold)] + error for fold, error in zip(folds, errors, strict=True))
    return low[floor(alpha * (count + 1)) - 1], high[ceil((1 - alpha) * (count + 1)) - 1]


@pytest.mark.parametrize("level", [0.9, 0.8, 0.95])
@pytest.mark.parametrize("count", [19, 20, 60])
def test_ends_are_those_of_the_definition(level, count):
    rng = np.random.default_rng(count)
    scores, labels = rng.normal(size=(2, count)).round(3)
    folds = np.arange(count) % 3
    new = rng.normal(size=(3, 7)).round(3)
    found = score_intervals(own_errors(scores, labels, folds), new, level)
    expected = [by_hand(scores, labels, folds, of_subject, level) for of_subject in new.T]
    assert found == pytest.approx(np.array(expected), abs=1e-12)


@pytest.mark.parametrize("level", [0.01, 0.2, 0.4])
def test_no_interval_ends_before_it_begins(level):
    """Networks that differ by more than their errors cross the ends of a low level."""
    own = [[np.linspace(0, 1, 20)] for _ in range(3)]
    ends = score_intervals(own, np.array([[10.0, 5.0], [20.0, 5.1], [30.0, 5.2]]), level)
    assert (ends[:, 0] <= ends[:, 1]).all()


def test_a_share_of_new_subjects_as_the_level_says_is_covered():
    rng, covered, total = np.random.default_rng(0), 0, 0
    for _ in range(200):
        labels = rng.normal(size=59)
        scores = labels + rng.standard_t(3, 59)
        own = own_errors(scores[:39], labels[:39], np.zeros(39))
        ends = score_intervals(own, scores[None, 39:], 0.9)
        covered += int(((ends[:, 0] <= labels[39:]) & (labels[39:] <= ends[:, 1])).sum())
        total += 20
    assert binomtest(covered, total, 0.9).pvalue > 1e-4  # draws of a cohort share its errors


def test_no_label_has_a_part_in_its_own_interval():
    rng = np.random.default_rng(3)
    labels, folds = rng.normal(size=45), np.arange(45) % 3
    scores = 2 * labels + rng.normal(size=45)
    before = left_out_intervals(scores, labels, folds, 0.8)
    after = left_out_intervals(scores, np.where(folds == 1, 9 - labels, labels), folds, 0.8)
    assert np.array_equal(before[folds == 1], after[folds == 1])
    assert not np.isclose(before[folds == 0], after[folds == 0]).any()
    assert left_out_intervals(scores[:12], labels[:12], folds[:12], 0.9) is None  # 8 of others


def test_coverage_is_told_by_part():
    intervals = np.array([[0, 2], [0, 4], [1, 2], [5, 9]])
    labels, parts = np.array([1, 5, 2, 4.9]), np.array([0, 0, 1, 1])
    told = interval_coverage(intervals, labels, ["low", "high", "nobody"], parts)
    shares = {name: (own["value"], own["n"], own["width"]) for name, own in told.items()}
    assert shares == {
        "low": (0.5, 2, 3.0),
        "high": (0.5, 2, 2.5),
        "nobody": (None, 0, None),
        ALL: (0.5, 4, 2.75),
    }
