"""Folds of the cross-validation (section 4.1.1)."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from mrn_components.data.identities import DataLeakageError, Identities, check_disjoint
from mrn_components.data.tables import Subject
from mrn_components.data.target import HC_PD, Classes, Target
from mrn_components.system.files import write_json


def split_folds(
    subjects: Sequence[Subject],
    num_folds: int = 5,
    seed: int = 1,
    path: str | Path | None = None,
    identities: Identities | None = None,
    *,
    target: Target = HC_PD,
) -> dict[str, Any]:
    """Split subjects into folds, stratified by label and grouped by person.

    Scores are stratified by their quartiles, or by fewer quantiles of few subjects.

    Args:
        subjects: what ``load_subjects`` returns, with labels.
        num_folds: number of folds. Paper: 5 (section 4.1.1).
        seed: seed of the shuffle. Paper: 1 (section 4.1.1).
        path: JSON file that keeps the folds; read if it exists, else written.
        identities: what ``identify_subjects`` returns, to find one person under two names.
        target: what the labels are.

    Returns:
        ``{"seed": seed, "folds": [subjects that fold 0 validates on, those of fold 1, ...]}``.

    Raises:
        ValueError: if a fold would lack a class, or if the file at ``path`` was made for other
            subjects, another seed or another number of folds.
        DataLeakageError: if two folds share a person by ``identities``.
    """
    file = Path(path or "")  # which is none without a path
    if file.is_file():
        folds = _read(file, [subject["subject"] for subject in subjects], num_folds, seed)
    else:
        folds = {"seed": seed, "folds": _split(subjects, num_folds, seed, target)}
    check_disjoint(folds["folds"], identities or {}, file)
    if path is not None and not file.is_file():
        write_json(file, folds, indent=1)
    return folds


def select_fold(
    subjects: Sequence[Subject],
    folds: Mapping[str, Any],
    fold: int,
    part: Literal["training", "validation"],
) -> list[Subject]:
    """Take the training or the validation part of a fold.

    Args:
        subjects: what ``load_subjects`` returns.
        folds: what ``split_folds`` returns.
        fold: number of the fold, from 0.
        part: which part.

    Raises:
        ValueError: for a fold that does not exist, another part, or subjects outside the folds.
        DataLeakageError: if both parts share a subject or a person.
    """
    lists = folds["folds"]
    if not 0 <= fold < len(lists):
        raise ValueError(f"fold must be 0 to {len(lists) - 1}, got {fold}.")
    if part not in ("training", "validation"):
        raise ValueError(f"part must be 'training' or 'validation', got {part!r}.")
    validation = set(lists[fold])
    training = set().union(*lists[:fold], *lists[fold + 1 :])
    unknown = {subject["subject"] for subject in subjects} - training - validation
    if unknown:
        raise ValueError(f"subjects {sorted(unknown)} are in none of the folds; split them again.")
    parts = {
        name: [subject for subject in subjects if subject["subject"] in members]
        for name, members in {"training": training, "validation": validation}.items()
    }
    people = [set(_people(members)) for members in parts.values()]
    shared = (training & validation) | set.intersection(*people)
    if shared:
        raise DataLeakageError(
            f"training and validation of fold {fold} share {sorted(shared)}; delete the file of "
            "the folds and split again, with one name for one person in the person column."
        )
    return parts[part]


def _split(
    subjects: Sequence[Subject], num_folds: int, seed: int, target: Target
) -> list[list[str]]:
    people = _people(subjects)
    strata = _strata([subject["label"] for subject in subjects], people, num_folds, target)
    groups = people if len(set(people)) < len(people) else None
    splitter = StratifiedGroupKFold if groups else StratifiedKFold
    split = splitter(num_folds, shuffle=True, random_state=seed).split(strata, strata, groups)
    parts = [part for _, part in split]
    for number, part in enumerate(parts):
        if isinstance(target, Classes) and len(set(strata[part])) < len(target.names):
            raise ValueError(
                f"fold {number} of {num_folds} lacks a class, because one person's scans stay "
                "together; use fewer folds (--num_folds) or another seed."
            )
    return [[subjects[i]["subject"] for i in part] for part in parts]


def _strata(
    labels: Sequence[float], people: Sequence[str], num_folds: int, target: Target
) -> np.ndarray:
    """Number the groups of subjects that every fold has its share of; refuse too few of one."""
    for parts in (4, 3, 2, 1):  # quantiles of a score; of classes the same each time
        names, strata = target.groups(labels, parts)
        counts = [
            len({person for person, of in zip(people, strata, strict=True) if of == number})
            for number in range(len(names))
        ]
        if min(counts) >= num_folds:
            return strata
    fewest = counts.index(min(counts))
    what = f"label {fewest} ({names[fewest]})" if isinstance(target, Classes) else names[fewest]
    raise ValueError(
        f"num_folds is {num_folds}, but {counts[fewest]} people have {what}: some fold would lack "
        "it. Use more subjects, or fewer folds (--num_folds)."
    )


def _people(subjects: Sequence[Subject]) -> list[str]:
    """Name the person of each subject: the subject itself where no person is given."""
    return [str(subject.get("person", subject["subject"])) for subject in subjects]


def _read(path: Path, ids: list[str], num_folds: int, seed: int) -> dict[str, Any]:
    folds = json.loads(path.read_text(encoding="utf-8"))
    members = [name for fold in folds["folds"] for name in fold]
    found = f"{len(folds['folds'])} folds of {len(set(members))} subjects with seed {folds['seed']}"
    if set(members) != set(ids) or (len(folds["folds"]), folds["seed"]) != (num_folds, seed):
        raise ValueError(
            f"{path} holds {found}; asked for are {num_folds} folds of these {len(ids)} subjects "
            f"with seed {seed}. Name another file, or delete it to split again."
        )
    return folds
