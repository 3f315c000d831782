"""What out-of-fold predictions say of new subjects: calibrated probabilities, and sets of classes.

Both rest on subjects that a fold's network did not learn from. A bundle of the folds carries what
was fitted as ``models/calibration.json``: numbers, and hashes of the ids, no subject.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mrn_components.data import DataLeakageError
from mrn_components.data.ledger import (
    Ledger,
    describe_ledger,
    find_trained_on,
    make_ledger,
    new_ledger,
    read_ledger,
)
from mrn_components.data.predictions import calibrated, read_number
from mrn_components.data.tables import read_rows
from mrn_components.data.target import Classes, Target, describe, make_target, read_target
from mrn_components.metrics.conformal import (
    LEVEL,
    Own,
    conformal_sets,
    least_subjects,
    left_out_sets,
    own_probabilities,
    p_values,
)
from mrn_components.metrics.recalibration import (
    METHODS,
    SLOPES,
    Recalibration,
    fit_recalibration,
    recalibrate_folds,
)
from mrn_components.system.files import weights_hash
from mrn_components.system.plain_data import read_plain

_logger = logging.getLogger(__name__)

CALIBRATION = "calibration.json"  # beside the weights
_FARTHEST = 1000.0  # an intercept of logits: beyond, somebody wrote it


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What was fitted to the out-of-fold predictions of the networks of an ensemble.

    Each network's probabilities are mapped, and then averaged, as the ensemble averages what they
    are without: the map was fitted to single networks, and an average of several is less sure
    already. So the order of subjects stays as each network has it, and can change a little in the
    average. Sets are cross-conformal (``metrics.conformal`` says what they promise).

    Args:
        target: what is predicted.
        recalibration: the map of a network's probabilities.
        own: of each fold and class what its subjects had of their own class.
        weights: SHA-256 of each fold's weights.
        ledger: of the ids of all these subjects.
        level: of the sets; None makes none.
    """

    target: Classes
    recalibration: Recalibration
    own: Own
    weights: tuple[str, ...]
    ledger: Ledger
    level: float | None = None

    @property
    def sizes(self) -> dict[str, int]:
        """How many subjects of each class it rests on."""
        counts = [sum(map(len, known)) for known in zip(*self.own, strict=True)]
        return dict(zip(self.target.names, counts, strict=True))

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
            f"--set_level {level:g} needs at least {least} calibration subjects of each class, and "
            f"the cross-validation had {', '.join(lacking)}; choose a lower level, or "
            "cross-validate more subjects."
        )

    def apply(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the cells that stand beside those of ``prediction``, with folds, of a subject."""
        columns = [row[f"{column}_folds"] for column in self.target.columns]
        values = np.array(columns[0] if self.target.is_binary else np.transpose(columns))
        prob = self.target.by_class(values)  # (F, K)
        folds = self.target.in_tables(self.recalibration.apply(prob))
        cells: dict[str, Any] = {calibrated(c): float(v.mean()) for c, v in folds.items()}
        cells |= {f"{calibrated(column)}_folds": v.tolist() for column, v in folds.items()}
        if self.level is not None:
            (members,) = conformal_sets(p_values(self.own, prob[:, None]), self.level)
            cells |= {"set": _names(self.target, members), "set_level": self.level}
        return cells

    def summary(self) -> dict[str, Any]:
        """Return what a manifest says of it."""
        return {**_numbers(self.recalibration), "subjects": self.sizes, "set_level": self.level}


def fit_calibration(table: Path, weights: Sequence[Path]) -> Calibration:
    """Fit to ``out_of_fold.csv`` of a cross-validation, whose folds have left these weights.

    Raises:
        DataLeakageError: if weights were trained on a subject of their fold, by its id.
        ValueError: for a score, or a table of other folds.
    """
    target = read_target(table.parent)
    if not isinstance(target, Classes):
        raise ValueError(
            f"{table}: {target.name} is a score; calibration and sets are for the probabilities of "
            "classes."
        )
    values, labels, members = [], [], []
    for where, row in read_rows(table, (*target.columns, "fold", "label")):
        cells = [read_number(row[column], column, target, where) for column in target.columns]
        values.append(cells[0] if target.is_binary else cells)
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
    prob, truth = target.by_class(values), np.array(labels)
    folds = np.array([int(fold) for _, fold in members])
    return Calibration(
        target=target,
        recalibration=fit_recalibration(prob, truth, folds)[0],
        own=own_probabilities(prob, truth, folds),
        weights=tuple(map(weights_hash, weights)),
        ledger=new_ledger(frozenset(f"id {subject}" for subject, _ in members)),
    )


def calibrate_rows(
    rows: Sequence[Mapping[str, Any]], labels: Mapping[str, Any], target: Target
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Add calibrated probabilities and sets to out-of-fold rows, and say what all folds choose.

    Each fold's are by what the others alone choose and fit, so that they may be scored. Scores
    have none; sets, at 0.9, need subjects enough.

    Args:
        rows: of each subject, with ``fold``, and as ``value`` what ``target.metrics`` takes.
        labels: {subject: label}.
        target: what the labels are.
    """
    if not isinstance(target, Classes):
        return [dict(row) for row in rows], {}
    prob = target.by_class([row["value"] for row in rows])
    truth = np.array([int(labels[row["subject"]]) for row in rows])
    folds = np.array([row["fold"] for row in rows])
    cells = target.in_tables(recalibrate_folds(prob, truth, folds))
    sets = left_out_sets(prob, truth, folds, LEVEL)
    added: list[dict[str, Any]] = []
    for place, row in enumerate(rows):
        own: dict[str, Any] = {
            calibrated(column): float(values[place]) for column, values in cells.items()
        }
        if sets is not None:
            own |= {"set": _names(target, sets[place]), "set_level": LEVEL}
        added.append({**row, **own})
    found, held_out = fit_recalibration(prob, truth, folds)
    return added, {"calibration": {**_numbers(found), "cross_entropy_left_out": held_out}}


def describe_calibration(calibration: Calibration) -> dict[str, Any]:
    """Return what ``calibration.json`` holds."""
    folds = [
        {
            "weights": sha256,
            "own": dict(zip(calibration.target.names, (p.tolist() for p in own), strict=True)),
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
        folds = content["folds"]
        if not isinstance(target, Classes) or not folds:
            raise ValueError("it needs classes and folds")
        numbers = [content["method"], float(content["slope"]), *map(float, content["intercepts"])]
        own = [[_probabilities(fold["own"][name]) for name in target.names] for fold in folds]
        weights = tuple(str(fold["weights"]) for fold in folds)
        ledger = make_ledger(content["subjects"])
        method, slope, *intercepts = numbers
        if method not in METHODS or not SLOPES[0] <= slope <= SLOPES[1]:
            raise ValueError(f"method {method!r} and slope {slope} are none of a fit")
        if len(intercepts) != len(target.names) or not np.abs(intercepts).max() <= _FARTHEST:
            raise ValueError(f"intercepts must be {len(target.names)} numbers, got {intercepts}")
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is no calibration of an ensemble ({' '.join(repr(error).split())[:200]}); "
            "type the command of the cross-validation again, or delete the file to predict without."
        ) from error
    recalibration = Recalibration(method, slope, tuple(intercepts))
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
    if not isinstance(target, Classes):
        raise ValueError(f"--set_level: {target.name} is a score, and sets are of classes.")
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


def _names(target: Classes, members: np.ndarray) -> list[str]:
    """Return the classes in a set."""
    return [target.names[number] for number in np.flatnonzero(members).tolist()]


def _numbers(found: Recalibration) -> dict[str, Any]:
    return {
        "method": found.method,
        "slope": found.slope,
        "intercepts": list(found.intercepts),
    }


def _probabilities(values: Any) -> np.ndarray:
    """Read probabilities of calibration subjects, sorted."""
    found = np.sort(np.array(values, dtype=float).reshape(-1))
    if not ((found >= 0) & (found <= 1)).all():
        raise ValueError("probabilities must lie in 0 to 1")
    return found
