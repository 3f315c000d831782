import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from mrn_components.metrics import _auc, _f1_macro, diagnosis_metrics, format_metrics


@pytest.fixture
def scores():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 100)
    prob = np.clip(rng.normal(0.4 + 0.2 * labels, 0.2), 0, 1).round(1)  # rounded: with ties
    return prob, labels


def test_values_are_scikit_learns(scores):
    prob, labels = scores
    metrics = diagnosis_metrics(prob, labels)
    decision = prob > 0.5
    assert metrics["accuracy"]["value"] == accuracy_score(labels, decision)
    assert metrics["roc_auc"]["value"] == roc_auc_score(labels, prob)
    assert metrics["f1_macro"]["value"] == f1_score(labels, decision, average="macro")
    for metric in metrics.values():
        assert metric["low"] < metric["value"] < metric["high"]


def test_bootstrapped_statistics_are_scikit_learns(scores):
    prob, labels = scores
    rng = np.random.default_rng(1)
    healthy = rng.choice(prob[labels == 0], (5, 40))
    disease = rng.choice(prob[labels == 1], (5, 30))
    truth = np.repeat([0, 1], [40, 30])
    aucs, f1s = _auc(healthy, disease, -1), _f1_macro(healthy, disease, -1)
    for h, d, auc, f1 in zip(healthy, disease, aucs, f1s, strict=True):
        both = np.concatenate([h, d])
        assert auc == pytest.approx(roc_auc_score(truth, both))
        assert f1 == pytest.approx(f1_score(truth, both > 0.5, average="macro"))


@pytest.mark.parametrize(
    ("right", "total", "low", "high"), [(83, 100, 0.745, 0.891), (172, 200, 0.805, 0.901)]
)
def test_accuracy_has_wilsons_interval(right, total, low, high):
    labels = np.arange(total) % 2
    prob = np.where(np.arange(total) < right, labels, 1 - labels)
    accuracy = diagnosis_metrics(prob, labels)["accuracy"]
    assert accuracy["value"] == right / total
    assert (accuracy["low"], accuracy["high"]) == pytest.approx((low, high), abs=5e-4)


def test_the_seed_decides_the_intervals(scores):
    assert diagnosis_metrics(*scores, seed=3) == diagnosis_metrics(*scores, seed=3)
    assert diagnosis_metrics(*scores, seed=3) != diagnosis_metrics(*scores, seed=4)


def test_a_decision_for_one_class_scores_a_third_as_in_the_papers_table_2():
    metrics = diagnosis_metrics([0.9] * 10, [0, 1] * 5)
    assert metrics["accuracy"]["value"] == 0.5
    assert metrics["roc_auc"]["value"] == 0.5
    assert metrics["f1_macro"]["value"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(("labels", "auc"), [([1, 1, 1], None), ([0, 1, 1], 1.0)])
def test_what_is_undefined_is_none_and_says_why(labels, auc):
    metrics = diagnosis_metrics([0.2, 0.7, 0.9], labels)
    assert metrics["roc_auc"]["value"] == auc
    assert metrics["roc_auc"]["low"] is None
    assert "two subjects of each class" in metrics["f1_macro"]["reason"]
    assert metrics["accuracy"]["low"] is not None
    assert "two subjects of each class" in format_metrics(metrics)


def test_the_table_is_aligned(scores):
    lines = format_metrics(diagnosis_metrics(*scores)).splitlines()
    assert lines[0].split() == ["metric", "value", "95%", "interval"]
    assert [line.split()[0] for line in lines[1:]] == ["accuracy", "roc_auc", "f1_macro"]
    assert len({line.index(" 0.") for line in lines[1:]}) == 1


@pytest.mark.parametrize(
    ("prob", "labels", "message"),
    [
        ([], [], "at least one subject"),
        ([0.5], [0, 1], "equally long"),
        ([0.5, 0.5], [1, 2], "labels must be 0 or 1"),
        ([0.5, 1.5], [0, 1], "prob_pd must lie in 0 to 1"),
        ([0.5, float("nan")], [0, 1], "a NaN means that the network diverged"),
    ],
)
def test_faulty_scores_are_refused(prob, labels, message):
    with pytest.raises(ValueError, match=message):
        diagnosis_metrics(prob, labels)
