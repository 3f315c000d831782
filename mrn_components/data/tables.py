"""What tables and datalists say of subjects: ids, diagnoses, persons, files."""

import csv
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mrn_components.data.target import HC_PD, Target

Subject = dict[str, Any]  # {"subject", "nm", "qsm", "mask_nm", "mask_qsm", "label"[, "person"]}

_MAX_LISTED = 20  # faulty lines in one message
_SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # files are named after subjects


class LabelsError(ValueError):
    """A table or datalist with faulty lines.

    Args:
        faults: a message for each faulty line.
        rows: what the other lines say, {subject: fields}.
    """

    def __init__(self, faults: Sequence[str], rows: Mapping[str, Subject]) -> None:
        more = [f"... and {len(faults) - _MAX_LISTED} more."] if len(faults) > _MAX_LISTED else []
        super().__init__("\n".join([*faults[:_MAX_LISTED], *more]))
        self.faults = list(faults)
        self.rows = dict(rows)


def files_of(subject: Subject, *, masks: bool = True) -> dict[str, Path]:
    """Return the files of a subject by their key: nm, qsm, mask_nm, ...

    Args:
        subject: what ``load_subjects`` returns of one.
        masks: False leaves them out.
    """
    return {
        key: Path(value)
        for key, value in subject.items()
        if key not in ("subject", "label", "person") and (masks or not key.startswith("mask_"))
    }


def find_labels(labels: str | Path, data: str | Path) -> Path:
    """The file of labels that a user named: as typed if it is there, else relative to the data.

    Args:
        labels: csv or JSON datalist.
        data: folder of the data set, or a file in it.

    Raises:
        FileNotFoundError: if it is at neither place.
    """
    folder = Path(data) if Path(data).is_dir() else Path(data).parent
    for place in (Path(labels), folder / labels):
        if place.is_file():
            return place
    raise FileNotFoundError(
        f"labels {str(labels)!r} are neither there nor at {str(folder / labels)!r}; name a csv of "
        "rows `SUBJECT,0|1`, a JSON datalist, or a table with the columns subject and label."
    )


def read_labels(table: str | Path, target: Target = HC_PD) -> dict[str, float]:
    """Read the label of each subject: {subject: number of its class, or its score}.

    Args:
        table: csv without header whose rows are ``case_id,label[,person]``, or a JSON datalist
            of dicts with ``subject`` and ``label``.
        target: what a label may be.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a faulty table or datalist, with the line or entry.
    """
    rows = read_table(Path(table), target)
    if not rows:
        raise ValueError(f"{table} has no line `case_id,label`.")
    return {subject: fields["label"] for subject, fields in rows.items()}


def read_table(table: Path, target: Target) -> dict[str, Subject]:
    """Read the rows ``case_id,label[,person]`` of a csv, or a JSON datalist: {subject: fields}.

    Args:
        table: the csv or datalist.
        target: what a label may be.

    Raises:
        FileNotFoundError: if there is no such file.
        LabelsError: for faulty lines, with what the others say.
    """
    if table.suffix == ".json":
        return read_datalist(table, target)
    if not table.is_file():
        raise FileNotFoundError(
            f"labels {str(table)!r} does not exist; name the csv with --labels."
        )
    rows: dict[str, Subject] = {}
    lines: dict[str, int] = {}  # by lower-case id
    faults = []
    width = 0
    with table.open(encoding="utf-8-sig", errors="replace", newline="") as file:  # drops a BOM
        for line, row in enumerate(csv.reader(file), start=1):
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            width = width or len(cells)
            where = f"{table} line {line}"
            try:
                _check_row(cells, width, lines, line, where)
                label = parse_label(cells[1], target, where)
            except ValueError as fault:
                header = " The table has no header." if line == 1 else ""
                faults.append(f"{fault}{header}")
                continue
            rows[cells[0]] = dict(zip(("label", "person"), (label, *cells[2:]), strict=False))
    if faults:
        raise LabelsError(faults, rows)
    return rows


def _check_row(cells: list[str], width: int, lines: dict[str, int], line: int, where: str) -> None:
    if len(cells) != width or width not in (2, 3) or not all(cells):
        raise ValueError(
            f"{where}: expected case_id,label on every line, or case_id,label,person on "
            f"every line, got {','.join(cells)!r}."
        )
    check_id(cells[0], where)
    first = lines.setdefault(cells[0].lower(), line)
    if first != line:
        raise ValueError(
            f"{where}: subject {cells[0]!r} stands already on line {first}; ids must "
            "differ by more than case."
        )


def read_entries(table: Path) -> list[Any]:
    """The entries of a JSON datalist, as they stand there.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds no list of subjects.
    """
    if not table.is_file():
        raise FileNotFoundError(f"datalist {str(table)!r} does not exist.")
    try:
        content = json.loads(table.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{table} is no valid JSON: {error}.") from error
    entries = content.get("training") if isinstance(content, dict) else content
    if not isinstance(entries, list) or not entries:
        raise ValueError(f'{table}: expected a list of subjects, or {{"training": [...]}}.')
    return entries


def read_datalist(table: Path, target: Target) -> dict[str, Subject]:
    """Read the labels of a JSON datalist: {subject: fields}, as ``read_table`` does.

    Args:
        table: the datalist.
        target: what a label may be.

    Raises:
        FileNotFoundError: if there is no such file.
        LabelsError: for faulty entries, with what the others say.
    """
    rows: dict[str, Subject] = {}
    faults = []
    for number, entry in enumerate(read_entries(table), start=1):
        where = f"{table} entry {number}"
        try:
            if not isinstance(entry, dict) or not {"subject", "label"} <= entry.keys():
                raise ValueError(f"{where}: expected a dict with the keys subject and label.")
            check_id(entry["subject"], where)
            if entry["subject"].lower() in (name.lower() for name in rows):
                raise ValueError(f"{where}: subject {entry['subject']!r} stands there twice.")
            fields = {"label": parse_label(entry["label"], target, where)}
        except ValueError as fault:
            faults.append(str(fault))
            continue
        person = entry.get("person")
        rows[entry["subject"]] = fields if person is None else fields | {"person": str(person)}
    if faults:
        raise LabelsError(faults, rows)
    return rows


def parse_label(value: Any, target: Target, where: str) -> int | float:
    """Read a label.

    Args:
        value: cell of a table, or value of a datalist.
        target: what it may be.
        where: where it stands, for the message.

    Raises:
        ValueError: if it is none.
    """
    try:
        return target.parse(value)
    except ValueError as fault:
        raise ValueError(f"{where}: {fault}") from None


def check_id(name: Any, where: str) -> None:
    """Check that files can be named after a subject.

    Args:
        name: id of the subject.
        where: where it stands, for the message.

    Raises:
        ValueError: if they cannot.
    """
    if not isinstance(name, str) or not _SAFE_ID.fullmatch(name):
        raise ValueError(
            f"{where}: subject id must be 1 to 64 letters, digits, '.', '_' or '-' and start with "
            f"a letter or digit, since files are named after it; got {name!r}."
        )
