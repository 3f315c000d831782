"""Augmentation of the regions of interest (section 4.1.2)."""

from collections.abc import Iterable, Mapping
from typing import Any

from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    RandAdjustContrastd,
    RandFlipd,
    RandGaussianNoised,
    RandHistogramShiftd,
    RandRotated,
    RandShiftIntensityd,
    SqueezeDimd,
)

from mrn_components.regions.roi import crop_keys

Arguments = Mapping[str, Any]


def augment_rois(
    *,
    rois: Iterable[str],
    histogram_shift: Arguments | None = None,
    contrast: Arguments | None = None,
    intensity_shift: Arguments | None = None,
    mirror: Arguments | None = None,
    rotation: Arguments | None = None,
    noise: Arguments | None = None,
) -> Compose:
    """Compose MONAI's random transforms, so that all ROIs of a subject share each draw but noise.

    Section 4.1.2 names the kinds; their magnitudes are ours. Each takes the arguments of MONAI's
    transform, such as ``prob``; None leaves it out.

    Args:
        rois: names of the ROIs; each has an image ``NAME`` and a mask ``mask_NAME`` (1, D, H, W).
        histogram_shift: of ``RandHistogramShiftd``, for images.
        contrast: of ``RandAdjustContrastd``, for images.
        intensity_shift: of ``RandShiftIntensityd``, for images.
        mirror: of ``RandFlipd``, left-right, for images and masks.
        rotation: of ``RandRotated`` in the plane of the slices, for images and masks.
        noise: of ``RandGaussianNoised``, for each image anew.
    """
    images = list(rois)
    both = crop_keys(images)
    modes = ["bilinear"] * len(images) + ["nearest"] * len(images)
    transforms: list[Any] = []
    for kind, arguments in (
        (RandHistogramShiftd, histogram_shift),
        (RandAdjustContrastd, contrast),
        (RandShiftIntensityd, intensity_shift),
    ):
        if arguments is not None:
            transforms.append(kind(keys=images, **arguments))
    transforms.append(SqueezeDimd(keys=both, dim=0))  # slices as channels: 2D is faster
    if mirror is not None:
        transforms.append(RandFlipd(keys=both, spatial_axis=1, **mirror))
    if rotation is not None:  # not RandAffined, which gives every key the first one's shape
        transforms.append(RandRotated(keys=both, mode=modes, padding_mode="border", **rotation))
    transforms.append(EnsureChannelFirstd(keys=both, channel_dim="no_channel"))
    if noise is not None:  # one each: a shared one adds the first ROI's noise to all
        transforms += [RandGaussianNoised(keys=name, **noise) for name in images]
    return Compose(transforms)
