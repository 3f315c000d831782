"""All checks of one subject: each file is read once, and no fault hides the next."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from mrn_components.checks.images import header_findings, unit_findings, voxel_findings
from mrn_components.checks.masks import REGIONS, nuclei_findings
from mrn_components.images.boxes import Box
from mrn_components.images.finding import FaultyFileError, Finding, finding
from mrn_components.images.image import CHALLENGE_IMAGES, Image, factor_of
from mrn_components.images.masks import grid_findings, value_findings
from mrn_components.images.volume import Header, Volume, read_header
from mrn_components.regions.drawn import read_file
from mrn_components.regions.nuclei import Nuclei
from mrn_components.regions.plausible import plausible_findings
from mrn_components.regions.reference import take_out_references
from mrn_components.regions.roi import ROI


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What the checks of a subject found, and what those of a cohort need of it.

    Deep checks have hashes of each image's bytes and voxels: {image: {"file": ..., "voxels": ...}}.
    """

    subject: str  # its id
    findings: list[Finding]
    volumes: dict[str, Volume] = field(default_factory=dict)  # files that could be read, by key
    hashes: dict[str, dict[str, str]] = field(default_factory=dict)
    fields: dict[str, float | str] = field(default_factory=dict)  # of headers: "nm spacing x": 0.7
    boxes: dict[str, Box] = field(default_factory=dict)  # {roi: voxels that it crops}, deep checks'


def check_headers(
    subjects: Iterable[Mapping[str, Any]], images: Mapping[str, Image] = CHALLENGE_IMAGES
) -> list[Finding]:
    """Check the headers of subjects' files alone, which reads the first kilobyte of each."""
    findings = []
    for subject in subjects:
        for path in (Path(subject[key]) for key in _keys(images) if key in subject):
            try:
                found = list(header_findings(path, read_header(path), strict="label" in subject))
            except FaultyFileError as fault:
                found = [fault.finding]
            findings += [replace(each, subject=subject["subject"]) for each in found]
    return findings


def examine_subject(
    subject: Mapping[str, Any],
    images: Mapping[str, Image] = CHALLENGE_IMAGES,
    rois: Mapping[str, ROI] = REGIONS,
    *,
    deep: bool,
) -> Examination:
    """Check the files of a subject, and keep what was read.

    Always: headers, size, checksum, non-finite and constant images, units, and whether a mask is on
    its image's grid. What training needs and prediction can do without (an orientation, a whole
    ROI) is an error for a subject with a label and a warning for one without. If ``deep``: also
    what ``ReadVolumesd`` finds before a network looks, such as mask values, and all of the nuclei.
    Files of keys (nm, qsm, mask_nm, mask_qsm) that the subject does not name are passed over.
    """
    checks = _Checks(images=images, rois=rois, strict="label" in subject, deep=deep)
    findings = [*checks.files(subject), *checks.masks(), *checks.grids()]
    findings += [*checks.values(), *checks.images_alone(), *checks.pairs()]
    examination = Examination(
        subject=subject["subject"],
        findings=[replace(each, subject=subject["subject"]) for each in findings],
        volumes=checks.volumes,
    )
    for name, volume in checks.volumes.items():
        if name in images:
            examination.fields.update(_fields(name, volume.header))
            if deep:
                hashes = {"file": volume.sha256, "voxels": volume.voxel_hash}
                examination.hashes[name] = hashes
    for name, roi in rois.items() if deep else ():
        nuclei = checks.nuclei.get(roi.image.name)
        if nuclei is not None and (box := nuclei.box(roi)) is not None:
            examination.boxes[name] = box
    return examination


def _keys(images: Mapping[str, Image]) -> list[str]:
    return [*images, *(image.mask_name for image in images.values())]


@dataclass(frozen=True, kw_only=True)
class _Checks:
    """The checks of a subject; each goes on with what the one before could read."""

    images: Mapping[str, Image]
    rois: Mapping[str, ROI]
    strict: bool  # the subject is for training
    deep: bool
    volumes: dict[str, Volume] = field(default_factory=dict)  # what could be read, by key
    nuclei: dict[str, Nuclei] = field(default_factory=dict)  # of sound masks, by image
    plausible: set[str] = field(default_factory=set)  # paths of images whose nuclei say so

    def files(self, subject: Mapping[str, Any]) -> Iterator[Finding]:
        """Read the files."""
        for key in _keys(self.images):
            if key in subject:
                try:
                    factor = factor_of(subject, key)
                    volume, found = read_file(key, subject[key], self.images, factor=factor)
                except FaultyFileError as fault:
                    yield fault.finding
                    continue
                yield from header_findings(volume.path, volume.header, strict=self.strict)
                yield from found
                self.volumes[key] = volume

    def masks(self) -> Iterator[Finding]:
        """Check the masks' values, and the nuclei."""
        for name, image in self.images.items():
            if image.mask_name in self.volumes:
                mask = self.volumes[image.mask_name]
                faults = list(value_findings(mask, image))
                yield from faults if self.deep else ()
                if not faults:
                    self.nuclei[name] = Nuclei(mask=mask, image=image)
        for nuclei in self.nuclei.values() if self.deep else ():
            yield from nuclei_findings(nuclei, self.rois, strict=self.strict)

    def grids(self) -> Iterator[Finding]:
        """Check that masks lie on the grids of their images; others tell nothing of these."""
        for name, image in self.images.items():
            if name in self.volumes and image.mask_name in self.volumes:
                faults = list(grid_findings(self.volumes[name], self.volumes[image.mask_name]))
                yield from faults
                if faults:
                    self.nuclei.pop(name, None)

    def values(self) -> Iterator[Finding]:
        """Judge what the images show in the nuclei, without their reference's shift."""
        if not self.deep:
            return
        try:
            sound = {self.images[n].mask_name: nuclei.mask for n, nuclei in self.nuclei.items()}
            given = {n: self.volumes[n] for n in self.images if n in self.volumes}
            shifted, _ = take_out_references(given | sound, self.images)
        except FaultyFileError as fault:
            yield fault.finding
            return
        self.volumes.update({name: shifted[name] for name in given})
        findings = list(plausible_findings(shifted, self.images))
        wrong = {found.file for found in findings if found.severity == "error"}
        judged = {str(self.volumes[name].path) for name in self.nuclei if name in given}
        self.plausible.update(judged - wrong)
        yield from findings

    def images_alone(self) -> Iterator[Finding]:
        """Check each image's voxels, alone and in its regions."""
        for name, image in self.images.items():
            if name in self.volumes:
                volume = self.volumes[name]
                yield from voxel_findings(volume, self._regions(self.nuclei.get(name)))
                deep = self.deep and str(volume.path) not in self.plausible
                yield from unit_findings(volume, image, self.images, deep=deep)

    def _regions(self, nuclei: Nuclei | None) -> dict[str, tuple[slice, ...]]:
        """The part of the volume that each ROI crops, where a mask tells."""
        return {
            name: box.inside
            for name, roi in self.rois.items()
            if nuclei and roi.image == nuclei.image and (box := nuclei.box(roi)) is not None
        }

    def pairs(self) -> Iterator[Finding]:
        """Check what two images say together."""
        there = [image for name, image in self.images.items() if name in self.volumes]
        for one, other in combinations(there, 2):
            first, second = self.volumes[one.name], self.volumes[other.name]
            if first.sha256 == second.sha256:
                yield finding("same-image", second.path, f"the same bytes as {first.path.name}")


def _fields(image: str, header: Header) -> Iterator[tuple[str, float | str]]:
    """What a header says about the acquisition and the conversion, and nothing of the brain."""
    affine = header.get_best_affine()
    yield f"{image} axes", "".join(axis or "?" for axis in nibabel.aff2axcodes(affine))
    yield f"{image} type", str(header.get_data_dtype())
    yield f"{image} codes", f"{int(header['qform_code'])}/{int(header['sform_code'])}"
    yield f"{image} tilt", float(nibabel.affines.obliquity(affine).max())
    spacing = nibabel.affines.voxel_sizes(affine)
    for index, axis in enumerate("xyz"):
        yield f"{image} voxels {axis}", float(header["dim"][index + 1])
        yield f"{image} spacing {axis}", float(np.round(spacing[index], 4))
        yield f"{image} origin {axis}", float(np.round(affine[index, 3], 2))
