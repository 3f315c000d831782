"""Intensities of images as the network takes them (section 3.3)."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from monai.transforms import ScaleIntensityRange, Transform
from monai.transforms.utils_pytorch_numpy_unification import percentile

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
        return d | {
            name: scale(d[name]).float() for name, scale in self.scalers.items() if name in d
        }


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
    return _into_window(crop, low, high)


def _scaler(image: Image) -> Callable[[torch.Tensor], torch.Tensor]:
    if image.window is not None:
        low, high = image.window
        return partial(_into_window, low=low, high=high)
    return partial(_between_percentiles, percentiles=image.percentiles)


def _into_window(values: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Do what MONAI's ``ScaleIntensityRange`` to [0, 1] does, and copy a volume once."""
    return (values - low).div_(high - low).clamp_(0, 1)


def _between_percentiles(values: torch.Tensor, percentiles: Sequence[float]) -> torch.Tensor:
    """Do what MONAI's ``ScaleIntensityRangePercentiles`` does, and sort a volume once."""
    ends: Any = percentile(values, percentiles)
    low, high = ends
    scale: Any = ScaleIntensityRange(low, high, 0.0, 1.0, clip=True)
    return scale(values)
