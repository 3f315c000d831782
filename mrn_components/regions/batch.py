"""From a collated batch to the network's inputs and targets (section 3.3).

B subjects; C channels, D slices, H rows, W columns of a crop. Crops have one channel, the image, or
further ones of ``ROIMaskChannelsd``, which are resized like the image: at the edges between nuclei
their values lie between 0 and 1 and still sum to 1.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  as torch names it
from torch import Tensor

from mrn_components.regions.roi import ROI


class PrepareROIBatch:
    """MONAI ``prepare_batch``: moves the crops to the device and resizes them there.

    Each crop keeps its aspect; its longest in-plane side becomes ``roi.size``, and its slices stay
    as they are (section 3.3). Nothing is padded.

    Args:
        rois: the regions of interest by name.
    """

    def __init__(self, *, rois: Mapping[str, ROI]) -> None:
        self.rois = dict(rois)

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **to_kwargs: Any,
    ) -> tuple[dict[str, list[Tensor]], dict[str, Any]]:
        """Prepare what ``collate_subjects`` returns: B crops (C, D, H, W) for each ROI.

        The other arguments are those of ``Tensor.to``.

        Returns:
            Images, for each ROI B tensors (C, D, H, W) in [0, 1], and targets: ``label`` (B,) if
            the data has it, ``masks`` with B tensors (D, H, W) of classes for each ROI.
        """

        def move(tensor: Tensor) -> Tensor:
            return tensor.as_subclass(Tensor).to(device, non_blocking=non_blocking, **to_kwargs)

        images, masks = {}, {}
        for name, roi in self.rois.items():
            images[name] = [_resize_image(move(crop), roi.size) for crop in batchdata[name]]
            if f"mask_{name}" in batchdata:
                masks[name] = [_resize_mask(move(m), roi.size) for m in batchdata[f"mask_{name}"]]
        label = {"label": move(batchdata["label"])} if "label" in batchdata else {}
        return images, {"masks": masks, **label}


def _resize_image(crop: Tensor, size: int) -> Tensor:
    """Resize (C, D, H, W) bilinearly; slices are the batch of a 2D resize."""
    shrinks = max(crop.shape[-2:]) > size  # smooth only then: enlarging has nothing to alias
    slices, shape = crop.float().transpose(0, 1), _resized_shape(crop, size)  # (D, C, H, W)
    resized = F.interpolate(slices, shape, mode="bilinear", antialias=shrinks)
    return resized.transpose(0, 1).clamp(0, 1)  # noise may have left [0, 1]


def _resize_mask(mask: Tensor, size: int) -> Tensor:
    """Resize (1, D, H, W) to the nearest class, (D, H, W)."""
    resized = F.interpolate(mask.transpose(0, 1), _resized_shape(mask, size), mode="nearest-exact")
    return resized[:, 0].long()


def _resized_shape(crop: Tensor, size: int) -> tuple[int, int]:
    height, width = crop.shape[-2:]
    scale = size / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))
