"""SFA: slice fusion self-attention (section 3.2, Figure 2)."""

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor, cat, empty, nn

from mrn_components.networks.attention import PackedBlock, SequenceBlock, first_attention


class SlicePool(Protocol):
    """What RES needs of a part in place of SFA, an ``nn.Module``: slice tokens to an ROI token.

    With a method ``slice_attention``, as SFA has it, pages map where the ROI token looks.
    """

    def build(self, channels: int, num_heads: int) -> None:
        """Create the parameters; RES calls this once, with the encoder's width C and heads."""

    def __call__(self, slices: Tensor, depths: Sequence[int]) -> Tensor:
        """Compress V volumes of ``depths`` slices, (sum of D, C), into ROI tokens (V, C)."""

    def on_tensors(self) -> nn.Module:
        """Return a module that TorchScript compiles, with the same parameters.

        It maps slice tokens (B, D, C) of B volumes to ROI tokens (B, C). Needed for tensors and
        exports alone, not for training and prediction.
        """


class SFA(nn.Module):
    """Slice fusion self-attention: a learned ROI token gathers a volume from its slice tokens.

    The ROI token is one parameter shared by the ROIs, as RES itself is (section 3.3).

    Args:
        num_layers: self-attention blocks. Paper: 2 (Table 3).
        layer_scale: what each branch is multiplied by at first. VGGT: 0.01, which keeps the
            features of a pretrained encoder; from scratch, 1 learns sooner. The paper is silent.

    Raises:
        ValueError: for ``num_layers`` below 1; to drop SFA, disable it in RES.
    """

    def __init__(self, *, num_layers: int = 2, layer_scale: float = 0.01) -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError(
                f"SFA num_layers must be >= 1, got {num_layers}; to leave SFA out use sfa: null."
            )
        self.num_layers = num_layers
        self.layer_scale = layer_scale

    def build(self, channels: int, num_heads: int) -> None:
        """Create the parameters for tokens of width ``channels``; RES calls this once."""
        self.roi_token = nn.Parameter(nn.init.trunc_normal_(empty(1, channels), std=0.02))
        self.blocks = nn.ModuleList(
            PackedBlock(channels, num_heads, self.layer_scale) for _ in range(self.num_layers)
        )
        self.norm = nn.LayerNorm(channels)

    def forward(self, slices: Tensor, depths: Sequence[int]) -> Tensor:
        """Compress V volumes of ``depths`` slices, (sum of D, C), into ROI tokens (V, C)."""
        x, sequences = self._before_last(slices, depths)
        return self.norm(self.blocks[-1](x, sequences, first=1))  # (V, C)

    def slice_attention(self, slices: Tensor, depths: Sequence[int]) -> list[Tensor]:
        """Share out the attention of each ROI token in the last block among its D slices: (D,)."""
        x, sequences = self._before_last(slices, depths)
        last: Any = self.blocks[-1]
        found = first_attention(last.attn, last.norm1(x), sequences)  # (1, 1 + D) of each volume
        return [shares[0, 1:] / shares[0, 1:].sum() for shares in found]

    def _before_last(
        self, slices: Tensor, depths: Sequence[int]
    ) -> tuple[Tensor, list[tuple[int, int]]]:
        """Packed ROI and slice tokens before the last block, and where each volume's lie."""
        sequences = [(1, 1 + depth) for depth in depths]
        x = cat(
            [part for volume in slices.split(list(depths)) for part in (self.roi_token, volume)]
        )
        for block in self.blocks[:-1]:
            x = block(x, sequences)
        return x, sequences

    def on_tensors(self) -> nn.Module:
        """Itself on volumes of one size: slice tokens (B, D, C) to ROI tokens (B, C)."""
        return _TensorSFA(self)


class _TensorSFA(nn.Module):
    def __init__(self, sfa: SFA) -> None:
        super().__init__()
        self.roi_token, self.norm = sfa.roi_token, sfa.norm
        self.blocks = nn.ModuleList(map(SequenceBlock, sfa.blocks))

    def forward(self, slices: Tensor) -> Tensor:
        x = cat([self.roi_token.expand(slices.shape[0], 1, -1), slices], 1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x[:, 0])
