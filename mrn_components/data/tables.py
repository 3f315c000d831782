"""What tables and datalists say of subjects: ids, diagnoses, persons, files."""

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from mrn_components.data.target import HC_PD, Target
from mrn_components.images.image import FACTOR

# {"subject", "nm", "qsm", "mask_nm", "mask_qsm", "label"[, "person"][, "group"][, "factor_qsm"]}
Subject = dict[str, Any]

_MAX_LISTED = 20  # faulty lines in one message
_COLUMNS = ("subject", "label", "person")
GROUP = "group"  # key of a subject's value in the column that ``group_by`` names
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?")  # 01 is a name
_NO_HEADER = " The table has no header, or one with the columns subject and label."
_SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # files are named after subjects


def person_of(subject: Subject) -> str:
    """Return whose scans a subject is: the subject itself where no person is given."""
    return str(subject.get("person", subject["subject"]))


def people_of(subjects: Sequence[Subject]) -> list[str]:
    """Name the person of each subject."""
    return [person_of(subject) for subject in subjects]


def files_of(subject: Subject, *, masks: bool = True) -> dict[str, Path]:
    """Return the files of a subject by their key, with or without masks: nm, qsm, mask_nm, ..."""
    others = (FACTOR,) if masks else (FACTOR, "mask_")
    return {
        key: Path(value)
        for key, value in subject.items()
        if key not in (*_COLUMNS, GROUP) and not key.startswith(others)
    }


def find_labels(labels: str | Path, data: Path) -> Path:
    """Return the file of labels that a user named, as typed, else in or beside ``data``."""
    folder = data if data.is_dir() else data.parent
    for place in (Path(labels), folder / labels):
        if place.is_file():
            return place
    raise FileNotFoundError(
        f"labels {str(labels)!r} are neither there nor at {str(folder / labels)!r}; name a csv of "
        "rows `SUBJECT,0|1`, a JSON datalist, or a table with the columns subject and label."
    )


def read_labels(table: Path, target: Target = HC_PD) -> dict[str, float]:
    """Read the label of each subject: {subject: number of its class, or its score}.

    A table is a csv without header whose rows are ``case_id,label[,person]``; a JSON datalist of
    dicts with ``subject`` and ``label``; or a csv with a header that has both. A ValueError names
    the lines or entries that are faulty.
    """
    header = [] if table.suffix == ".json" else next(csv_lines(table), (1, []))[1]
    if "subject" in header:
        found = read_rows(table, ["label"])
        return {row["subject"]: parse_label(row["label"], target, where) for where, row in found}
    rows, faults = read_table(table, target)
    if len(faults) > _MAX_LISTED:
        faults[_MAX_LISTED:] = [f"... and {len(faults) - _MAX_LISTED} more."]
    if faults or not rows:
        raise ValueError("\n".join(faults) or f"{table} has no line `case_id,label`.")
    return {subject: fields["label"] for subject, fields in rows.items()}


def read_table(table: Path, target: Target) -> tuple[dict[str, Subject], list[str]]:
    """Read what a csv, or a JSON datalist, says of subjects.

    A csv has rows ``case_id,label[,person]``, or a header with the columns ``subject`` and
    ``label`` and perhaps ``person`` and others, which are covariates.

    Returns:
        What the sound lines say, ``{subject: {"label", "person", "covariates"}}`` as far as they
        do, and a message for each other.
    """
    rows: dict[str, Subject] = {}
    faults: list[str] = []
    places: dict[str, str] = {}
    for place, entry in _entries(table):
        where = f"{table} {place}"
        try:
            if not isinstance(entry, dict) or not {"subject", "label"} <= entry.keys():
                raise ValueError(
                    f"{where}: expected case_id,label on every line, or case_id,label,person on "
                    f"every line (in JSON, dicts with subject and label), got {entry!r}."
                )
            name, person = entry["subject"], entry.get("person")
            check_id(name, where)
            refuse_second(name, place, places, where)
            row: Subject = {"label": parse_label(entry["label"], target, where)}
            row |= {} if person in (None, "") else {"person": str(person)}
            others = read_covariates({k: v for k, v in entry.items() if k not in _COLUMNS})
            rows[name] = row | ({"covariates": others} if others else {})
        except ValueError as fault:
            faults.append(f"{fault}{_NO_HEADER if place == 'line 1' else ''}")
    return rows, faults


def read_covariates(entry: Mapping[str, Any]) -> dict[str, float | str]:
    """Return what a line of a table says of its subject besides: numbers, and words.

    Empty cells, the ``n/a`` of BIDS, and files are left out.
    """
    found: dict[str, float | str] = {}
    for key, value in entry.items():
        text = str(value).strip()
        if not isinstance(value, str | int | float) or text.lower() in ("", "n/a"):
            continue
        if not text.endswith((".nii", ".nii.gz")):
            found[key] = float(text) if _NUMBER.fullmatch(text) else text
    return found


def _entries(table: Path) -> Iterator[tuple[str, Any]]:
    """Yield the entries of a datalist or the lines of a csv: dicts, or a text where it is none."""
    if table.suffix == ".json":
        for number, entry in enumerate(read_entries(table), start=1):
            yield f"entry {number}", entry
        return
    lines = csv_lines(table)
    first = next(lines, None)
    if first is None:
        return
    has_header = {"subject", "label"} <= {*first[1]}
    names = first[1] if has_header else _COLUMNS[: len(first[1])]
    needed = [names.index(name) for name in (_COLUMNS[:2] if has_header else names)]
    for number, cells in lines if has_header else chain([first], lines):
        sound = len(cells) == len(first[1]) == len(names) > 1
        sound = sound and all(cells[place] for place in needed)
        line = dict(zip(names, cells, strict=False)) if sound else ",".join(cells)
        yield f"line {number}", line


def read_rows(table: Path, needed: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (file and line, {column: cell}) of each row of a csv with a header.

    A ValueError names the line that is faulty, or what lacks of ``subject`` and the ``needed``.
    """
    places: dict[str, str] = {}
    lines = csv_lines(table)
    _, header = next(lines, (1, []))
    lacking = [name for name in ("subject", *needed) if name not in header]
    if lacking:
        raise ValueError(
            f"{table} line 1: expected a header with the columns subject and {', '.join(needed)}, "
            f"separated by commas; {lacking} are missing in {','.join(header)[:200]!r}."
        )
    for number, cells in lines:
        where = f"{table} line {number}"
        if len(cells) != len(header):
            raise ValueError(
                f"{where}: expected {len(header)} cells, as in the header, got {len(cells)}: "
                f"{','.join(cells)[:200]!r}."
            )
        row = dict(zip(header, cells, strict=True))
        if not row["subject"]:
            raise ValueError(f"{where}: the subject is empty.")
        refuse_second(row["subject"], f"line {number}", places, where)
        yield where, row
    if not places:
        raise ValueError(f"{table} has no subjects below its header.")


def read_entries(table: Path) -> list[Any]:
    """Return the entries of a JSON datalist as they stand; a ValueError says that it has none."""
    try:
        content = json.loads(table.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{table} is no valid JSON: {error}.") from error
    entries = content.get("training") if isinstance(content, dict) else content
    if not isinstance(entries, list) or not entries:
        raise ValueError(f'{table}: expected a list of subjects, or {{"training": [...]}}.')
    return entries


def csv_lines(table: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield number and cells of each line of a csv that is not empty, without spaces around."""
    with table.open(encoding="utf-8-sig", errors="replace", newline="") as file:  # drops a BOM
        reader = csv.reader(file)
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                yield reader.line_num, cells


def parse_label(value: Any, target: Target, where: str) -> float:
    """Read a label that stands at a place ``where``, which the ValueError of a faulty one names."""
    try:
        return target.parse(value)
    except ValueError as fault:
        raise ValueError(f"{where}: {fault}") from None


def check_id(name: Any, where: str) -> None:
    """Refuse an id at a place ``where`` that files cannot be named after, by a ValueError."""
    if not isinstance(name, str) or id_fault(name):
        raise ValueError(
            f"{where}: subject id must be 1 to 64 letters, digits, '.', '_' or '-' and start with "
            f"a letter or digit, since files are named after it; got {name!r}."
        )


def id_fault(name: str) -> str | None:
    """Say why files cannot be named after an id; None if they can."""
    if _SAFE_ID.fullmatch(name):
        return None
    if odd := sorted(set(re.findall("[^A-Za-z0-9._-]", name))):
        return f"an id with {', '.join(map(repr, odd[:5]))}"
    return f"an id of {len(name)} characters" if len(name) > 64 else "an id that starts with a sign"


def refuse_second(name: str, place: str, places: dict[str, str], where: str) -> None:
    """Note the place of an id, such as "line 3", and refuse a second one by a ValueError."""
    if (first := places.setdefault(name.lower(), place)) != place:
        raise ValueError(
            f"{where}: subject {name!r} stands already on {first}; ids must differ by more than "
            "case."
        )
