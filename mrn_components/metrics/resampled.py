"""The paper's metrics of many resamples at once (section 4.1.3).

scikit-learn's take one sample a call; these take (..., n) healthy and (..., m) diseased subjects.
"""

import numpy as np
from scipy import stats

from mrn_components.metrics.scores import THRESHOLD


def accuracy(healthy: np.ndarray, disease: np.ndarray, axis: int = -1) -> np.ndarray:
    """Share of subjects on the right side of the threshold."""
    right = (healthy <= THRESHOLD).sum(axis) + (disease > THRESHOLD).sum(axis)
    return right / (healthy.shape[axis] + disease.shape[axis])


def roc_auc(healthy: np.ndarray, disease: np.ndarray, axis: int = -1) -> np.ndarray:
    """Share of (healthy, disease) pairs in the right order, ties half: Mann-Whitney's U."""
    ranks = stats.rankdata(np.concatenate([healthy, disease], axis), axis=axis)
    n, m = healthy.shape[axis], disease.shape[axis]
    return (ranks[..., n:].sum(axis) - m * (m + 1) / 2) / (n * m)


def f1_macro(healthy: np.ndarray, disease: np.ndarray, axis: int = -1) -> np.ndarray:
    """Mean of the F1 scores of both classes."""
    false_pd = (healthy > THRESHOLD).sum(axis)
    true_pd = (disease > THRESHOLD).sum(axis)
    true_hc = healthy.shape[axis] - false_pd
    wrong = false_pd + disease.shape[axis] - true_pd
    # No 0 / 0: where nobody of a class is right, somebody is wrong.
    return (2 * true_pd / (2 * true_pd + wrong) + 2 * true_hc / (2 * true_hc + wrong)) / 2


RESAMPLED = {"accuracy": accuracy, "roc_auc": roc_auc, "f1_macro": f1_macro}
