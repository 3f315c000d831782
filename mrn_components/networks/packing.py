"""Packed tokens: volumes of any size as one tensor, so that nothing is padded to a common box.

A volume of D slices with h x w patches each holds D * n tokens, n = prefix + h * w: per slice first
its slice token (and registers, if kept), then its patch tokens. Volumes follow each other:

    (N, C),  N = sum over volumes of D * n
"""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, cat


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


def unpack(tokens: Tensor, grids: Sequence[VolumeGrid]) -> list[Tensor]:
    """Views of the packed ``tokens`` (N, C) as one (D, n, C) tensor a volume."""
    parts = tokens.split([grid.total for grid in grids])
    return [
        part.view(grid.depth, grid.per_slice, -1) for part, grid in zip(parts, grids, strict=True)
    ]


def slice_tokens(tokens: Tensor, grids: Sequence[VolumeGrid]) -> Tensor:
    """The slice token of every slice of every volume: (sum of D, C)."""
    return cat([volume[:, 0] for volume in unpack(tokens, grids)])
