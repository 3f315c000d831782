"""The subjects of a data set for its check: whatever can be listed, and what cannot be."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mrn_components.checks import Finding
from mrn_components.data.subjects import IMAGES, MASKS, only_csv, subject_folders
from mrn_components.data.tables import (
    LabelsError,
    Subject,
    check_entry,
    check_id,
    find_labels,
    read_entries,
    read_table,
)

_KEYS = ("subject", "label", "person", *IMAGES, *MASKS)


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What a data set holds.

    Args:
        subjects: as of ``load_subjects``; the label and the masks only where they are.
        findings: faults of the tables and of the subjects' names.
        covariates: {subject: {"age": 63, "site": "A"}}, what a datalist says beyond the subjects.
    """

    subjects: list[Subject] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    covariates: dict[str, dict[str, float | str]] = field(default_factory=dict)


def survey(data: str | Path, labels: str | Path | None = None) -> Survey:
    """List the subjects of a challenge folder, one subject's folder, or a JSON datalist.

    Args:
        data: the folder or datalist.
        labels: csv or JSON datalist, as typed or relative to ``data``; None takes the only csv in
            ``data``, and no labels if there is none.

    Raises:
        FileNotFoundError: if there is no such data set or table of labels, or no subject in it.
        ValueError: for a datalist that is none.
    """
    root = Path(data)
    if not root.exists():
        raise FileNotFoundError(
            f"{str(root)!r} does not exist; name a folder of subjects, one subject's folder or a "
            "JSON datalist."
        )
    table = root if root.is_file() else None if labels is None else find_labels(labels, root)
    if table is not None and table.suffix == ".json":
        return _of_datalist(table)
    if root.is_file():
        raise ValueError(f"{str(root)!r} is no folder and no .json datalist.")
    if any((root / name).exists() for name in IMAGES.values()):
        masks = {key: name for key, name in MASKS.items() if (root / name).exists()}
        name = root.resolve().name
        return Survey(subjects=[{"subject": name} | _files(root, IMAGES | masks)])
    return _of_folders(root, table)


def _of_folders(root: Path, table: Path | None) -> Survey:
    folders = subject_folders(root)
    if not folders:
        raise FileNotFoundError(
            f"{str(root)!r} has no folder with {' or '.join(IMAGES.values())}; expected "
            f"{root}/SUBJECT/{{{','.join(IMAGES.values())}}}."
        )
    # Masks are optional; where one subject has them, all should.
    masks = {key: name for key, name in MASKS.items() if any((f / name).exists() for f in folders)}
    found = Survey()
    for folder in folders:
        try:
            check_id(folder.name, f"folder {folder}")
        except ValueError as fault:
            found.findings.append(_table_finding("subject-id", folder, str(fault)))
        found.subjects.append({"subject": folder.name} | _files(folder, IMAGES | masks))
    _add_labels(found, root, table)
    return found


def _files(folder: Path, names: Mapping[str, str]) -> dict[str, str]:
    return {key: str(folder / name) for key, name in names.items()}


def _add_labels(found: Survey, root: Path, table: Path | None) -> None:
    """Give the subjects their labels, and note the lines and folders that do not fit."""
    if table is None and not any(root.glob("*.csv")):
        return
    try:
        path = table or only_csv(root)
        rows = {name: fields for name, (_, fields) in read_table(path).items()}
    except FileNotFoundError as fault:
        found.findings.append(_table_finding("labels-file", root, str(fault)))
        return
    except LabelsError as fault:
        rows = fault.rows
        found.findings.extend(_table_finding("labels-line", path, text) for text in fault.faults)
    names = {subject["subject"] for subject in found.subjects}
    for name in sorted(rows.keys() - names):
        text = f"subject {name!r} has no folder with images in {str(root)!r}"
        found.findings.append(_table_finding("no-folder", path, text))
    for subject in found.subjects:
        if subject["subject"] in rows:
            subject.update(rows[subject["subject"]])
        else:
            text = f"no valid line for the folder {subject['subject']!r}"
            found.findings.append(_table_finding("no-label", path, text))


def _of_datalist(table: Path) -> Survey:
    found = Survey()
    for number, entry in enumerate(read_entries(table), start=1):
        where = f"{table} entry {number}"
        optional = ["label"] if isinstance(entry, dict) and "label" in entry else []
        try:
            check_entry(entry, ["subject", *IMAGES, *optional], where)
        except ValueError as fault:
            found.findings.append(_table_finding("labels-line", table, str(fault)))
            continue
        subject = {key: entry[key] for key in _KEYS if key in entry}
        for key in (*IMAGES, *MASKS):
            if key in subject:
                subject[key] = str(table.parent / subject[key])
        found.subjects.append(subject)
        found.covariates[entry["subject"]] = {
            key: value
            for key, value in entry.items()
            if key not in _KEYS and isinstance(value, int | float | str)
        }
    if not found.subjects and not found.findings:
        raise ValueError(f"{table} names no subject.")
    return found


def _table_finding(id: str, table: Path, text: str) -> Finding:  # noqa: A002
    expected, fix = _EXPECTED[id]
    return Finding(id=id, severity="error", file=str(table), found=text, expected=expected, fix=fix)


# What was expected, and the fix, by the kind of fault.
_EXPECTED: dict[str, tuple[str, str]] = {
    "subject-id": ("an id that files can be named after", "Rename the folder"),
    "labels-file": ("one csv of labels", "Name it with --labels FILE"),
    "labels-line": (
        "one line case_id,0|1[,person] a subject in a csv, or a dict with subject, nm and qsm in "
        "a datalist",
        "Correct the line",
    ),
    "no-folder": ("a folder for every line", "Add the folder, or remove the line"),
    "no-label": (
        "a line for every folder",
        "Add the line ID,0 or ID,1, or move the folder away",
    ),
}
