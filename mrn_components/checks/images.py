"""Voxels of an image: finite, not constant, and of the modality that its name says."""

from collections.abc import Iterator, Mapping

import numpy as np

from mrn_components.images.finding import Finding, error, warning
from mrn_components.images.volume import Volume

_SAMPLE = 500_000  # voxels that a percentile is taken of
_PPB = (2.0, 2000.0)  # of the 99th percentile of |QSM|; brains have about 200 ppb, 0.2 ppm
_MIN_NEGATIVE, _MAX_NEGATIVE = 0.05, 0.05  # shares: at least of QSM's voxels, at most of NM's


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


def unit_findings(image: Volume, name: str, *, deep: bool) -> Iterator[Finding]:
    """Check an image's range: QSM in ppb about 0, NM a magnitude (I9).

    Args:
        image: to check.
        name: what it should be.
        deep: whether QSM must have negative values too.
    """
    values = image.voxels.ravel()[:: max(image.voxels.size // _SAMPLE, 1)]
    values = values[np.isfinite(values) & (values != 0)]  # QSM is 0 outside the brain
    if not values.size:
        return
    negative = float((values < 0).mean())
    if name == "nm":
        if negative > _MAX_NEGATIVE:
            yield error(
                "modality",
                image.path,
                found=f"negative values in {negative:.0%} of its voxels, as QSM has",
                expected="a magnitude image",
                fix="Look whether NM and QSM were swapped",
            )
        return
    high = float(np.percentile(np.abs(values), 99))
    if not _PPB[0] <= high <= _PPB[1]:
        yield error(
            "qsm-unit",
            image.path,
            found=f"values up to about {high:.3g}, as "
            + ("in ppm" if high < _PPB[0] else "a magnitude image has"),
            expected="ppb: about 200 in a brain",
            fix="Multiply it by 1000" if high < _PPB[0] else "Look whether NM and QSM were swapped",
        )
    elif deep and negative < _MIN_NEGATIVE:
        yield error(
            "modality",
            image.path,
            found=f"negative values in {negative:.0%} of its voxels, as a magnitude image has",
            expected="a susceptibility map, which lies about 0",
            fix="Look whether NM and QSM were swapped",
        )
