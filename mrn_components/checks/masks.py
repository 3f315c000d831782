"""Masks of the nuclei: label values, and whether the nuclei lie where anatomy has them."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import nibabel
import numpy as np

from mrn_components.images.boxes import Box, enclosing_box, label_boxes, voxel_spacing
from mrn_components.images.finding import Finding, error, warning
from mrn_components.images.image import CHALLENGE_IMAGES
from mrn_components.images.labels import LABELS, SIDES
from mrn_components.images.volume import Volume
from mrn_components.regions.roi import ROI

# The paper's regions (section 3.3), as the bundles have them.
REGIONS = {
    "nm": ROI(image=CHALLENGE_IMAGES["nm"], nuclei=["SN"]),
    "qsm1": ROI(image=CHALLENGE_IMAGES["qsm"], nuclei=["CN", "PUT", "GP", "TH"]),
    "qsm2": ROI(image=CHALLENGE_IMAGES["qsm"], nuclei=["STN", "SN", "RN"]),
    "qsm3": ROI(image=CHALLENGE_IMAGES["qsm"], nuclei=["DN"]),
}
_IRON = ("GP", "SN", "RN")  # nuclei that no healthy or ill brain has without iron
_MAX_STRAY_MM = 5.0
_MIN_SLICES, _MAX_SLICES = 3, 64
_MAX_SN_SHIFT_MM = 5.0


@dataclass(frozen=True, kw_only=True)
class Nuclei:
    """The nuclei of a mask whose values are label ids.

    Args:
        path: of the mask.
        image: image that the mask belongs to.
        ids: (X, Y, Z) label ids.
        affine: (4, 4) from voxels to mm.
    """

    path: Path
    image: str
    ids: np.ndarray
    affine: np.ndarray

    @classmethod
    def of(cls, mask: Volume, image: str) -> "Nuclei":
        """Take the nuclei from a mask without unknown values."""
        return cls(path=mask.path, image=image, ids=mask.ids, affine=mask.affine)

    @cached_property
    def boxes(self) -> dict[int, Box]:
        """Box of each label's largest component."""
        return label_boxes(self.ids)

    @property
    def spacing(self) -> np.ndarray:
        """Voxel size along each axis, in mm."""
        return voxel_spacing(self.affine)

    def where(self, *nuclei: str) -> np.ndarray:
        """Voxels (X, Y, Z) of some nuclei, of both sides."""
        return np.isin(self.ids, [i for name in nuclei for i in LABELS[self.image][name]])

    def centre_mm(self, *labels: int) -> np.ndarray:
        """Mean position of some labels, which are there, in mm right, anterior, superior."""
        voxels = np.argwhere(np.isin(self.ids, labels))
        return nibabel.affines.apply_affine(self.affine, voxels.mean(axis=0))

    def box(self, roi: ROI, margin: bool = True) -> tuple[slice, ...] | None:
        """The part of the volume that an ROI crops; None without any of its nuclei."""
        found = [self.boxes[label] for label in roi.ids if label in self.boxes]
        if not found:
            return None
        wide = roi.margin_voxels(self.spacing.tolist()) if margin else (0, 0, 0)
        box = enclosing_box(found, wide)
        return tuple(slice(max(a, 0), max(b, 0)) for a, b in zip(*box, strict=True))


def nuclei_findings(nuclei: Nuclei, *, strict: bool) -> Iterator[Finding]:
    """Check that the nuclei are there, whole, and where anatomy has them.

    Args:
        nuclei: of one mask.
        strict: an ROI without any nucleus is an error, as training needs it; else a warning.
    """
    yield from _missing(nuclei, strict)
    yield from _stray(nuclei)
    yield from _cut_off(nuclei)
    yield from _slices(nuclei)
    yield from _sides(nuclei)
    yield from _order(nuclei)


def nigra_findings(nm: Nuclei, qsm: Nuclei) -> Iterator[Finding]:
    """Check that NM and QSM show the substantia nigra in one place (I14)."""
    pairs = [(nuclei, LABELS[nuclei.image]["SN"]) for nuclei in (nm, qsm)]
    if all(label in nuclei.boxes for nuclei, pair in pairs for label in pair):
        centres = [nuclei.centre_mm(*pair) for nuclei, pair in pairs]
        shift_mm = float(np.linalg.norm(centres[0] - centres[1]))
        if shift_mm > _MAX_SN_SHIFT_MM:
            yield warning(
                "nigra-shift",
                nm.path,
                found=f"the substantia nigra {shift_mm:.1f} mm from that in {qsm.path.name}",
                expected=f"at most {_MAX_SN_SHIFT_MM:.0f} mm",
                fix="Register NM and QSM, or look whether both are of one person",
            )


def sign_findings(image: Volume, nuclei: Nuclei) -> Iterator[Finding]:
    """Check that nuclei full of iron are paramagnetic in QSM (I9)."""
    inside = image.voxels[nuclei.where(*_IRON)]
    inside = inside[np.isfinite(inside)]
    if inside.size and inside.mean() < 0:
        yield error(
            "qsm-sign",
            image.path,
            found=f"a mean of {inside.mean():.0f} ppb in {', '.join(_IRON)}",
            expected="more than 0, since these nuclei hold iron",
            fix="Multiply the QSM by -1 if its phase convention is the opposite one",
        )


def _missing(nuclei: Nuclei, strict: bool) -> Iterator[Finding]:
    for name, roi in REGIONS.items():
        missing = [
            f"{side} {nucleus}"
            for nucleus in roi.nuclei
            for side, label in zip(SIDES, roi.image.nuclei[nucleus], strict=True)
            if label not in nuclei.boxes
        ]
        if roi.image.name == nuclei.image and missing:
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
    for label, (start, stop) in nuclei.boxes.items():
        voxels = np.argwhere(nuclei.ids == label)
        gaps = np.maximum(np.maximum(start - voxels, voxels - (stop - 1)), 0) * nuclei.spacing
        stray = np.linalg.norm(gaps, axis=1)
        count = int((stray > _MAX_STRAY_MM).sum())
        if count:
            yield warning(
                "stray-component",
                nuclei.path,
                found=f"{count} voxels of label {label} up to {stray.max():.0f} mm from the rest",
                expected=f"every label within {_MAX_STRAY_MM:.0f} mm of its largest piece",
                fix="Delete the stray voxels; the crop follows the largest piece",
            )


def _cut_off(nuclei: Nuclei) -> Iterator[Finding]:
    cut = [
        label
        for label, (start, stop) in nuclei.boxes.items()
        if (start == 0).any() or (stop == nuclei.ids.shape).any()
    ]
    if cut:
        yield warning(
            "cut-off",
            nuclei.path,
            found=f"labels {cut} at the border of the volume",
            expected="nuclei that end inside it",
            fix="Use a field of view that holds the whole nuclei",
        )


def _slices(nuclei: Nuclei) -> Iterator[Finding]:
    axis = int(np.argmax(np.abs(nuclei.affine[2, :3]) / nuclei.spacing))  # that points upwards
    for name, roi in REGIONS.items():
        box = nuclei.box(roi, margin=False) if roi.image.name == nuclei.image else None
        count = 0 if box is None else box[axis].stop - box[axis].start
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
        for name, pair in LABELS[nuclei.image].items()
        if all(label in nuclei.boxes for label in pair)
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
    labels = LABELS[nuclei.image]
    if not all(label in nuclei.boxes for name in ("TH", "DN") for label in labels.get(name, (0,))):
        return
    offset = nuclei.centre_mm(*labels["TH"]) - nuclei.centre_mm(*labels["DN"])
    wrong = [text for text, mm in zip(("behind", "below"), offset[1:], strict=True) if mm < 0]
    if wrong:
        yield error(
            "axes-reversed",
            nuclei.path,
            found=f"the thalamus {' and '.join(wrong)} the dentate nucleus",
            expected="it before and above, by the affine",
            fix="Correct the affine, or the order of the slices",
        )
