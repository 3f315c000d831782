"""Masks of the nuclei: whether they lie where anatomy has them."""

from collections.abc import Iterator, Mapping

import numpy as np

from mrn_components.images.finding import Finding, finding
from mrn_components.images.image import CHALLENGE_IMAGES
from mrn_components.regions.nuclei import Nuclei
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


def nuclei_findings(nuclei: Nuclei, rois: Mapping[str, ROI], *, strict: bool) -> Iterator[Finding]:
    """Check that the nuclei of a mask are there, whole, and where anatomy has them.

    An ROI without any nucleus is an error if ``strict``, as training needs it.
    """
    rois = {name: roi for name, roi in rois.items() if roi.image == nuclei.image and roi.nuclei}
    yield from _missing(nuclei, rois, strict)
    yield from _stray(nuclei)
    yield from _cut_off(nuclei)
    yield from _slices(nuclei, rois)
    yield from _sides(nuclei)
    yield from _order(nuclei)


def _missing(nuclei: Nuclei, rois: Mapping[str, ROI], strict: bool) -> Iterator[Finding]:
    for name, roi in rois.items():
        absent = [roi.image.ids[number] for number in roi.ids if number not in nuclei.boxes]
        missing = [f"{side} {nucleus}" for nucleus, side in absent]
        if missing:
            whole = len(missing) == len(roi.ids)
            yield finding(
                "missing-nucleus",
                nuclei.mask.path,
                f"no {', '.join(missing)}" + f": nothing of ROI {name}" * whole,
                severity="error" if strict and whole else "warning",
                nuclei=", ".join(roi.nuclei),
                otherwise=f", or leave the ROI out (--rois#{name}#_disabled_ True)" * whole,
            )


def _stray(nuclei: Nuclei) -> Iterator[Finding]:
    for number, (start, stop) in nuclei.boxes.items():
        voxels = nuclei.places[number]
        gaps = np.maximum(np.maximum(start - voxels, voxels - (stop - 1)), 0)
        stray = np.linalg.norm(gaps * nuclei.mask.spacing_mm, axis=1)
        if count := int((stray > _MAX_STRAY_MM).sum()):
            found = f"{count} voxels of label {number} up to {stray.max():.0f} mm from the rest"
            yield finding("stray-component", nuclei.mask.path, found, mm=_MAX_STRAY_MM)


def _cut_off(nuclei: Nuclei) -> Iterator[Finding]:
    cut = [
        number
        for number, (start, stop) in nuclei.boxes.items()
        if (start == 0).any() or (stop == nuclei.mask.shape).any()
    ]
    if cut:
        yield finding("cut-off", nuclei.mask.path, f"labels {cut} at the border of the volume")


def _slices(nuclei: Nuclei, rois: Mapping[str, ROI]) -> Iterator[Finding]:
    upwards = int(np.argmax(np.abs(nuclei.mask.affine[2, :3]) / nuclei.mask.spacing_mm))  # an axis
    for name, roi in rois.items():
        box = nuclei.box(roi, margin=False)
        count = 0 if box is None else int(box.stop[upwards] - box.start[upwards])
        if box is not None and not _MIN_SLICES <= count <= _MAX_SLICES:
            kind = "few-slices" if count < _MIN_SLICES else "many-slices"
            found = f"nuclei of ROI {name} in {count} slices"
            yield finding(kind, nuclei.mask.path, found, least=_MIN_SLICES, most=_MAX_SLICES)


def _sides(nuclei: Nuclei) -> Iterator[Finding]:
    swapped = [
        name
        for name, (right, left) in nuclei.image.nuclei.items()
        if nuclei.has(name) and nuclei.centre_mm(right)[0] < nuclei.centre_mm(left)[0]
    ]
    if swapped:
        found = f"the right {', '.join(swapped)} on the left"
        yield finding("sides-swapped", nuclei.mask.path, found)


def _order(nuclei: Nuclei) -> Iterator[Finding]:
    """Look for axes that run the other way: the thalamus lies above and before the dentate."""
    if not (nuclei.has("TH") and nuclei.has("DN")):
        return
    ids = nuclei.image.nuclei
    offset = nuclei.centre_mm(*ids["TH"]) - nuclei.centre_mm(*ids["DN"])
    wrong = [text for text, mm in zip(("behind", "below"), offset[1:], strict=True) if mm < 0]
    if wrong:
        found = f"the thalamus {' and '.join(wrong)} the dentate nucleus"
        yield finding("axes-reversed", nuclei.mask.path, found)
