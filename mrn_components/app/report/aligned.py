"""Pictures of an image that was aligned to another one: before, and after."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from mrn_components.app.align import alignment_of
from mrn_components.app.report.slices import Picture, draw_slice, percentile_window
from mrn_components.images.image import Image
from mrn_components.images.volume import Volume

_SIDE_MM = 70.0  # of a picture


def draw_aligned(
    found: Mapping[str, Any], moving: Volume, fixed: Volume, mask: Volume, image: Image
) -> list[Picture]:
    """Draw an image in a slice of another one as its file says, and as it was aligned.

    The contours are those of the other one's nuclei.

    Args:
        found: what a record holds of the alignment.
        moving: the image.
        fixed: the other one.
        mask: its nuclei.
        image: what the other one is.
    """
    fixed, mask, moving = fixed.canonical, mask.canonical, moving.canonical
    shown = {name: image.nuclei[name] for name in ("SN", "RN") if name in image.nuclei}
    shown = shown or dict(image.nuclei)
    nuclei = np.argwhere(np.isin(mask.ids, [number for pair in shown.values() for number in pair]))
    if not nuclei.size:
        return []
    middle = np.rint(nuclei.mean(axis=0)).astype(int)
    half = np.ceil(_SIDE_MM / 2 / fixed.spacing_mm).astype(int)
    start = np.maximum(middle - half, 0)
    stop = np.minimum(middle + half, fixed.shape)
    start[2], stop[2] = middle[2], middle[2] + 1
    box = tuple(map(slice, start.tolist(), stop.tolist()))
    affine = fixed.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ start
    part = Volume(path=Path(mask.path.name), stored=mask.ids[box], affine=affine)
    places = (moving.affine, alignment_of(found).matrix @ moving.affine)
    planes = [_resampled(moving, np.linalg.inv(place) @ affine, part.shape) for place in places]
    window = percentile_window(planes[1])
    return [
        draw_slice(
            part.with_voxels(plane, moving.path), part, 0, nuclei=shown, boxes={}, window=window
        )
        for plane in planes
    ]


def _resampled(volume: Volume, to_voxels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return a volume on another grid, whose voxels a matrix (4, 4) maps to the volume's."""
    values = ndimage.affine_transform(
        np.nan_to_num(volume.values(...)).astype(np.float32),
        to_voxels[:3, :3],
        to_voxels[:3, 3],
        output_shape=shape,
        order=1,
    )
    return np.asarray(values)
