"""The subjects to predict: one folder, a folder of folders, a JSON datalist or a BIDS data set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from mrn_components.checks.cohort import id_findings
from mrn_components.data.subjects import IMAGES, MASKS
from mrn_components.data.tables import check_id, read_datalist

# Names of NM images in BIDS, which has no suffix for them; the first that matches decides.
NM_FILTERS = ("*neuromelanin*", "*[_-]NM*", "*_MTw*")

_FILES = IMAGES | MASKS
_QSM_FILTER = "*_Chimap.nii*"
_NOT_NM = ("*_Chimap.*", "*mask*", "*dseg*")


@dataclass(frozen=True)
class Case:
    """A subject to predict.

    Args:
        subject: its id.
        files: the paths of ``nm, qsm, mask_nm, mask_qsm``, as far as they were found or named.
        person: name of the person, where a datalist tells it.
        problem: why it cannot be predicted, where the search shows that.
    """

    subject: str
    files: Mapping[str, Path]
    person: str | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Inputs:
    """What was found.

    Args:
        root: folder that paths are told relative to.
        layout: which of the four forms it is, for the user.
        cases: the subjects, sorted by id.
    """

    root: Path
    layout: str
    cases: tuple[Case, ...]


def find_inputs(input_dir: str | Path, nm_filter: str | None = None) -> Inputs:
    """Find the subjects to predict.

    Four forms are read: one subject's folder ``{NM,QSM[,NM_mask,QSM_mask]}.nii[.gz]``; a folder of
    such folders, as in the challenge; a MONAI JSON datalist with the keys ``subject, nm, qsm`` and
    optionally ``mask_nm, mask_qsm``; a BIDS data set with ``sub-*/[ses-*/]anat/*_Chimap.nii[.gz]``,
    whose derivatives are not read.

    Args:
        input_dir: the folder or datalist.
        nm_filter: glob of the NM images' file names in BIDS, upper and lower case alike; None
            tries ``NM_FILTERS``.

    Raises:
        FileNotFoundError: if there is nothing of the kind.
        ValueError: for a faulty datalist, an id that files cannot be named after, or folders whose
            names differ in case only.
    """
    root = Path(input_dir)
    if not root.exists():
        raise FileNotFoundError(
            f"{str(root)!r} does not exist; name a subject's folder, a folder of subjects, a JSON "
            "datalist or a BIDS directory."
        )
    if root.is_file():
        return _datalist(root)
    if any(root.glob("sub-*/anat/*")) or any(root.glob("sub-*/ses-*/anat/*")):
        return _bids(root, nm_filter)
    if nm_filter is not None:
        raise ValueError(
            f"nm_filter {nm_filter!r} chooses NM images of a BIDS data set, and {str(root)!r} is "
            "none; leave it out."
        )
    if _folder_files(root).keys() & IMAGES.keys():
        return Inputs(root, "one subject", (_folder_case(root),))
    return _folders(root)


def _folders(root: Path) -> Inputs:
    cases = [
        _folder_case(folder)
        for folder in sorted(root.iterdir())
        if folder.is_dir() and _folder_files(folder).keys() & IMAGES.keys()
    ]
    if not cases:
        raise FileNotFoundError(
            f"{str(root)!r} has no subjects: expected {root}/SUBJECT/{{NM,QSM}}.nii.gz, or "
            "sub-*/[ses-*/]anat/*_Chimap.nii.gz of BIDS."
        )
    for finding in id_findings([case.subject for case in cases]):
        raise ValueError(str(finding))
    return Inputs(root, "a folder of subjects", tuple(cases))


def check_output(inputs: Inputs, input_dir: str | Path, output_dir: str | Path) -> None:
    """Refuse to write results between the images: their tables would be taken for labels.

    Args:
        inputs: the subjects.
        input_dir: where they were looked for.
        output_dir: folder of the results.

    Raises:
        ValueError: if it is the input, or a folder that holds an image.
    """
    output = Path(output_dir).resolve()
    folders = {file.parent for case in inputs.cases for file in case.files.values()}
    if output in {folder.resolve() for folder in (Path(input_dir), *folders)}:
        raise ValueError(
            f"{output_dir} holds the images, and results are never written beside them; name "
            "another folder as OUTPUT."
        )


def _folder_case(folder: Path) -> Case:
    name = folder.resolve().name
    check_id(name, f"folder {folder}")
    return Case(name, _folder_files(folder))


def _folder_files(folder: Path) -> dict[str, Path]:
    files = {}
    for key, name in _FILES.items():
        for path in (folder / name, folder / name.removesuffix(".gz")):
            if path.exists():
                files[key] = path
                break
    return files


def _datalist(path: Path) -> Inputs:
    if path.suffix != ".json":
        raise ValueError(
            f"{str(path)!r} is a file; name the subject's folder, or a JSON datalist with the keys "
            "subject, nm, qsm."
        )
    cases = []
    for entry in read_datalist(path, [], require_labels=False, optional=list(_FILES)):
        files = {key: Path(entry[key]) for key in _FILES if key in entry}
        if not files.keys() & IMAGES.keys():
            raise ValueError(f"{path}: subject {entry['subject']!r} names neither nm nor qsm.")
        person = entry.get("person")
        cases.append(Case(entry["subject"], files, None if person is None else str(person)))
    cases.sort(key=lambda case: case.subject)
    return Inputs(path.parent, "a JSON datalist", tuple(cases))


def _bids(root: Path, nm_filter: str | None) -> Inputs:
    filters = NM_FILTERS if nm_filter is None else (nm_filter,)
    folders = sorted({*root.glob("sub-*/anat"), *root.glob("sub-*/ses-*/anat")})
    cases, without = [], []
    for folder in folders:
        maps = sorted(folder.glob(_QSM_FILTER))
        if maps:
            cases.append(_bids_case(folder.relative_to(root), folder, maps, filters))
        else:
            without.append(folder)
    if not cases:
        raise FileNotFoundError(
            f"the BIDS data set {str(root)!r} has no {_QSM_FILTER} in any of its {len(folders)} "
            "anat folders; reconstruct the QSM (e.g. by QSMxT) and put it there under this name."
        )
    found = sum("nm" in case.files for case in cases)
    layout = f"BIDS, QSM by {_QSM_FILTER}, NM by {' or '.join(filters)}: {found} of {len(cases)}"
    if without:
        layout += f"; {len(without)} anat folders have no QSM and are left out"
    return Inputs(root, layout, tuple(cases))


def _bids_case(entities: Path, folder: Path, maps: Sequence[Path], filters: Sequence[str]) -> Case:
    name = "_".join(entities.parts[:-1])  # sub-01_ses-01
    check_id(name, f"folder {folder}")
    nm = _first_match([p for p in folder.glob("*.nii*") if not _matches(p, _NOT_NM)], filters)
    choices = {"QSM": maps, "NM": nm}
    for image, paths in choices.items():
        if len(paths) > 1:
            narrow = " narrow --nm_filter, or" if image == "NM" else ""
            names = ", ".join(path.name for path in paths)
            problem = f"{len(paths)} {image} images ({names});{narrow} list one in a JSON datalist."
            return Case(name, {}, problem=problem)
    return Case(name, {"qsm": maps[0]} | ({"nm": nm[0]} if nm else {}))


def _first_match(paths: Sequence[Path], filters: Sequence[str]) -> list[Path]:
    for pattern in filters:
        if found := sorted(path for path in paths if _matches(path, [pattern])):
            return found
    return []


def _matches(path: Path, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(path.name.lower(), pattern.lower()) for pattern in patterns)
