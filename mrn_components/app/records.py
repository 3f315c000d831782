"""What is known of a subject, and the files that hold it."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mrn_components.biomarkers import write_biomarkers
from mrn_components.data import Subject
from mrn_components.data.predictions import PREDICTIONS, write_predictions
from mrn_components.data.tables import files_of
from mrn_components.data.target import HC_PD, Score, Target
from mrn_components.images.image import Image
from mrn_components.system.files import UNFINISHED, remove_unfinished, write_json

Record = dict[str, Any]  # prediction.json; its keys are in the bundle's docs

RECORD = "prediction.json"
EXPLANATION = "explanation.json"
PAGE = "report.html"
THUMBNAILS = "thumbnails.json"  # of the index
UNEXPLAINED = "no explanation"  # how the flag begins of a subject that cannot be explained


def empty_record(subject: str, target: Target = HC_PD) -> Record:
    """The record of a subject of which nothing is known yet."""
    return {
        "subject": subject,
        "status": "failed",
        **unpredicted(target),
        "trained_on": None,  # not looked for yet
        "mask_source": {},
        "reference_shift": {},
        "missing_rois": [],
        "estimated": {},
        "flags": [],
        "error": None,
        "boxes": {},
        "alignment": {},
        "biomarkers": {},
        "quality": {},  # of the images; empty where it could not be measured
        "timings_s": {},
        "inputs": {},
        "research_use_only": True,
    }


def unpredicted(target: Target) -> Record:
    """The keys of a prediction, of a subject that has none."""
    classes = {} if isinstance(target, Score) else {"class": None}
    return dict.fromkeys(target.columns) | classes


def flags_of(record: Mapping[str, Any]) -> list[str]:
    """What a person should look at, as the terminal and the pages count it; errors are apart."""
    trained_on = ["trained on this subject"] if record["trained_on"] else []
    return [*trained_on, *record["flags"]]


def subject_folder(output_dir: Path, subject: str) -> Path:
    """The folder of a subject's files."""
    return output_dir / "subjects" / subject


def mask_file(output_dir: Path, subject: str, image: Image) -> Path:
    """Return where a subject's mask of an image is written."""
    return subject_folder(output_dir, subject) / f"{image.mask}.nii.gz"


def clear_subject(output_dir: Path, subject: Subject, images: Iterable[Image]) -> None:
    """Remove the files of an earlier prediction of a subject, with its masks of some images.

    Masks that it is given now stay: people correct them where they lie.
    """
    folder = subject_folder(output_dir, subject["subject"])
    files = [folder / name for name in (RECORD, EXPLANATION, PAGE, THUMBNAILS)]
    masks = [mask_file(output_dir, subject["subject"], image) for image in images]
    files += [mask for mask in masks if not is_given(mask, subject)]
    for path in (*files, *folder.glob(f"{UNFINISHED}*")):
        path.unlink(missing_ok=True)


def is_given(mask: Path, subject: Subject) -> bool:
    """Whether a mask, where it would be written, is one of a subject's files."""
    return mask.resolve() in {path.resolve() for path in files_of(subject).values()}


def sweep(output_dir: Path) -> None:
    """Remove what killed processes left of predictions; for a folder that nobody writes to."""
    for path in output_dir.glob(f"{UNFINISHED}*"):
        path.unlink(missing_ok=True)
    remove_unfinished(output_dir / "subjects")


def write_record(output_dir: Path, record: Record) -> None:
    """Write ``prediction.json`` of a subject."""
    write_json(subject_folder(output_dir, record["subject"]) / RECORD, record)


def read_record(output_dir: Path, subject: str, target: Target = HC_PD) -> Record | None:
    """Read ``prediction.json`` of a subject; None if there is none, or a damaged one."""
    path = subject_folder(output_dir, subject) / RECORD
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_bytes())
    except ValueError:
        return None
    return record if _is_whole(record, subject, target) else None


def _is_whole(record: Any, subject: str, target: Target) -> bool:
    """Whether a record has all keys, and what they should hold."""
    empty = empty_record(subject, target)
    if not isinstance(record, dict) or not record.keys() >= {*empty, "run"}:
        return False
    holders = [key for key, value in empty.items() if isinstance(value, dict | list)]
    files = record["inputs"].values() if isinstance(record["inputs"], dict) else ()
    return (
        record["subject"] == subject
        and all(isinstance(record[key], type(empty[key])) for key in holders)
        and all(isinstance(file, dict) and {"path", "sha256"} <= file.keys() for file in files)
    )


def write_tables(
    output_dir: Path, records: Sequence[Record], target: Target, images: Mapping[str, Image]
) -> Path:
    """Write ``predictions.csv``, whose path is returned, and ``biomarkers.csv``."""
    path = output_dir / PREDICTIONS
    write_predictions(path, records, target)
    measured = {record["subject"]: record["biomarkers"] for record in records}
    errors = {record["subject"]: record["error"] for record in records if record["error"]}
    write_biomarkers(output_dir, measured, errors, images)
    return path
