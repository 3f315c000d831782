"""``biomarkers.csv`` and the page that explains it."""

import csv
from collections.abc import Mapping
from pathlib import Path

from mrn_components.biomarkers.catalogue import columns_of, describe_biomarkers
from mrn_components.images.image import CHALLENGE_IMAGES, Image
from mrn_components.system.files import write_csv, write_text

TABLE = "biomarkers.csv"


def write_biomarkers(
    folder: str | Path,
    measured: Mapping[str, Mapping[str, float | None]],
    errors: Mapping[str, str] | None = None,
    images: Mapping[str, Image] = CHALLENGE_IMAGES,
) -> Path:
    """Write ``biomarkers.csv``, a row a subject in their order, and ``biomarkers.md``.

    Args:
        folder: of both files; is made.
        measured: {subject: what ``measure_nuclei`` returns}.
        errors: {subject: why it could not be measured}; its other cells are empty.
        images: what a subject has; the columns follow from them.

    Returns:
        The path of ``biomarkers.csv``.
    """
    errors = errors or {}
    rows = [
        {**measured.get(subject, {}), "subject": subject, "error": errors.get(subject)}
        for subject in sorted({*measured, *errors})
    ]
    path = Path(folder) / TABLE
    write_csv(path, rows, ["subject", *columns_of(images), "error"], floats=".6g")
    write_text(path.with_suffix(".md"), describe_biomarkers(images))
    return path


def read_biomarkers(table: str | Path) -> dict[str, dict[str, float | None]]:
    """Read what ``write_biomarkers`` wrote: {subject: {column: value}}, without failed subjects.

    Args:
        table: ``biomarkers.csv``, or the folder that holds it.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it is no such table.
    """
    path = Path(table) / TABLE if Path(table).is_dir() else Path(table)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is not there; `mrn biomarkers INPUT OUTPUT` writes OUTPUT/{TABLE}."
        )
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        columns = [name for name in reader.fieldnames or () if name not in ("subject", "error")]
        lacking = [name for name in ("subject", "error") if name not in (reader.fieldnames or ())]
        if lacking:
            raise ValueError(
                f"{path} lacks the columns {lacking}; write it anew with `mrn biomarkers`."
            )
        return {
            row["subject"]: {name: float(row[name]) if row[name] else None for name in columns}
            for row in reader
            if not row.get("error")
        }
