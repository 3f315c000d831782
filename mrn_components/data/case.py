"""A subject as a layout shows it, before anybody asks what it needs."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mrn_components.data.tables import read_entries
from mrn_components.images.finding import Finding, Severity, finding
from mrn_components.images.image import FACTOR, Image

SUFFIXES = (".nii.gz", ".nii")
# Of images that are no NIfTI: the reader says how they are converted.
_FOREIGN = (".mgz", ".mgh", ".nrrd", ".nhdr", ".mha", ".mhd", ".dcm")


@dataclass(kw_only=True)
class Case:
    """A subject's files and what was found wrong while they were looked for."""

    subject: str  # its id
    source: Path  # its folder, or the datalist
    where: str  # folder or entry, for messages
    files: dict[str, Path] = field(default_factory=dict)  # that were found: nm, qsm, mask_nm, ...
    places: dict[str, Path] = field(default_factory=dict)  # where the file of a key is looked for
    fields: dict[str, Any] = field(default_factory=dict)  # label and person, if the layout tells
    # From a file's unit to its image's, where the layout tells: 1.0 too.
    factors: dict[str, float] = field(default_factory=dict)
    advice: dict[str, str] = field(default_factory=dict)  # what to do where the file of a key lacks
    covariates: dict[str, float | str] = field(default_factory=dict)  # a datalist's other entries
    findings: list[Finding] = field(default_factory=list)

    def take(self, key: str, candidates: Sequence[Path], place: Path) -> None:
        """Take the one file of a key that was looked for at ``place``; several are a fault."""
        self.places[key] = place
        self.files.pop(key, None)
        if len(candidates) == 1:
            self.files[key] = candidates[0]
        elif candidates:
            names = sorted(os.path.relpath(path, place.parent) for path in candidates)
            self.add("several-files", place, f"{len(candidates)} files ({', '.join(names)})")
            del self.places[key]  # it does not lack

    def take_unit(self, image: Image, unit: str) -> None:
        """Note what the voxels of an image's file are multiplied by, since they have a unit."""
        try:
            self.factors[image.name] = image.factor_from(unit)
        except ValueError as units:
            found = f"the unit {unit!r}"
            self.add("file-unit", self.files[image.name], found, units=str(units))

    def add(
        self, kind: str, file: Path, found: str, severity: Severity = "error", **words: str
    ) -> None:
        """Note a fault of this subject; ``words`` stand in its texts."""
        self.findings.append(finding(kind, file, found, self.subject, severity=severity, **words))


def file_stems(images: Mapping[str, Image]) -> dict[str, str]:
    """Return {key: stem of the file}: nm and NM, mask_nm and NM_mask, ..., images first."""
    masks = {image.mask_name: image.mask for image in images.values() if image.mask}
    return {image.name: image.file for image in images.values()} | masks


def folder_case(folder: Path, images: Mapping[str, Image]) -> Case:
    """Look for the files of a subject in its own folder; a linked folder has the link's name."""
    name = folder.resolve().name if folder.name in ("", "..") else folder.name
    case = Case(subject=name, source=folder, where=f"folder {folder}")
    for key, stem in file_stems(images).items():
        case.take(key, existing(folder, [stem]), folder / f"{stem}.nii.gz")
    return case


def existing(folder: Path, stems: Sequence[str]) -> list[Path]:
    """List the volumes of some stems; a link that leads nowhere is one, so that it is told.

    Files of other formats count where there is no NIfTI file.
    """
    for suffixes in (SUFFIXES, _FOREIGN):
        paths = [folder / f"{stem}{suffix}" for stem in stems for suffix in suffixes]
        if found := [path for path in paths if os.path.lexists(path)]:
            return found
    return []


def datalist_cases(table: Path, images: Mapping[str, Image]) -> list[Case]:
    """List the subjects of a datalist, whatever entries lack; a ValueError refuses other files."""
    if table.suffix != ".json":
        raise ValueError(
            f"{str(table)!r} is a file and no .json datalist; name one whose entries have the keys "
            f"subject, {', '.join(images)}, or a folder."
        )
    entries = enumerate(read_entries(table), start=1)
    return [_entry_case(entry, number, table, images) for number, entry in entries]


def _entry_case(entry: Any, number: int, table: Path, images: Mapping[str, Image]) -> Case:
    name = entry.get("subject") if isinstance(entry, dict) else None
    where = f"{table} entry {number}"
    case = Case(subject=str(name or f"entry {number}"), source=table, where=where)
    if not isinstance(name, str):
        case.add("datalist-entry", table, f"entry {number} has no subject")
        return case
    others = {key: value for key, value in entry.items() if key != "subject"}
    for key in file_stems(images):
        path = others.pop(key, None)
        case.take(key, [table.parent / path] if path and isinstance(path, str) else [], table)
    for name in images:
        if (key := FACTOR + name) not in others:
            continue
        factor = others.pop(key)
        number = isinstance(factor, int | float) and not isinstance(factor, bool)
        if number and 0 < factor < math.inf:
            case.factors[name] = float(factor)
        else:
            expected = "a number above 0, such as 1000 for a file in ppm"
            case.add("datalist-entry", table, f"{key} {factor!r}", expected=expected)
    if (label := others.pop("label", None)) is not None:
        case.fields["label"] = label
    if (person := others.pop("person", None)) is not None:
        case.fields["person"] = str(person)
    case.covariates = {k: v for k, v in others.items() if isinstance(v, int | float | str)}
    return case
