"""Calibration: whether of the subjects with P(PD) 0.8 eight in ten have PD."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from sklearn.metrics import brier_score_loss

from mrn_components.metrics.intervals import bootstrap_interval, undefined_interval
from mrn_components.metrics.recalibration import subject_losses
from mrn_components.metrics.resampled import mean
from mrn_components.metrics.scores import Metric

NUM_BINS = 10


class ReliabilityBin(NamedTuple):
    """The subjects whose P(PD) falls into one bin."""

    low: float  # lower edge of the bin
    subjects: int
    diseased: int  # those of them with label 1
    mean_prob: float  # of the subjects


def reliability_bins(prob: np.ndarray, truth: np.ndarray) -> list[ReliabilityBin]:
    """Group subjects by their P(PD) into ten equally wide bins, empty ones left out.

    The bins are scikit-learn's: closed above, and 0 belongs to the first. Its
    ``calibration_curve`` does not say how many subjects a bin holds.
    """
    edges = np.linspace(0, 1, NUM_BINS + 1)
    number = np.searchsorted(edges[1:-1], prob)
    bins = []
    for i in np.unique(number):
        inside = number == i
        diseased, mean = int(truth[inside].sum()), float(prob[inside].mean())
        bins.append(ReliabilityBin(float(edges[i]), int(inside.sum()), diseased, mean))
    return bins


def expected_calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Mean distance between P(PD) and the share of PD over the bins, weighted by subjects."""
    gaps = sum(abs(part.subjects * part.mean_prob - part.diseased) for part in bins)
    return gaps / sum(part.subjects for part in bins)


def probability_metrics(prob: np.ndarray, labels: np.ndarray, number: int = 1) -> dict[str, float]:
    """Score how true probabilities (N, K) are: the less of each the better.

    Of two classes the Brier score and the expected calibration error are those of the class
    ``number``; of more the error is that of the most probable class, and the Brier score the sum
    over the classes.
    """
    if prob.shape[1] == 2:
        own, truth = prob[:, number], labels == number
        brier = brier_score_loss(truth, own, pos_label=True)
    else:
        own, truth = prob.max(axis=1), prob.argmax(axis=1) == labels
        brier = squared_errors(prob, labels).mean()
    return {
        "cross_entropy": float(subject_losses(prob, labels).mean()),
        "brier": float(brier),
        "ece": expected_calibration_error(reliability_bins(own, truth)),
    }


def squared_errors(prob: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return what each subject adds to the Brier score of probabilities (N, K), a sum over K.

    scikit-learn's warns of probabilities that a table has rounded.
    """
    errors: np.ndarray = ((prob - np.eye(prob.shape[1])[labels]) ** 2).sum(axis=1)
    return errors


def error_metrics(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Score how near scores (N,) are, in their unit: the less of each the better."""
    errors = np.abs(scores - labels)
    return {"mae": float(errors.mean()), "rmse": float(np.sqrt((errors**2).mean()))}


def loss_change(before: np.ndarray, after: np.ndarray, strata: np.ndarray, seed: int = 1) -> Metric:
    """Return how much the mean loss of subjects (N,) changes by a map of their predictions.

    It is negative where they are better. The interval is the bootstrap's, paired, of resamples
    that keep the number of subjects of each of the ``strata``, such as the classes.
    """
    change = after - before
    members = [change[strata == number] for number in np.unique(strata)]
    interval = undefined_interval("bootstrap", "the predictions are the same")
    if change.any():
        interval = bootstrap_interval(members, mean, seed)
    return {"value": float(change.mean()), **interval}
