"""Where a nuclei network looks: the region of the nuclei, and the whole head where that fails.

K ids of nuclei, D slices, H rows, W columns.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.transforms import KeepLargestConnectedComponent
from nibabel.affines import voxel_sizes
from torch import Tensor

from mrn_components.images.boxes import Box
from mrn_components.segmentation.plan import read_plan

_logger = logging.getLogger(__name__)


class NucleiRegionInferer(Inferer):
    """Label the voxels of an image by windows over the region of its nuclei.

    The nuclei fill a tenth of the head, so that windows over their region alone save the most of
    the time. The region is a box about the centre of the image, which ``CropForegroundd`` cropped
    to the head, or about ``centre``. Where a nucleus is not found in it or touches its border, the
    windows go over the whole image. Images of another spacing are resampled to the plan's there,
    and the logits back.

    Args:
        plan: JSON file of the plan, or the plan.
        region_mm: size of the region along D, H, W. None looks everywhere.
        offset_mm: from the image's centre to the region's, along D (up), H (front), W (left).
        overlap: of neighbouring windows. nnU-Net: 0.5.

    Raises:
        ValueError: for a file that is no plan.
    """

    def __init__(
        self,
        *,
        plan: str | Path | Mapping[str, Any],
        # The nuclei of the challenge's samples and of phantoms, and 15 mm on every side.
        region_mm: Sequence[float] | None = (96.0, 120.0, 100.0),
        offset_mm: Sequence[float] = (-16.0, 0.0, 0.0),
        overlap: float = 0.5,
    ) -> None:
        super().__init__()
        content = read_plan(plan)
        self.spacing_mm = np.array(content["spacing_mm"])
        self.patch_mm = self.spacing_mm * content["patch_voxels"]
        self.labels = set(range(1, content["labels"] + 1))
        self.patch_voxels = tuple(content["patch_voxels"])
        self.region_mm, self.offset_mm, self.overlap = region_mm, np.array(offset_mm), overlap
        # A nucleus is one piece; strays would also tell that it touches the border.
        self.keep_largest = KeepLargestConnectedComponent(is_onehot=False, connectivity=3)

    def __call__(
        self,
        inputs: Any,  # MONAI says Tensor
        network: Callable[..., Tensor],
        *_args: Any,
        centre: Sequence[float] | None = None,
        region_mm: Sequence[float] | None = None,
        **_kwargs: Any,
    ) -> Tensor:
        """Label an image.

        Args:
            inputs: one image (1, 1, D, H, W), normalised, in the plan's orientation. A
                ``MetaTensor`` knows its spacing, others have the plan's.
            network: maps a patch to logits, as ``NucleiUNet``.
            centre: centre of the region in voxels along D, H, W.
            region_mm: size of the region about ``centre``.

        Returns:
            Label ids (1, 1, D, H, W), uint8, the largest component of each; 0 is background.

        Raises:
            ValueError: for more than one image.
        """
        if inputs.ndim != 5 or inputs.shape[:2] != (1, 1):
            raise ValueError(
                f"NucleiRegionInferer takes one image (1, 1, D, H, W) at a time, got "
                f"{tuple(inputs.shape)}; set batch_size to 1."
            )
        image, spacing = inputs, self.spacing_mm
        if isinstance(inputs, MetaTensor):
            affine = torch.as_tensor(inputs.affine).reshape(-1, 4, 4)[0]
            image, spacing = inputs.as_tensor(), voxel_sizes(affine.cpu().numpy())
        whole = Box(np.zeros(3, dtype=int), np.array(image.shape[2:]))
        region = self._region(whole, spacing, centre, region_mm)
        found = self._label(image, network, region, spacing)
        fault = self._fault(found, region, whole)
        if fault is not None and not np.array_equal(region, whole):
            _logger.info("%s: the whole image is searched.", fault)
            region, found = whole, self._label(image, network, whole, spacing)
        labels = torch.zeros_like(inputs, dtype=torch.uint8)  # of a MetaTensor one, for Invertd
        labels[0, 0][region.inside] = found
        return labels

    def logits(self, image: Tensor, network: Callable[..., Tensor]) -> Tensor:
        """Average the network's logits over windows, which lie and weigh as nnU-Net's.

        The image (1, 1, D, H, W), normalised, has the plan's spacing and orientation; the logits
        are (1, 1 + K, D, H, W). A ValueError says that they are not finite.
        """
        from acvl_utils.cropping_and_padding.padding import pad_nd_image  # nnU-Net's
        from nnunetv2.inference.sliding_window_prediction import (
            compute_gaussian,
            compute_steps_for_sliding_window,
        )

        padded, inner = pad_nd_image(image, self.patch_voxels, return_slicer=True)
        steps = compute_steps_for_sliding_window(
            tuple(padded.shape[2:]), self.patch_voxels, 1 - self.overlap
        )
        # In half precision with this factor, as nnU-Net: the masks are then the same to a voxel.
        weights = compute_gaussian(
            self.patch_voxels, 1 / 8, 10, device=image.device, dtype=torch.half
        )
        total = weights.new_zeros(1, 1 + len(self.labels), *padded.shape[2:])
        norm = weights.new_zeros(padded.shape[2:])
        for corner in product(*steps):
            d, h, w = (slice(c, c + p) for c, p in zip(corner, self.patch_voxels, strict=True))
            total[:, :, d, h, w] += network(padded[:, :, d, h, w]) * weights
            norm[d, h, w] += weights
        if not bool(torch.isfinite(total).all()):
            raise ValueError(
                "the nuclei network gives no finite numbers for this image; look for infinite "
                "voxels and another unit than in training, or get its weights anew."
            )
        return (total / norm)[:, :, *inner[2:]].float()

    def _region(
        self,
        whole: Box,
        spacing: np.ndarray,
        centre: Sequence[float] | None,
        region_mm: Sequence[float] | None,
    ) -> Box:
        size_mm = self.region_mm if region_mm is None else region_mm
        if size_mm is None:
            return whole
        shape = whole.stop
        middle = shape / 2 + self.offset_mm / spacing if centre is None else np.array(centre)
        half = np.maximum(size_mm, self.patch_mm) / 2 / spacing  # a smaller one would be padded
        start = np.clip(np.floor(middle - half), 0, shape - 1).astype(int)
        stop = np.clip(np.ceil(middle + half), start + 1, shape).astype(int)
        return Box(start, stop)

    def _label(
        self, image: Tensor, network: Callable[..., Tensor], region: Box, spacing: np.ndarray
    ) -> Tensor:
        """Label ids (d, h, w) of a region."""
        d, h, w = region.inside
        crop = image[:, :, d, h, w]
        factors = spacing / self.spacing_mm
        native = crop.shape[2:]
        if np.abs(factors - 1).max() > 0.01:
            crop = _resize(crop, np.maximum(1, np.round(factors * native)).astype(int).tolist())
        logits = self.logits(crop, network)
        if logits.shape[2:] != native:
            logits = _resize(logits, native)
        return self.keep_largest(logits.argmax(dim=1).to(torch.uint8))[0]

    def _fault(self, labels: Tensor, region: Box, whole: Box) -> str | None:
        """What is wrong with the labels of a region, if something is."""
        if missing := sorted(self.labels - set(labels.unique().tolist())):
            return f"labels {missing} are not in the region"
        for axis in range(3):
            # A nucleus at the image's own border cannot be completed by looking further.
            low, high = region.start[axis] > 0, region.stop[axis] < whole.stop[axis]
            first, last = labels.select(axis, 0), labels.select(axis, -1)
            if (low and bool(first.any())) or (high and bool(last.any())):
                return "a nucleus touches the border of the region"
        return None


def _resize(volume: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(volume.float(), list(size), mode="trilinear", align_corners=False)
