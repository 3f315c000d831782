"""Reliability bins against scikit-learn, the expected calibration error against torchmetrics."""

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve
from torchmetrics.functional.classification import binary_calibration_error

from mrn_components.metrics import diagnosis_metrics, reliability_bins


@pytest.fixture
def scores():
    rng = np.random.default_rng(5)
    prob = rng.random(200)
    return prob, (rng.random(200) < prob**2).astype(int)


def test_bins_are_scikit_learns(scores):
    prob, truth = scores
    prob = np.concatenate([prob.round(1), prob[:50] * 0.3])  # on the edges too; some bins empty
    truth = np.concatenate([truth, truth[:50]])
    share, mean = calibration_curve(truth, prob, n_bins=10)
    bins = reliability_bins(prob, truth)
    assert [part.mean_prob for part in bins] == pytest.approx(mean.tolist())
    assert [part.diseased / part.subjects for part in bins] == pytest.approx(share.tolist())
    assert sum(part.subjects for part in bins) == len(prob)
    assert sum(part.diseased for part in bins) == truth.sum()


def test_empty_bins_are_left_out_and_the_ends_belong_to_the_outer_bins():
    bins = reliability_bins(np.array([0.0, 0.1, 0.95, 1.0]), np.array([0, 1, 1, 1]))
    assert [(part.low, part.subjects, part.diseased) for part in bins] == [(0.0, 2, 1), (0.9, 2, 2)]


def test_ece_is_torchmetrics(scores):
    prob, truth = scores  # none on an edge: torchmetrics closes its bins below
    expected = binary_calibration_error(torch.tensor(prob), torch.tensor(truth), n_bins=10)
    ece = diagnosis_metrics(prob, truth)["ece"]
    assert ece["value"] == pytest.approx(expected.item(), rel=1e-5)
    assert ece["low"] is None
    assert "overestimate" in ece["reason"]


def test_ece_of_known_miscalibration():
    prob = np.repeat([0.25, 0.75], 100)
    truth = np.tile(np.repeat([0, 1], 50), 2)  # half of them PD in both bins
    assert diagnosis_metrics(prob, truth)["ece"]["value"] == pytest.approx(0.25)
    truth = np.concatenate([np.arange(100) % 4 == 0, np.arange(100) % 4 != 0]).astype(int)
    assert diagnosis_metrics(prob, truth)["ece"]["value"] == pytest.approx(0)
