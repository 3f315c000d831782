"""Voxels of an image: finite, not constant, and of the quantity that its config says."""

from collections.abc import Iterator, Mapping

import numpy as np

from mrn_components.images.finding import Finding, finding
from mrn_components.images.image import Image
from mrn_components.images.volume import Volume

_SAMPLE = 500_000  # voxels that a percentile is taken of
_MAX_NEGATIVE = 0.05  # share of a magnitude image's voxels; a map of both signs has more


def voxel_findings(image: Volume, regions: Mapping[str, tuple[slice, ...]]) -> Iterator[Finding]:
    """Check that an image has finite voxels that differ, also in the box of each ROI."""
    finite = np.isfinite(image.voxels)
    bad = finite.size - int(finite.sum())
    seen = image.voxels[finite] if bad else image.voxels
    if not seen.size or seen.min() == seen.max():
        value = f"{seen.flat[0]:g}" if seen.size else "no number"
        yield finding("constant-image", image.path, f"{value} in every voxel")
        return
    inside = {name: int((~finite[box]).sum()) for name, box in regions.items()}
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
    too, if ``deep``.
    """
    facts = image.facts
    values = volume.voxels.ravel()[:: max(volume.voxels.size // _SAMPLE, 1)]
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
    elif fault := _unit_fault(values, image):
        words = {"unit": facts.unit, "usual": facts.usual, "images": titles}
        yield finding("qsm-unit", volume.path, **fault, **words)
    elif deep and facts.magnitude is False and negative < _MAX_NEGATIVE:
        found = f"{share}, as a magnitude image has"
        expected = f"a {facts.title}, which lies about 0"
        yield finding("modality", volume.path, found, expected=expected, images=titles)


def _unit_fault(values: np.ndarray, image: Image) -> dict[str, str] | None:
    """Return how strong values of the wrong unit are, and how values that are too small grow."""
    facts = image.facts
    if facts.strong is None or image.unit not in ("", facts.unit):
        return None
    high = float(np.percentile(np.abs(values), 99))
    found = f"values up to about {high:.3g}, as "
    if high < facts.strong[0]:
        unit, factor = facts.mistaken
        return {"found": f"{found}in {unit}", "fix": f"Multiply it by {factor}"}
    return {"found": f"{found}a magnitude image has"} if high > facts.strong[1] else None
