"""NucleusPool: patch tokens pooled over the nuclei by the mask, beside SFA or in its place.

V volumes, C channels; a volume has D slices of H x W pixels, and h x w patches in each.
"""

from collections.abc import Sequence
from typing import Literal, get_args

from torch import Tensor, cat, nn, where
from torch.nn.functional import avg_pool2d, layer_norm

from mrn_components.networks.packing import VolumeGrid, unpack, whole_patches

PoolMode = Literal["beside", "instead"]


class NucleusPool(nn.Module):
    """The mean of a volume's patch tokens, each weighted by the share of it that is nucleus.

    The paper uses masks to place the crops and to supervise DPT; here they also say where to look.
    The weight of a patch is the share of its pixels inside any nucleus of the ROI. A volume without
    any, such as a region of the whole image or one that is hidden (Table 4), is averaged over all
    its patches. The mean is normalised like SFA's token, without parameters: none is trained here.

    RES then takes crops with the channels of ``ROIMaskChannelsd``.

    Args:
        mode: "beside" puts the pooled token behind SFA's, so that an ROI has 2 C channels;
            "instead" has it in the place of SFA, which is left out.

    Raises:
        ValueError: for another ``mode``.
    """

    def __init__(self, *, mode: PoolMode = "beside") -> None:
        super().__init__()
        if mode not in get_args(PoolMode):
            raise ValueError(f"NucleusPool mode must be 'beside' or 'instead', got {mode!r}.")
        self.mode = mode

    def forward(
        self, tokens: Tensor, grids: Sequence[VolumeGrid], shares: Sequence[Tensor]
    ) -> Tensor:
        """Pool packed tokens (N, C) into (V, C), by what ``nuclei_shares`` gives of each volume."""
        pooled = pool_patches(tokens, grids, shares)
        return layer_norm(pooled, pooled.shape[-1:])

    def on_tensors(self, patch_size: int, prefix: int) -> nn.Module:
        """Itself on B volumes of one size: tokens (B, D, n, C), crops (B, 1 + K, D, H, W): (B, C).

        Slices have ``prefix`` tokens before those of their patches.
        """
        return _TensorNucleusPool(patch_size, prefix)


def nuclei_shares(crop: Tensor, patch_size: int) -> Tensor:
    """The share of each patch that is nucleus, (D, h * w), of a crop (1 + K, D, H, W).

    The crop's channels are the image, background, then the nuclei, none for a region without.
    Slices are padded to whole patches as the encoder pads them.
    """
    return avg_pool2d(whole_patches(crop[2:].sum(0), patch_size), patch_size).flatten(1)


def pool_patches(tokens: Tensor, grids: Sequence[VolumeGrid], shares: Sequence[Tensor]) -> Tensor:
    """Weighted means (V, C) of the patch tokens of V volumes in ``tokens`` (N, C).

    The weights are ``shares`` (D, h * w) of each volume; where all are 0, patches weigh the same.
    """
    pooled = []
    for volume, grid, share in zip(unpack(tokens, grids), grids, shares, strict=True):
        pooled.append(_weighted_mean(volume[None, :, grid.prefix :], share[None]))
    return cat(pooled)


def pool_weights(shares: Tensor) -> Tensor:
    """Weights of patches, (B, D * h * w), by shares (B, D, h * w): the same where all are 0."""
    weights = shares.float().flatten(1)
    total = weights.sum(1, keepdim=True)
    weights = where(total > 0, weights, 1.0)
    return weights / weights.sum(1, keepdim=True)


def _weighted_mean(patches: Tensor, shares: Tensor) -> Tensor:
    """Means (B, C) of patches (B, D, h * w, C), by shares (B, D, h * w) in float32."""
    weights = pool_weights(shares)
    # No matrix product, which autocast would round to bfloat16.
    return (weights[..., None] * patches.flatten(1, 2)).sum(1)


class _TensorNucleusPool(nn.Module):
    def __init__(self, patch_size: int, prefix: int) -> None:
        super().__init__()
        self.patch_size, self.prefix = patch_size, prefix

    def forward(self, tokens: Tensor, crops: Tensor) -> Tensor:
        nuclei = whole_patches(crops[:, 2:].sum(1), self.patch_size)  # (B, D, p * h, p * w)
        shares = avg_pool2d(nuclei, self.patch_size).flatten(2)
        pooled = _weighted_mean(tokens[:, :, self.prefix :], shares)
        return layer_norm(pooled, [pooled.shape[-1]])
