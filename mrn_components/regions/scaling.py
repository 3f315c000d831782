"""Intensities of images as the network takes them (section 3.3)."""

from collections.abc import Hashable, Mapping
from typing import Any

from monai.transforms import ScaleIntensityRange, ScaleIntensityRangePercentiles, Transform

from mrn_components.images.image import Image
from mrn_components.regions.roi import ROI, images_of


class ScaleImagesd(Transform):
    """Scale the images that the ROIs need to [0, 1], each as its ``Image`` says.

    An image with a ``window`` is quantitative: the window becomes [0, 1], the same for all
    subjects. Others have arbitrary units: each volume's own ``percentiles`` become [0, 1]. What
    lies beyond is cut. A volume that is absent stays so.

    Args:
        rois: the regions of interest by name.
    """

    def __init__(self, *, rois: Mapping[str, ROI]) -> None:
        self.scalers = {name: _scaler(image) for name, image in images_of(rois).items()}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Scale the images."""
        d = dict(data)
        return d | {name: scale(d[name]) for name, scale in self.scalers.items() if name in d}


def _scaler(image: Image) -> Transform:
    if image.window is not None:
        return ScaleIntensityRange(*image.window, 0.0, 1.0, clip=True)
    return ScaleIntensityRangePercentiles(*image.percentiles, 0.0, 1.0, clip=True)
