"""Packed tokens: volumes of any size as one tensor, so that nothing is padded to a common box.

A volume of D slices with h x w patches each holds D * n tokens, n = prefix + h * w: per slice first
its slice token (and registers, if kept), then its patch tokens. Volumes follow each other:

    (N, C),  N = sum over volumes of D * n
"""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, cat, device
from torch.nn.functional import pad


class VolumeGrid(NamedTuple):
    """Where the tokens of one volume lie."""

    depth: int  # slices D
    height: int  # patches h along a slice's rows
    width: int  # patches w along a slice's columns
    prefix: int = 1  # tokens of a slice before its patches; the first is the slice token

    @property
    def per_slice(self) -> int:
        """Tokens n of one slice."""
        return self.prefix + self.height * self.width

    @property
    def total(self) -> int:
        """Tokens of the volume."""
        return self.depth * self.per_slice


class EncodedVolume(NamedTuple):
    """What a frozen encoder makes of a crop: RES takes it in the crop's place in training."""

    tokens: Tensor  # of the encoder's last block, (D * n, C)
    grid: VolumeGrid
    shares: Tensor  # share of each patch that is nucleus, (D, h * w)

    @property
    def device(self) -> device:
        """Where the tensors are."""
        return self.tokens.device


def unpack(tokens: Tensor, grids: Sequence[VolumeGrid]) -> list[Tensor]:
    """Views of the packed ``tokens`` (N, C) as one (D, n, C) tensor a volume."""
    parts = tokens.split([grid.total for grid in grids])
    return [
        part.view(grid.depth, grid.per_slice, -1) for part, grid in zip(parts, grids, strict=True)
    ]


def slice_tokens(tokens: Tensor, grids: Sequence[VolumeGrid]) -> Tensor:
    """The slice token of every slice of every volume: (sum of D, C)."""
    return cat([volume[:, 0] for volume in unpack(tokens, grids)])


def merge_slices(volume: Tensor) -> Tensor:
    """Average slices 2k and 2k + 1 of tokens (..., D, n, C); an odd last one stays as it is."""
    first = volume[..., ::2, :, :]
    second = cat([volume[..., 1::2, :, :], volume[..., -1:, :, :]], -3)
    return (first + second[..., : first.shape[-3], :, :]) / 2


def repeat_slices(volume: Tensor, depth: int) -> Tensor:
    """Give each of the merged slices (..., D, n, C) to the two, or the one, that it was made of."""
    return volume.repeat_interleave(2, -3)[..., :depth, :, :]


def whole_patches(slices: Tensor, patch_size: int) -> Tensor:
    """Pad slices (..., H, W) by zeros on opposite sides to whole patches."""
    rows, columns = -slices.shape[-2] % patch_size, -slices.shape[-1] % patch_size
    return pad(slices, [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2])


def without_padding(patches: Tensor, patch_size: int, size: Sequence[int]) -> Tensor:
    """Spread what patches (..., h, w) hold over their pixels, without those of ``whole_patches``.

    The pixels (..., H, W), of the ``size`` H and W, have the sum of the patches less what lies on
    the padding.
    """
    pixels = patches.repeat_interleave(patch_size, -2).repeat_interleave(patch_size, -1)
    top, left = ((-side % patch_size) // 2 for side in size)
    return pixels[..., top : top + size[0], left : left + size[1]] / patch_size**2
