"""Subjects of a BIDS data set: raw images and derivatives, joined by subject, session and run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from mrn_components.data.case import SUFFIXES, Case
from mrn_components.data.tables import read_covariates
from mrn_components.images.image import Image
from mrn_components.system.plain_data import parse_mapping

_MASK = "dseg"  # suffix of label maps
_NO_IMAGES = (f"*_{_MASK}.*", "*_mask.*")
_MAX_NAMED = 10  # participants without a folder
# Entities that say what was made of an image, and not which image it is.
_MADE = ("desc", "seg", "label", "atlas", "space", "res", "den")


@dataclass(kw_only=True)
class BIDSCase(Case):
    """A subject of a BIDS data set."""

    session: tuple[str, ...]  # its folders, ("sub-01", "ses-1")
    run: str | None  # of its images, where there are several


def is_bids(root: Path) -> bool:
    """Whether a folder is a BIDS data set."""
    return any(True for _ in _anat_folders(root))


def bids_cases(
    root: Path, images: Mapping[str, Image], globs: Mapping[str, Sequence[str]]
) -> tuple[list[Case], str]:
    """Look for the sessions of a BIDS data set that have any of some images.

    The first of an image's ``globs`` that matches file names, in upper or lower case, decides.

    Returns:
        The cases, ``sub-01[_ses-1][_run-1]``, and which files were taken, for the user.
    """
    sessions: dict[tuple[str, ...], list[Path]] = {}
    for folder in _anat_folders(root):
        names = folder.relative_to(root).parts
        session = tuple(name for name in names if name.startswith(("sub-", "ses-")))
        sessions.setdefault(session, []).append(folder)
    participants = _participants(root)
    cases: list[Case] = []
    without = 0
    for session, folders in sorted(sessions.items()):
        files = {n: _candidates(root, folders, i, globs[n]) for n, i in images.items()}
        runs = _runs(files) if any(files.values()) else []
        without += not runs
        for run in runs:
            case = _case(root.joinpath(*session), session, run)
            for name, paths in files.items():
                chosen = [p for p in paths if run is None or _entities(p).get("run") == run]
                case.take(name, chosen, case.source / "anat" / Path(globs[name][0]).name)
            take_masks(case, images)
            _take_units(case, images, root)
            case.covariates = read_covariates(participants.get(session[0], {}))
            cases.append(case)
    layout = [
        f"{image.title} by {' or '.join(globs[name])}: "
        f"{sum(name in case.files for case in cases)} of {len(cases)}"
        for name, image in images.items()
    ]
    told = {key: factor for case in cases for key, factor in case.factors.items() if factor != 1.0}
    layout += [f"{images[key].title} times {factor:g}" for key, factor in told.items()]
    layout += [f"{without} anat folders have none and are left out"] if without else []
    if absent := sorted(participants.keys() - {session[0] for session in sessions}):
        some = ", ".join(absent[:_MAX_NAMED]) + (", ..." if len(absent) > _MAX_NAMED else "")
        layout.append(f"{len(absent)} participants have no anat folder and are left out ({some})")
    return cases, f"BIDS, {'; '.join(layout)}"


def _participants(root: Path) -> dict[str, dict[str, str]]:
    """Return the participants that a table or folders of a data set name, with their columns."""
    folders: dict[str, dict[str, str]]
    folders = {path.name: {} for path in root.glob("sub-*") if path.is_dir()}
    try:
        text = (root / "participants.tsv").read_text("utf-8-sig", "replace")
    except OSError:
        return folders
    header, *rows = (line.split("\t") for line in text.splitlines() or [""])
    if "participant_id" not in header:
        return folders
    for row in rows:
        told = dict(zip(header, row, strict=False))
        if name := told.pop("participant_id", "").strip().removeprefix("sub-"):
            folders[f"sub-{name}"] = told
    return folders


def take_masks(case: BIDSCase, images: Mapping[str, Image], root: Path | None = None) -> None:
    """Give a case its label maps ``*_dseg``.

    A map belongs to the image that it names (``desc-NM``, ``seg-QSM``), or else, where none does,
    to the one with the same entities. Maps lie in the data set ``root``, or else in the folder of
    each image.
    """
    masked = {i.name: i for i in images.values() if i.mask and i.name in case.files}
    owned: dict[str, list[Path]] = {name: [] for name in masked}
    named: dict[str, list[Path]] = {name: [] for name in masked}  # that say whose they are
    folders = {case.files[name].parent for name in masked}
    if root is not None:
        folders = set(_anat_folders(root, "/".join(case.session)))
    for path in sorted(path for folder in folders for path in folder.glob(f"*_{_MASK}.nii*")):
        near = [i for i in masked.values() if root or case.files[i.name].parent == path.parent]
        told = _told(path, near)
        owners = told or [i.name for i in near if _origin(case.files[i.name]) == _origin(path)]
        if case.run not in (None, _entities(path).get("run", case.run)):
            continue
        if len(owners) > 1:
            case.add("whose-mask", path, f"a label map that could be of {' or '.join(owners)}")
        elif owners:
            (named if told else owned)[owners[0]].append(path)
    for name, image in masked.items():
        place = case.files[name].parent if root is None else root.joinpath(*case.session, "anat")
        case.take(image.mask_name, named[name] or owned[name], place / f"*_{_MASK}.nii.gz")


def _take_units(case: Case, images: Mapping[str, Image], root: Path) -> None:
    """Note what the voxels of images are multiplied by, where their files have another unit.

    A file's unit is ``Units`` of its JSON file, or else the image's ``file_unit``, or else what
    BIDS defines for its suffix.
    """
    for name, image in images.items():
        if (path := case.files.get(name)) is None or not image.facts.units:
            continue
        unit = read_sidecar(path, root).get("Units")
        if unit is None:
            unit = image.file_unit or image.facts.bids_units.get(_suffix(path).lower())
        if unit is not None:
            case.take_unit(image, str(unit))


def read_sidecar(path: Path, root: Path) -> dict[str, Any]:
    """Read what JSON files say of an image: the nearest one that suits it has the last word."""
    content: dict[str, Any] = {}
    inside = path.parent.relative_to(root)
    suffix, words = _suffix(path), _words(path)
    for folder in (*reversed(inside.parents), inside):
        for file in sorted((root / folder).glob("*.json")):
            if _suffix(file) == suffix and _words(file) <= words:
                content |= _read_json(file)
    return content


def _read_json(file: Path) -> dict[str, Any]:
    try:
        return parse_mapping(file.read_bytes())
    except (OSError, ValueError):
        return {"Units": f"? ({file.name} is no JSON object)"}


def _suffix(path: Path) -> str:
    return path.name.split(".")[0].rpartition("_")[2]


def _words(path: Path) -> set[str]:
    """Return the entities of a name, and words of names that are not of BIDS, but no suffix."""
    return {*path.name.split(".")[0].split("_")[:-1]}


def _anat_folders(root: Path, *sessions: str) -> Iterator[Path]:
    """Yield the anat folders of some sessions, raw and derived; of all without any."""
    for data_set in ("", "derivatives/*/"):
        for session in sessions or ("sub-*", "sub-*/ses-*"):
            yield from sorted(root.glob(f"{data_set}{session}/anat"))


def _candidates(
    root: Path, folders: Sequence[Path], image: Image, globs: Sequence[str]
) -> list[Path]:
    """List the files that could be an image; those that something was made of come last."""
    excluded = (*_NO_IMAGES, *image.facts.not_bids)
    paths = [
        path
        for folder in folders
        for path in sorted(folder.glob("*.nii*"))
        if path.name.endswith(SUFFIXES) and not _matches(path.name, excluded)
    ]
    for glob in globs:
        # A glob with a slash tells one derivative from another.
        names = [str(path.relative_to(root)) if "/" in glob else path.name for path in paths]
        if found := [p for p, name in zip(paths, names, strict=True) if _matches(name, [glob])]:
            return [path for path in found if not _entities(path).keys() & _MADE] or found
    return []


def _runs(files: Mapping[str, Sequence[Path]]) -> list[str | None]:
    """List the runs that are subjects of their own: where every image has the same, once each."""
    several = [
        [_entities(path).get("run", "") for path in paths] for paths in files.values() if paths
    ]
    runs = sorted(set(several[0]))
    if len(runs) > 1 and all(runs and sorted(names) == runs for names in several):
        return [*runs]
    return [None]


def _case(folder: Path, session: tuple[str, ...], run: str | None) -> BIDSCase:
    name = "_".join([*session, *([] if run is None else [f"run-{run}"])])
    case = BIDSCase(subject=name, source=folder, where=f"folder {folder}", session=session, run=run)
    if name != session[0]:
        case.fields["person"] = session[0]  # several scans of one person
    return case


def _told(mask: Path, images: Sequence[Image]) -> list[str]:
    """Name the images that a label map says it is of."""
    told = {value.lower() for key, value in _entities(mask).items() if key in _MADE}
    return [image.name for image in images if told & {image.name.lower(), image.file.lower()}]


def _entities(path: Path) -> dict[str, str]:
    """Read sub-01_ses-1_acq-NM_T1w.nii.gz as {"sub": "01", "ses": "1", "acq": "NM"}."""
    words = path.name.split(".")[0].split("_")
    return dict(word.split("-", 1) for word in words if "-" in word)


def _origin(path: Path) -> dict[str, str]:
    return {key: value for key, value in _entities(path).items() if key not in _MADE}


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name.lower(), pattern.lower()) for pattern in patterns)
