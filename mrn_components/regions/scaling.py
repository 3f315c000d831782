"""Intensities of images as the network takes them (section 3.3)."""

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.transforms import ScaleIntensityRange, ScaleIntensityRangePercentiles, Transform

from mrn_components.images.image import Image
from mrn_components.regions.roi import ROI, images_of


class ScaleImagesd(Transform):
    """Scale the images that the ROIs need to [0, 1], each as its ``Image`` says.

    An image with a ``window`` is quantitative: the window becomes [0, 1], the same for all
    subjects. Others have arbitrary units: each volume's own ``percentiles`` become [0, 1]. What
    lies beyond is cut. A volume that is absent stays so, and so does one with a
    ``relative_window``, whose crops ``ROICropd`` scales.

    Args:
        rois: the regions of interest by name.
    """

    def __init__(self, *, rois: Mapping[str, ROI]) -> None:
        images = images_of(rois).items()
        self.scalers = {n: _scaler(image) for n, image in images if image.relative_window is None}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Scale the images."""
        d = dict(data)
        return d | {name: scale(d[name]) for name, scale in self.scalers.items() if name in d}


def scale_crop(crop: torch.Tensor, mask: torch.Tensor, image: Image) -> torch.Tensor:
    """Scale a crop (1, D, H, W) of an image that has a ``relative_window`` to [0, 1].

    What lies beyond is cut. The unit is the median of the positive voxels around the nuclei, where
    the ``mask`` of the same shape is 0; 1 without any. Crops of other images are returned as they
    are.
    """
    if image.relative_window is None:
        return crop
    tissue = crop[(mask == 0) & (crop > 0)]  # not padding, nor what a skull strip has taken
    unit = float(tissue.float().median()) if tissue.numel() else 1.0
    low, high = (end * unit for end in image.relative_window)
    return ((crop - low) / (high - low)).clamp(0, 1)


def _scaler(image: Image) -> Transform:
    if image.window is not None:
        return ScaleIntensityRange(*image.window, 0.0, 1.0, clip=True)
    return ScaleIntensityRangePercentiles(*image.percentiles, 0.0, 1.0, clip=True)
