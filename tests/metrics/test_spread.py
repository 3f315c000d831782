"""Distances from a training set, against scikit-learn's own covariance and against samples."""

import json

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf

from mrn_components.metrics.spread import Spread


def drawn(count, width=6, seed=0, scale=1.0, shift=0.0):
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(width, width))
    return (scale * rng.normal(size=(count, width)) + shift) @ mixing


def test_the_distance_is_mahalanobis_with_ledoit_and_wolfs_covariance():
    training, others = drawn(40), drawn(15, seed=1)
    expected = LedoitWolf().fit(training).mahalanobis(others)
    np.testing.assert_allclose(Spread.fit(training).distance(others), expected, rtol=1e-9)


def test_few_vectors_of_many_numbers_have_the_same_distance():
    rng = np.random.default_rng(0)
    training, others = rng.normal(size=(20, 300)), rng.normal(size=(5, 300))
    expected = LedoitWolf().fit(training).mahalanobis(others)
    np.testing.assert_allclose(Spread.fit(training).distance(others), expected, rtol=1e-6)


@pytest.mark.parametrize("held_out", [None, 30])
def test_shares_of_subjects_like_the_training_are_spread_evenly(held_out):
    others = None if held_out is None else drawn(held_out, seed=2)
    found = Spread.fit(drawn(200), others).share_nearer(drawn(2000, seed=3))
    assert np.mean(found) == pytest.approx(0.5, abs=0.15)
    assert np.mean(found > 0.99) < 0.05


def test_what_lies_elsewhere_or_is_wider_is_unlike():
    spread = Spread.fit(drawn(100), drawn(30, seed=2))
    assert np.mean(spread.share_nearer(drawn(200, seed=4, shift=4)) > 0.99) > 0.95
    assert np.mean(spread.share_nearer(drawn(200, seed=4, scale=4)) > 0.99) > 0.8


def test_a_record_holds_it_and_no_subject():
    training = drawn(60, width=50)
    spread = Spread.fit(training)
    record = json.loads(json.dumps(spread.to_record()))
    again, others = Spread.from_record(record), drawn(9, width=50, seed=5)
    np.testing.assert_allclose(again.share_nearer(others), spread.share_nearer(others), atol=1e-4)
    rows = np.array([record["mean"], *record["axes"]])
    assert np.abs(rows[:, None] - training[None]).max(-1).min() > 0.1
    assert 0 < len(record["axes"]) < len(training)


def test_what_cannot_be_measured_is_none():
    assert Spread.fit(drawn(7)) is None
    assert Spread.fit(np.ones((20, 4))) is None


@pytest.mark.parametrize(
    "change",
    [
        {"mean": [1.0]},
        {"rest": -1.0},
        {"count": "many"},
        {"axes": "import os"},
        {"variances": [float("nan")] * 6},
        {"level": None},
    ],
)
def test_a_damaged_record_is_refused(change):
    with pytest.raises(ValueError, match="statistics of a representation"):
        Spread.from_record(Spread.fit(drawn(30)).to_record() | change)
