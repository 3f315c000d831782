"""How true the predictions of a table are, before and after their calibration, and its sets."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from mrn_components.data.predictions import read_calibrated, read_intervals, read_sets
from mrn_components.data.target import Classes, Score, Target
from mrn_components.metrics import Metric
from mrn_components.metrics.calibration import error_metrics, loss_change, probability_metrics
from mrn_components.metrics.conformal import set_coverage
from mrn_components.metrics.conformal_intervals import interval_coverage
from mrn_components.metrics.recalibration import score_losses, subject_losses

_PARTS = 3  # of a score's subjects, by their label


def judge_calibration(
    table: Path,
    subjects: Sequence[str],
    values: np.ndarray,
    truth: np.ndarray,
    target: Target,
    *,
    groups_of: Mapping[str, Sequence[str]] = MappingProxyType({}),
    seed: int = 1,
) -> tuple[np.ndarray | None, dict[str, Any]]:
    """Judge what a table of predictions says beside its values of some subjects.

    Args:
        table: ``predictions.csv`` or ``out_of_fold.csv``.
        subjects: whom to judge it by.
        values: their probabilities or scores, as ``target.metrics`` takes them.
        truth: their labels.
        target: what the labels are.
        groups_of: {column: the group of each}, such as the site, whose coverage is told too.
        seed: seed of the bootstrap.

    Returns:
        The calibrated values, None where the table has none; and where it has them
        ``{"calibration": {"own": {"cross_entropy", "brier", "ece"}, "calibrated": ..., "change":
        ...}}``, of a score ``mae`` and ``rmse``, the change being that of the first's or of the
        squared error; and of sets ``{"sets": {"level", "coverage", "by_group": {"site A":
        coverage}}}``, of a score ``intervals``.
    """
    found = read_calibrated(table, target)
    mapped = np.array([found[subject] for subject in subjects]) if found else None
    facts: dict[str, Any] = {}
    if mapped is not None:
        facts["calibration"] = _compare(values, mapped, truth, target, seed)
    key = "sets" if isinstance(target, Classes) else "intervals"
    facts |= {key: sets} if (sets := _sets(table, subjects, truth, target, groups_of)) else {}
    return mapped, facts


def _compare(
    before: np.ndarray, after: np.ndarray, truth: np.ndarray, target: Target, seed: int
) -> dict[str, Any]:
    """The errors of values, mapped and not, and how the loss changes."""
    if isinstance(target, Score):
        losses = [score_losses(each, truth) for each in (before, after)]
        of_each = [error_metrics(each, truth) for each in (before, after)]
        strata = np.zeros(len(truth))
    else:
        both = [target.by_class(each) for each in (before, after)]
        losses = [subject_losses(prob, truth) for prob in both]
        of_each = [probability_metrics(prob, truth, target.number) for prob in both]
        strata = truth
    change = loss_change(losses[0], losses[1], strata, seed)
    return {"own": of_each[0], "calibrated": of_each[1], "change": change}


def _sets(
    table: Path,
    subjects: Sequence[str],
    truth: np.ndarray,
    target: Target,
    groups_of: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """Whom the sets or intervals of a table hold; nothing where it has none."""
    if isinstance(target, Score):
        intervals, level = read_intervals(table, target)
        held = np.array([intervals[subject] for subject in subjects]) if intervals else None
        parts, part_of = target.groups(truth.tolist(), _PARTS)
    else:
        sets, level = read_sets(table, target)
        inside = [[name in sets[subject] for name in target.names] for subject in subjects if sets]
        held = np.array(inside) if sets else None
    if held is None:
        return {}

    def cover(own: Any) -> dict[str, Metric]:
        if isinstance(target, Score):
            return interval_coverage(held[own], truth[own], parts, part_of[own])
        return set_coverage(held[own], truth[own], target.names)

    by_group = {
        f"{column} {name}": cover(np.array(groups) == name)
        for column, groups in groups_of.items()
        for name in sorted(set(groups))
    }
    return {"level": level, "coverage": cover(slice(None)), "by_group": by_group}
