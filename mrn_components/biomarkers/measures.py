"""Biomarkers of one subject, each image measured in its own mask."""

from collections.abc import Iterator

import numpy as np
from scipy import ndimage

from mrn_components.biomarkers.catalogue import (
    COLUMNS,
    NIGROSOME_BELOW_PPB,
    REFERENCE_CONE_DEGREES,
    REFERENCE_MM,
)
from mrn_components.images.labels import LABELS, SIDES
from mrn_components.images.volumes import (
    Volume,
    VolumeSource,
    check_same_grid,
    read_mask,
    read_volume,
)

Measured = dict[str, float | None]

_MIN_REFERENCE_MM3 = 20.0  # a circle of 4 mm on one slice, the smallest that readers draw


def biomarkers(
    nm: VolumeSource | None,
    qsm: VolumeSource | None,
    mask_nm: VolumeSource | None,
    mask_qsm: VolumeSource | None,
) -> Measured:
    """Measure volumes, susceptibility and neuromelanin of the nuclei on each side.

    ``BIOMARKERS`` says what each column means. NM and QSM may lie on grids of their own; each is
    measured in its own mask and no voxel is resampled. Voxels that are not finite do not count.

    Args:
        nm: neuromelanin image in arbitrary units; path, nibabel image, or None where it is absent.
        qsm: susceptibility map in ppb.
        mask_nm: label ids of ``LABELS["nm"]`` on the grid of ``nm``.
        mask_qsm: label ids of ``LABELS["qsm"]`` on the grid of ``qsm``.

    Returns:
        {column: value}, every one of ``COLUMNS``; None where an image, a mask or a nucleus is
        missing, never 0 or NaN.

    Raises:
        FileNotFoundError: if a file is not there.
        ValueError: for an unreadable file, a mask on another grid than its image, or mask values
            that are no label ids.
    """
    nuclei_nm = None if mask_nm is None else read_mask(mask_nm, "nm")
    nuclei_qsm = None if mask_qsm is None else read_mask(mask_qsm, "qsm")
    values: Measured = dict.fromkeys(COLUMNS)
    if nuclei_qsm is not None:
        values |= _measure_qsm(_on_grid(qsm, nuclei_qsm), nuclei_qsm)
    if nuclei_nm is not None:
        values |= _measure_nm(_on_grid(nm, nuclei_nm), nuclei_nm, nuclei_qsm)
    return values | _asymmetries(values)


def _on_grid(source: VolumeSource | None, mask: Volume) -> Volume | None:
    if source is None:
        return None
    volume = read_volume(source)
    check_same_grid(volume, mask)
    return volume


def _measure_qsm(qsm: Volume | None, mask: Volume) -> Measured:
    values: Measured = {}
    for nucleus, side, inside, box in _nuclei(mask, "qsm"):
        values[f"volume_mm3_{nucleus}_{side}"] = float(inside.sum() * mask.voxel_mm3)
        chi = np.array([]) if qsm is None else _finite(qsm.array[box][inside])
        if chi.size:
            values[f"qsm_mean_ppb_{nucleus}_{side}"] = float(chi.mean())
            values[f"qsm_p95_ppb_{nucleus}_{side}"] = float(np.percentile(chi, 95))
            if nucleus == "SN":
                share = np.mean(chi < NIGROSOME_BELOW_PPB)
                values[f"nigrosome_fraction_{side}"] = float(share)
    return values


def _measure_nm(nm: Volume | None, mask: Volume, nuclei_qsm: Volume | None) -> Measured:
    values: Measured = {}
    for _, side, inside, box in _nuclei(mask, "nm"):
        values[f"nm_volume_mm3_{side}"] = float(inside.sum() * mask.voxel_mm3)
        signal = np.array([]) if nm is None else _finite(nm.array[box][inside])
        if nm is not None and signal.size:
            around = _finite(nm.array[_reference(mask, side, nuclei_qsm)])
            if around.size * mask.voxel_mm3 >= _MIN_REFERENCE_MM3 and np.median(around) > 0:
                reference = float(np.median(around))
                values[f"nm_contrast_ratio_{side}"] = (float(signal.mean()) - reference) / reference
    return values


def _asymmetries(values: Measured) -> Measured:
    """Compare the sides: ``asymmetry_X`` of ``X_right`` and ``X_left``, where both are positive."""
    asymmetries: Measured = {}
    for column in COLUMNS:
        if column.startswith("asymmetry_"):
            measure = column.removeprefix("asymmetry_")
            right, left = (values[f"{measure}_{side}"] for side in SIDES)
            if right is not None and left is not None and min(right, left) > 0:
                asymmetries[column] = 2 * (right - left) / (right + left)
    return asymmetries


def _nuclei(
    mask: Volume, image: str
) -> Iterator[tuple[str, str, np.ndarray, tuple[slice, slice, slice]]]:
    """Yield (nucleus, side, its voxels in its box, the box) of every nucleus that is there."""
    boxes = dict(enumerate(ndimage.find_objects(mask.array), start=1))
    for nucleus, ids in LABELS[image].items():
        for side, number in zip(SIDES, ids, strict=True):
            box = boxes.get(number)
            if box is not None:
                yield nucleus, side, mask.array[box] == number, box


def _reference(mask: Volume, side: str, nuclei_qsm: Volume | None) -> tuple[np.ndarray, ...]:
    """Voxels that stand for the crus cerebri: in front and outward of the SN of one side.

    No mask labels the crus. It borders the SN on its anterolateral face, so the reference is the
    tissue within a distance of the SN in a cone about that direction, without any labelled
    nucleus. The other directions hold the red nucleus, the ventral tegmental area, which has
    neuromelanin too, and the interpeduncular cistern.
    """
    near, far = REFERENCE_MM
    number = LABELS["nm"]["SN"][SIDES.index(side)]
    nigra = np.argwhere(mask.array == number)
    reach = np.ceil(far / mask.spacing_mm).astype(int) + 1
    start = np.maximum(nigra.min(0) - reach, 0)
    box = tuple(slice(a, b) for a, b in zip(start, nigra.max(0) + reach + 1, strict=True))
    labels = mask.array[box]
    distance, nearest = ndimage.distance_transform_edt(
        labels != number, sampling=mask.spacing_mm, return_indices=True
    )
    shell = np.argwhere((distance >= near) & (distance <= far) & (labels == 0))
    offset = (shell - nearest[(slice(None), *shell.T)].T) @ mask.affine[:3, :3].T  # mm, RAS+
    outward = 1 if side == "right" else -1
    direction = np.array([outward, 1, 0]) / np.sqrt(2)
    cosine = offset @ direction / np.linalg.norm(offset, axis=1)
    voxels = shell[cosine >= np.cos(np.deg2rad(REFERENCE_CONE_DEGREES))] + start
    if nuclei_qsm is not None:
        voxels = voxels[~_labelled(voxels, mask.affine, nuclei_qsm)]
    return tuple(voxels.T)


def _labelled(voxels: np.ndarray, affine: np.ndarray, mask: Volume) -> np.ndarray:
    """Whether the centres of voxels of another grid lie in a labelled voxel of ``mask``."""
    to_mask = np.linalg.inv(mask.affine) @ affine
    other = np.rint(voxels @ to_mask[:3, :3].T + to_mask[:3, 3]).astype(int)
    inside = ((other >= 0) & (other < mask.array.shape)).all(1)
    found = np.zeros(len(voxels), bool)
    found[inside] = mask.array[tuple(other[inside].T)] > 0
    return found


def _finite(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)].astype(float)
