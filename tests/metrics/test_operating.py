import math

import numpy as np
import pytest
from sklearn.metrics import roc_curve
from statsmodels.stats.proportion import proportion_confint

from mrn_components.metrics import (
    choose_threshold,
    decisions_at,
    diagnosis_metrics,
    needed_subjects,
    net_benefit,
)


@pytest.fixture
def scores():
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 2, 120)
    return np.clip(rng.normal(0.4 + 0.2 * labels, 0.2), 0, 1).round(1), labels  # with ties


def youden(prob, labels, threshold):
    found = prob > threshold
    return found[labels == 1].mean() - found[labels == 0].mean()


@pytest.mark.parametrize("seed", range(20))
def test_no_threshold_is_better_than_the_chosen_one(seed):
    rng = np.random.default_rng(seed)
    labels = np.array([0, 1, *rng.integers(0, 2, 30)])
    prob = np.clip(rng.normal(0.4 + 0.1 * labels, 0.2), 0, 1).round(1)
    fpr, tpr, _ = roc_curve(labels, prob, drop_intermediate=False)
    own = youden(prob, labels, choose_threshold(prob, labels))
    assert own == pytest.approx((tpr - fpr).max())


def test_it_lies_between_the_subjects_that_it_parts():
    assert choose_threshold([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1]) == 0.5
    assert choose_threshold([0.6, 0.7, 0.9], [0, 1, 1]) == pytest.approx(0.65)


def test_one_class_has_no_threshold():
    with pytest.raises(ValueError, match="both classes, got one alone"):
        choose_threshold([0.2, 0.3], [1, 1])


def test_decisions_at_one_half_are_the_usual_ones(scores):
    usual = diagnosis_metrics(*scores)
    for name, metric in decisions_at(*scores, 0.5).items():
        expected = usual[name.removesuffix("_at_threshold")]
        assert metric == expected


def test_net_benefit_by_hand(scores):
    prob, labels = scores
    benefit = net_benefit(prob, labels, np.array([0.2, 0.5]))
    for number, (threshold, weight) in enumerate([(0.2, 0.25), (0.5, 1.0)]):
        tp = sum(p > threshold and y == 1 for p, y in zip(prob, labels, strict=True))
        fp = sum(p > threshold and y == 0 for p, y in zip(prob, labels, strict=True))
        assert benefit["model"][number] == pytest.approx((tp - weight * fp) / 120)
        everybody = (labels.sum() - weight * (120 - labels.sum())) / 120
        assert benefit["everybody"][number] == pytest.approx(everybody)


def test_needed_subjects_have_such_intervals(scores):
    """Of the accuracy by the usual interval; four times the subjects halve that of the AUC."""
    metrics = diagnosis_metrics(*scores)
    needed = needed_subjects(metrics, 120, 0.05)
    right = round(metrics["accuracy"]["value"] * needed["accuracy"])
    low, high = proportion_confint(right, needed["accuracy"])
    assert (high - low) / 2 == pytest.approx(0.05, abs=0.001)
    half = (metrics["roc_auc"]["value"] - metrics["roc_auc"]["low"]) / 2
    assert needed_subjects(metrics, 120, half)["roc_auc"] in (480, math.ceil(480.0001))


def test_nothing_is_estimated_from_no_interval():
    metrics = diagnosis_metrics([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1])
    assert needed_subjects(metrics, 4, 0.05) == {
        "half_width": 0.05,
        "accuracy": None,
        "roc_auc": None,
    }
