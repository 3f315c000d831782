"""Masks of the nuclei: whether they lie where anatomy has them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from nibabel.affines import apply_affine

from mrn_components.images.boxes import Box, enclosing_box, label_boxes, nonzero_box
from mrn_components.images.finding import Finding, error, warning
from mrn_components.images.image import CHALLENGE_IMAGES, SIDES, Image
from mrn_components.images.volume import Volume
from mrn_components.regions.roi import ROI

# The paper's regions (section 3.3), as the bundles have them.
REGIONS = {
    "nm": ROI(image=CHALLENGE_IMAGES["nm"], nuclei=["SN"]),
    "qsm1": ROI(image=CHALLENGE_IMAGES["qsm"], nuclei=["CN", "PUT", "GP", "TH"]),
    "qsm2": ROI(image=CHALLENGE_IMAGES["qsm"], nuclei=["STN", "SN", "RN"]),
    "qsm3": ROI(image=CHALLENGE_IMAGES["qsm"], nuclei=["DN"]),
}
_MAX_STRAY_MM = 5.0
_MIN_SLICES, _MAX_SLICES = 3, 64
_MAX_SN_SHIFT_MM = 5.0


@dataclass(frozen=True, kw_only=True)
class Nuclei:
    """The nuclei of a mask whose values are ids.

    Args:
        mask: the mask.
        image: image that the mask belongs to.
    """

    mask: Volume
    image: Image

    @property
    def path(self) -> Path:
        """File of the mask."""
        return self.mask.path

    @cached_property
    def boxes(self) -> dict[int, Box]:
        """Box of each id's largest component."""
        return label_boxes(self.mask.ids)

    @cached_property
    def places(self) -> dict[int, np.ndarray]:
        """Voxels (N, 3) of each id."""
        region = nonzero_box(self.mask.ids)
        inside = self.mask.ids[region]
        start = [axis.start for axis in region]
        return {number: np.argwhere(inside == number) + start for number in self.boxes}

    def where(self, *nuclei: str) -> np.ndarray:
        """Voxels (N, 3) of some nuclei, of both sides."""
        found = [
            self.places[number]
            for name in nuclei
            for number in self.image.nuclei.get(name, ())
            if number in self.places
        ]
        return np.concatenate([np.empty((0, 3), int), *found])

    def centre_mm(self, *numbers: int) -> np.ndarray:
        """Mean position of some ids, which are there, in mm right, anterior, superior."""
        voxels = np.concatenate([self.places[number] for number in numbers])
        return apply_affine(self.mask.affine, voxels.mean(axis=0))

    def box(self, roi: ROI, margin: bool = True) -> Box | None:
        """The box that an ROI crops; None without any of its nuclei."""
        found = [self.boxes[number] for number in roi.ids if number in self.boxes]
        if not found:
            return None
        wide = roi.margin_voxels(self.mask.spacing_mm.tolist()) if margin else (0, 0, 0)
        return enclosing_box(found, wide)


def nuclei_findings(nuclei: Nuclei, rois: Mapping[str, ROI], *, strict: bool) -> Iterator[Finding]:
    """Check that the nuclei are there, whole, and where anatomy has them.

    Args:
        nuclei: of one mask.
        rois: the regions that are cropped around them.
        strict: an ROI without any nucleus is an error, as training needs it; else a warning.
    """
    rois = {name: roi for name, roi in rois.items() if roi.image == nuclei.image and roi.nuclei}
    yield from _missing(nuclei, rois, strict)
    yield from _stray(nuclei)
    yield from _cut_off(nuclei)
    yield from _slices(nuclei, rois)
    yield from _sides(nuclei)
    yield from _order(nuclei)


def nigra_findings(first: Nuclei, second: Nuclei) -> Iterator[Finding]:
    """Check that two images show the substantia nigra in one place (I14)."""
    pairs = [(nuclei, nuclei.image.nuclei.get("SN", (0,))) for nuclei in (first, second)]
    if all(number in nuclei.boxes for nuclei, pair in pairs for number in pair):
        centres = [nuclei.centre_mm(*pair) for nuclei, pair in pairs]
        shift_mm = float(np.linalg.norm(centres[0] - centres[1]))
        if shift_mm > _MAX_SN_SHIFT_MM:
            yield warning(
                "nigra-shift",
                first.path,
                found=f"the substantia nigra {shift_mm:.1f} mm from that in {second.path.name}",
                expected=f"at most {_MAX_SN_SHIFT_MM:.0f} mm",
                fix=f"Register {first.image.title} and {second.image.title}, or look whether both "
                "are of one person",
            )


def sign_findings(volume: Volume, nuclei: Nuclei) -> Iterator[Finding]:
    """Check that nuclei full of iron are paramagnetic in a susceptibility map (I9)."""
    facts = nuclei.image.facts
    inside = volume.voxels[tuple(nuclei.where(*facts.positive).T)]
    inside = inside[np.isfinite(inside)]
    if inside.size and inside.mean() < 0:
        unit = nuclei.image.unit or facts.unit
        yield error(
            "qsm-sign",
            volume.path,
            found=f"a mean of {inside.mean():.0f} {unit} in {', '.join(facts.positive)}",
            expected="more than 0, since these nuclei hold iron",
            fix=f"Multiply the {nuclei.image.title} by -1 if its phase convention is the opposite "
            "one",
        )


def _missing(nuclei: Nuclei, rois: Mapping[str, ROI], strict: bool) -> Iterator[Finding]:
    for name, roi in rois.items():
        missing = [
            f"{side} {nucleus}"
            for nucleus in roi.nuclei
            for side, number in zip(SIDES, roi.image.nuclei[nucleus], strict=True)
            if number not in nuclei.boxes
        ]
        if missing:
            whole = len(missing) == len(roi.ids)
            yield (error if strict and whole else warning)(
                "missing-nucleus",
                nuclei.path,
                found=f"no {', '.join(missing)}" + f": nothing of ROI {name}" * whole,
                expected=f"all of {', '.join(roi.nuclei)} on both sides",
                fix="Complete the mask"
                + f", or leave the ROI out (--rois#{name}#_disabled_ True)" * whole,
            )


def _stray(nuclei: Nuclei) -> Iterator[Finding]:
    for number, (start, stop) in nuclei.boxes.items():
        voxels, spacing = nuclei.places[number], nuclei.mask.spacing_mm
        gaps = np.maximum(np.maximum(start - voxels, voxels - (stop - 1)), 0) * spacing
        stray = np.linalg.norm(gaps, axis=1)
        count = int((stray > _MAX_STRAY_MM).sum())
        if count:
            yield warning(
                "stray-component",
                nuclei.path,
                found=f"{count} voxels of label {number} up to {stray.max():.0f} mm from the rest",
                expected=f"every label within {_MAX_STRAY_MM:.0f} mm of its largest piece",
                fix="Delete the stray voxels; the crop follows the largest piece",
            )


def _cut_off(nuclei: Nuclei) -> Iterator[Finding]:
    cut = [
        number
        for number, (start, stop) in nuclei.boxes.items()
        if (start == 0).any() or (stop == nuclei.mask.shape).any()
    ]
    if cut:
        yield warning(
            "cut-off",
            nuclei.path,
            found=f"labels {cut} at the border of the volume",
            expected="nuclei that end inside it",
            fix="Use a field of view that holds the whole nuclei",
        )


def _slices(nuclei: Nuclei, rois: Mapping[str, ROI]) -> Iterator[Finding]:
    steps = np.abs(nuclei.mask.affine[2, :3]) / nuclei.mask.spacing_mm
    axis = int(np.argmax(steps))  # that points upwards
    for name, roi in rois.items():
        box = nuclei.box(roi, margin=False)
        count = 0 if box is None else int(box.stop[axis] - box.start[axis])
        if box is not None and not _MIN_SLICES <= count <= _MAX_SLICES:
            yield warning(
                "few-slices" if count < _MIN_SLICES else "many-slices",
                nuclei.path,
                found=f"nuclei of ROI {name} in {count} slices",
                expected=f"{_MIN_SLICES} to {_MAX_SLICES}",
                fix="Complete the mask"
                if count < _MIN_SLICES
                else "Resample to slices of about 2 mm: the network was made for those",
            )


def _sides(nuclei: Nuclei) -> Iterator[Finding]:
    pairs = {
        name: pair
        for name, pair in nuclei.image.nuclei.items()
        if all(number in nuclei.boxes for number in pair)
    }
    swapped = [
        name
        for name, (right, left) in pairs.items()
        if nuclei.centre_mm(right)[0] < nuclei.centre_mm(left)[0]
    ]
    if swapped:
        yield error(
            "sides-swapped",
            nuclei.path,
            found=f"the right {', '.join(swapped)} on the left",
            expected="odd ids on the right side, by the affine",
            fix="Swap the ids, or correct the affine of the image and its mask",
        )


def _order(nuclei: Nuclei) -> Iterator[Finding]:
    """Look for axes that run the other way: the thalamus lies above and before the dentate."""
    ids = nuclei.image.nuclei
    if not all(number in nuclei.boxes for name in ("TH", "DN") for number in ids.get(name, (0,))):
        return
    offset = nuclei.centre_mm(*ids["TH"]) - nuclei.centre_mm(*ids["DN"])
    wrong = [text for text, mm in zip(("behind", "below"), offset[1:], strict=True) if mm < 0]
    if wrong:
        yield error(
            "axes-reversed",
            nuclei.path,
            found=f"the thalamus {' and '.join(wrong)} the dentate nucleus",
            expected="it before and above, by the affine",
            fix="Correct the affine, or the order of the slices",
        )
