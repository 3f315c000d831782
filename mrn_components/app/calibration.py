"""What out-of-fold predictions say of new subjects: calibrated values, and sets of them.

Values are probabilities or scores; the set of a score is an interval. Both rest on subjects that a
fold's network did not learn from. A bundle of the folds carries what was fitted as
``models/calibration.json``: numbers, and hashes of the ids, no subject.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mrn_components.app.calibration_kinds import kind_of
from mrn_components.data import DataLeakageError
from mrn_components.data.ledger import (
    Ledger,
    describe_ledger,
    find_trained_on,
    make_ledger,
    new_ledger,
    read_ledger,
)
from mrn_components.data.predictions import read_number
from mrn_components.data.tables import read_rows
from mrn_components.data.target import Target, describe, make_target, read_target
from mrn_components.metrics.conformal import LEVEL, Own, least_subjects
from mrn_components.metrics.recalibration import Map, fit_recalibration
from mrn_components.system.files import weights_hash
from mrn_components.system.plain_data import read_plain

_logger = logging.getLogger(__name__)

CALIBRATION = "calibration.json"  # beside the weights


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What was fitted to the out-of-fold predictions of the networks of an ensemble.

    Each network's values are mapped, and then averaged, as the ensemble averages what they are
    without: the map was fitted to single networks, and an average of several is less sure
    already. So the order of subjects stays as each network has it, and can change a little in the
    average. Sets are cross-conformal (``metrics.conformal`` says what they promise).

    Args:
        target: what is predicted.
        recalibration: the map of a network's values.
        own: of each fold and class what its subjects had of their own class; of a score their
            errors.
        weights: SHA-256 of each fold's weights.
        ledger: of the ids of all these subjects.
        level: of the sets; None makes none.
    """

    target: Target
    recalibration: Map
    own: Own
    weights: tuple[str, ...]
    ledger: Ledger
    level: float | None = None

    @property
    def sizes(self) -> dict[str, int]:
        """How many subjects of each class, or with the score, it rests on."""
        counts = [sum(map(len, known)) for known in zip(*self.own, strict=True)]
        return dict(zip(kind_of(self.target).names, counts, strict=True))

    def at(self, level: float | None) -> "Calibration":
        """Return the same with sets at a level; None takes 0.9 where there are subjects enough.

        Raises:
            ValueError: for a level that is none, or that needs more subjects.
        """
        least = least_subjects(LEVEL if level is None else level)
        lacking = [f"{n} of {name}" for name, n in self.sizes.items() if n < least]
        if not lacking:
            return replace(self, level=LEVEL if level is None else float(level))
        if level is None:
            return replace(self, level=None)
        raise ValueError(
            f"--set_level {level:g} needs at least {least} calibration subjects"
            f"{kind_of(self.target).of_each}, and the cross-validation had {', '.join(lacking)}; "
            "choose a lower level, or cross-validate more subjects."
        )

    def apply(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the cells that stand beside those of ``prediction``, with folds, of a subject."""
        kind = kind_of(self.target)
        columns = [row[f"{column}_folds"] for column in self.target.columns]
        values = kind.stack(np.transpose(columns) if len(columns) > 1 else columns[0])  # (F, ...)
        folds = kind.cells(self.recalibration.apply(values))
        cells: dict[str, Any] = {column: float(v.mean()) for column, v in folds.items()}
        cells |= {f"{column}_folds": v.tolist() for column, v in folds.items()}
        if self.level is not None:
            seen = kind.compared(self.recalibration, values)
            cells |= kind.set_cells(self.own, seen, self.level)
            cells["set_level"] = self.level
        return cells

    def summary(self) -> dict[str, Any]:
        """Return what a manifest says of it."""
        return {**_numbers(self.recalibration), "subjects": self.sizes, "set_level": self.level}


def fit_calibration(table: Path, weights: Sequence[Path]) -> Calibration:
    """Fit to ``out_of_fold.csv`` of a cross-validation, whose folds have left these weights.

    Raises:
        DataLeakageError: if weights were trained on a subject of their fold, by its id.
        ValueError: for a table of other folds.
    """
    target = read_target(table.parent)
    kind = kind_of(target)
    values, labels, members = [], [], []
    for where, row in read_rows(table, (*target.columns, "fold", "label")):
        cells = [read_number(row[column], column, target, where) for column in target.columns]
        values.append(cells if len(cells) > 1 else cells[0])
        labels.append(target.parse(row["label"]))
        members.append((row["subject"], row["fold"]))
    names = [str(fold) for fold in range(len(weights))]
    if {fold for _, fold in members} != {*names}:
        raise ValueError(
            f"{table} has the folds {sorted({fold for _, fold in members})}, expected those of the "
            f"{len(weights)} networks, {names}; run the cross-validation again."
        )
    for name, path in zip(names, weights, strict=True):
        _check_unseen([subject for subject, fold in members if fold == name], path)
    stacked, truth = kind.stack(values), np.array(labels)
    folds = np.array([int(fold) for _, fold in members])
    recalibration, _ = fit_recalibration(stacked, truth, folds, kind.family)
    return Calibration(
        target=target,
        recalibration=recalibration,
        own=kind.own(kind.compared(recalibration, stacked), truth, folds),
        weights=tuple(map(weights_hash, weights)),
        ledger=new_ledger(frozenset(f"id {subject}" for subject, _ in members)),
    )


def calibrate_rows(
    rows: Sequence[Mapping[str, Any]], labels: Mapping[str, Any], target: Target
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Add calibrated values and sets to out-of-fold rows, and say what all folds choose.

    Each fold's are by what the others alone choose and fit, so that they may be scored. Sets, at
    0.9, need subjects enough.

    Args:
        rows: of each subject, with ``fold``, and as ``value`` what ``target.metrics`` takes.
        labels: {subject: label}.
        target: what the labels are.
    """
    kind = kind_of(target)
    values = kind.stack([row["value"] for row in rows])
    truth = np.array([labels[row["subject"]] for row in rows])
    folds = np.array([row["fold"] for row in rows])
    cells = kind.mapped(values, truth, folds)
    sets = kind.left_out(values, truth, folds, LEVEL)
    added: list[dict[str, Any]] = []
    for place, row in enumerate(rows):
        own: dict[str, Any] = {column: float(mapped[place]) for column, mapped in cells.items()}
        if sets is not None:
            own |= {**sets[place], "set_level": LEVEL}
        added.append({**row, **own})
    found, held_out = fit_recalibration(values, truth, folds, kind.family)
    return added, {
        "calibration": {**_numbers(found), "loss": kind.family.loss, "left_out": held_out}
    }


def describe_calibration(calibration: Calibration) -> dict[str, Any]:
    """Return what ``calibration.json`` holds."""
    names = kind_of(calibration.target).names
    folds = [
        {
            "weights": sha256,
            "own": dict(zip(names, (numbers.tolist() for numbers in own), strict=True)),
        }
        for sha256, own in zip(calibration.weights, calibration.own, strict=True)
    ]
    return {
        "note": "Of out-of-fold predictions. Research use only.",
        "target": describe(calibration.target),
        **_numbers(calibration.recalibration),
        "folds": folds,
        "subjects": describe_ledger(calibration.ledger),
    }


def read_calibration(path: Path) -> Calibration:
    """Read ``calibration.json``, which may be somebody else's: plain data, or a ValueError."""
    try:
        content = read_plain(path)
        target = make_target(content["target"])
        kind, folds = kind_of(target), content["folds"]
        if not folds:
            raise ValueError("it needs folds")
        recalibration = kind.family.make(
            content["method"], float(content["slope"]), tuple(map(float, content["intercepts"]))
        )
        own = [[_sorted(fold["own"][name]) for name in kind.names] for fold in folds]
        weights = tuple(str(fold["weights"]) for fold in folds)
        ledger = make_ledger(content["subjects"])
        kind.check(recalibration, own)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is no calibration of an ensemble ({' '.join(repr(error).split())[:200]}); "
            "type the command of the cross-validation again, or delete the file to predict without."
        ) from error
    return Calibration(
        target=target, recalibration=recalibration, own=own, weights=weights, ledger=ledger
    )


def find_calibration(
    weights: Sequence[Path], target: Target, level: float | None
) -> Calibration | None:
    """Return the calibration that lies beside some weights, with sets at a level.

    None if there is none, or it is of other weights, which is logged.

    Raises:
        ValueError: for a level where there is none, or one that needs more subjects.
    """
    path = weights[0].parent / CALIBRATION
    found = read_calibration(path) if path.is_file() else None
    if found is not None and (
        found.target != target or found.weights != tuple(map(weights_hash, weights))
    ):
        _logger.warning("%s was fitted to other weights, and is not used.", path)
        found = None
    if found is not None:
        return found.at(level)
    if level is None:
        return None
    raise ValueError(
        f"--set_level needs {path}, fitted to these weights; `mrn crossval` writes it into its "
        "folder ensemble. Name that folder as --bundle, or leave --set_level out."
    )


def _check_unseen(subjects: Sequence[str], weights: Path) -> None:
    """Refuse a fold's network that learned from subjects of its fold."""
    ledger = read_ledger(weights)
    if ledger is None:
        return
    if found := find_trained_on([{"subject": subject} for subject in subjects], [ledger]):
        raise DataLeakageError(
            f"{weights} was trained on {', '.join(sorted(found))}, which its fold leaves out: it "
            "would be calibrated on what it knows. Remove the fold's folder and train it again."
        )


def _numbers(found: Map) -> dict[str, Any]:
    return {
        "method": found.method,
        "slope": found.slope,
        "intercepts": list(found.intercepts),
    }


def _sorted(values: Any) -> np.ndarray:
    """Read numbers of calibration subjects."""
    return np.sort(np.array(values, dtype=float).reshape(-1))
