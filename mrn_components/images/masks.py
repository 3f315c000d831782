"""Whether a mask fits: it lies on its image's grid, and its values are ids of nuclei."""

from collections.abc import Iterator, Sequence

import numpy as np

from mrn_components.images.finding import FaultyFileError, Finding, finding
from mrn_components.images.image import Image
from mrn_components.images.volume import Volume

MAX_SHIFT_MM = 0.1  # between the corners of an image and its mask


def check_mask(mask: Volume, image: Image, volume: Volume | None = None) -> None:
    """Refuse, by a FaultyFileError, a mask with values that are no ids, or on another grid."""
    on_grid = () if volume is None else grid_findings(volume, mask)
    for found in (*on_grid, *value_findings(mask, image)):
        raise FaultyFileError(found)


def value_findings(mask: Volume, image: Image) -> Iterator[Finding]:
    """Check that a mask holds ids of its image's nuclei and nothing else."""
    wrong = image.unknown_values(mask.mask_values.ravel(order="K"))
    if wrong:
        fractional = any(value != round(value) for value in wrong if np.isfinite(value))
        kind = "fractional-labels" if fractional else "unknown-labels"
        found = f"the values {', '.join(f'{value:.6g}' for value in wrong[:5])}"
        ids = {number: nucleus for number, (nucleus, _) in image.ids.items()}
        yield finding(kind, mask.path, found, image=image.name, ids=ids)


def grid_findings(image: Volume, mask: Volume) -> Iterator[Finding]:
    """Check that a mask lies on its image's grid: on another, its voxels mark other tissue."""
    if image.shape != mask.shape:
        expected = f"that of {image.path.name}, {image.shape}"
        fix = "Draw the mask on this image, or resample it with nearest neighbours"
        found = f"the shape {mask.shape}"
        yield finding("mask-grid", mask.path, found, expected=expected, fix=fix)
        return
    shift_mm = corner_shift_mm(image.shape, image.affine, mask.affine)
    if not shift_mm <= MAX_SHIFT_MM:
        found = f"corners up to {shift_mm:.2f} mm from those of {image.path.name}"
        yield finding("mask-grid", mask.path, found, mm=MAX_SHIFT_MM)


def corner_shift_mm(shape: Sequence[int], affine: np.ndarray, other: np.ndarray) -> float:
    """Return how far the corners of (X, Y, Z) voxels lie apart at most under two affines (4, 4)."""
    corners = np.array([[*corner, 1] for corner in np.ndindex(2, 2, 2)], dtype=float)
    corners[:, :3] *= shape
    return float(np.linalg.norm((corners @ (affine - other).T)[:, :3], axis=1).max())
