"""What every metric starts from: probabilities, labels and the threshold between the classes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

Scores = Sequence[float] | np.ndarray
Labels = Sequence[int] | np.ndarray
Metric = dict[str, Any]  # {"value", "low", "high"[, "method"][, "reason"]}; None where undefined

THRESHOLD = 0.5  # above it lies PD, as argmax decides


def checked_scores(
    prob: Scores, labels: Labels, num_classes: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    """Return as arrays P(PD) (N,) or the probabilities of more classes (N, K), and labels (N,).

    Raises:
        ValueError: for no subjects, unequal lengths, or values outside their range.
    """
    prob, truth = np.asarray(prob, dtype=float), np.asarray(labels)
    name, each, known = "prob_pd", "", "0 or 1"
    if num_classes > 2:
        name, known = "probabilities", f"0 to {num_classes - 1}"
        each = f", one of each of {num_classes} classes for each of {len(truth)} labels,"
    shape = (len(truth), num_classes) if num_classes > 2 else (len(truth),)
    if prob.shape != shape or truth.ndim != 1 or not truth.size:
        raise ValueError(
            f"{name} and labels must be equally long lists{each} with at least one subject, got "
            f"the shapes {prob.shape} and {truth.shape}."
        )
    if not np.isin(truth, range(num_classes)).all():
        raise ValueError(f"labels must be {known}, got {sorted(set(truth.tolist()))}.")
    if not ((prob >= 0) & (prob <= 1)).all():  # also refuses NaN
        raise ValueError(
            f"{name} must lie in 0 to 1, got {prob.min()} to {prob.max()}; a NaN means that the "
            "network diverged."
        )
    return prob, truth
