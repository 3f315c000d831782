"""Effects of groups, and Cochran's Q of them, against formulas and resamples."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit, logit

from mrn_components.metrics.groups import (
    accuracy_effect,
    auc_effect,
    correlation_effect,
    heterogeneity,
)


def drawn(count, shift, seed):
    rng = np.random.default_rng(seed)
    truth = np.arange(count) % 2
    return expit(rng.normal(size=count) + shift * truth), truth


def test_q_and_i2_are_those_of_the_formulas():
    effects = [(0.2, 0.04), (1.1, 0.09), (0.7, 0.01)]
    found = heterogeneity(effects, "logit")
    values, variances = np.array(effects).T
    weights = 1 / variances
    mean = np.sum(weights * values) / weights.sum()
    q = np.sum(weights * (values - mean) ** 2)
    assert found["q"] == pytest.approx(q)
    assert found["df"] == 2
    assert found["p"] == pytest.approx(stats.chi2.sf(q, 2))
    assert found["i2"] == pytest.approx((q - 2) / q)
    tau2 = (q - 2) / (weights.sum() - (weights**2).sum() / weights.sum())
    random = 1 / (variances + tau2)
    centre, error = np.sum(random * values) / random.sum(), random.sum() ** -0.5
    ends = expit([centre, centre - 1.959964 * error, centre + 1.959964 * error])
    assert [found["mean"][key] for key in ("value", "low", "high")] == pytest.approx(list(ends))


def test_groups_that_differ_less_than_by_chance_have_no_narrower_interval():
    found = heterogeneity([(0.5, 0.1), (0.52, 0.2), (0.48, 0.1)], "fisher")
    assert (found["i2"], found["p"] > 0.9) == (0, True)
    ends = np.tanh([0.496, 0.496 - 1.959964 * 0.2, 0.496 + 1.959964 * 0.2])
    assert [found["mean"][k] for k in ("value", "low", "high")] == pytest.approx(list(ends))


def test_groups_that_are_alike_to_the_last_bit_differ_by_nothing():
    found = heterogeneity([accuracy_effect(np.arange(30) < 25)] * 2, "logit")
    assert (found["q"], found["i2"]) == (0, 0)  # a Q of -1e-16 is an I2 of 10^18


def test_q_of_alike_groups_has_its_distribution():
    ps = []
    for seed in range(60):
        effects = [auc_effect(*drawn(60, 1.0, 10 * seed + k)) for k in range(3)]
        ps.append(heterogeneity(effects, "logit")["p"])
    assert np.mean(np.array(ps) < 0.05) < 0.15


def test_groups_that_differ_are_told():
    effects = [auc_effect(*drawn(200, shift, 1)) for shift in (0.3, 1.0, 2.5)]
    assert heterogeneity(effects, "logit")["p"] < 0.001


def test_an_effect_has_the_variance_that_samples_have():
    aucs, ns = zip(*(auc_effect(*drawn(80, 1.0, seed)) for seed in range(300)), strict=True)
    assert np.var(aucs) == pytest.approx(np.mean(ns), rel=0.25)
    value, variance = accuracy_effect(np.arange(50) < 40)
    assert value == pytest.approx(logit(40.5 / 51))
    assert variance == pytest.approx(1 / 40.5 + 1 / 10.5)
    x = np.arange(20.0)
    value, variance = correlation_effect(x, x + 5 * np.sin(x))
    assert np.tanh(value) == pytest.approx(stats.pearsonr(x, x + 5 * np.sin(x))[0])
    assert variance == pytest.approx(1 / 17)


def test_what_has_no_variance_says_so():
    truth = np.array([0, 0, 1, 1])
    assert auc_effect(np.array([0.1, 0.2, 0.8, 0.9]), truth) == "the variance is 0"
    assert "two subjects of each class" in auc_effect(np.array([0.1, 0.2]), np.array([0, 1]))
    assert "four subjects" in correlation_effect(np.ones(9), np.arange(9.0))
