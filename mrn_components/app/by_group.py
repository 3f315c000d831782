"""Metrics by site, or by another column of the tables, and whether the sites differ."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mrn_components.data.groups import group_name
from mrn_components.data.tables import csv_lines, read_covariates, read_entries, read_rows
from mrn_components.data.target import Classes, Score, Target
from mrn_components.metrics.comparison import SIGNIFICANCE
from mrn_components.metrics.groups import (
    Effect,
    accuracy_effect,
    auc_effect,
    correlation_effect,
    heterogeneity,
    right_decisions,
)

_FEW = 10  # subjects of each class in a group; of fewer the interval says little
_MOST_VALUES = 6  # of a column of numbers: more, each of a few subjects, are grouped by thirds
_LISTED = 10  # values or subjects in a message
_SITE = 5  # subjects of a number on average, from which on it is the name of a group


def read_groups(tables: Sequence[Path], column: str, subjects: Sequence[str]) -> list[str]:
    """Return the group of each subject: its value in a column of the first table that has it.

    Numbers of more than six values with fewer than five subjects each, such as ages, are grouped by
    their thirds; others, such as numbers of sites, are names.

    Raises:
        ValueError: if no table has the column, subjects lack a value, or values are no groups:
            numbers among which some are none, or a name for nearly each subject.
    """
    for table in tables:
        found = _read_column(table, column)
        if not found:
            continue
        if lacking := [name for name in subjects if name not in found]:
            raise ValueError(
                f"{table}: the column {column!r}, to group by, has no value for {len(lacking)} "
                f"subjects: {lacking[:_LISTED]}."
            )
        return _named([found[name] for name in subjects], f"{table}: the column {column!r}")
    looked = " and ".join(dict.fromkeys(map(str, tables)))
    raise ValueError(
        f"no column {column!r} to group by in {looked}; add it to the labels, below "
        f"a header such as subject,label,{column}."
    )


def _read_column(table: Path, column: str) -> dict[str, float | str]:
    """Read {subject: value} of a csv with a header or of a datalist, if it has the column."""
    if table.suffix == ".json":
        rows = [entry for entry in read_entries(table) if isinstance(entry, dict)]
    else:
        _, header = next(csv_lines(table), (1, []))
        if not {"subject", column} <= {*header}:
            return {}
        rows = [row for _, row in read_rows(table, [column])]
    told = ((row.get("subject"), read_covariates({column: row.get(column)})) for row in rows)
    return {str(name): own[column] for name, own in told if own}


def _named(values: Sequence[float | str], where: str) -> list[str]:
    """Name the groups of some values of a column, which messages name by ``where``."""
    different = len(set(values))
    numbers = [value for value in values if isinstance(value, float) and np.isfinite(value)]
    most = max(_MOST_VALUES, len(values) // (_SITE if numbers else 2))
    if different > most and len(numbers) < len(values):
        others = sorted({str(value) for value in values if value not in numbers})
        raise ValueError(
            f"{where}, to group by, has {different} different values for {len(values)} subjects; "
            f"at most {most} make groups, and more only of numbers, by their thirds, but these are "
            f"none: {others[:_LISTED]}."
        )
    if different <= most:
        return [group_name(value) for value in values]
    third = np.searchsorted(np.quantile(numbers, (1 / 3, 2 / 3)), numbers)
    ends = {k: np.array(numbers)[third == k] for k in sorted({*third})}
    names = {k: f"{group_name(of.min())} to {group_name(of.max())}" for k, of in ends.items()}
    return [names[k] for k in third]


def _place(name: str) -> tuple[float, str]:
    """Where a group stands: by the number that its name begins with, then by its name."""
    found = re.match(r"-?[\d.]+", name)
    try:
        return float(found.group()) if found else math.inf, name
    except ValueError:  # such as 1.5.2
        return math.inf, name


def score_groups(
    values: np.ndarray, truth: np.ndarray, groups: Sequence[str], target: Target, seed: int
) -> dict[str, Any]:
    """Score predictions by group, and test whether groups differ.

    Returns:
        ``{"groups": {"A": {"n", "classes", metrics}}, "heterogeneity": {"roc_auc": ...}}``.
    """
    members = {name: np.array(groups) == name for name in sorted(set(groups), key=_place)}
    by_group = {
        name: {
            "n": int(own.sum()),
            **_counts(truth[own], target),
            **target.metrics(values[own], truth[own], seed),
        }
        for name, own in members.items()
    }
    return {"groups": by_group, "heterogeneity": _heterogeneity(values, truth, members, target)}


def _counts(truth: np.ndarray, target: Target) -> dict[str, Any]:
    """Count the classes of a group, and say whether there are few subjects of any."""
    if isinstance(target, Score):
        return {"few": bool(len(truth) < _FEW)}
    counts = target.counts(truth)
    return {"classes": dict(zip(target.names, counts, strict=True)), "few": min(counts) < _FEW}


def _heterogeneity(
    values: np.ndarray, truth: np.ndarray, members: Mapping[str, np.ndarray], target: Target
) -> dict[str, dict[str, Any]]:
    """Test the metrics that have a known variance."""
    tests = {}
    for name, (kind, effects) in _effects(values, truth, members, target).items():
        known = [effect for effect in effects.values() if not isinstance(effect, str)]
        left_out = {group: why for group, why in effects.items() if isinstance(why, str)}
        test = heterogeneity(known, kind) if len(known) > 1 else {"reason": "needs two groups"}
        tests[name] = {**test, "left_out": left_out}
    return tests


def _effects(
    values: np.ndarray, truth: np.ndarray, members: Mapping[str, np.ndarray], target: Target
) -> dict[str, tuple[str, dict[str, Effect | str]]]:
    if not isinstance(target, Classes):
        z = {name: correlation_effect(values[own], truth[own]) for name, own in members.items()}
        return {"pearson": ("fisher", z)}
    labels = truth == target.number if target.is_binary else truth
    right = right_decisions(values, labels)
    shares: dict[str, Effect | str]
    shares = {name: accuracy_effect(right[own]) for name, own in members.items()}
    found = {"accuracy": ("logit", shares)}
    if target.is_binary:
        aucs = {name: auc_effect(values[own], labels[own]) for name, own in members.items()}
        found["roc_auc"] = ("logit", aucs)
    return found


def format_groups(scored: Mapping[str, Any], column: str, names: Sequence[str]) -> str:
    """Lay metrics by group out as text: a line a group, and a line a test."""
    lines = [[column, "n", *names]]
    for group, own in scored["groups"].items():
        few = " (few)" if own["few"] else ""
        lines.append([f"{group}{few}", str(own["n"]), *(_shown(own[name]) for name in names)])
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    padded = ((f"{c:<{w}}" for c, w in zip(line, widths, strict=True)) for line in lines)
    text = ["  ".join(cells).rstrip() for cells in padded]
    text += [f"{name}: {say_test(test)}" for name, test in scored["heterogeneity"].items()]
    return "\n".join(text)


def say_test(test: Mapping[str, Any]) -> str:
    """Say in words what a test of heterogeneity found."""
    left_out = "".join(f"; {group} left out, {why}" for group, why in test["left_out"].items())
    if "reason" in test:
        return f"no test: {test['reason']}{left_out}"
    p = "< 0.001" if test["p"] < 0.001 else f"= {test['p']:.3f}"
    differ = "differ" if test["p"] < SIGNIFICANCE else "not seen to differ"
    return (
        f"{differ} (Cochran's Q {test['q']:.2f}, {test['df']} degrees of freedom, p {p}; I2 "
        f"{test['i2']:.0%}); pooled by random effects, where a group weighs by how sure its value "
        f"is, {_shown(test['mean'])}{left_out}"
    )


def _shown(metric: Mapping[str, Any]) -> str:
    if metric["value"] is None:
        return "-"
    if metric["low"] is None:
        return f"{metric['value']:.3f}"
    return f"{metric['value']:.3f} ({metric['low']:.3f} to {metric['high']:.3f})"
