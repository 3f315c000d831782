"""What is known of a subject, and the files that hold it."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mrn_components.app.report.reports import EXPLANATION, PAGE
from mrn_components.biomarkers import write_biomarkers
from mrn_components.images.image import Image
from mrn_components.system.files import csv_cell, write_text

Record = dict[str, Any]  # prediction.json; its keys are in the bundle's docs

RECORD = "prediction.json"


def empty_record(subject: str) -> Record:
    """The record of a subject of which nothing is known yet."""
    return {
        "subject": subject,
        "status": "failed",
        "prob_pd": None,
        "class": None,
        "trained_on": 0,
        "mask_source": {},
        "missing_rois": [],
        "estimated": {},
        "flags": [],
        "error": None,
        "boxes": {},
        "biomarkers": {},
        "timings_s": {},
        "inputs": {},
        "research_use_only": True,
    }


def subject_folder(output_dir: Path, subject: str) -> Path:
    """The folder of a subject's files."""
    return output_dir / "subjects" / subject


def mask_file(output_dir: Path, subject: str, image: Image) -> Path:
    """Return where a subject's mask of an image is written."""
    return subject_folder(output_dir, subject) / f"{image.mask}.nii.gz"


def clear_subject(output_dir: Path, subject: str, images: Iterable[Image]) -> None:
    """Remove the files of an earlier prediction of a subject, with its masks of some images."""
    folder = subject_folder(output_dir, subject)
    files = [folder / name for name in (RECORD, EXPLANATION, PAGE)]
    files += [mask_file(output_dir, subject, image) for image in images]
    for path in (*files, *folder.glob(".unfinished*")):
        path.unlink(missing_ok=True)


def write_record(output_dir: Path, record: Record) -> None:
    """Write ``prediction.json`` of a subject."""
    path = subject_folder(output_dir, record["subject"]) / RECORD
    write_text(path, json.dumps(record, indent=2) + "\n")


def read_record(output_dir: Path, subject: str) -> Record | None:
    """Read ``prediction.json`` of a subject; None if there is none, or a damaged one."""
    path = subject_folder(output_dir, subject) / RECORD
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_bytes())
    except ValueError:
        return None
    return record if isinstance(record, dict) and record.keys() >= empty_record("").keys() else None


def write_tables(output_dir: Path, records: Sequence[Record]) -> Path:
    """Write ``predictions.csv`` and ``biomarkers.csv``, a row a subject of all those given.

    Returns:
        The path of ``predictions.csv``.
    """
    path = output_dir / "predictions.csv"
    num_folds = max((len(record.get("prob_pd_folds", ())) for record in records), default=0)
    optional = [key for key in ("fold_agreement", "fold_std", "tta_std") if _any(records, key)]
    columns = ["subject", "status", "prob_pd", "class"]
    columns += [f"prob_pd_fold{fold}" for fold in range(num_folds)]
    columns += [*optional, "trained_on", "mask_source", "missing_rois", "flags", "error"]
    _write_csv(path, columns, [_row(record) for record in records])
    measured = {record["subject"]: record["biomarkers"] for record in records}
    errors = {record["subject"]: record["error"] for record in records if record["error"]}
    write_biomarkers(output_dir, measured, errors)
    return path


def _any(records: Sequence[Record], key: str) -> bool:
    return any(key in record for record in records)


def _row(record: Record) -> dict[str, Any]:
    folds = {f"prob_pd_fold{i}": prob for i, prob in enumerate(record.get("prob_pd_folds", ()))}
    return {
        **record,
        **folds,
        "mask_source": _mask_source(record["mask_source"]),
        "missing_rois": ";".join(record["missing_rois"]),
        "flags": "; ".join(record["flags"]),
    }


def _mask_source(sources: Mapping[str, str]) -> str:
    if len(set(sources.values())) == 1:
        return next(iter(sources.values()))
    return ", ".join(f"{image} {source}" for image, source in sources.items())


def _write_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(row.get(column)) for column in columns])
    write_text(path, table.getvalue())


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6f}"
    text = "" if value is None else " ".join(str(value).split())  # one line a subject
    return csv_cell(text)
