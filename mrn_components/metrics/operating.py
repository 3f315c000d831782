"""Where to decide: a threshold from other subjects, the benefit of each, and how many to ask for.

A decision is "PD" where the probability is above the threshold.
"""

import math
from collections.abc import Mapping

import numpy as np
from sklearn.metrics import roc_curve

from mrn_components.metrics.intervals import CONFIDENCE, proportion
from mrn_components.metrics.scores import Labels, Metric, Scores, checked_scores


def choose_threshold(prob_pd: Scores, labels: Labels) -> float:
    """Choose the threshold with the greatest sum of sensitivity and specificity (Youden 1950).

    It lies in the middle between the probabilities that it parts. Of thresholds that are equally
    good it is the one nearest to 0.5. Both classes are needed.
    """
    prob, truth = checked_scores(prob_pd, labels)
    if len(np.unique(truth)) < 2:
        raise ValueError("a threshold is chosen on subjects of both classes, got one alone.")
    fpr, tpr, _ = roc_curve(truth, prob, drop_intermediate=False)
    values = np.unique(prob)[::-1]  # a point of the curve decides PD from one of these on
    below = np.append(values[1:], values[-1])
    middles = np.append(values[0], (values + below) / 2)  # the first point decides PD of nobody
    best = np.flatnonzero(np.isclose(tpr - fpr, np.max(tpr - fpr)))
    return float(min(middles[best], key=lambda threshold: abs(threshold - 0.5)))


def decisions_at(prob_pd: Scores, labels: Labels, threshold: float) -> dict[str, Metric]:
    """Return accuracy, sensitivity and specificity at a threshold, with Wilson's intervals."""
    prob, truth = checked_scores(prob_pd, labels)
    right = (prob > threshold) == truth
    groups = {"accuracy": right, "sensitivity": right[truth == 1], "specificity": right[truth == 0]}
    return {
        f"{name}_at_threshold": proportion(int(own.sum()), own.size)
        for name, own in groups.items()
        if own.size
    }


def net_benefit(prob_pd: Scores, labels: Labels, thresholds: np.ndarray) -> dict[str, np.ndarray]:
    """Return the net benefit of acting on the predictions, and of acting on everybody.

    Of each threshold t in (0, 1): the share of true positives minus that of false positives
    weighted by t / (1 - t). Acting on nobody has 0. Vickers and Elkin 2006,
    doi:10.1177/0272989X06295361.
    """
    prob, truth = checked_scores(prob_pd, labels)
    found = prob > thresholds[:, None]  # (T, N)
    odds = thresholds / (1 - thresholds)
    share = truth.mean()
    own = (found & (truth == 1)).mean(axis=1) - odds * (found & (truth == 0)).mean(axis=1)
    return {"model": own, "everybody": share - odds * (1 - share)}


def needed_subjects(
    metrics: Mapping[str, Metric], num_subjects: int, half_width: float
) -> dict[str, float | int | None]:
    """Estimate how many subjects a 95 % interval of ``half_width`` to either side takes.

    An accuracy's is a binomial proportion's; that of the ROC AUC follows from DeLong's interval,
    whose variance falls with the number of subjects at equal shares of the classes.

    Returns:
        {"half_width", "accuracy", "roc_auc"}; None where there is no interval to start from.
    """
    from statsmodels.stats.proportion import samplesize_confint_proportion  # takes a second

    accuracy, auc = metrics["accuracy"]["value"], metrics["roc_auc"]
    found: dict[str, float | int | None] = {"half_width": half_width}
    found |= dict.fromkeys(("accuracy", "roc_auc"))
    if 0 < accuracy < 1:
        number = samplesize_confint_proportion(accuracy, half_width, alpha=1 - CONFIDENCE)
        found["accuracy"] = math.ceil(number)
    if auc["low"] is not None:  # the lower half, since the upper may be cut at 1
        found["roc_auc"] = math.ceil(num_subjects * ((auc["value"] - auc["low"]) / half_width) ** 2)
    return found
