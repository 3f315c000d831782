"""The results as BIDS derivatives, beside the tables and records that every run has."""

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import yaml

import mrn_components
from mrn_components.app.mask_makers import save_mask
from mrn_components.app.records import Record, is_given, mask_file
from mrn_components.biomarkers import BIOMARKERS, biomarkers_of
from mrn_components.data import Subject
from mrn_components.data.predictions import PREDICTIONS, calibrated, interval_columns
from mrn_components.data.target import Classes, Target
from mrn_components.images.finding import FaultyFileError
from mrn_components.images.image import Image
from mrn_components.images.volume import read_volume
from mrn_components.regions.drawn import read_file
from mrn_components.system.files import write_json, write_text
from mrn_components.system.hashes import file_hash

_BIDS_VERSION = "1.10.0"
_NAME = re.compile(r"sub-(?P<sub>[0-9A-Za-z]+)(_ses-(?P<ses>[0-9A-Za-z]+))?(_run-(?P<run>[0-9]+))?")
_TABLE = re.compile(r"(predictions|biomarkers)(_session[0-9A-Za-z]+)?(_run[0-9]+)?\.(tsv|json)")
_VISITS = {"ses": "session", "run": "run"}
_HASH = "SHA256"  # key of a mask's JSON file: of the mask as it was written
# What lies in the folder besides BIDS, in the words of .bidsignore.
_OTHERS = "subjects\n*.csv\n*.md\n*.html\n/manifest.json\n/target.json\n.lock\n.work\ndicom\n"
_README = """# Predictions of MRN

Research use only. Not a medical device; nothing here is a diagnosis.

`phenotype/predictions*.tsv` and `biomarkers*.tsv` have a row a participant, a file each session;
the JSON beside them describes every column. `sub-*/anat/*_dseg.nii.gz` are the masks of the nuclei
that the numbers rest on, on the grid of the image that they name, with the ids in the TSV beside
them. The tables, records and pages that `mrn predict` always writes lie here too; `.bidsignore`
names them.
"""


def bids_names(subjects: Sequence[Subject]) -> dict[str, dict[str, str]]:
    """Return the BIDS entities of each subject by its id: {"sub": "01", "ses": "1", "run": "1"}.

    Raises:
        ValueError: for ids that would have the same name, since BIDS knows letters and digits only.
    """
    names: dict[str, dict[str, str]] = {}
    seen: dict[str, str] = {}
    for subject in subjects:
        name = subject["subject"]
        names[name] = _entities(name)
        stem = _stem(names[name])
        if (first := seen.setdefault(stem.lower(), name)) != name:
            raise ValueError(
                f"--format bids: the ids {first!r} and {name!r} would both be {stem!r}, since BIDS "
                "allows letters and digits only; rename one."
            )
    return names


def write_derivatives(
    output_dir: Path,
    records: Sequence[Record],
    subjects: Sequence[Subject],
    *,
    images: Mapping[str, Image],
    target: Target,
) -> None:
    """Write predictions, biomarkers and masks as BIDS derivatives, of what ``output_dir`` has.

    Tables and masks of an earlier prediction, of subjects that are none any more, are removed.
    """
    names = bids_names(subjects)
    clear_others(output_dir, names, subjects)
    write_text(output_dir / ".bidsignore", _OTHERS)
    write_text(output_dir / "README", _README)
    write_json(output_dir / "dataset_description.json", _description())
    people = sorted({f"sub-{name['sub']}" for name in names.values()})
    write_text(output_dir / "participants.tsv", "\n".join(["participant_id", *people, ""]))
    about = {
        "participant_id": {"Description": "Participant: the id without signs that BIDS lacks."}
    }
    write_json(output_dir / "participants.json", about)
    for table in (PREDICTIONS, BIOMARKERS):
        for path, rows in _tables(output_dir / table, names):
            header = list(rows[0])
            cells = [header, *([row[key] or "n/a" for key in header] for row in rows)]
            write_text(path, "".join("\t".join(line) + "\n" for line in cells))
            tool = {"MeasurementToolMetadata": {"Description": "mrn predict. Research use only."}}
            about = describe_columns(header[1:], target, images)
            write_json(path.with_suffix(".json"), tool | about)
    by_name = {subject["subject"]: subject for subject in subjects}
    for record in records:
        for image in images.values():
            subject = by_name[record["subject"]]
            _write_mask(output_dir, record, subject, image, names[record["subject"]])


def clear_derivatives(output_dir: Path, subject: Subject, images: Iterable[Image]) -> None:
    """Remove the masks of an earlier prediction of a subject, unless they are its given ones."""
    for image in images:
        mask = _mask_path(output_dir, _entities(subject["subject"]), image)
        if not is_given(mask, subject):
            _remove_mask(mask)


def clear_others(
    output_dir: Path, names: Mapping[str, Mapping[str, str]], subjects: Sequence[Subject]
) -> None:
    """Remove all tables of an earlier prediction, and the masks of subjects that have left.

    A mask stays that somebody has changed since it was written, or that is given now.
    """
    stems = {_stem(name) for name in names.values()}
    for path in (output_dir / "phenotype").glob("*"):
        if _TABLE.fullmatch(path.name):
            path.unlink()
    for sessions in ("sub-*", "sub-*/ses-*"):
        for mask in sorted(output_dir.glob(f"{sessions}/anat/*_desc-*_dseg.nii.gz")):
            left = mask.name.partition("_desc-")[0] not in stems and _is_as_written(mask)
            if left and not any(is_given(mask, subject) for subject in subjects):
                _remove_mask(mask)
                for folder in mask.relative_to(output_dir).parents[:-1]:
                    with suppress(OSError):  # something else is in it
                        (output_dir / folder).rmdir()


def _remove_mask(mask: Path) -> None:
    """Remove a mask, with its table and its JSON file."""
    for suffix in (".nii.gz", ".tsv", ".json"):
        mask.with_name(mask.name.replace(".nii.gz", suffix)).unlink(missing_ok=True)


def _is_as_written(mask: Path) -> bool:
    """Whether a mask is one that was written here, to the bit."""
    try:
        about = json.loads(mask.with_name(mask.name.replace(".nii.gz", ".json")).read_bytes())
        return bool(about[_HASH] == file_hash(mask))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _entities(subject: str) -> dict[str, str]:
    """Return the BIDS entities of a subject's id."""
    found = _NAME.fullmatch(subject)
    label = re.sub("[^0-9A-Za-z]", "", subject)
    return found.groupdict("") if found else {"sub": label, "ses": "", "run": ""}


def _mask_path(output_dir: Path, name: Mapping[str, str], image: Image) -> Path:
    """Return where the mask of an image is written."""
    places = [f"{key}-{name[key]}" for key in ("sub", "ses") if name[key]]
    stem = f"{_stem(name)}_desc-{re.sub('[^0-9A-Za-z]', '', image.file)}_dseg"
    return output_dir.joinpath(*places, "anat", f"{stem}.nii.gz")


def _description() -> dict[str, Any]:
    return {
        "Name": "Predictions of MRN, research use only",
        "BIDSVersion": _BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [
            {
                "Name": "mrn-components",
                "Version": mrn_components.__version__,
                "Description": "mrn predict; manifest.json has weights, settings and versions",
            }
        ],
    }


def _stem(name: Mapping[str, str]) -> str:
    return "_".join(f"{key}-{value}" for key, value in name.items() if value)


def _tables(
    path: Path, names: Mapping[str, Mapping[str, str]]
) -> Iterator[tuple[Path, list[dict[str, str]]]]:
    """Yield path and rows of the tables that a csv becomes.

    A participant may stand once in each, so that every session has its own.
    """
    with path.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    tables: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        name = names[row["subject"]]
        own = {"participant_id": f"sub-{name['sub']}"}
        own |= {"session_id": f"ses-{name['ses']}"} if name["ses"] else {}
        own |= {"run": name["run"]} if name["run"] else {}
        # Without hyphens: as entities they would be out of their place there.
        visit = [f"{word}{name[key]}" for key, word in _VISITS.items() if name[key]]
        tables.setdefault("_".join([path.stem, *visit]), []).append(own | row)
    for stem, members in tables.items():
        yield path.parent / "phenotype" / f"{stem}.tsv", members


def describe_columns(
    header: Sequence[str], target: Target, images: Mapping[str, Image]
) -> dict[str, dict[str, Any]]:
    """Return what each column of a table means, for its JSON file."""
    known = _known_columns(target) | {
        column: {"Description": one.meaning, "Units": one.unit}
        for one in biomarkers_of(images)
        for column in one.columns
    }
    about = {}
    for column in header:
        whole, _, fold = column.rpartition("_fold")
        about[column] = dict(known[column if column in known else whole])
        if column not in known:
            about[column]["Description"] += f" Of the network of fold {fold}."
    return about


def _known_columns(target: Target) -> dict[str, dict[str, Any]]:
    """Return what is known of the columns of ``predictions.csv``."""
    classes = target.names if isinstance(target, Classes) else ()
    unit = getattr(target, "unit", "") or "1"
    text = Path(__file__).with_name("columns.yaml").read_text(encoding="utf-8")
    known = yaml.safe_load(text.replace("{title}", target.title).replace("{unit}", unit))
    for column in target.columns:
        noun = "probability of " if classes else ""
        what = f"Predicted {noun}{column.removeprefix('prob_')}. Research use only."
        known[column] = {"Description": what, "Units": unit}
        known[calibrated(column)] = {
            "Description": f"{what} Calibrated on subjects that the networks did not learn from.",
            "Units": unit,
        }
    for column, end in zip(interval_columns(target), ("Lower", "Upper"), strict=True):
        what = f"{end} end of a conformal interval of {target.title}. Research use only."
        known[column] = {"Description": what, "Units": unit}
    if classes:
        numbers = map(str, range(len(classes))) if target.is_binary else classes
        levels = dict(zip(numbers, classes, strict=True))
        known |= {key: known[key] | {"Levels": levels} for key in ("class", "label")}
    return known


def _write_mask(
    output_dir: Path, record: Record, subject: Subject, image: Image, name: Mapping[str, str]
) -> None:
    """Write the mask of an image that a subject was measured by, made or given, with its table."""
    source = record["mask_source"].get(image.name)
    made = mask_file(output_dir, record["subject"], image)
    path = made if made.is_file() else subject.get(image.mask_name)
    if source is None or path is None:
        return
    try:
        one = {image.name: image}
        given = source == "given"
        mask = read_file(image.mask_name, path, one)[0] if given else read_volume(path)
    except FaultyFileError:  # the record says so
        return
    target = _mask_path(output_dir, name, image)
    if is_given(target, subject):
        return
    stem = target.name.removesuffix(".nii.gz")
    save_mask(target, np.rint(mask.mask_values).astype(np.uint8), mask)
    write_text(target.with_name(f"{stem}.tsv"), "".join(_lookup(image)))
    about = f"Nuclei on the grid of the {image.title} image, {source}. Research use only."
    content = {"Description": about, "SpatialReference": "orig", _HASH: file_hash(target)}
    write_json(target.with_name(f"{stem}.json"), content)


def _lookup(image: Image) -> Iterator[str]:
    yield "index\tname\tabbreviation\n0\tbackground\tn/a\n"
    for number, (nucleus, side) in sorted(image.ids.items()):
        yield f"{number}\t{side} {nucleus}\t{nucleus}{side[0].upper()}\n"
