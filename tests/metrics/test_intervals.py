"""DeLong's interval against its definition and a second library."""

import numpy as np
import pytest
from MLstatkit import Delong_test
from sklearn.metrics import roc_auc_score

from mrn_components.metrics.intervals import (
    auc_and_error,
    bootstrap_interval,
    delong_interval,
    placements,
    wilson_interval,
)


@pytest.fixture(params=[1, 6], ids=["many ties", "few ties"])
def scores(request):
    rng = np.random.default_rng(2)
    truth = (rng.random(80) < 0.4).astype(int)
    prob = np.clip(rng.normal(0.4 + 0.2 * truth, 0.2), 0, 1).round(request.param)
    return prob, truth


def test_placements_count_pairs(scores):
    prob, truth = scores
    disease, healthy = prob[truth == 1], prob[truth == 0]
    right = (disease[:, None] > healthy) + 0.5 * (disease[:, None] == healthy)
    below, above = placements(prob, truth)
    assert below.tolist() == right.sum(1).tolist()
    assert above.tolist() == right.sum(0).tolist()
    assert below.mean() / len(healthy) == pytest.approx(roc_auc_score(truth, prob), rel=1e-12)


def test_delongs_interval_is_mlstatkits(scores):
    prob, truth = scores
    other = np.random.default_rng(3).random(len(truth))  # MLstatkit wants a second model
    expected = Delong_test(truth, prob, other)[2]
    interval = delong_interval(prob, truth)
    assert (interval["low"], interval["high"]) == pytest.approx(expected, rel=1e-9)
    assert interval["method"] == "DeLong"


def test_delongs_interval_covers_the_true_auc_as_often_as_it_says():
    rng = np.random.default_rng(4)
    truth = np.repeat([0, 1], 60)
    covered = 0
    for _ in range(400):
        interval = delong_interval(rng.normal(truth, 1.0), truth)
        covered += interval["low"] < 0.76025 < interval["high"]  # Phi(1 / sqrt(2))
    assert 0.92 < covered / 400 < 0.98


def test_delongs_interval_stays_within_0_and_1():
    prob = np.array([0.1, 0.2, 0.3, 0.8, 0.4, 0.7, 0.9, 0.95])
    truth = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    interval = delong_interval(prob, truth)
    assert 0 < interval["low"] < 1
    assert interval["high"] == 1


def test_the_variance_of_equal_placements_is_exactly_0():
    assert auc_and_error(np.full(7, 4.5), np.full(11, 6.5))[1] == 0


@pytest.mark.parametrize("truth", [[0, 0, 1], [1, 1, 1], [0, 1, 1]])
def test_one_subject_of_a_class_has_no_interval(truth):
    prob, labels = np.array([0.1, 0.6, 0.8]), np.array(truth)
    classes = [prob[labels == label] for label in (0, 1)]
    for interval in (delong_interval(prob, labels), bootstrap_interval(classes, np.mean, 1)):
        assert interval["low"] is interval["high"] is None
        assert interval["reason"] == "needs two subjects of each class"


def test_one_subject_of_no_class_has_no_interval():
    assert bootstrap_interval([np.array([7.0])], np.mean, 1)["reason"] == "needs two subjects"


def test_wilsons_interval_of_none_and_all_is_one_sided():
    assert wilson_interval(0, 10)["low"] == 0
    assert wilson_interval(10, 10)["high"] == 1
    assert wilson_interval(10, 10)["low"] == pytest.approx(0.7225, abs=1e-4)  # 10 / (10 + 1.96²)
