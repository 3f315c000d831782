"""Recalibration against scikit-learn and scipy, and the laws that every map keeps."""

import numpy as np
import pytest
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, logit, softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score

from mrn_components.metrics.calibration import expected_calibration_error, reliability_bins
from mrn_components.metrics.recalibration import (
    PROBABILITIES,
    SCORES,
    SLOPES,
    Recalibration,
    cross_entropy,
    fit_recalibration,
    recalibrate_folds,
)


def both(prob):
    return np.stack([1 - prob, prob], axis=1)


def certain(seed=0, count=200, *, classes=2, too_sure=2.5, shift=0.0):
    """Probabilities that sound too sure, the labels and the folds."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, 1.2, (count, classes))
    true = softmax(scores, axis=1)
    labels = (rng.random(count)[:, None] > true.cumsum(axis=1)).sum(axis=1)
    scores[:, 0] -= shift
    return softmax(too_sure * scores, axis=1), labels, np.arange(count) % 5


def softened(labels):
    """Platt's targets of two classes."""
    ill, well = labels.sum(), (1 - labels).sum()
    return np.where(labels == 1, (ill + 1) / (ill + 2), 1 / (well + 2))


def test_platt_is_scikit_learns_regression_without_a_penalty():
    prob, labels, _ = certain(shift=0.7)
    targets = softened(labels)
    scores = np.tile(logit(prob[:, 1]), 2)[:, None]
    oracle = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
    oracle.fit(scores, np.repeat([1, 0], len(labels)), np.concatenate([targets, 1 - targets]))
    ours = PROBABILITIES.fit("platt", prob, labels)
    assert ours.slope == pytest.approx(oracle.coef_.item(), rel=1e-4)
    assert ours.intercepts == pytest.approx((0, oracle.intercept_.item()), rel=1e-4)
    expected = oracle.predict_proba(logit(prob[:, 1])[:, None])
    np.testing.assert_allclose(ours.apply(prob), expected, atol=1e-5)


def test_temperature_is_scipys_minimum():
    prob, labels, _ = certain()
    targets, scores = softened(labels), logit(prob[:, 1])

    def loss(slope):
        mapped = expit(slope * scores)
        return -np.mean(targets * np.log(mapped) + (1 - targets) * np.log(1 - mapped))

    ours = PROBABILITIES.fit("temperature", prob, labels)
    assert ours.slope == pytest.approx(minimize_scalar(loss, bounds=(0.01, 5)).x, abs=1e-5)
    assert ours.intercepts == (0, 0)


def test_three_classes_have_a_slope_and_an_intercept_each():
    prob, labels, _ = certain(classes=3, shift=0.5)
    sizes = np.bincount(labels)
    targets = np.array([(np.eye(3)[k] * sizes[k] + 1) / (sizes[k] + 3) for k in labels])

    def loss(numbers):
        slope, *intercepts = numbers
        mapped = softmax(slope * np.log(prob) + [0, *intercepts], axis=1)
        return -(targets * np.log(mapped)).sum()

    options = {"xatol": 1e-9, "fatol": 1e-12, "maxiter": 5000}
    oracle = minimize(loss, [1.0, 0, 0], method="Nelder-Mead", options=options).x
    ours = PROBABILITIES.fit("platt", prob, labels)
    assert [ours.slope, *ours.intercepts[1:]] == pytest.approx(oracle.tolist(), abs=1e-4)


def test_cross_entropy_is_scikit_learns():
    prob, labels, _ = certain(classes=3)
    assert cross_entropy(prob, labels) == pytest.approx(log_loss(labels, prob), rel=1e-6)
    assert np.isfinite(cross_entropy(np.array([[1.0, 0.0]]), np.array([1])))


@pytest.mark.parametrize("method", PROBABILITIES.methods)
def test_the_order_of_subjects_stays(method):
    prob, labels, _ = certain(shift=0.3)
    mapped = PROBABILITIES.fit(method, prob, labels).apply(prob)
    np.testing.assert_allclose(mapped.sum(axis=1), 1)
    seen = prob[:, 1].argsort()
    inside = (prob[seen].min(axis=1) > 5e-7)[1:]  # what tables would round to 0 may be equal
    steps = np.diff(mapped[seen, 1])
    assert (steps[inside] > 0).all()
    assert (steps >= 0).all()
    areas = [roc_auc_score(labels, p.round(6)) for p in (prob[:, 1], mapped[:, 1])]
    assert areas[1] == pytest.approx(areas[0], abs=1e-3)


def test_none_leaves_the_bits():
    prob, labels, _ = certain()
    assert np.array_equal(PROBABILITIES.fit("none", prob, labels).apply(prob), prob)


def test_classes_in_another_order_give_the_same_probabilities():
    prob, labels, folds = certain(shift=0.4)
    ours, _ = fit_recalibration(prob, labels, folds)
    other, _ = fit_recalibration(prob[:, ::-1], 1 - labels, folds)
    assert other.method == ours.method
    np.testing.assert_allclose(other.apply(prob[:, ::-1])[:, ::-1], ours.apply(prob), atol=1e-6)


def test_classes_told_apart_without_an_error_ask_for_no_certainty():
    labels = np.arange(40) % 2
    prob = both(np.where(labels == 1, 0.9, 0.1))
    for method in ("temperature", "platt"):
        mapped = PROBABILITIES.fit(method, prob, labels).apply(prob)
        assert mapped[labels == 1, 1] == pytest.approx(21 / 22, abs=1e-4)


def test_a_network_that_is_wrong_is_flattened_and_not_turned_round():
    prob, labels, _ = certain()
    for method in ("temperature", "platt"):
        found = PROBABILITIES.fit(method, prob[:, ::-1], labels)
        assert found.slope == SLOPES[0]
        assert np.ptp(found.apply(prob[:, ::-1])[:, 1]) < 0.1


@pytest.mark.parametrize(
    ("too_sure", "shift", "method"),
    [(1.0, 0.0, "none"), (2.5, 0.0, "temperature"), (2.5, 1.5, "platt")],
)
def test_the_method_is_what_the_probabilities_lack(too_sure, shift, method):
    """Of many subjects the choice is the truth, or one that is as good to a thousandth."""
    prob, labels, folds = certain(4, 4000, too_sure=too_sure, shift=shift)
    found, held_out = fit_recalibration(prob, labels, folds)
    assert held_out[found.method] == min(held_out.values())
    assert held_out[method] == pytest.approx(held_out[found.method], abs=1e-3)
    assert found.slope == pytest.approx(1 / too_sure, rel=0.1)
    if method != "none":
        assert held_out["none"] > held_out[method] + 0.1


def test_held_out_subjects_are_told_their_risk():
    prob, labels, folds = certain(7)
    found, _ = fit_recalibration(prob, labels, folds)
    for seed in range(20, 25):
        new, truth, _ = certain(seed, 1000)
        errors = [
            expected_calibration_error(reliability_bins(p[:, 1], truth))
            for p in (new, found.apply(new))
        ]
        assert errors[1] < errors[0] / 2
        assert cross_entropy(found.apply(new), truth) < cross_entropy(new, truth)


def test_no_label_has_a_part_in_its_own_fold():
    prob, labels, folds = certain(count=60)
    before = recalibrate_folds(prob, labels, folds)
    changed = np.where(folds == 2, 1 - labels, labels)
    after = recalibrate_folds(prob, changed, folds)
    assert np.array_equal(before[folds == 2], after[folds == 2])
    assert not np.array_equal(before[folds == 1], after[folds == 1])


def test_of_one_fold_there_is_nothing_to_choose_by():
    prob, labels, folds = certain(count=30)
    found, held_out = fit_recalibration(prob, labels, np.zeros(30))
    assert (found.method, held_out) == ("temperature", {})
    assert np.array_equal(recalibrate_folds(prob, labels, np.zeros(30)), prob)
    two = recalibrate_folds(prob, labels, folds % 2)
    assert two.shape == prob.shape


def test_a_class_that_nobody_has_is_no_fault():
    prob, labels, _ = certain(count=30, classes=3)
    found = PROBABILITIES.fit("platt", prob, np.minimum(labels, 1))
    assert isinstance(found, Recalibration)
    assert np.isfinite([found.slope, *found.intercepts]).all()


# ---- scores


@pytest.mark.parametrize(
    ("slope", "shift", "method"), [(1.0, 0.0, "none"), (1.0, 9.0, "shift"), (2.0, 5.0, "line")]
)
def test_the_map_of_scores_is_the_one_that_made_them_wrong(slope, shift, method):
    rng = np.random.default_rng(2)
    labels = rng.uniform(0, 60, 300)
    noise = 0 if method == "none" else 1
    scores = slope * (labels + rng.normal(0, noise, 300)) + shift
    found, held_out = fit_recalibration(scores, labels, np.arange(300) % 5, SCORES)
    assert min(held_out, key=held_out.get) == found.method == method
    if method == "line":
        oracle = np.polyfit(scores, labels, 1)
        assert (found.slope, found.intercepts[0]) == pytest.approx(tuple(oracle))
    mapped = found.apply(scores)
    assert np.abs(mapped - labels).mean() < 1.2
    if method == "none":
        assert np.array_equal(mapped, scores)


def test_scores_that_know_nothing_are_flattened_and_not_turned_round():
    rng = np.random.default_rng(2)
    labels = rng.uniform(0, 60, 100)
    flat = SCORES.fit("line", -labels, labels)
    assert flat.slope == 0.01
    assert flat.apply(-labels).mean() == pytest.approx(labels.mean())
    constant = SCORES.fit("line", np.full(100, 7.0), labels)
    assert constant.apply(np.full(1, 7.0)) == pytest.approx(labels.mean())
