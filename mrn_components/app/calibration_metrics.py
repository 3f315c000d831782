"""How true the probabilities of a table are, before and after their calibration, and its sets."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from mrn_components.data.predictions import read_calibrated, read_sets
from mrn_components.data.target import Classes, Target
from mrn_components.metrics.calibration import cross_entropy_change, probability_metrics
from mrn_components.metrics.conformal import set_coverage


def judge_calibration(
    table: Path,
    subjects: Sequence[str],
    prob: np.ndarray,
    truth: np.ndarray,
    target: Target,
    *,
    groups_of: Mapping[str, Sequence[str]] = MappingProxyType({}),
    seed: int = 1,
) -> tuple[np.ndarray | None, dict[str, Any]]:
    """Judge what a table of predictions says beside its probabilities of some subjects.

    Args:
        table: ``predictions.csv`` or ``out_of_fold.csv``.
        subjects: whom to judge it by.
        prob: their probabilities, as ``target.metrics`` takes them.
        truth: their labels.
        target: what the labels are.
        groups_of: {column: the group of each}, such as the site, whose coverage is told too.
        seed: seed of the bootstrap.

    Returns:
        The calibrated probabilities, None where the table has none; and where it has them
        ``{"calibration": {"own": {"cross_entropy", "brier", "ece"}, "calibrated": ...,
        "cross_entropy_change": ...}}``, and of sets ``{"sets": {"level", "coverage", "by_group":
        {"site A": coverage}}}``.
    """
    if not isinstance(target, Classes):
        return None, {}
    facts: dict[str, Any] = {}
    found = read_calibrated(table, target)
    mapped = np.array([found[subject] for subject in subjects]) if found else None
    if mapped is not None:
        before, after = target.by_class(prob), target.by_class(mapped)
        facts["calibration"] = {
            "own": probability_metrics(before, truth, target.number),
            "calibrated": probability_metrics(after, truth, target.number),
            "cross_entropy_change": cross_entropy_change(before, after, truth, seed),
        }
    sets, level = read_sets(table, target)
    if sets:
        inside = np.array(
            [[name in sets[subject] for name in target.names] for subject in subjects]
        )
        facts["sets"] = {"level": level, "coverage": set_coverage(inside, truth, target.names)}
        facts["sets"]["by_group"] = {
            f"{column} {name}": set_coverage(inside[own], truth[own], target.names)
            for column, groups in groups_of.items()
            for name in sorted(set(groups))
            for own in [np.array(groups) == name]
        }
    return mapped, facts
