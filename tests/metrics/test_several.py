"""Metrics of several classes and of scores are those of scikit-learn, torchmetrics and scipy."""

import warnings

import numpy as np
import pytest
import torch
from scipy.stats import linregress, pearsonr, spearmanr
from sklearn import metrics as sklearn
from statsmodels.stats.proportion import proportion_confint
from torchmetrics.functional import classification as torchmetrics
from torchmetrics.functional import regression

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
    del ours["ece"]  # torchmetrics has it, below
    assert ours == pytest.approx(
        {
            "accuracy": sklearn.accuracy_score(truth, found),
            "balanced_accuracy": sklearn.balanced_accuracy_score(truth, found),
            "f1_macro": sklearn.f1_score(truth, found, average="macro"),
            "roc_auc": sklearn.roc_auc_score(truth, prob, multi_class="ovr"),
            "brier": sklearn.brier_score_loss(truth, prob),
            **{
                f"{name}_{of.lower()}": score(truth == number, prob[:, number], found == number)
                for name, score in {
                    "roc_auc": lambda own, p, _: sklearn.roc_auc_score(own, p),
                    "sensitivity": lambda own, _, said: sklearn.recall_score(own, said),
                    "specificity": lambda own, _, said: sklearn.recall_score(~own, ~said),
                }.items()
                for number, of in enumerate(NAMES)
            },
        }
    )


def test_values_of_classes_are_also_those_of_torchmetrics():
    prob, truth = draw(1)
    ours = {n: metric["value"] for n, metric in class_metrics(prob, truth, names=NAMES).items()}
    p, t = torch.tensor(prob), torch.tensor(truth)
    every = {"num_classes": 3, "average": None}
    for name, values in {
        "roc_auc": torchmetrics.multiclass_auroc(p, t, **every),
        "sensitivity": torchmetrics.multiclass_recall(p, t, **every),
        "specificity": torchmetrics.multiclass_specificity(p, t, **every),
    }.items():
        assert [ours[f"{name}_{of.lower()}"] for of in NAMES] == pytest.approx(values.tolist())
    f1 = torchmetrics.multiclass_f1_score(p, t, num_classes=3, average="macro")
    ece = torchmetrics.multiclass_calibration_error(p, t, num_classes=3, n_bins=10)
    assert (ours["f1_macro"], ours["ece"]) == pytest.approx((f1.item(), ece.item()), abs=1e-6)


def test_intervals_of_one_class_against_the_rest_are_wilsons():
    prob, truth = draw()
    metrics = class_metrics(prob, truth, names=NAMES)
    called = prob.argmax(1) == 2
    for name, right in (("sensitivity", called[truth == 2]), ("specificity", ~called[truth != 2])):
        ends = proportion_confint(right.sum(), right.size, method="wilson")
        metric = metrics[f"{name}_msa"]
        assert (metric["low"], metric["high"]) == pytest.approx(ends)


def test_probabilities_that_a_table_has_rounded_raise_no_warning():
    prob, truth = draw()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        class_metrics(prob.round(3), truth, names=NAMES)


@pytest.mark.parametrize("name", ["balanced_accuracy", "f1_macro", "roc_auc", "brier"])
def test_intervals_of_classes_are_those_of_a_bootstrap_by_scikit_learn(name):
    prob, truth = draw()
    scores = {
        "balanced_accuracy": lambda t, p: sklearn.balanced_accuracy_score(t, p.argmax(1)),
        "f1_macro": lambda t, p: sklearn.f1_score(t, p.argmax(1), average="macro"),
        "roc_auc": lambda t, p: sklearn.roc_auc_score(t, p, multi_class="ovr"),
        "brier": sklearn.brier_score_loss,
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
    for name in ("balanced_accuracy", "roc_auc", "roc_auc_msa", "sensitivity_msa"):
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
            "bias": values.mean() - truth.mean(),
            "slope": linregress(values, truth).slope,
        }
    )
    v, t = torch.tensor(values), torch.tensor(truth)
    for name in ("pearson_corrcoef", "spearman_corrcoef", "mean_absolute_error"):
        ours = metrics[{"mean_absolute_error": "mae"}.get(name, name.partition("_")[0])]
        assert ours["value"] == pytest.approx(getattr(regression, name)(v, t).item())
    assert all(metric["low"] < metric["value"] < metric["high"] for metric in metrics.values())
    constant = score_metrics([0.1] * 5, range(5))
    assert constant["pearson"]["value"] is constant["spearman"]["value"] is None
    assert constant["slope"]["value"] is None
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
