"""Hiding ROIs from a network (section 4.3.2, Table 4).

B subjects, R ROIs, C channels of an ROI token, D slices, H rows, W columns of a crop.
"""

import zlib
from collections.abc import Collection, Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

MaskMode = Literal["voxels", "noise", "mean", "token"]
MASK_MODES: tuple[str, ...] = get_args(MaskMode)
StateMode = Literal[MaskMode, "reference"]  # of ROI tokens that are joined late
STATE_MODES: tuple[str, ...] = get_args(StateMode)

# Patient representations (N, R * C) of training subjects by their class, which lend their tokens.
References = Mapping[str, Tensor]


def check_mask_mode(mode: str, modes: Sequence[str] = MASK_MODES) -> None:
    """Raise a ``ValueError`` for a mode that is none of ``modes``."""
    if mode not in modes:
        known = f"mask_mode must be one of {', '.join(modes)}; got {mode!r}"
        elsewhere = ", which only `mrn contributions` has" if mode in STATE_MODES else ""
        raise ValueError(f"{known}{elsewhere}.")


def mask_images(
    images: Mapping[str, Sequence[Tensor]], masked: Collection[str], mode: str
) -> dict[str, Sequence[Tensor]]:
    """Replace the voxels of the masked ROIs in all channels; the crops keep their geometry.

    Of B crops (channels, D, H, W) in [0, 1] of each ROI the mode "voxels" makes zeros; "noise"
    uniform noise in [0, 1), the same for the same crop of the same ROI; "mean" each channel's mean;
    "token" leaves the crops to ``mask_tokens``.
    """
    if mode == "token":
        return dict(images)
    return {
        roi: [_mask_crop(crop, roi, mode) for crop in crops] if roi in masked else crops
        for roi, crops in images.items()
    }


def mask_tokens(patient: Tensor, rois: Sequence[str], masked: Collection[str], mode: str) -> Tensor:
    """Replace the masked ROIs' tokens by zeros in mode "token", which leaves no information at all.

    The tokens of the R ``rois`` lie side by side in ``patient`` (B, R * C); other modes leave them.
    """
    if mode != "token" or not masked:
        return patient
    return torch.where(token_blocks(patient, rois, masked), torch.zeros_like(patient), patient)


def token_blocks(patient: Tensor, rois: Sequence[str], chosen: Collection[str]) -> Tensor:
    """Where the tokens of the chosen ROIs lie in a patient representation: booleans (R * C,)."""
    blocks = torch.tensor([roi in chosen for roi in rois], device=patient.device)
    return blocks.repeat_interleave(patient.shape[-1] // len(rois))


def _mask_crop(crop: Tensor, roi: str, mode: str) -> Tensor:
    if mode == "noise":
        # The network is told no subject: the crop itself says whose noise it gets.
        seed = zlib.crc32(crop.cpu().numpy().tobytes(), zlib.crc32(roi.encode()))
        noise = torch.rand(crop.shape, generator=torch.Generator().manual_seed(seed))
        return noise.to(crop)
    if mode == "mean":
        return crop.mean(dim=(1, 2, 3), keepdim=True).expand_as(crop)
    return torch.zeros_like(crop)
