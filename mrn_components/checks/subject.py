"""All checks of one subject: each file is read once, and no fault hides the next."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from mrn_components.checks.geometry import header_findings, pair_findings
from mrn_components.checks.images import unit_findings, voxel_findings
from mrn_components.checks.masks import (
    REGIONS,
    Nuclei,
    nigra_findings,
    nuclei_findings,
    sign_findings,
)
from mrn_components.images.finding import FaultyFileError, Finding, error
from mrn_components.images.image import CHALLENGE_IMAGES
from mrn_components.images.labels import LABELS
from mrn_components.images.masks import grid_findings, value_findings
from mrn_components.images.volume import Header, Volume, read_header, read_volume

FILES = (*LABELS, *(f"mask_{image}" for image in LABELS))  # keys of a subject's files


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What the checks of a subject found, and what those of a cohort need of it.

    Args:
        subject: its id.
        findings: the faults.
        hashes: {image: {"file": hash of the bytes, "voxels": hash of the voxels}}.
        digests: {key: SHA-256 of the file}, of every file that could be read.
        fields: {"nm spacing x": 0.667, ...}, what the images' headers say.
    """

    subject: str
    findings: list[Finding]
    hashes: dict[str, dict[str, str]] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    fields: dict[str, float | str] = field(default_factory=dict)


def check_subject(subject: Mapping[str, Any], *, deep: bool) -> list[Finding]:
    """Check the files of a subject; masks and images that it does not name are passed over.

    Always: headers, size, checksum, non-finite and constant images, units, and whether a mask is on
    its image's grid. What training needs and prediction can do without (an orientation, a whole
    ROI) is an error for a subject with a label and a warning for one without.

    Args:
        subject: dict with ``subject`` and the paths ``nm, qsm, mask_nm, mask_qsm``.
        deep: check also label values, nuclei and what the images show in them.
    """
    return examine_subject(subject, deep=deep).findings


def check_headers(subjects: Iterable[Mapping[str, Any]]) -> list[Finding]:
    """Check the headers alone, which reads the first kilobyte of each file.

    Args:
        subjects: dicts as for ``check_subject``.
    """
    findings = []
    for subject in subjects:
        for key in (key for key in FILES if key in subject):
            path = Path(subject[key])
            found = _header_findings(path, strict="label" in subject)
            findings += [replace(finding, subject=subject["subject"]) for finding in found]
    return findings


def examine_subject(subject: Mapping[str, Any], *, deep: bool) -> Examination:
    """Check a subject as ``check_subject`` does, and collect what the cohort's checks need.

    Args:
        subject: as for ``check_subject``.
        deep: as for ``check_subject``.
    """
    strict = "label" in subject
    findings: list[Finding] = []
    volumes: dict[str, Volume] = {}
    digests: dict[str, str] = {}
    for key in FILES:
        if key in subject:
            path = Path(subject[key])
            try:
                volume = read_volume(path)
            except FaultyFileError as fault:
                findings.append(fault.finding)
                continue
            digests[key] = volume.sha256
            findings += header_findings(path, volume.header, strict=strict)
            volumes[key] = volume
    findings += _volume_findings(volumes, strict=strict, deep=deep)
    images = {key: volume for key, volume in volumes.items() if key in LABELS}
    return Examination(
        subject=subject["subject"],
        findings=[replace(finding, subject=subject["subject"]) for finding in findings],
        hashes={
            key: {"file": volume.sha256, "voxels": volume.voxel_hash}
            for key, volume in images.items()
            if deep
        },
        digests=digests,
        fields={
            f"{key} {name}": value
            for key, volume in images.items()
            for name, value in _fields(volume.header).items()
        },
    )


def _header_findings(path: Path, *, strict: bool) -> list[Finding]:
    try:
        return list(header_findings(path, read_header(path), strict=strict))
    except FaultyFileError as fault:
        return [fault.finding]


def _volume_findings(
    volumes: Mapping[str, Volume], *, strict: bool, deep: bool
) -> Iterator[Finding]:
    """What the voxels of a subject's readable files say, alone and together."""
    nuclei: dict[str, Nuclei] = {}
    for image in LABELS:
        mask = volumes.get(f"mask_{image}")
        if mask is not None:
            faults = list(value_findings(mask, CHALLENGE_IMAGES[image]))
            yield from faults if deep else ()
            if not faults:
                nuclei[image] = Nuclei.of(mask, image)
    for image in LABELS:
        if deep and image in nuclei:
            yield from nuclei_findings(nuclei[image], strict=strict)
        if image in volumes:
            yield from _image_findings(volumes, image, nuclei.get(image), deep=deep)
    if "nm" in volumes and "qsm" in volumes:
        nm, qsm = volumes["nm"], volumes["qsm"]
        yield from pair_findings(nm, qsm)
        if nm.sha256 == qsm.sha256:
            yield error(
                "same-image",
                qsm.path,
                found=f"the same bytes as {nm.path.name}",
                expected="another image",
                fix="Put the right file in its place",
            )
    if deep and len(nuclei) == len(LABELS):
        yield from nigra_findings(nuclei["nm"], nuclei["qsm"])


def _image_findings(
    volumes: Mapping[str, Volume], image: str, nuclei: Nuclei | None, *, deep: bool
) -> Iterator[Finding]:
    volume, regions = volumes[image], None
    if f"mask_{image}" in volumes:
        faults = list(grid_findings(volume, volumes[f"mask_{image}"]))
        yield from faults
        nuclei = None if faults else nuclei
    if nuclei is not None:
        boxes = {name: nuclei.box(roi) for name, roi in REGIONS.items() if roi.image.name == image}
        regions = {name: box for name, box in boxes.items() if box is not None}
    yield from voxel_findings(volume, regions)
    yield from unit_findings(volume, image, deep=deep)
    if deep and image == "qsm" and nuclei is not None:
        yield from sign_findings(volume, nuclei)


def _fields(header: Header) -> dict[str, float | str]:
    """What a header says about the acquisition and the conversion, and nothing of the brain."""
    affine = header.get_best_affine()
    fields: dict[str, float | str] = {
        "axes": "".join(axis or "?" for axis in nibabel.aff2axcodes(affine)),
        "type": str(header.get_data_dtype()),
        "codes": f"{int(header['qform_code'])}/{int(header['sform_code'])}",
        "tilt": float(nibabel.affines.obliquity(affine).max()),
    }
    spacing = nibabel.affines.voxel_sizes(affine)
    for axis, length, step, origin in zip(
        "xyz", header["dim"][1:4], spacing, affine[:3, 3], strict=True
    ):
        fields |= {
            f"voxels {axis}": float(length),
            f"spacing {axis}": float(np.round(step, 4)),
            f"origin {axis}": float(np.round(origin, 2)),
        }
    return fields
