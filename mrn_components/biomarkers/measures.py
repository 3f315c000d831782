"""Biomarkers of one subject, each image measured in its own mask."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage

from mrn_components.biomarkers.catalogue import (
    NIGROSOME_BELOW_PPB,
    REFERENCE_CONE_DEGREES,
    REFERENCE_MM,
    Kind,
    biomarkers_of,
)
from mrn_components.images.boxes import nonzero_box
from mrn_components.images.image import CHALLENGE_IMAGES, SIDES, Image
from mrn_components.images.masks import check_mask
from mrn_components.images.volume import Volume

Measured = dict[str, float | None]

_MIN_REFERENCE_MM3 = 20.0  # a circle of 4 mm on one slice, the smallest that readers draw


def measure_nuclei(
    volumes: Mapping[str, Volume], images: Mapping[str, Image] = CHALLENGE_IMAGES
) -> Measured:
    """Measure volumes, susceptibility, neuromelanin and what else there is of the nuclei.

    ``biomarkers_of`` says what each column means. Images may lie on grids of their own; each is
    measured in its own mask and no voxel is resampled. Voxels that are not finite do not count.

    Args:
        volumes: images and masks by their keys, such as nm and mask_nm; those there are.
        images: what a subject has.

    Returns:
        {column: value}, every one of ``columns_of(images)``; None where an image, a mask or a
        nucleus is missing, never 0 or NaN.

    Raises:
        FaultyFileError: for a mask on another grid than its image, or mask values that are no ids.
    """
    turned = {key: volume.canonical for key, volume in volumes.items()}
    nuclei: dict[tuple[str, str, str], _Nucleus] = {}
    for image in images.values():
        if image.mask_name in turned:
            check_mask(turned[image.mask_name], image, turned.get(image.name))
            nuclei |= _nuclei(image, images, turned)
    values: Measured = {}
    for biomarker in biomarkers_of(images):
        for name in biomarker.nuclei:
            if biomarker.kind == "asymmetry":
                column = biomarker.column(name)
                values[column] = _asymmetry(values, column.removeprefix("asymmetry_"))
            else:
                for side in SIDES:
                    found = nuclei.get((biomarker.image, name, side))
                    value = None if found is None else found.measure(biomarker.kind)
                    values[biomarker.column(name, side)] = value
    return values


@dataclass(frozen=True, kw_only=True)
class _Nucleus:
    """One side of a nucleus, which is there."""

    number: int  # its id in the mask
    side: str  # right or left
    volume: Volume | None  # the image's voxels, on the axes closest to RAS+, if they are there
    mask: Volume
    others: Sequence[Volume]  # masks of the subject's other images
    box: tuple[slice, ...]  # around it in the mask

    @cached_property
    def inside(self) -> np.ndarray:
        """Where in the box it is."""
        return self.mask.ids[self.box] == self.number

    @cached_property
    def values(self) -> np.ndarray:
        """Finite values of the image in it."""
        if self.volume is None:
            return np.array([])
        return _finite(self.volume.values(self.box)[self.inside])

    def measure(self, kind: Kind) -> float | None:
        """Measure one thing; None if it cannot be measured."""
        if kind == "volume":
            return float(int(self.inside.sum()) * self.mask.voxel_mm3)
        if not self.values.size:
            return None
        if kind == "contrast":
            return self._contrast()
        if kind == "nigrosome":
            return float(np.mean(self.values < NIGROSOME_BELOW_PPB))
        return float(self.values.mean() if kind == "mean" else np.percentile(self.values, 95))

    def _contrast(self) -> float | None:
        assert self.volume is not None
        around = _finite(self.volume.values(_reference(self)))
        if around.size * self.mask.voxel_mm3 < _MIN_REFERENCE_MM3 or np.median(around) <= 0:
            return None
        reference = float(np.median(around))
        return (float(self.values.mean()) - reference) / reference


def _nuclei(
    image: Image, images: Mapping[str, Image], volumes: Mapping[str, Volume]
) -> dict[tuple[str, str, str], _Nucleus]:
    """Find the nuclei that an image's mask has: {(image, nucleus, side): it}."""
    mask = volumes[image.mask_name]
    others = [other.mask_name for other in images.values() if other != image]
    region = nonzero_box(mask.ids)
    boxes = ndimage.find_objects(mask.ids[region]) if mask.ids[region].size else []
    nuclei = {}
    for number, inner in enumerate(boxes, start=1):
        if inner is None:
            continue
        name, side = image.ids[number]
        nuclei[image.name, name, side] = _Nucleus(
            number=number,
            side=side,
            volume=volumes.get(image.name),
            mask=mask,
            others=[volumes[key] for key in others if key in volumes],
            box=tuple(
                slice(outer.start + axis.start, outer.start + axis.stop)
                for outer, axis in zip(region, inner, strict=True)
            ),
        )
    return nuclei


def _asymmetry(values: Measured, measure: str) -> float | None:
    """Compare ``measure`` of the sides, if both are positive."""
    right, left = (values[f"{measure}_{side}"] for side in SIDES)
    if right is None or left is None or min(right, left) <= 0:
        return None
    return 2 * (right - left) / (right + left)


def _reference(nucleus: _Nucleus) -> tuple[np.ndarray, ...]:
    """Voxels that stand for the crus cerebri: in front and outward of the SN of one side.

    No mask ids the crus. It borders the SN on its anterolateral face, so the reference is the
    tissue within a distance of the SN in a cone about that direction, without any labelled
    nucleus. The other directions hold the red nucleus, the ventral tegmental area, which has
    neuromelanin too, and the interpeduncular cistern.
    """
    near, far = REFERENCE_MM
    mask, number = nucleus.mask, nucleus.number
    nigra = np.argwhere(nucleus.inside) + [axis.start for axis in nucleus.box]
    reach = np.ceil(far / mask.spacing_mm).astype(int) + 1
    start = np.maximum(nigra.min(0) - reach, 0)
    box = tuple(slice(a, b) for a, b in zip(start, nigra.max(0) + reach + 1, strict=True))
    ids = mask.ids[box]
    distance, nearest = ndimage.distance_transform_edt(
        ids != number, sampling=mask.spacing_mm, return_indices=True
    )
    shell = np.argwhere((distance >= near) & (distance <= far) & (ids == 0))
    offset = (shell - nearest[(slice(None), *shell.T)].T) @ mask.affine[:3, :3].T  # mm, RAS+
    outward = 1 if nucleus.side == "right" else -1
    direction = np.array([outward, 1, 0]) / np.sqrt(2)
    cosine = offset @ direction / np.linalg.norm(offset, axis=1)
    voxels = shell[cosine >= np.cos(np.deg2rad(REFERENCE_CONE_DEGREES))] + start
    for other in nucleus.others:
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
