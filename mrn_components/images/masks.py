"""Whether a mask fits: it lies on its image's grid, and its values are ids of nuclei."""

from collections.abc import Iterator, Sequence

import numpy as np

from mrn_components.images.finding import FaultyFileError, Finding, error
from mrn_components.images.image import Image
from mrn_components.images.volume import Volume

MAX_SHIFT_MM = 0.1  # between the corners of an image and its mask


def check_mask(mask: Volume, image: Image, volume: Volume | None = None) -> None:
    """Refuse a mask whose values are no ids of its image, or that lies on another grid.

    Args:
        mask: to check.
        image: whose nuclei it holds.
        volume: the image's voxels, if they are there.

    Raises:
        FaultyFileError: for the first fault.
    """
    for finding in (
        *(() if volume is None else grid_findings(volume, mask)),
        *value_findings(mask, image),
    ):
        raise FaultyFileError(finding)


def value_findings(mask: Volume, image: Image) -> Iterator[Finding]:
    """Check that a mask holds ids of its image's nuclei and nothing else.

    Args:
        mask: to check.
        image: whose nuclei it holds.
    """
    wrong = image.unknown_values(mask.mask_values.ravel(order="K"))
    if wrong:
        fractional = any(value != round(value) for value in wrong if np.isfinite(value))
        yield error(
            "fractional-labels" if fractional else "unknown-labels",
            mask.path,
            found=f"the values {', '.join(f'{value:.6g}' for value in wrong[:5])}",
            expected=f"0 and the ids of {image.name} masks, "
            f"{ {number: nucleus for number, (nucleus, _) in image.ids.items()} }",
            fix="Resample masks with nearest neighbours only"
            if fractional
            else "Give every nucleus its id, and everything else 0",
        )


def grid_findings(image: Volume, mask: Volume) -> Iterator[Finding]:
    """Check that a mask lies on its image's grid: on another, its voxels mark other tissue.

    Args:
        image: the image.
        mask: must have its shape, and corners within 0.1 mm.
    """
    if image.shape != mask.shape:
        yield error(
            "mask-grid",
            mask.path,
            found=f"the shape {mask.shape}",
            expected=f"that of {image.path.name}, {image.shape}",
            fix="Draw the mask on this image, or resample it with nearest neighbours",
        )
        return
    shift_mm = corner_shift_mm(image.shape, image.affine, mask.affine)
    if not shift_mm <= MAX_SHIFT_MM:
        yield error(
            "mask-grid",
            mask.path,
            found=f"corners up to {shift_mm:.2f} mm from those of {image.path.name}",
            expected=f"at most {MAX_SHIFT_MM} mm",
            fix="Correct the affine, or draw the mask on this image",
        )


def corner_shift_mm(shape: Sequence[int], affine: np.ndarray, other: np.ndarray) -> float:
    """Return the largest distance between the corners of one box of voxels under two affines.

    Args:
        shape: voxels along each axis.
        affine: (4, 4) from voxels to mm.
        other: the other affine.
    """
    corners = np.array([[*corner, 1] for corner in np.ndindex(2, 2, 2)], dtype=float)
    corners[:, :3] *= shape
    return float(np.linalg.norm((corners @ (affine - other).T)[:, :3], axis=1).max())
