"""Calibration: whether of the subjects with P(PD) 0.8 eight in ten have PD."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

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
