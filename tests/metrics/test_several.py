"""Metrics of several classes and of scores are those of scikit-learn and scipy."""

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr
from sklearn import metrics as sklearn

from mrn_components.metrics import (
    class_metrics,
    compare_classes,
    compare_scores,
    format_comparison,
    score_metrics,
)

NAMES = ("HC", "PD", "MSA")


def draw(seed=0, count=60):
    rng = np.random.default_rng(seed)
    truth = np.arange(count) % 3
    prob = rng.dirichlet([1, 1, 1], count)
    prob[np.arange(count), truth] += 0.4
    return prob / prob.sum(axis=1, keepdims=True), truth


def test_values_of_classes():
    prob, truth = draw()
    found = prob.argmax(1)
    ours = {n: metric["value"] for n, metric in class_metrics(prob, truth, names=NAMES).items()}
    assert ours == pytest.approx(
        {
            "accuracy": sklearn.accuracy_score(truth, found),
            "balanced_accuracy": sklearn.balanced_accuracy_score(truth, found),
            "f1_macro": sklearn.f1_score(truth, found, average="macro"),
            "roc_auc": sklearn.roc_auc_score(truth, prob, multi_class="ovr"),
            "roc_auc_hc": sklearn.roc_auc_score(truth == 0, prob[:, 0]),
            "roc_auc_pd": sklearn.roc_auc_score(truth == 1, prob[:, 1]),
            "roc_auc_msa": sklearn.roc_auc_score(truth == 2, prob[:, 2]),
        }
    )


@pytest.mark.parametrize("name", ["balanced_accuracy", "f1_macro", "roc_auc"])
def test_intervals_of_classes_are_those_of_a_bootstrap_by_scikit_learn(name):
    prob, truth = draw()
    scores = {
        "balanced_accuracy": lambda t, p: sklearn.balanced_accuracy_score(t, p.argmax(1)),
        "f1_macro": lambda t, p: sklearn.f1_score(t, p.argmax(1), average="macro"),
        "roc_auc": lambda t, p: sklearn.roc_auc_score(t, p, multi_class="ovr"),
    }
    rng = np.random.default_rng(5)
    members = [np.flatnonzero(truth == number) for number in range(3)]
    values = []
    for _ in range(400):
        who = np.concatenate([rng.choice(own, len(own)) for own in members])
        values.append(scores[name](truth[who], prob[who]))
    metric = class_metrics(prob, truth, names=NAMES)[name]
    assert (metric["low"], metric["high"]) == pytest.approx(
        np.quantile(values, [0.025, 0.975]), abs=0.02
    )


def test_a_class_without_subjects_leaves_undefined_what_needs_it():
    prob, truth = draw()
    metrics = class_metrics(prob[truth < 2], truth[truth < 2], names=NAMES)
    for name in ("balanced_accuracy", "roc_auc", "roc_auc_msa"):
        assert metrics[name]["value"] is None
        assert metrics[name]["reason"]
    assert metrics["accuracy"]["value"] is not None
    with pytest.raises(ValueError, match=r"labels must be 0 to 2, got \[0, 3\]"):
        class_metrics(prob[:2], [0, 3], names=NAMES)
    with pytest.raises(ValueError, match="one of each of 3 classes for each of 2 labels"):
        class_metrics(prob, [0, 1], names=NAMES)


def test_scores():
    rng = np.random.default_rng(1)
    truth = rng.uniform(0, 60, 40).round()
    values = 0.6 * truth + rng.normal(0, 8, 40)
    metrics = score_metrics(values, truth)
    assert {name: metric["value"] for name, metric in metrics.items()} == pytest.approx(
        {
            "pearson": pearsonr(values, truth)[0],
            "spearman": spearmanr(values, truth)[0],
            "mae": sklearn.mean_absolute_error(truth, values),
        }
    )
    assert all(metric["low"] < metric["value"] < metric["high"] for metric in metrics.values())
    constant = score_metrics([0.1] * 5, range(5))
    assert constant["pearson"]["value"] is constant["spearman"]["value"] is None
    assert "constant" in constant["pearson"]["reason"]
    with pytest.raises(ValueError, match="diverged"):
        score_metrics([1.0, float("nan")], [1, 2])


def test_two_models_of_several_classes_or_of_a_score_are_compared_on_the_same_subjects():
    prob, truth = draw()
    worse = np.random.default_rng(3).dirichlet([1, 1, 1], 60)
    comparison = compare_classes(prob, worse, truth)
    ours, theirs = (sklearn.roc_auc_score(truth, p, multi_class="ovr") for p in (prob, worse))
    assert comparison["roc_auc"]["difference"] == pytest.approx(ours - theirs)
    assert comparison["roc_auc"]["verdict"] == "separable at 5 %"
    assert comparison["accuracy"]["method"] == "McNemar"
    same = compare_scores([1, 5, 3, 8], [1, 5, 3, 8], [2, 4, 4, 9])
    assert same["mae"]["difference"] == 0
    assert same["mae"]["verdict"] == "undefined"
    assert "mae       +0.000" in format_comparison(same, ["A", "B"])
