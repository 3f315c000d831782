"""What the values of a susceptibility are relative to: measured, and taken out (``Image``)."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from mrn_components.images.finding import fault
from mrn_components.images.image import Image
from mrn_components.images.masks import check_mask
from mrn_components.images.volume import Volume
from mrn_components.regions.nuclei import Nuclei


def take_out_references(
    volumes: Mapping[str, Volume], images: Mapping[str, Image]
) -> tuple[dict[str, Volume], dict[str, float]]:
    """Shift the images that have a ``reference``, so that it has its usual value.

    Voxels of exactly 0 lie outside the brain and stay 0. An image that was shifted stays as it is.

    Args:
        volumes: images and masks by their keys, such as qsm and mask_qsm; those there are.
        images: what a subject has.

    Returns:
        The volumes, and what was taken out of each shifted one, in its quantity's unit.

    Raises:
        FaultyFileError: if the mask lacks the reference or is faulty, or there is no mask.
    """
    shifted = dict(volumes)
    shifts: dict[str, float] = {}
    for name, image in images.items():
        if image.reference == "none" or name not in volumes:
            continue
        volume = volumes[name]
        if volume.reference_shift is None:
            shift = _shift(volume, volumes.get(image.mask_name), image)
            voxels = np.where(volume.voxels == 0, np.float32(0), volume.voxels - np.float32(shift))
            volume = replace(volume, stored=voxels, slope=1.0, inter=0.0, factor=1.0)
            volume = replace(volume, reference_shift=shift)
        shifted[name] = volume
        shifts[name] = round(float(volume.reference_shift or 0.0), 4)
    return shifted, shifts


def _shift(volume: Volume, mask: Volume | None, image: Image) -> float:
    """How far an image's reference lies above its usual value."""
    if image.reference == "mean":
        values = volume.voxels[np.isfinite(volume.voxels) & (volume.voxels != 0)]
    elif mask is None:
        values = np.array([])
    else:
        check_mask(mask, image, volume)
        values = Nuclei(mask=mask, image=image).values(volume, image.reference)
    if not values.size:
        where = volume.path if mask is None else mask.path
        raise fault("no-reference", where, f"no {image.reference}", image=image.name)
    return float(values.mean(dtype=float)) - image.facts.references[image.reference]
