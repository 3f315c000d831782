"""What every metric starts from: probabilities, labels and the threshold between the classes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

Scores = Sequence[float] | np.ndarray
Labels = Sequence[int] | np.ndarray
Metric = dict[str, Any]  # {"value", "low", "high"[, "method"][, "reason"]}; None where undefined

THRESHOLD = 0.5  # above it lies PD, as argmax decides


def checked_scores(prob_pd: Scores, labels: Labels) -> tuple[np.ndarray, np.ndarray]:
    """Return both as arrays.

    Raises:
        ValueError: for no subjects, unequal lengths, or values outside their range.
    """
    prob, truth = np.asarray(prob_pd, dtype=float), np.asarray(labels)
    if prob.ndim != 1 or prob.shape != truth.shape or not prob.size:
        raise ValueError(
            "prob_pd and labels must be equally long lists with at least one subject, got the "
            f"shapes {prob.shape} and {truth.shape}."
        )
    if not np.isin(truth, (0, 1)).all():
        raise ValueError(f"labels must be 0 or 1, got {sorted(set(truth.tolist()))}.")
    if not ((prob >= 0) & (prob <= 1)).all():  # also refuses NaN
        raise ValueError(
            f"prob_pd must lie in 0 to 1, got {prob.min()} to {prob.max()}; a NaN means that the "
            "network diverged."
        )
    return prob, truth
