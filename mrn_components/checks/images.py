"""Voxels of an image: finite, not constant, and of the quantity that its config says."""

from collections.abc import Iterator, Mapping

import numpy as np

from mrn_components.images.finding import Finding, error, warning
from mrn_components.images.image import Image
from mrn_components.images.volume import Volume

_SAMPLE = 500_000  # voxels that a percentile is taken of
_MAX_NEGATIVE = 0.05  # share of a magnitude image's voxels; a map of both signs has more


def voxel_findings(
    image: Volume, regions: Mapping[str, tuple[slice, ...]] | None
) -> Iterator[Finding]:
    """Check that an image has finite voxels that differ.

    Args:
        image: to check.
        regions: the box of each ROI, where a mask tells them.
    """
    finite = np.isfinite(image.voxels)
    bad = finite.size - int(finite.sum())
    seen = image.voxels[finite] if bad else image.voxels
    if not seen.size or seen.min() == seen.max():
        value = f"{seen.flat[0]:g}" if seen.size else "no number"
        yield error(
            "constant-image",
            image.path,
            found=f"{value} in every voxel",
            expected="an image",
            fix="Reconstruct or export it again",
        )
        return
    inside = {name: int((~finite[box]).sum()) for name, box in (regions or {}).items()}
    if any(inside.values()):
        where = ", ".join(f"{count} in ROI {name}" for name, count in inside.items() if count)
        yield error(
            "non-finite",
            image.path,
            found=f"voxels that are NaN or infinite: {where}",
            expected="none in an ROI",
            fix="Reconstruct the image again",
        )
    elif bad:
        yield warning(
            "non-finite",
            image.path,
            found=f"{bad:,} voxels that are NaN or infinite"
            + (" outside the ROIs" if regions else ""),
            expected="none",
            fix="Nothing, where they lie outside the brain: they count as 0",
        )
    for name, box in (regions or {}).items():
        part = image.voxels[box]
        if part.size and part.min() == part.max():
            yield error(
                "constant-roi",
                image.path,
                found=f"{part.flat[0]:g} in every voxel of ROI {name}",
                expected="an image there",
                fix="Look whether the mask belongs to this image, and whether it was masked",
            )


def unit_findings(
    volume: Volume, image: Image, images: Mapping[str, Image], *, deep: bool
) -> Iterator[Finding]:
    """Check an image's range against what is known of its quantity (I9).

    Args:
        volume: to check.
        image: what it should be.
        images: all that a subject has, one of which it may be instead.
        deep: whether a map of both signs must have negative values too.
    """
    facts = image.facts
    values = volume.voxels.ravel()[:: max(volume.voxels.size // _SAMPLE, 1)]
    values = values[np.isfinite(values) & (values != 0)]  # maps are 0 outside the brain
    if not values.size:
        return
    titles = [other.title for other in images.values()]
    fix = f"Look whether {' and '.join(titles)} were swapped"
    negative = float((values < 0).mean())
    if facts.magnitude and negative > _MAX_NEGATIVE:
        signed = [other.title for other in images.values() if other.facts.magnitude is False]
        yield error(
            "modality",
            volume.path,
            found=f"negative values in {negative:.0%} of its voxels"
            + (f", as {' or '.join(signed)} has" if signed else ""),
            expected="a magnitude image",
            fix=fix,
        )
    elif fault := _unit_fault(values, image):
        found, small = fault
        yield error(
            "qsm-unit",
            volume.path,
            found=found,
            expected=f"{facts.unit}: {facts.usual}",
            fix=f"Multiply it by {facts.mistaken[1]}" if small else fix,
        )
    elif deep and facts.magnitude is False and negative < _MAX_NEGATIVE:
        yield error(
            "modality",
            volume.path,
            found=f"negative values in {negative:.0%} of its voxels, as a magnitude image has",
            expected=f"a {facts.title}, which lies about 0",
            fix=fix,
        )


def _unit_fault(values: np.ndarray, image: Image) -> tuple[str, bool] | None:
    """Return how strong values of the wrong unit are, and whether they are too small."""
    facts = image.facts
    if facts.strong is None or image.unit not in ("", facts.unit):
        return None
    high = float(np.percentile(np.abs(values), 99))
    if facts.strong[0] <= high <= facts.strong[1]:
        return None
    small = high < facts.strong[0]
    likely = f"in {facts.mistaken[0]}" if small else "a magnitude image has"
    return f"values up to about {high:.3g}, as {likely}", small
