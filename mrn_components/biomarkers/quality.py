"""Numbers of an image's quality: contrast, noise and ghosts, by its own voxels and mask.

They compare scans of one study; no limit is known that parts good from bad.
"""

from collections.abc import Mapping

import numpy as np
from scipy import ndimage

from mrn_components.images.image import Image
from mrn_components.images.volume import Volume

Quality = dict[str, float | None]  # "contrast_to_noise", "noise", "ghosts"; None: not measurable

# Differences of second order along both axes of a slice: tissue that changes slowly gives nothing
# (Immerkaer 1996, doi:10.1006/cviu.1996.0060); white noise gives 6 times its deviation.
_SECOND = np.outer([1, -2, 1], [1, -2, 1])
_GAIN = 6.0
_NORMAL_MAD = 0.6745  # median of |x| of a normal variable of deviation 1
_HEAD = 0.3  # of the tissue around the nuclei: what is darker in an image of signal is air
_BESIDE = ndimage.generate_binary_structure(2, 1)[..., None]  # voxels that touch in a slice
_LEAST_AIR = 200  # voxels on either side of the comparison


def measure_quality(
    volumes: Mapping[str, Volume], images: Mapping[str, Image]
) -> dict[str, Quality]:
    """Measure each image that has a mask.

    - ``contrast_to_noise``: the substantia nigra's median, or of an image without it that of all
      nuclei, less the median of the tissue around the nuclei, in units of the noise.
    - ``noise``: deviation from voxel to voxel, in the image's unit, of arbitrary units as a share
      of the tissue around.
    - ``ghosts``: how much brighter air around the head is where the head would fold over by half
      the field of view, as motion and pulsation make it, than elsewhere, as a share of the tissue:
      the larger of both axes of a slice (MRIQC's ghost-to-signal ratio). None of images with a
      unit, and where there is too little air, or none but zeros.

    Args:
        volumes: images and masks by their keys, such as nm and mask_nm, each pair on one grid.
        images: what a subject has.
    """
    return {
        name: _measured(volumes[name].canonical, volumes[image.mask_name].canonical, image)
        for name, image in images.items()
        if name in volumes and image.mask_name in volumes
    }


def _measured(volume: Volume, mask: Volume, image: Image) -> Quality:
    unknown: Quality = dict.fromkeys(("contrast_to_noise", "noise", "ghosts"))
    box = mask.labelled
    values, ids = volume.values(box).astype(float), mask.ids[box]
    sought = image.nuclei.get("SN", tuple(image.ids))
    nuclei = values[np.isin(ids, sought) & np.isfinite(values)]
    around = values[(ids == 0) & np.isfinite(values)]
    if not nuclei.size or not around.size or min(values.shape[:2]) < len(_SECOND):
        return unknown
    noise = _noise(values, ids)
    tissue = float(np.median(around))
    contrast = float(np.median(nuclei)) - tissue
    found = unknown | {"contrast_to_noise": contrast / noise if noise else None}
    if image.value_unit:
        return found | {"noise": noise}
    if tissue <= 0:
        return found
    z = slice(box[2].start, box[2].stop)
    ghosts = _ghosts(volume.values((slice(None), slice(None), z)).astype(float), tissue)
    return found | {"noise": noise and noise / tissue, "ghosts": ghosts}


def _noise(values: np.ndarray, ids: np.ndarray) -> float | None:
    """Deviation of white noise in slices (X, Y, Z), away from the edges of nuclei.

    None where these leave no voxel.
    """
    second = ndimage.convolve(values, _SECOND[..., None].astype(float))
    window = (*_SECOND.shape, 1)
    flat = ndimage.maximum_filter(ids, window) == ndimage.minimum_filter(ids, window)
    flat[[0, -1]] = flat[:, [0, -1]] = False
    found = np.abs(second[flat & np.isfinite(second)])
    return float(np.median(found) / _NORMAL_MAD / _GAIN) if found.size else None


def _ghosts(values: np.ndarray, tissue: float) -> float | None:
    """Compare air that a head half a field of view away would fold over with other air.

    Air inside the head, as in sinuses, is neither: slice by slice (X, Y, Z) its holes are filled.
    """
    values = np.nan_to_num(values)
    head = ndimage.binary_opening(values > _HEAD * tissue, np.ones((3, 3, 1)))
    head = ndimage.binary_fill_holes(head, _BESIDE)
    found = []
    for axis in (0, 1):
        folded = np.roll(head, values.shape[axis] // 2, axis) & ~head
        rest = ~head & ~folded
        if min(folded.sum(), rest.sum()) >= _LEAST_AIR and values[~head].any():
            found.append(float(values[folded].mean() - values[rest].mean()) / tissue)
    return max(found, default=None)
