"""``biomarkers.csv`` and the page that explains it."""

import csv
from collections.abc import Mapping
from pathlib import Path

from mrn_components.biomarkers.catalogue import COLUMNS, describe_biomarkers
from mrn_components.system.files import write_csv, write_text

TABLE = "biomarkers.csv"


def write_biomarkers(
    folder: str | Path,
    measured: Mapping[str, Mapping[str, float | None]],
    errors: Mapping[str, str] | None = None,
) -> Path:
    """Write ``biomarkers.csv``, a row a subject in their order, and ``biomarkers.md``.

    Args:
        folder: of both files; is made.
        measured: {subject: what ``biomarkers`` returns}.
        errors: {subject: why it could not be measured}; its other cells are empty.

    Returns:
        The path of ``biomarkers.csv``.
    """
    errors = errors or {}
    rows = [
        {**measured.get(subject, {}), "subject": subject, "error": errors.get(subject)}
        for subject in sorted({*measured, *errors})
    ]
    path = Path(folder) / TABLE
    write_csv(path, rows, ["subject", *COLUMNS, "error"], floats=".6g")
    write_text(path.with_suffix(".md"), describe_biomarkers())
    return path


def read_biomarkers(table: str | Path) -> dict[str, dict[str, float | None]]:
    """Read what ``write_biomarkers`` wrote: {subject: {column: value}}, without failed subjects.

    Args:
        table: ``biomarkers.csv``, or the folder that holds it.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it lacks columns.
    """
    path = Path(table) / TABLE if Path(table).is_dir() else Path(table)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is not there; `mrn biomarkers INPUT OUTPUT` writes OUTPUT/{TABLE}."
        )
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        lacking = [name for name in ("subject", *COLUMNS) if name not in (reader.fieldnames or ())]
        if lacking:
            raise ValueError(
                f"{path} lacks the columns {lacking[:5]}; write it anew with `mrn biomarkers`."
            )
        return {
            row["subject"]: {name: float(row[name]) if row[name] else None for name in COLUMNS}
            for row in reader
            if not row.get("error")
        }
