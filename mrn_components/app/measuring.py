"""The subjects of a data set, read and measured one after another; those that fail are named."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

from mrn_components.data import Subject
from mrn_components.data.layouts import Found
from mrn_components.data.tables import files_of
from mrn_components.images.finding import FaultyFileError, Finding
from mrn_components.images.image import Image, factor_of
from mrn_components.images.masks import check_mask
from mrn_components.images.volume import Volume
from mrn_components.regions.drawn import read_file
from mrn_components.regions.plausible import plausible_findings
from mrn_components.regions.reference import take_out_references
from mrn_components.system.errors import FailedSubjectsError, line_of

T = TypeVar("T")


class Read(NamedTuple):
    """What was read of a subject."""

    subject: Subject  # with volumes, as the files have them, for paths
    volumes: dict[str, Volume]  # images and masks to measure, without their references' shifts


def measure_each(
    found: Found, images: Mapping[str, Image], measure: Callable[[Read], T]
) -> tuple[dict[str, T], dict[str, str]]:
    """Measure every subject; return what came of each, and why the others failed."""
    measured: dict[str, T] = {}
    errors: dict[str, str] = {}
    for subject in found.subjects:
        name = subject["subject"]
        try:
            if name in found.problems:
                raise ValueError(found.problems[name])
            measured[name] = measure(_read(subject, images))
        except (ValueError, OSError) as error:
            errors[name] = str(error)
    return measured, errors


def raise_failed(errors: Mapping[str, str], done: int, where: Any) -> None:
    """Raise a FailedSubjectsError that names the subjects that failed, if there are any."""
    if errors:
        lines = "\n".join(line_of(subject, error) for subject, error in errors.items())
        raise FailedSubjectsError(
            f"{len(errors)} of {len(errors) + done} subjects failed; the others are in {where}.\n"
            f"{lines}"
        )


def _read(subject: Subject, images: Mapping[str, Image]) -> Read:
    """Read a subject's volumes, refuse values that no brain has, and print what is doubtful."""
    files: dict[str, Volume] = {}
    findings: list[Finding] = []
    for key, path in files_of(subject).items():
        factor = factor_of(subject, key)
        files[key], noted = read_file(key, path, images, factor=factor)
        findings += noted
    for name, image in images.items():
        if image.mask_name in files:
            check_mask(files[image.mask_name], image, files.get(name))
    volumes, _ = take_out_references(files, images)
    for found in (*findings, *plausible_findings(volumes, images)):
        if found.severity == "error":
            raise FaultyFileError(found)
        print(replace(found, subject=subject["subject"]))
    return Read({**subject, **files}, volumes)
