"""How well masks of nuclei agree with those that readers drew."""

from collections.abc import Sequence
from typing import Literal, TypedDict

import numpy as np
from scipy import ndimage

from mrn_components.images.boxes import nonzero_box

Empty = Literal["", "predicted", "truth", "both"]

_PERCENTILE = 95


class MaskScore(TypedDict):
    """Agreement of one label; distances are those of the surfaces, None if a mask is empty."""

    dice: float | None  # 0 to 1, 0 if one mask is empty and None if both are
    hausdorff_voxels: float | None  # the largest distance
    hausdorff95_mm: float | None  # the larger one of the two directed 95th percentiles
    volume_mm3: float  # of the prediction
    true_volume_mm3: float
    empty: Empty  # which masks are


def score_masks(
    predicted: np.ndarray, truth: np.ndarray, *, labels: Sequence[int], spacing_mm: Sequence[float]
) -> dict[int, MaskScore]:
    """Score every label of two masks on one grid.

    The Hausdorff distance in voxels is the organisers' (medpy's ``hd`` without spacing). Masks hold
    label ids (X, Y, Z), of which those from 1 are scored.

    Raises:
        ValueError: for masks of unequal shapes or that are no integers, or a spacing that does not
            suit them.
    """
    if predicted.shape != truth.shape or predicted.ndim != len(spacing_mm):
        raise ValueError(
            "predicted and truth must have one shape and spacing_mm an edge for each axis, got "
            f"{predicted.shape}, {truth.shape} and {len(spacing_mm)} edges."
        )
    if not all(np.issubdtype(mask.dtype, np.integer) for mask in (predicted, truth)):
        raise ValueError(
            f"masks must hold integers, got {predicted.dtype} and {truth.dtype}; convert them "
            "with astype(np.uint8)."
        )
    scores = {}
    for label in labels:
        masks = predicted == label, truth == label
        box = nonzero_box(masks[0] | masks[1])  # of the whole volume distances take long
        scores[label] = _score(masks[0][box], masks[1][box], spacing_mm)
    return scores


def _score(predicted: np.ndarray, truth: np.ndarray, spacing_mm: Sequence[float]) -> MaskScore:
    sizes = int(predicted.sum()), int(truth.sum())
    empty: Empty = ""
    if not all(sizes):
        empty = "both" if not any(sizes) else "truth" if sizes[0] else "predicted"
    voxel_mm3 = float(np.prod(spacing_mm))
    voxels, percentile_mm = None, None
    if not empty:
        voxels = float(max(map(np.max, _directed(predicted, truth, [1.0] * truth.ndim))))
        distances_mm = _directed(predicted, truth, spacing_mm)
        percentile_mm = float(max(np.percentile(each, _PERCENTILE) for each in distances_mm))
    return {
        "dice": 2 * int((predicted & truth).sum()) / sum(sizes) if sum(sizes) else None,
        "hausdorff_voxels": voxels,
        "hausdorff95_mm": percentile_mm,
        "volume_mm3": sizes[0] * voxel_mm3,
        "true_volume_mm3": sizes[1] * voxel_mm3,
        "empty": empty,
    }


def _directed(
    predicted: np.ndarray, truth: np.ndarray, spacing: Sequence[float]
) -> list[np.ndarray]:
    """Distances from each surface voxel of one mask to the other's surface, both ways."""
    surfaces = [mask ^ ndimage.binary_erosion(mask) for mask in (predicted, truth)]
    to_surface = [ndimage.distance_transform_edt(~each, sampling=spacing) for each in surfaces]
    return [to_surface[1][surfaces[0]], to_surface[0][surfaces[1]]]
