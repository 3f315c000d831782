"""Biomarkers of one subject, each image measured in its own mask."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mrn_components.biomarkers.catalogue import NIGROSOME_BELOW_PPB, Kind, biomarkers_of
from mrn_components.images.image import CHALLENGE_IMAGES, SIDES, Image
from mrn_components.images.masks import check_mask
from mrn_components.images.volume import Volume
from mrn_components.regions.surroundings import contrast_ratio

Measured = dict[str, float | None]


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
            check_mask(volumes[image.mask_name], image, volumes.get(image.name))
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
        nigra = np.argwhere(self.inside) + [axis.start for axis in self.box]
        return contrast_ratio(self.volume, self.mask, nigra, side=self.side, others=self.others)


def _nuclei(
    image: Image, images: Mapping[str, Image], volumes: Mapping[str, Volume]
) -> dict[tuple[str, str, str], _Nucleus]:
    """Find the nuclei that an image's mask has: {(image, nucleus, side): it}."""
    mask = volumes[image.mask_name]
    others = [other.mask_name for other in images.values() if other != image]
    nuclei = {}
    for number, box in mask.parts.items():
        name, side = image.ids[number]
        nuclei[image.name, name, side] = _Nucleus(
            number=number,
            side=side,
            volume=volumes.get(image.name),
            mask=mask,
            others=[volumes[key] for key in others if key in volumes],
            box=box,
        )
    return nuclei


def _asymmetry(values: Measured, measure: str) -> float | None:
    """Compare ``measure`` of the sides, if both are positive."""
    right, left = (values[f"{measure}_{side}"] for side in SIDES)
    if right is None or left is None or min(right, left) <= 0:
        return None
    return 2 * (right - left) / (right + left)


def _finite(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)].astype(float)
