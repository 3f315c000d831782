import json

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    f1_score,
    recall_score,
    roc_auc_score,
    roc_curve,
)
from statsmodels.stats.proportion import proportion_confint
from torchmetrics.functional.classification import binary_stat_scores

from mrn_components.data.target import HC_PD
from mrn_components.metrics import diagnosis_metrics, format_metrics
from mrn_components.metrics.diagnosis import _brier
from mrn_components.metrics.resampled import (
    RESAMPLED,
    average_precision,
    sensitivity_at_specificity,
)

NAMES = [
    "accuracy",
    "sensitivity",
    "specificity",
    "roc_auc",
    "roc_auc_bootstrap",
    "average_precision",
    "sensitivity_at_90_specificity",
    "f1_macro",
    "brier",
    "ece",
]


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
    assert metrics["sensitivity"]["value"] == recall_score(labels, decision)
    assert metrics["specificity"]["value"] == recall_score(labels, decision, pos_label=0)
    for name in ("roc_auc", "roc_auc_bootstrap"):
        assert metrics[name]["value"] == roc_auc_score(labels, prob)
    precision = average_precision_score(labels, prob)
    assert metrics["average_precision"]["value"] == pytest.approx(precision, rel=1e-12)
    fpr, tpr, _ = roc_curve(labels, prob)
    assert metrics["sensitivity_at_90_specificity"]["value"] == tpr[fpr <= 0.1].max()
    assert metrics["f1_macro"]["value"] == f1_score(labels, decision, average="macro")
    assert metrics["brier"]["value"] == pytest.approx(np.mean((prob - labels) ** 2), rel=1e-12)
    assert list(metrics) == NAMES
    for name in NAMES[:-1]:
        assert metrics[name]["low"] < metrics[name]["value"] < metrics[name]["high"]


def test_confusion_is_torchmetrics(scores):
    prob, labels = scores
    tp, fp, tn, fn, _ = binary_stat_scores(torch.tensor(prob), torch.tensor(labels)).tolist()
    counts = HC_PD.confusion(prob, labels)
    assert counts == {"true_hc": tn, "false_pd": fp, "false_hc": fn, "true_pd": tp}
    assert HC_PD.confusion([0.9], [1]) == {
        "true_hc": 0,
        "false_pd": 0,
        "false_hc": 0,
        "true_pd": 1,
    }


def test_a_probability_of_one_half_is_healthy():
    assert HC_PD.confusion([0.5, 0.5], [0, 1]) == {
        "true_hc": 1,
        "false_pd": 0,
        "false_hc": 1,
        "true_pd": 0,
    }


def test_bootstrapped_statistics_are_scikit_learns(scores):
    prob, labels = scores
    rng = np.random.default_rng(1)
    healthy = rng.choice(prob[labels == 0], (5, 40))
    disease = rng.choice(prob[labels == 1], (5, 30))
    truth = np.repeat([0, 1], [40, 30])
    statistics = [*(RESAMPLED[name] for name in ("accuracy", "roc_auc", "f1_macro")), _brier]
    statistics += [average_precision, sensitivity_at_specificity]
    values = [statistic(healthy, disease, axis=-1) for statistic in statistics]
    for h, d, accuracy, auc, f1, brier, precision, sensitivity in zip(
        healthy, disease, *values, strict=True
    ):
        both = np.concatenate([h, d])
        assert accuracy == pytest.approx(accuracy_score(truth, both > 0.5))
        assert auc == pytest.approx(roc_auc_score(truth, both))
        assert f1 == pytest.approx(f1_score(truth, both > 0.5, average="macro"))
        assert brier == pytest.approx(brier_score_loss(truth, both))
        assert precision == pytest.approx(average_precision_score(truth, both))
        fpr, tpr, _ = roc_curve(truth, both)
        assert sensitivity == pytest.approx(tpr[fpr <= 0.1].max())


@pytest.mark.parametrize(
    ("right", "total", "low", "high"), [(83, 100, 0.745, 0.891), (172, 200, 0.805, 0.901)]
)
def test_accuracy_has_wilsons_interval(right, total, low, high):
    labels = np.arange(total) % 2
    prob = np.where(np.arange(total) < right, labels, 1 - labels)
    accuracy = diagnosis_metrics(prob, labels)["accuracy"]
    assert accuracy["value"] == right / total
    assert (accuracy["low"], accuracy["high"]) == pytest.approx((low, high), abs=5e-4)


def test_proportions_have_statsmodels_wilson_interval(scores):
    prob, labels = scores
    metrics, counts = diagnosis_metrics(prob, labels), HC_PD.confusion(prob, labels)
    for name, right, total in [
        ("accuracy", counts["true_pd"] + counts["true_hc"], len(labels)),
        ("sensitivity", counts["true_pd"], labels.sum()),
        ("specificity", counts["true_hc"], (1 - labels).sum()),
    ]:
        expected = proportion_confint(right, total, method="wilson")
        assert (metrics[name]["low"], metrics[name]["high"]) == pytest.approx(expected, rel=1e-9)


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
    healthy = labels.count(0)
    assert (metrics["specificity"]["value"] is None) == (healthy == 0)
    assert ("negative subjects" in metrics["specificity"].get("reason", "")) == (healthy == 0)
    assert diagnosis_metrics([0.2], [0])["sensitivity"]["reason"] == "needs positive subjects"
    assert "two subjects of each class" in format_metrics(metrics)


def test_an_interval_without_width_is_none():
    """Four subjects in the right order do not make an AUC of exactly 1 certain."""
    metrics = diagnosis_metrics([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1])
    assert metrics["roc_auc"]["value"] == 1
    assert metrics["roc_auc"]["reason"] == "the variance is 0"
    assert metrics["roc_auc_bootstrap"]["reason"] == "the resamples do not differ"
    assert metrics["roc_auc"]["low"] is metrics["roc_auc_bootstrap"]["high"] is None


def test_metrics_are_plain_json_without_nan(scores):
    for prob, labels in [scores, ([0.3], [1]), ([0.2, 0.7, 0.9], [0, 1, 1])]:
        metrics = diagnosis_metrics(prob, labels)
        assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


def test_the_table_is_aligned(scores):
    lines = format_metrics(diagnosis_metrics(*scores)).splitlines()
    assert lines[0].split() == ["metric", "value", "95%", "interval"]
    assert [line.split()[0] for line in lines[1:]] == NAMES
    assert lines[4].endswith("(DeLong)")
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
