"""DeLong's and McNemar's tests against second libraries, and at their limits."""

import json

import numpy as np
import pytest
from MLstatkit import Delong_test
from scipy import stats
from sklearn.metrics import accuracy_score, roc_auc_score

from mrn_components.metrics import compare_diagnoses, format_comparison


@pytest.fixture
def scores():
    rng = np.random.default_rng(6)
    truth = rng.integers(0, 2, 120)
    a = np.clip(rng.normal(0.35 + 0.3 * truth, 0.2), 0, 1)
    b = np.clip(a + rng.normal(0, 0.2, 120), 0, 1).round(1)  # with ties
    return a, b, truth


def test_delongs_p_is_mlstatkits(scores):
    a, b, truth = scores
    test = compare_diagnoses(a, b, truth)["roc_auc"]
    z, p, *_, info = Delong_test(truth, a, b)
    assert info["method"] == "delong"
    assert test["p"] == pytest.approx(p, rel=1e-6)
    difference = roc_auc_score(truth, a) - roc_auc_score(truth, b)
    assert test["difference"] == pytest.approx(difference, rel=1e-9)
    half = 1.959963984540054 * abs(difference / z)  # the sign of its z is not to be trusted
    expected = (difference - half, difference + half)
    assert (test["low"], test["high"]) == pytest.approx(expected, rel=1e-6)


def test_equally_good_models_are_separated_one_time_in_twenty():
    rng = np.random.default_rng(10)
    truth = np.repeat([0, 1], 50)
    found = {"roc_auc": 0, "accuracy": 0}
    for _ in range(400):
        common = rng.normal(0.4 + 0.2 * truth, 0.2)
        a, b = (np.clip(common + rng.normal(0, 0.15, 100), 0, 1) for _ in "ab")
        for name, test in compare_diagnoses(a, b, truth).items():
            found[name] += test["verdict"] == "separable at 5 %"
    assert 0.02 < found["roc_auc"] / 400 < 0.08
    assert found["accuracy"] / 400 < 0.07  # the exact test errs to the safe side


def test_mcnemars_p_is_the_binomial_test(scores):
    a, b, truth = scores
    test = compare_diagnoses(a, b, truth)["accuracy"]
    right_a, right_b = (a > 0.5) == truth, (b > 0.5) == truth
    assert test["only_a_right"] == (right_a > right_b).sum() > 0
    assert test["only_b_right"] == (right_b > right_a).sum() > 0
    discordant = test["only_a_right"] + test["only_b_right"]
    expected = stats.binomtest(test["only_a_right"], discordant).pvalue
    assert test["p"] == pytest.approx(expected, rel=1e-9)
    difference = accuracy_score(truth, a > 0.5) - accuracy_score(truth, b > 0.5)
    assert test["difference"] == pytest.approx(difference)


def test_interval_verdict_and_p_agree(scores):
    a, _, truth = scores
    verdicts = set()
    for noise in (0.05, 0.1, 0.2, 0.4):
        b = np.clip(a + np.random.default_rng(7).normal(0, noise, len(a)), 0, 1)
        test = compare_diagnoses(a, b, truth)["roc_auc"]
        assert (test["low"] > 0 or test["high"] < 0) == (test["p"] < 0.05)
        assert test["verdict"] == ("" if test["p"] < 0.05 else "not ") + "separable at 5 %"
        verdicts.add(test["verdict"])
    assert len(verdicts) == 2


def test_exchanging_the_models_changes_signs_only(scores):
    a, b, truth = scores
    ab, ba = compare_diagnoses(a, b, truth), compare_diagnoses(b, a, truth)
    for name in ("roc_auc", "accuracy"):
        assert ab[name]["difference"] == -ba[name]["difference"]
        assert ab[name]["p"] == pytest.approx(ba[name]["p"])
    assert ab["roc_auc"]["low"] == pytest.approx(-ba["roc_auc"]["high"])
    assert ab["accuracy"]["only_a_right"] == ba["accuracy"]["only_b_right"]


@pytest.mark.parametrize("monotone", [lambda p: p, np.sqrt], ids=["itself", "same order"])
def test_models_that_order_subjects_alike_have_p_1(scores, monotone):
    a, _, truth = scores
    test = compare_diagnoses(a, monotone(a), truth)["roc_auc"]
    assert (test["difference"], test["p"]) == (0, 1)
    assert test["low"] is None
    assert test["reason"] == "both place every subject alike"
    assert test["verdict"] == "not separable at 5 %"


@pytest.mark.parametrize(
    ("a", "b", "labels", "reason"),
    [
        ([0.1, 0.2, 0.9], [0.2, 0.8, 0.7], [0, 0, 1], "needs two subjects of each class"),
        ([0.1, 0.2], [0.2, 0.8], [1, 1], "needs two subjects of each class"),
        ([0.1, 0.2, 0.8, 0.9], [0.5] * 4, [0, 0, 1, 1], "the variance is 0"),
    ],
)
def test_an_undefined_test_says_why(a, b, labels, reason):
    comparison = compare_diagnoses(a, b, labels)
    assert comparison["roc_auc"]["p"] is None
    assert comparison["roc_auc"]["reason"] == reason
    assert comparison["roc_auc"]["verdict"] == "undefined"
    assert comparison["accuracy"]["p"] is not None
    assert json.loads(json.dumps(comparison, allow_nan=False)) == comparison
    assert f"undefined ({reason})" in format_comparison(comparison, ["A", "B"])


def test_the_text_names_the_models_and_the_verdicts(scores):
    a, b, truth = scores
    comparison = compare_diagnoses(a, b, truth)
    lines = format_comparison(comparison, ["MRN", "SERes10"]).splitlines()
    assert lines[0] == "MRN minus SERes10"
    assert lines[1].endswith(f"(DeLong): {comparison['roc_auc']['verdict']}")
    assert f"{comparison['accuracy']['only_b_right']} only SERes10" in lines[2]
    worse = compare_diagnoses(a, 1 - a, truth)
    assert "p < 0.001" in format_comparison(worse, ["A", "B"])


def test_faulty_scores_are_refused():
    with pytest.raises(ValueError, match="equally long"):
        compare_diagnoses([0.1, 0.2], [0.1], [0, 1])
