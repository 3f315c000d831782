"""What tables and datalists say of subjects: ids, diagnoses, persons, files."""

import csv
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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


def read_labels(table: str | Path) -> dict[str, int]:
    """Read the diagnosis of each subject: {subject: 0 healthy or 1 Parkinson's disease}.

    Args:
        table: csv without header whose rows are ``case_id,label[,person]``, or a JSON datalist
            of dicts with ``subject`` and ``label``.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a faulty table or datalist, with the line or entry.
    """
    path = Path(table)
    if path.suffix == ".json":
        return {entry["subject"]: int(entry["label"]) for entry in read_datalist(path, [], True)}
    rows = read_table(path)
    if not rows:
        raise ValueError(f"{path} has no line `case_id,label`.")
    return {subject: fields["label"] for subject, (_, fields) in rows.items()}


def read_table(table: Path) -> dict[str, tuple[int, Subject]]:
    """Read the rows ``case_id,label[,person]`` of a csv: {subject: (line, fields)}.

    Raises:
        FileNotFoundError: if there is no such file.
        LabelsError: for faulty lines, with what the others say.
    """
    if not table.is_file():
        raise FileNotFoundError(
            f"labels {str(table)!r} does not exist; name the csv with --labels."
        )
    rows: dict[str, tuple[int, Subject]] = {}
    lines: dict[str, int] = {}  # by lower-case id
    faults = []
    width = 0
    with table.open(encoding="utf-8-sig", errors="replace", newline="") as file:  # drops a BOM
        for line, row in enumerate(csv.reader(file), start=1):
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            width = width or len(cells)
            try:
                _check_row(cells, width, lines, line, f"{table} line {line}")
            except ValueError as fault:
                faults.append(str(fault))
                continue
            fields = dict(zip(("label", "person"), (int(cells[1]), *cells[2:]), strict=False))
            rows[cells[0]] = (line, fields)
    if faults:
        raise LabelsError(faults, {name: fields for name, (_, fields) in rows.items()})
    return rows


def _check_row(cells: list[str], width: int, lines: dict[str, int], line: int, where: str) -> None:
    if len(cells) != width or width not in (2, 3) or not all(cells):
        raise ValueError(
            f"{where}: expected case_id,label on every line, or case_id,label,person on "
            f"every line, got {','.join(cells)!r}."
        )
    check_id(cells[0], where)
    if cells[1] not in ("0", "1"):
        header = " The table has no header." if line == 1 else ""
        raise ValueError(
            f"{where}: label must be 0 (healthy) or 1 (Parkinson's disease), got "
            f"{cells[1]!r}.{header}"
        )
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


def check_entry(entry: Any, expected: Sequence[str], where: str) -> None:
    """Check an entry of a datalist.

    Args:
        entry: to check.
        expected: keys that it must have.
        where: file and number of the entry, for the message.

    Raises:
        ValueError: if a key lacks, or the subject's id or the label is none.
    """
    absent = [key for key in expected if not isinstance(entry, dict) or key not in entry]
    if absent:
        raise ValueError(f"{where} lacks {absent}; expected the keys {list(expected)}.")
    check_id(entry["subject"], where)
    if "label" in expected and entry["label"] not in (0, 1):
        raise ValueError(f"{where}: label must be 0 or 1, got {entry['label']!r}.")


def read_datalist(
    table: Path, files: Sequence[str], require_labels: bool, optional: Sequence[str] = ()
) -> list[Subject]:
    """Read a MONAI JSON datalist.

    Args:
        table: the datalist.
        files: keys of files that every entry must have.
        require_labels: whether every entry must have a label.
        optional: keys of files that an entry may have.

    Returns:
        Dicts with ``subject``, the files, and ``label`` and ``person`` as for ``load_subjects``.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a faulty datalist, with the entries.
    """
    entries = read_entries(table)
    expected = ["subject", *files, *(["label"] if require_labels else [])]
    subjects: list[Subject] = []
    entry_of: dict[str, int] = {}  # by lower-case id
    faults = []
    for number, entry in enumerate(entries, start=1):
        where = f"{table} entry {number}"
        try:
            check_entry(entry, expected, where)
            first = entry_of.setdefault(entry["subject"].lower(), number)
            if first != number:
                raise ValueError(
                    f"{where}: subjects {[entry['subject'].lower()]} stand there twice, already in "
                    f"entry {first}; ids must be distinct."
                )
        except ValueError as fault:
            faults.append(str(fault))
            continue
        subject = {key: entry[key] for key in (*expected, "person") if key in entry}
        named = [*files, *(key for key in optional if entry.get(key))]
        subjects.append(subject | {key: str(table.parent / entry[key]) for key in named})
    if faults:
        raise LabelsError(faults, {subject["subject"]: subject for subject in subjects})
    return subjects


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
