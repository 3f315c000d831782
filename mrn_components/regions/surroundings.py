"""The substantia nigra against the tissue that stands for the crus cerebri."""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from mrn_components.images.volume import Volume

REFERENCE_MM = (2.0, 6.0)  # nearest and farthest tissue of the reference from the SN
REFERENCE_CONE_DEGREES = 30.0  # about the anterolateral direction
_MIN_REFERENCE_MM3 = 20.0  # a circle of 4 mm on one slice, the smallest that readers draw


def contrast_ratio(
    volume: Volume, mask: Volume, nigra: np.ndarray, *, side: str, others: Sequence[Volume]
) -> float | None:
    """Return (mean signal of the SN of one side - reference) / reference.

    The reference is the median of the tissue that ``crus_voxels`` finds. Voxels that are not finite
    do not count.

    Args:
        volume: the image, on the axes closest to right, anterior, superior.
        mask: its mask, on the same grid.
        nigra: voxels (N, 3) of the SN of one side.
        side: right or left.
        others: masks of the subject's other images.

    Returns:
        None without values, with too little tissue, or where the reference is not positive.
    """
    values = _finite(volume.values(tuple(nigra.T)))
    if not values.size:
        return None
    around = _finite(volume.values(crus_voxels(mask, nigra, side, others)))
    if around.size * mask.voxel_mm3 < _MIN_REFERENCE_MM3 or np.median(around) <= 0:
        return None
    reference = float(np.median(around))
    return (float(values.mean()) - reference) / reference


def crus_voxels(
    mask: Volume, nigra: np.ndarray, side: str, others: Sequence[Volume]
) -> tuple[np.ndarray, ...]:
    """Voxels that stand for the crus cerebri: in front and outward of the SN of one side.

    No mask ids the crus. It borders the SN on its anterolateral face, so the reference is the
    tissue within a distance of the SN in a cone about that direction, without any labelled
    nucleus. The other directions hold the red nucleus, the ventral tegmental area, which has
    neuromelanin too, and the interpeduncular cistern.
    """
    near, far = REFERENCE_MM
    reach = np.ceil(far / mask.spacing_mm).astype(int) + 1
    start = np.maximum(nigra.min(0) - reach, 0)
    box = tuple(slice(a, b) for a, b in zip(start, nigra.max(0) + reach + 1, strict=True))
    ids = mask.ids[box]
    number = mask.ids[tuple(nigra[0])]
    distance, nearest = ndimage.distance_transform_edt(
        ids != number, sampling=mask.spacing_mm, return_indices=True
    )
    shell = np.argwhere((distance >= near) & (distance <= far) & (ids == 0))
    offset = (shell - nearest[(slice(None), *shell.T)].T) @ mask.affine[:3, :3].T  # mm, RAS+
    outward = 1 if side == "right" else -1
    direction = np.array([outward, 1, 0]) / np.sqrt(2)
    cosine = offset @ direction / np.linalg.norm(offset, axis=1)
    voxels = shell[cosine >= np.cos(np.deg2rad(REFERENCE_CONE_DEGREES))] + start
    for other in others:
        voxels = voxels[~_labelled(voxels, mask.affine, other)]
    return tuple(voxels.T)


def _labelled(voxels: np.ndarray, affine: np.ndarray, mask: Volume) -> np.ndarray:
    """Whether the centres of voxels of another grid lie in a labelled voxel of ``mask``."""
    to_mask = np.linalg.inv(mask.affine) @ affine
    other = np.rint(voxels @ to_mask[:3, :3].T + to_mask[:3, 3]).astype(int)
    inside = ((other >= 0) & (other < mask.ids.shape)).all(1)
    found = np.zeros(len(voxels), bool)
    found[inside] = mask.ids[tuple(other[inside].T)] > 0
    return found


def _finite(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)].astype(float)
