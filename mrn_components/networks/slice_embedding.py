"""Slice position embedding: where in the volume a slice lies (Eq. 3)."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, cat, nn
from torch.nn.functional import interpolate

from mrn_components.networks.packing import VolumeGrid, unpack


class SliceEmbedding(nn.Module):
    """Adds e_i to every token of slice i, so that FFA and SFA know the order of slices (Eq. 3).

    Args:
        channels: token width C.
        kind: "learned" vectors, or fixed "sincos" ones. The paper is silent; DINOv2 learns its own.
        std: standard deviation the learned vectors start with.
        max_depth: vectors held; taller volumes interpolate between them.
    """

    def __init__(
        self,
        channels: int,
        *,
        kind: Literal["learned", "sincos"] = "learned",
        std: float = 0.02,
        max_depth: int = 64,
    ) -> None:
        super().__init__()
        if kind == "learned":
            self.table = nn.Parameter(
                nn.init.trunc_normal_(torch.empty(max_depth, channels), std=std)
            )
        else:
            self.register_buffer("table", _sincos(max_depth, channels), persistent=False)

    def forward(self, tokens: Tensor, grids: Sequence[VolumeGrid]) -> Tensor:
        """Packed ``tokens`` (N, C) with the embedding of their slice added."""
        volumes = [
            volume + slice_vectors(self.table, grid.depth)[:, None]  # (D, n, C)
            for volume, grid in zip(unpack(tokens, grids), grids, strict=True)
        ]
        return cat([volume.flatten(0, 1) for volume in volumes])


def slice_vectors(table: Tensor, depth: int) -> Tensor:
    """Embeddings (D, C) of ``depth`` slices from a table (64, C); TorchScript compiles this too."""
    if depth <= table.shape[0]:
        return table[:depth]
    return interpolate(table.t()[None], depth, mode="linear", align_corners=True)[0].t()


def _sincos(depth: int, channels: int) -> Tensor:
    """Sines and cosines of geometrically spaced frequencies (Vaswani et al. 2017)."""
    half = (channels + 1) // 2
    frequencies = 10_000.0 ** (-torch.arange(half) / half)
    angles = torch.arange(depth)[:, None] * frequencies
    return cat([angles.sin(), angles.cos()], dim=1)[:, :channels]
