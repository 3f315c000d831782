"""Folds of the cross-validation (section 4.1.1)."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from mrn_components.data.identities import DataLeakageError, Identities, check_disjoint
from mrn_components.data.tables import GROUP, Subject, people_of
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

    Scores are stratified by their quartiles, or by fewer quantiles of few subjects. Subjects with a
    ``group``, such as a site, are grouped by it: each group is a fold where there are no more
    groups than folds, so that one is left out at a time; else no two folds share one.

    Args:
        subjects: what ``load_subjects`` returns, with labels.
        num_folds: number of folds; of fewer groups as many as groups. Paper: 5 (section 4.1.1).
        seed: seed of the shuffle. Paper: 1 (section 4.1.1).
        path: JSON file that keeps the folds; read if it exists, else written.
        identities: what ``identify_subjects`` returns, to find one person under two names.
        target: what the labels are.

    Returns:
        ``{"seed": seed, "folds": [subjects that fold 0 validates on, those of fold 1, ...]}``, with
        ``"groups": [those in fold 0, ...]`` where there are some.

    Raises:
        ValueError: for a negative seed, if a fold would lack a class, for a single group or a
            person in several, or if the file at ``path`` was made for other subjects, groups,
            another seed or another number of folds.
        DataLeakageError: if two folds share a person by ``identities``.
    """
    if seed < 0:
        raise ValueError(f"seed must be >= 0, got {seed}.")
    file = Path(path or "")  # which is none without a path
    group_of = {s["subject"]: s[GROUP] for s in subjects if GROUP in s}
    if group_of:
        num_folds = min(num_folds, len({*group_of.values()}))
    if file.is_file():
        folds = _read(file, [subject["subject"] for subject in subjects], num_folds, seed)
    elif group_of:
        parts = _split_groups(subjects, num_folds, seed, target)
        groups = [sorted({group_of[name] for name in part}) for part in parts]
        folds = {"seed": seed, "folds": parts, "groups": groups}
    else:
        folds = {"seed": seed, "folds": _split(subjects, num_folds, seed, target)}
    _check_groups(folds["folds"], group_of, file)
    check_disjoint(folds["folds"], identities or {}, file)
    if path is not None and not file.is_file():
        write_json(file, folds, indent=1)
    return folds


def select_fold(
    subjects: Sequence[Subject],
    folds: Mapping[str, Any],
    fold: int,
    part: Literal["training", "validation"],
    *,
    share: float = 1.0,
    target: Target = HC_PD,
) -> list[Subject]:
    """Take the training or the validation part of a fold, without the subjects' groups.

    Args:
        subjects: what ``load_subjects`` returns.
        folds: what ``split_folds`` returns.
        fold: number of the fold, from 0.
        part: which part.
        share: of the training part, for a learning curve. It has its share of each class, or of
            each quarter of a score; a person's scans stay together; a larger share holds a smaller.
        target: what the labels are.

    Raises:
        ValueError: for a fold that does not exist, another part, subjects outside the folds, or a
            share that is not above 0 and at most 1.
        DataLeakageError: if both parts share a subject or a person.
    """
    lists = folds["folds"]
    if not 0 <= fold < len(lists):
        raise ValueError(f"fold must be 0 to {len(lists) - 1}, got {fold}.")
    if part not in ("training", "validation"):
        raise ValueError(f"part must be 'training' or 'validation', got {part!r}.")
    if not 0 < share <= 1:
        raise ValueError(f"the share of the training subjects must be in (0, 1], got {share}.")
    validation = set(lists[fold])
    training = set().union(*lists[:fold], *lists[fold + 1 :])
    unknown = {subject["subject"] for subject in subjects} - training - validation
    if unknown:
        raise ValueError(f"subjects {sorted(unknown)} are in none of the folds; split them again.")
    parts = {
        name: [without_group(subject) for subject in subjects if subject["subject"] in members]
        for name, members in {"training": training, "validation": validation}.items()
    }
    people = [set(people_of(members)) for members in parts.values()]
    shared = (training & validation) | set.intersection(*people)
    if shared:
        raise DataLeakageError(
            f"training and validation of fold {fold} share {sorted(shared)}; delete the file of "
            "the folds and split again, with one name for one person in the person column."
        )
    if part == "validation" or share == 1:
        return parts[part]
    return _share(parts[part], share, folds["seed"], target)


def _share(subjects: list[Subject], share: float, seed: int, target: Target) -> list[Subject]:
    """Take a share of the people of each stratum, in an order that follows from the seed."""
    _, strata = target.groups([subject["label"] for subject in subjects], 4)
    people: dict[str, int] = {}
    for person, stratum in zip(people_of(subjects), strata.tolist(), strict=True):
        people.setdefault(person, stratum)  # that of the first scan
    kept: set[str] = set()
    for stratum in sorted(set(people.values())):
        of_label = [person for person, own in people.items() if own == stratum]
        of_label.sort(key=lambda person: hashlib.sha256(f"{seed} {person}".encode()).digest())
        kept.update(of_label[: max(1, round(share * len(of_label)))])
    pairs = zip(subjects, people_of(subjects), strict=True)
    return [subject for subject, person in pairs if person in kept]


def without_group(subject: Subject) -> Subject:
    """Return a subject as the cache and batches know it, whatever it is grouped by."""
    return {key: value for key, value in subject.items() if key != GROUP}


def _split_groups(
    subjects: Sequence[Subject], num_folds: int, seed: int, target: Target
) -> list[list[str]]:
    """Leave one group out, where there are no more than folds; else keep groups together."""
    groups = [subject[GROUP] for subject in subjects]
    names = sorted(set(groups))
    if len(names) < 2:
        raise ValueError(
            f"all subjects have the group {', '.join(names)}, and folds of groups need two at "
            "least; group by another column, or by none."
        )
    groups_of: dict[str, set[str]] = {}
    for person, group in zip(people_of(subjects), groups, strict=True):
        groups_of.setdefault(person, set()).add(group)
    if several := sorted(person for person, own in groups_of.items() if len(own) > 1):
        raise ValueError(
            f"{', '.join(several)} have scans in several groups, which folds keep apart, and a "
            "person's scans stay together; take the scans in one of them out."
        )
    if len(names) > num_folds:
        of_groups = [subject | {"person": subject[GROUP]} for subject in subjects]
        return _split(of_groups, num_folds, seed, target, ("group", "groups"))
    for name in names:
        labels = [s["label"] for s in subjects if s[GROUP] == name]
        if isinstance(target, Classes) and len(set(labels)) < len(target.names):
            raise ValueError(
                f"group {name} lacks a class, so that no fold can be scored on it alone; take its "
                "subjects out, ask for fewer folds than groups (--num_folds), or group by another "
                "column."
            )
    return [[s["subject"] for s in subjects if s[GROUP] == name] for name in names]


def _check_groups(folds: Sequence[Sequence[str]], group_of: Mapping[str, str], path: Path) -> None:
    """Refuse folds that share a group."""
    fold_of: dict[str, int] = {}
    for number, members in enumerate(folds):
        for group in sorted({group_of[name] for name in members if name in group_of}):
            if fold_of.setdefault(group, number) != number:
                raise ValueError(
                    f"{path} has subjects of the group {group} in folds {fold_of[group]} and "
                    f"{number}; name another file, delete it to split again, or group by none."
                )


def _split(
    subjects: Sequence[Subject],
    num_folds: int,
    seed: int,
    target: Target,
    units: tuple[str, str] = ("person", "people"),
) -> list[list[str]]:
    people = people_of(subjects)
    labels = [subject["label"] for subject in subjects]
    strata = _strata(labels, people, num_folds, target, units[1])
    groups = people if len(set(people)) < len(people) else None
    splitter = StratifiedGroupKFold if groups else StratifiedKFold
    split = splitter(num_folds, shuffle=True, random_state=seed).split(strata, strata, groups)
    parts = [part for _, part in split]
    for number, part in enumerate(parts):
        if isinstance(target, Classes) and len(set(strata[part])) < len(target.names):
            raise ValueError(
                f"fold {number} of {num_folds} lacks a class, because one {units[0]}'s scans stay "
                "together; use fewer folds (--num_folds) or another seed."
            )
    return [[subjects[i]["subject"] for i in part] for part in parts]


def _strata(
    labels: Sequence[float], people: Sequence[str], num_folds: int, target: Target, units: str
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
        f"num_folds is {num_folds}, but {counts[fewest]} {units} have {what}: some fold would lack "
        "it. Use more subjects, or fewer folds (--num_folds)."
    )


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
