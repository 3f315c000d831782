"""Statistics of many resamples at once, where scikit-learn's take one sample a call.

They take of each class, in their order, what is known of its n subjects in every resample (..., n).
"""

import numpy as np
from scipy import stats

from mrn_components.metrics.scores import THRESHOLD


def accuracy(healthy: np.ndarray, disease: np.ndarray, axis: int = -1) -> np.ndarray:
    """Share of the probabilities of PD on the right side of the threshold."""
    right = (healthy <= THRESHOLD).sum(axis) + (disease > THRESHOLD).sum(axis)
    return right / (healthy.shape[axis] + disease.shape[axis])


def mean(*classes: np.ndarray, axis: int = -1) -> np.ndarray:
    """Mean of the subjects' numbers, whatever their class."""
    return np.asarray(np.concatenate(classes, axis).mean(axis))


def roc_auc(healthy: np.ndarray, disease: np.ndarray, axis: int = -1) -> np.ndarray:
    """Share of (healthy, disease) pairs in the right order, ties half: Mann-Whitney's U."""
    ranks = stats.rankdata(np.concatenate([healthy, disease], axis), axis=axis)
    n, m = healthy.shape[axis], disease.shape[axis]
    return (ranks[..., n:].sum(axis) - m * (m + 1) / 2) / (n * m)


def average_precision(healthy: np.ndarray, disease: np.ndarray, axis: int = -1) -> np.ndarray:
    """Area under the curve of precision and recall, without interpolation.

    It is the mean over the subjects with the disease of the precision at their own probability.
    """

    def at_least(values: np.ndarray) -> np.ndarray:  # how many are as probable
        return values.shape[axis] + 1 - stats.rankdata(values, method="min", axis=axis)

    everyone = at_least(np.concatenate([disease, healthy], axis))
    own = everyone[..., : disease.shape[axis]]  # classes lie along the last axis
    return (at_least(disease) / own).mean(axis)


def sensitivity_at_specificity(
    healthy: np.ndarray, disease: np.ndarray, axis: int = -1, specificity: float = 0.9
) -> np.ndarray:
    """Sensitivity at the lowest threshold that leaves this share of the healthy right."""
    threshold = np.quantile(healthy, specificity, axis=axis, method="inverted_cdf", keepdims=True)
    return (disease > threshold).mean(axis)


def f1_macro(healthy: np.ndarray, disease: np.ndarray, axis: int = -1) -> np.ndarray:
    """Mean of the F1 scores of both classes, of the probabilities of PD."""
    return class_f1(healthy > THRESHOLD, disease > THRESHOLD, axis=axis)


def class_f1(*found: np.ndarray, axis: int = -1) -> np.ndarray:
    """Mean of the F1 scores of the classes, of the classes that were decided on."""
    everyone = np.concatenate(found, axis)
    scores = [
        2 * (own == k).sum(axis) / ((everyone == k).sum(axis) + own.shape[axis])
        for k, own in enumerate(found)
    ]
    return np.mean(scores, axis=0)


def class_recall(*found: np.ndarray, axis: int = -1) -> np.ndarray:
    """Mean of the recalls of the classes, of the classes that were decided on."""
    return np.mean([(own == k).mean(axis) for k, own in enumerate(found)], axis=0)


def mean_auc(prob: np.ndarray, *members: np.ndarray, axis: int = -1) -> np.ndarray:
    """Mean of the ROC AUCs of each class against the rest.

    The probabilities are (N, K), the numbers of the ``members`` of each class (..., n).
    """
    aucs = []
    for number, own in enumerate(members):
        rest = np.concatenate([other for other in members if other is not own], axis)
        aucs.append(roc_auc(prob[rest, number], prob[own, number], axis))
    return np.mean(aucs, axis=0)


RESAMPLED = {"accuracy": accuracy, "roc_auc": roc_auc, "f1_macro": f1_macro}  # the paper's
