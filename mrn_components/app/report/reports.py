"""``mrn report``: the pages of a folder of predictions."""

import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from mrn_components.app.records import (
    EXPLANATION,
    PAGE,
    RECORD,
    THUMBNAILS,
    UNEXPLAINED,
    Record,
    empty_record,
    subject_folder,
)
from mrn_components.app.report.images import draw_images
from mrn_components.app.report.index import write_index
from mrn_components.app.report.pages import read_json
from mrn_components.app.report.subject import write_pages
from mrn_components.data.predictions import predictions_file, read_number
from mrn_components.data.tables import read_rows
from mrn_components.data.target import Target, read_target
from mrn_components.images.finding import FaultyFileError
from mrn_components.images.image import CHALLENGE_IMAGES, Image
from mrn_components.images.volume import Volume, read_volume
from mrn_components.regions.drawn import read_file
from mrn_components.regions.reference import take_out_references

_logger = logging.getLogger(__name__)


def write_reports(
    output: str | Path,
    input: str | Path,  # noqa: A002  `mrn report OUTPUT INPUT` reads as users write it
    *,
    scan_date: bool = False,
) -> Path:
    """Write a page a subject and OUTPUT/index.html of what `mrn predict INPUT OUTPUT` left.

    Everything is read from what ``mrn predict`` left: the subjects of ``predictions.csv``, each
    one's ``prediction.json``, with ``--report`` its ``explanation.json``, segmented masks, and
    ``manifest.json``. What cannot be made afterwards, or is no longer in ``input``, is missing
    on the pages, which say so.

    Args:
        output: folder of the predictions.
        input: folder or datalist that was predicted, for the images.
        scan_date: also show on pages the date of the scans, where JSON files of BIDS tell it.

    Returns:
        The path of ``index.html``.

    Raises:
        ValueError: for a record that is no JSON, or leads out of ``input``.
    """
    return complete_reports(Path(output), Path(input), again=True, scan_date=scan_date)


def complete_reports(
    output: Path, source: Path, *, again: bool = False, scan_date: bool = False
) -> Path:
    """Write the pages that are not there, or all ``again``, and return the path of the index.

    ``source`` is the folder or datalist that was predicted.
    """
    root = source if source.is_dir() else source.parent
    manifest = read_json(output / "manifest.json") or {}
    images = {name: Image(**facts) for name, facts in manifest.get("images", {}).items()}
    images = images or CHALLENGE_IMAGES  # without a manifest
    target = read_target(output)
    records, lacking = [], 0
    for where, row in read_rows(predictions_file(output), target.columns):
        folder = subject_folder(output, row["subject"])
        inside = folder.resolve().parent == (output / "subjects").resolve()
        record = read_json(folder / RECORD) if inside else None
        if record is None:
            records.append(_of_row(row, target, where))
        else:
            record = empty_record(row["subject"], target) | record
            if again or not all((folder / name).is_file() for name in (PAGE, THUMBNAILS)):
                drawn = draw_images(record, _read_volumes(record, folder, root, images), images)
                write_pages(folder, record, drawn, manifest, target, scan_date=scan_date)
            page = f"subjects/{quote(folder.name)}/{PAGE}"
            records.append({**record, "page": page, "thumbs": read_json(folder / THUMBNAILS)})
            lacking += needs_explanation(record, folder)
    path = output / "index.html"
    write_index(path, records, target)
    if lacking:
        _logger.warning(
            f"{lacking} of {len(records)} pages lack Shapley values and occlusion maps, which need "
            "the network: `mrn predict INPUT OUTPUT --resume True --report True`, with the bundle "
            "and the options of the prediction, adds them."
        )
    return path


def _read_volumes(
    record: Record, folder: Path, root: Path, images: Mapping[str, Image]
) -> dict[str, Volume | str]:
    """Read a subject's files; a text says why one cannot be read."""
    files, factors = {}, {}
    for key, file in record["inputs"].items():
        factors[key] = float(file.get("factor", 1.0))
        if file["sha256"] is not None:  # else it is faulty: not for a second reader
            # INPUT may be the folder of one subject, whose paths start with its name.
            inside = Path(file["path"])
            if inside.is_absolute() or ".." in inside.parts:
                raise ValueError(
                    f"the record of {record['subject']} names {file['path']!r} as its {key}, which "
                    "lies outside of INPUT; predict this subject again."
                )
            # What was converted lies in the output.
            output = folder.absolute().parent.parent
            places = [place / inside for place in (root, root.absolute().parent, output)]
            files[key] = next((place for place in places if place.is_file()), places[0])
    sources: dict[str, Volume | str] = {}
    made = {image.mask_name: folder / f"{image.mask}.nii.gz" for image in images.values()}
    made = {key: path for key, path in made.items() if path.is_file()}
    for key, path in (files | made).items():
        try:
            if key in made:
                sources[key] = read_volume(path)
            else:
                factor = factors.get(key, 1.0)
                sources[key] = read_file(key, path, images, factor=factor)[0]
        except FaultyFileError as error:
            sources[key] = str(error)
        except MemoryError:  # a page less is no reason to stop
            sources[key] = "the image needs more memory than there is."
    volumes = {key: volume for key, volume in sources.items() if isinstance(volume, Volume)}
    with suppress(FaultyFileError):  # a page of values as they stand is better than none
        sources |= take_out_references(volumes, images)[0]
    return sources


def needs_explanation(record: Record, folder: Path, *, occlusion: bool = False) -> bool:
    """Whether a subject, whose files ``folder`` has, was predicted without ``--report``.

    With ``occlusion`` also whether it was predicted without the maps of it.
    """
    if record["status"] != "ok" or any(flag.startswith(UNEXPLAINED) for flag in record["flags"]):
        return False
    explanation = read_json(folder / EXPLANATION)
    return explanation is None or (occlusion and not explanation["occlusion"])


def _of_row(row: Mapping[str, str], target: Target, where: str) -> Record:
    """A record of a subject that has only its row in ``predictions.csv``."""
    values = {
        column: read_number(row[column], column, target, where) if row[column] else None
        for column in target.columns
    }
    return empty_record(row["subject"], target) | {
        "status": row.get("status") or "ok",
        **values,
        "trained_on": int(row["trained_on"]) if row.get("trained_on") else None,
        "error": row.get("error") or None,
        "flags": [flag for flag in (row.get("flags") or "").split("; ") if flag],
    }
