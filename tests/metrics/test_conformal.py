"""Conformal sets against loops in fractions, and what they promise on exchangeable draws."""

from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import binomtest

from mrn_components.metrics.conformal import (
    ALL,
    conformal_sets,
    least_subjects,
    left_out_sets,
    own_probabilities,
    p_values,
    set_coverage,
)


def draw(rng, count, classes=2):
    labels = rng.integers(0, classes, count)
    prob = rng.dirichlet(np.ones(classes), count)
    prob[np.arange(count), labels] += 0.5
    return prob / prob.sum(axis=1, keepdims=True), labels


def by_hand(prob, labels, folds, new, level):
    """The set of each new subject, given its probabilities by fold, as the definition says it."""
    sets = []
    for own in np.moveaxis(new, 1, 0):
        members = set()
        for number in range(prob.shape[1]):
            calibration = [i for i in range(len(labels)) if labels[i] == number]
            no_more = [
                i
                for i in calibration
                if round(prob[i][number], 6) <= round(own[int(folds[i])][number], 6)
            ]
            share = Fraction(len(no_more) + 1, len(calibration) + 1)
            if share > 1 - Fraction(str(level)):
                members.add(number)
        sets.append(members)
    return sets


@pytest.mark.parametrize(("classes", "level"), [(2, 0.9), (2, 0.8), (3, 0.75), (4, 0.5)])
def test_sets_are_those_of_the_definition(classes, level):
    rng = np.random.default_rng(classes)
    prob, labels = draw(rng, 90, classes)
    prob = prob.round(2)  # ties
    folds = np.arange(90) % 3
    new = np.stack([draw(rng, 50, classes)[0].round(2) for _ in range(3)])
    sets = conformal_sets(p_values(own_probabilities(prob, labels, folds), new), level)
    expected = by_hand(prob, labels, folds, new, level)
    assert [set(np.flatnonzero(row).tolist()) for row in sets] == expected
    assert len({len(members) for members in expected}) > 1


@pytest.mark.parametrize(
    ("level", "least"), [(0.9, 9), (0.8, 4), (0.95, 19), (0.99, 99), (0.5, 1), (0.85, 6), (0.7, 3)]
)
def test_a_class_needs_so_many_subjects_and_no_fewer(level, least):
    assert least_subjects(level) == least
    worst = np.zeros((1, 1, 1))
    for count in (least - 1, least):
        own = own_probabilities(np.full((count, 1), 0.5), np.zeros(count, int), np.zeros(count))
        own = own or [[np.array([])]]
        assert conformal_sets(p_values(own, worst), level).item() == (count < least)


@pytest.mark.parametrize("level", [0, 1, 1.5, -0.1])
def test_a_level_is_a_share(level):
    with pytest.raises(ValueError, match=f"set_level must lie between 0 and 1, .* got {level}"):
        least_subjects(level)


@pytest.mark.parametrize("level", [0.9, 0.75])
def test_split_sets_cover_each_class_as_the_level_says(level):
    """Over draws of calibration and new subjects: at least the level, and not much more."""
    rng = np.random.default_rng(3)
    held = np.zeros((400, 2))
    sizes = np.zeros((400, 2))
    for trial in range(400):
        prob, labels = draw(rng, 130)
        own = own_probabilities(prob[:80], labels[:80], np.zeros(80))
        sets = conformal_sets(p_values(own, prob[None, 80:]), level)
        right = sets[np.arange(50), labels[80:]]
        for number in range(2):
            held[trial, number] = right[labels[80:] == number].sum()
            sizes[trial, number] = (labels[80:] == number).sum()
    covered = held.sum(axis=0) / sizes.sum(axis=0)
    error = (held / np.maximum(sizes, 1)).std(axis=0) / np.sqrt(400)
    assert (covered > level - 3 * error).all()
    assert (covered < level + 1 / 30 + 3 * error).all()


def test_a_monotone_map_of_two_classes_changes_no_set():
    rng = np.random.default_rng(1)
    prob, labels = draw(rng, 100)
    bent = np.stack([1 - prob[:, 1] ** 2, prob[:, 1] ** 2], axis=1)
    zeros = np.zeros(60)
    sets = [
        conformal_sets(p_values(own_probabilities(p[:60], labels[:60], zeros), p[None, 60:]), 0.8)
        for p in (prob, bent)
    ]
    assert np.array_equal(*sets)


def test_sets_grow_with_the_level():
    rng = np.random.default_rng(2)
    prob, labels = draw(rng, 100, 3)
    p = p_values(own_probabilities(prob, labels, np.zeros(100)), draw(rng, 40, 3)[0][None])
    for low, high in ((0.5, 0.8), (0.8, 0.9)):
        assert (conformal_sets(p, low) <= conformal_sets(p, high)).all()


def test_sets_of_a_fold_know_nothing_of_its_labels():
    rng = np.random.default_rng(4)
    prob, labels = draw(rng, 100)
    folds = np.arange(100) % 5
    before = left_out_sets(prob, labels, folds, 0.8)
    after = left_out_sets(prob, np.where(folds == 1, 1 - labels, labels), folds, 0.8)
    assert np.array_equal(before[folds == 1], after[folds == 1])
    assert not np.array_equal(before, after)
    assert left_out_sets(prob[:20], np.arange(20) % 2, folds[:20], 0.9) is None  # 8 of a class


def test_coverage_is_told_by_class_with_its_interval():
    sets = np.array([[1, 0], [1, 1], [0, 0], [0, 1], [1, 0]], dtype=bool)
    found = set_coverage(sets, np.array([0, 0, 0, 1, 1]), ["HC", "PD"])
    assert [found[name]["value"] for name in ("HC", "PD", ALL)] == [2 / 3, 0.5, 0.6]
    assert [found["HC"][key] for key in ("n", "one", "several", "none")] == [3, 1, 1, 1]
    interval = binomtest(3, 5).proportion_ci(0.95, method="wilson")
    assert (found[ALL]["low"], found[ALL]["high"]) == pytest.approx(tuple(interval))
    lacking = set_coverage(sets[:3], np.zeros(3, int), ["HC", "PD"])["PD"]
    assert (lacking["value"], lacking["n"]) == (None, 0)
    assert lacking["reason"]
