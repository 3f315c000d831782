"""An image file: where it says its voxels are, and whether they are those of its quantity."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from nibabel.affines import obliquity, voxel_sizes

from mrn_components.images.finding import Finding, finding
from mrn_components.images.image import Image
from mrn_components.images.masks import corner_shift_mm
from mrn_components.images.volume import Header, Volume

_MAX_FORMS_MM, _MAX_FORMS_DEGREES = 1.0, 1.0  # between sform and qform
_MAX_OBLIQUE_DEGREES = 35.0  # slabs on the SN tilt by 20 to 30
_SPACING_MM = (0.1, 10.0)
_SAMPLE = 500_000  # voxels that a percentile is taken of
_MAX_NEGATIVE = 0.05  # share of a magnitude image's voxels; a map of both signs has more


def header_findings(path: Path, header: Header, *, strict: bool) -> Iterator[Finding]:
    """Check what a header says of the voxels' place; without any it is an error if ``strict``."""
    if header["dim"][0] > 3:  # readers squeeze axes of one voxel
        axes = " x ".join(str(length) for length in header["dim"][1 : header["dim"][0] + 1])
        yield finding("extra-axis", path, f"{axes} voxels")
    qform, sform = header.get_qform(coded=True)[0], header.get_sform(coded=True)[0]
    if qform is None and sform is None:
        found = "neither qform nor sform, so that left and right are a guess"
        yield finding("no-orientation", path, found, severity="error" if strict else "warning")
    else:
        if qform is not None and sform is not None:
            yield from _compare_forms(path, header, qform, sform)
        yield from _axes_findings(path, header.get_best_affine())


def _compare_forms(
    path: Path, header: Header, qform: np.ndarray, sform: np.ndarray
) -> Iterator[Finding]:
    shift_mm = corner_shift_mm(header["dim"][1:4], qform, sform)
    degrees = _angle_degrees(qform, sform)
    if shift_mm > _MAX_FORMS_MM or degrees > _MAX_FORMS_DEGREES:
        found = f"qform and sform {shift_mm:.1f} mm and {degrees:.1f} degrees apart"
        yield finding("forms-disagree", path, found, mm=_MAX_FORMS_MM, degrees=_MAX_FORMS_DEGREES)


def _axes_findings(path: Path, affine: np.ndarray) -> Iterator[Finding]:
    spacing = voxel_sizes(affine)
    low, high = _SPACING_MM
    if not (low <= spacing.min() and spacing.max() <= high):
        found = f"voxels of {' x '.join(f'{step:.4g}' for step in spacing)} mm"
        yield finding("spacing", path, found, low=low, high=high)
    degrees = math.degrees(obliquity(affine).max())
    if degrees > _MAX_OBLIQUE_DEGREES:
        found = f"slices tilted by {degrees:.0f} degrees"
        yield finding("oblique", path, found, degrees=_MAX_OBLIQUE_DEGREES)


def _angle_degrees(affine: np.ndarray, other: np.ndarray) -> float:
    """Angle of the rotation between two affines' axes."""
    first, second = (m[:3, :3] / np.linalg.norm(m[:3, :3], axis=0) for m in (affine, other))
    cosine = (np.trace(first.T @ second) - 1) / 2
    return math.degrees(math.acos(np.clip(cosine, -1, 1)))


def voxel_findings(image: Volume, regions: Mapping[str, tuple[slice, ...]]) -> Iterator[Finding]:
    """Check that an image has finite voxels that differ, also in the box of each ROI."""
    seen = image.voxels if image.is_finite else image.voxels[np.isfinite(image.voxels)]
    bad = image.voxels.size - seen.size
    low, high = (float(seen.min()), float(seen.max())) if bad and seen.size else image.ends
    if not seen.size or low == high:
        value = f"{low:g}" if seen.size else "no number"
        yield finding("constant-image", image.path, f"{value} in every voxel")
        return
    inside = {n: int((~np.isfinite(image.voxels[box])).sum()) for n, box in regions.items()}
    if any(inside.values()):
        where = ", ".join(f"{count} in ROI {name}" for name, count in inside.items() if count)
        yield finding("non-finite", image.path, f"voxels that are NaN or infinite: {where}")
    elif bad:
        where = " outside the ROIs" if regions else ""
        found = f"{bad:,} voxels that are NaN or infinite{where}"
        fix = "Nothing, where they lie outside the brain: they count as 0"
        yield finding("non-finite", image.path, found, severity="warning", expected="none", fix=fix)
    for name, box in regions.items():
        part = image.voxels[box]
        if part.size and part.min() == part.max():
            found = f"{part.flat[0]:g} in every voxel of ROI {name}"
            yield finding("constant-roi", image.path, found)


def unit_findings(
    volume: Volume, image: Image, images: Mapping[str, Image], *, deep: bool
) -> Iterator[Finding]:
    """Check an image's range against what is known of its quantity (I9).

    It may be another of the subject's ``images``. A map of both signs must have negative values
    too, if ``deep``: for one whose nuclei are known to be plausible that says nothing.
    """
    facts = image.facts
    values = volume.voxels.flat[:: max(volume.voxels.size // _SAMPLE, 1)]
    values = values[np.isfinite(values) & (values != 0)]  # maps are 0 outside the brain
    if not values.size:
        return
    titles = " and ".join(other.title for other in images.values())
    negative = float((values < 0).mean())
    share = f"negative values in {negative:.0%} of its voxels"
    if facts.magnitude and negative > _MAX_NEGATIVE:
        signed = [other.title for other in images.values() if other.facts.magnitude is False]
        found = share + (f", as {' or '.join(signed)} has" if signed else "")
        yield finding("modality", volume.path, found, images=titles)
    elif fault := _unit_fault(values, image, volume.factor):
        words = {"unit": facts.unit, "usual": facts.usual, "images": titles}
        yield finding("qsm-unit", volume.path, **fault, **words)
    elif deep and facts.magnitude is False and negative < _MAX_NEGATIVE:
        found = f"{share}, as a magnitude image has"
        expected = f"a {facts.title}, which lies about 0"
        fix = f"Look whether {titles} were swapped, or a constant was added to it"
        yield finding("modality", volume.path, found, expected=expected, fix=fix)


def _unit_fault(values: np.ndarray, image: Image, factor: float) -> dict[str, str] | None:
    """Return how strong values of the wrong unit are, and what may help.

    They are ``factor`` times those of the file.
    """
    facts = image.facts
    if facts.strong is None or image.value_unit != facts.unit:
        return None
    high = float(np.percentile(np.abs(values), 99))
    found = f"values up to about {high:.3g}, as "
    if high < facts.strong[0]:
        unit, factor = facts.mistaken
        config = f", or say so in a config: --images#{image.name}#file_unit {unit}"
        return {"found": f"{found}in {unit}", "fix": f"Multiply it by {factor}{config}"}
    if high > facts.strong[1] and factor != 1.0:
        found = f"values up to about {high:.3g} after {factor:g} times the file's"
        units = f'{{"Units": "{facts.unit}"}}'
        others = f"leave out --images#{image.name}#file_unit and factor_{image.name}"
        fix = f"If it is in {facts.unit}, write {units} into its JSON file, or {others} if given"
        return {"found": found, "fix": fix}
    return {"found": f"{found}a magnitude image has"} if high > facts.strong[1] else None
