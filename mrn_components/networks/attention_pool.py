"""AttentionPool: one learned query gathers a volume from its slice tokens (AnyMC3D)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn, stack


class AttentionPool(nn.Module):
    """Attention of one learned query over the slice tokens of a volume, in place of SFA.

    The ROI token is the mean of the volume's slice tokens, each with the weight that the softmax of
    its product with the query gives: C parameters in all (AnyMC3D, arXiv:2512.12887). The query
    starts at zero, where the pool is the plain mean.
    """

    def build(self, channels: int, num_heads: int) -> None:  # noqa: ARG002  SlicePool's
        """Create the query for tokens of width ``channels``; RES calls this once."""
        self.query = nn.Parameter(torch.zeros(channels))

    def forward(self, slices: Tensor, depths: Sequence[int]) -> Tensor:
        """Compress V volumes of ``depths`` slices, (sum of D, C), into ROI tokens (V, C)."""
        scores = _scores(slices, self.query)  # (sum of D,)
        volumes = zip(scores.split(list(depths)), slices.split(list(depths)), strict=True)
        return stack([volume_scores.softmax(0) @ volume for volume_scores, volume in volumes])

    def slice_attention(self, slices: Tensor, depths: Sequence[int]) -> list[Tensor]:
        """Return the weight of each slice of each volume, (D,), which sum to 1."""
        return [scores.softmax(0) for scores in _scores(slices, self.query).split(list(depths))]

    def on_tensors(self) -> nn.Module:
        """Itself on volumes of one size: slice tokens (B, D, C) to ROI tokens (B, C)."""
        return _TensorAttentionPool(self)


class _TensorAttentionPool(nn.Module):
    def __init__(self, pool: AttentionPool) -> None:
        super().__init__()
        self.query = pool.query

    def forward(self, slices: Tensor) -> Tensor:
        weights = _scores(slices, self.query).softmax(1)  # (B, D)
        return (weights[:, None] @ slices)[:, 0]


def _scores(slices: Tensor, query: Tensor) -> Tensor:
    """Scaled products (..., D) of slice tokens (..., D, C) and the query (C,)."""
    return slices @ query / query.shape[0] ** 0.5
