"""Augmentation of the regions of interest (section 4.1.2)."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch.nn.functional as F  # noqa: N812  as torch names it
from monai import transforms
from torch import Tensor

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
    jitter: Arguments | None = None,
) -> transforms.Compose:
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
        jitter: of ``RandJitterBoxesd``, for each ROI anew.
    """
    images = list(rois)
    both = crop_keys(images)
    modes = ["bilinear"] * len(images) + ["nearest"] * len(images)
    steps: list[Any] = [] if jitter is None else [RandJitterBoxesd(rois=images, **jitter)]
    for kind, arguments in (
        (transforms.RandHistogramShiftd, histogram_shift),
        (transforms.RandAdjustContrastd, contrast),
        (transforms.RandShiftIntensityd, intensity_shift),
    ):
        if arguments is not None:
            steps.append(kind(keys=images, **arguments))
    steps.append(transforms.SqueezeDimd(keys=both, dim=0))  # slices as channels: 2D is faster
    if mirror is not None:
        steps.append(transforms.RandFlipd(keys=both, spatial_axis=1, **mirror))
    if rotation is not None:  # not RandAffined, which gives every key the first one's shape
        rotate = transforms.RandRotated(keys=both, mode=modes, padding_mode="border", **rotation)
        steps.append(rotate)
    steps.append(transforms.EnsureChannelFirstd(keys=both, channel_dim="no_channel"))
    if noise is not None:  # one each: a shared one adds the first ROI's noise to all
        steps += [transforms.RandGaussianNoised(keys=name, **noise) for name in images]
    return transforms.Compose(steps)


class RandJitterBoxesd(transforms.RandomizableTransform):
    """Move the sides of the ROIs' boxes, as another reader's masks would.

    Each side moves by its own number of voxels. What lies beyond a crop repeats its edge, and is
    background in its mask.

    Args:
        rois: names of the ROIs; each has an image ``NAME`` and a mask ``mask_NAME`` (1, D, H, W).
        max_voxels: how far a side moves at most, along D, H and W.
        prob: of moving those of a subject.

    Raises:
        ValueError: for something else than three numbers of voxels.
    """

    def __init__(
        self, *, rois: Iterable[str], max_voxels: Sequence[int] = (1, 2, 2), prob: float = 0.5
    ) -> None:
        super().__init__(prob)
        if isinstance(max_voxels, int) or len(max_voxels) != 3 or min(max_voxels) < 0:
            raise ValueError(f"max_voxels must be [slices, rows, columns], got {max_voxels!r}.")
        self.rois = list(rois)
        self.max_voxels = np.array(max_voxels)[:, None]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Move the boxes."""
        d = dict(data)
        self.randomize(None)
        for name in self.rois if self._do_transform else ():
            moves = self.R.randint(-self.max_voxels, self.max_voxels + 1, size=(3, 2))
            d[name] = _moved(d[name], moves, "replicate")
            d[f"mask_{name}"] = _moved(d[f"mask_{name}"], moves, "constant")
        return d


def _moved(crop: Tensor, moves: np.ndarray, mode: str) -> Tensor:
    """Move the sides of a crop (1, D, H, W) outwards, where ``moves`` (3, 2) is positive, or in."""
    for axis, (before, after) in enumerate(moves.tolist(), start=1):
        start = min(max(-before, 0), crop.shape[axis] - 1)
        crop = crop.narrow(axis, start, max(1, crop.shape[axis] - start - max(-after, 0)))
    outwards = np.maximum(moves, 0)[::-1].ravel().tolist()  # torch begins with the last axis
    return F.pad(crop[None], outwards, mode=mode)[0]
