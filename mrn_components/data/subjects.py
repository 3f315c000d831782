"""Subjects of a data set on disk (section 4.1.1)."""

from collections.abc import Sequence
from pathlib import Path

from mrn_components.checks import check_headers as find_header_faults
from mrn_components.data.tables import (
    LabelsError,
    Subject,
    check_id,
    find_labels,
    read_datalist,
    read_table,
)

IMAGES = {"nm": "NM.nii.gz", "qsm": "QSM.nii.gz"}  # key of a subject: file of the challenge layout
MASKS = {"mask_nm": "NM_mask.nii.gz", "mask_qsm": "QSM_mask.nii.gz"}


def load_subjects(
    dataset_dir: str | Path,
    labels: str | Path | None = None,
    require_labels: bool = True,
    require_masks: bool = True,
    check_headers: bool = True,
) -> list[Subject]:
    """List the subjects of a data set, sorted by subject.

    Two layouts are read. Challenge folders: ``ROOT/ID/{NM,QSM,NM_mask,QSM_mask}.nii.gz`` and a
    csv without header whose rows are ``case_id,label[,person]``. A MONAI JSON datalist: a list, or
    ``{"training": [...]}``, of dicts with the keys of the returned ones, paths relative to it.

    Args:
        dataset_dir: folder of the challenge layout, or a JSON datalist.
        labels: csv or JSON datalist, as typed or relative to ``dataset_dir``; None takes the only
            csv in ``dataset_dir``.
        require_labels: read the diagnosis (0 healthy, 1 Parkinson's disease); False leaves it out.
        require_masks: expect the masks of the nuclei; False leaves them out.
        check_headers: refuse files whose header says that they are no usable volume, which reads
            the first kilobyte of each (``mrn check`` looks at all the rest).

    Returns:
        Dicts with the keys ``subject, nm, qsm, mask_nm, mask_qsm, label`` and, where the table
        has it, ``person`` (several scans of one person share it).

    Raises:
        FileNotFoundError: if the data set or any file of any subject is missing; lists them all.
        ValueError: for a faulty table or datalist, with the lines or entries, or for faulty
            headers; lists them all.
    """
    subjects = list_subjects(dataset_dir, labels, require_labels, require_masks)
    missing = [f"  {name}: {path}" for name, path in missing_files(subjects)]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} files of the data set {str(dataset_dir)!r} are missing; add them or "
            "take their subjects out:\n" + "\n".join(missing)
        )
    faults = find_header_faults(subjects) if check_headers else []
    errors = [f"  {fault}" for fault in faults if fault.severity == "error"]
    if errors:
        raise ValueError(
            f"{len(errors)} files of the data set {str(dataset_dir)!r} cannot be used; "
            f"`mrn check {dataset_dir}` also looks at their voxels:\n" + "\n".join(errors)
        )
    return subjects


def list_subjects(
    dataset_dir: str | Path,
    labels: str | Path | None = None,
    require_labels: bool = True,
    require_masks: bool = True,
) -> list[Subject]:
    """List the subjects as ``load_subjects`` does, without a look at their files.

    Args:
        dataset_dir: as of ``load_subjects``.
        labels: as of ``load_subjects``.
        require_labels: as of ``load_subjects``.
        require_masks: as of ``load_subjects``.

    Raises:
        FileNotFoundError: if the data set is missing.
        ValueError: for a faulty table or datalist, with the lines or entries.
    """
    root = Path(dataset_dir)
    if not root.exists():
        raise FileNotFoundError(
            f"dataset_dir {str(root)!r} does not exist. Make a synthetic cohort with `mrn phantom "
            f"{root} --subjects 40`, or name your data with `--dataset_dir DIR`."
        )
    table = root if root.is_file() else find_labels(labels, root) if labels is not None else None
    if table is not None and table.suffix == ".json":
        files = [*IMAGES, *(MASKS if require_masks else ())]
        subjects = read_datalist(table, files, require_labels)
    elif root.is_file():
        raise ValueError(f"dataset_dir must be a folder or a .json datalist, got {str(root)!r}.")
    else:
        subjects = _read_folders(root, require_masks)
        if require_labels:
            _add_labels(subjects, table or only_csv(root), root)
    return sorted(subjects, key=lambda subject: subject["subject"])


def missing_files(subjects: Sequence[Subject]) -> list[tuple[str, str]]:
    """The files of subjects that are not there: (subject, path)."""
    return [
        (subject["subject"], subject[key])
        for subject in subjects
        for key in (*IMAGES, *MASKS)
        if key in subject and not Path(subject[key]).is_file()
    ]


def _read_folders(root: Path, require_masks: bool) -> list[Subject]:
    files = IMAGES | (MASKS if require_masks else {})
    folders = subject_folders(root)
    if not folders:
        raise FileNotFoundError(
            f"dataset_dir {str(root)!r} has no folder with {' or '.join(IMAGES.values())}; "
            f"expected {root}/SUBJECT/{{{','.join(files.values())}}}. "
            f"`mrn phantom {root} --subjects 40` makes such a cohort."
        )
    for folder in folders:
        check_id(folder.name, f"folder {folder}")
    return [
        {"subject": folder.name, **{key: str(folder / name) for key, name in files.items()}}
        for folder in folders
    ]


def subject_folders(root: Path) -> list[Path]:
    """The folders in ``root`` that hold NM or QSM, sorted."""
    return sorted(
        folder
        for folder in root.iterdir()
        if folder.is_dir() and any((folder / name).exists() for name in IMAGES.values())
    )


def only_csv(root: Path) -> Path:
    """The csv of a challenge folder.

    Raises:
        FileNotFoundError: if there is none, or several.
    """
    tables = sorted(root.glob("*.csv"))
    if len(tables) != 1:
        found = ", ".join(table.name for table in tables) or "none"
        raise FileNotFoundError(
            f"expected one csv of rows `case_id,label` in {str(root)!r}, found {found}; name it "
            "with labels (--labels FILE)."
        )
    return tables[0]


def _add_labels(subjects: list[Subject], table: Path, root: Path) -> None:
    """Give each subject its row's fields; table and folders must name the same subjects."""
    rows = read_table(table)
    folders = {subject["subject"] for subject in subjects}
    faults = [
        f"{table} line {line}: subject {name!r} has no folder with images in {str(root)!r}; add "
        "the folder or remove the line."
        for name, (line, _) in rows.items()
        if name not in folders
    ]
    unlabelled = sorted(folders - rows.keys())
    if unlabelled:
        faults.append(
            f"{table} has no line for the folders {unlabelled}; add `ID,0` or `ID,1` for each, or "
            "move the folders away."
        )
    if faults:
        raise LabelsError(faults, {name: fields for name, (_, fields) in rows.items()})
    for subject in subjects:
        subject.update(rows[subject["subject"]][1])
