"""FFA: feature fusion self-attention (section 3.2, Figures 2-3)."""

from collections.abc import Sequence
from typing import List, Protocol  # noqa: UP035  TorchScript knows List

from torch import Tensor, cat, nn
from torch.utils.checkpoint import checkpoint

from mrn_components.networks.attention import PackedBlock, SequenceBlock, Sequences
from mrn_components.networks.packing import (
    VolumeGrid,
    merge_slices,
    repeat_slices,
    slice_tokens,
    unpack,
)


class Fusion(Protocol):
    """What RES needs of a part in place of FFA, an ``nn.Module``: it lets tokens see each other.

    Tokens are packed (``networks.packing``): a volume of D slices with h x w patches is D * n rows
    of (N, C), n = prefix + h * w, in each slice first the slice token. Volumes follow each other
    and must not see each other.

    Attributes:
        num_layers: layers L, which the segmentation head gets as levels.
    """

    num_layers: int

    def build(self, channels: int, num_heads: int) -> None:
        """Create the parameters; RES calls this once, with the encoder's width C and heads."""

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations in the backward pass, or store them."""

    def __call__(
        self, tokens: Tensor, grids: Sequence[VolumeGrid], *, slices_only: bool = False
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Fuse the tokens of each volume.

        Args:
            tokens: packed slice and patch tokens (N, C).
            grids: layout of the V volumes in ``tokens``.
            slices_only: nobody reads the patch tokens of the last level; they need no computing.

        Returns:
            The slice tokens (sum of D, C), and two lists of L packed token sets (N, C), the levels
            that a head with "global" and with "local" ``features`` reads; they may be the same.
            With ``slices_only`` the last of the second list may be missing.
        """

    def on_tensors(self) -> nn.Module:
        """Return a module that TorchScript compiles, with the same parameters.

        It maps tokens (B, D, n, C) of B volumes of one size to fused tokens (B, D, n, C). Needed
        for tensors and exports alone, not for training and prediction.
        """


class FFA(nn.Module):
    """Feature fusion self-attention: global and local self-attention in turn.

    A layer first lets all tokens of a volume attend to each other (global), then those of each
    slice (local), which keeps the spatial origin of patch tokens from blurring (section 3.2).
    Global comes first because the classifier takes its tokens from "the local slice attention of
    the last FFA layer" (section 4.3.2).

    Args:
        num_layers: global-local pairs L. Paper: 3 (Table 3).
        layer_scale: what each branch is multiplied by at first. VGGT: 0.01, which keeps the
            features of a pretrained encoder; from scratch, 1 learns sooner. The paper is silent.
        merge_before: layers, counted from 0, before which slices are merged two to one by their
            mean, for half the tokens from there on: [0] merges before FFA. What leaves FFA is
            given to both slices again. The paper merges nothing.

    Raises:
        ValueError: for ``num_layers`` below 1; to drop FFA, disable it in RES; and where
            ``merge_before`` names other layers than there are.
    """

    def __init__(
        self,
        *,
        num_layers: int = 3,
        layer_scale: float = 0.01,
        merge_before: Sequence[int] = (),
    ) -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError(
                f"FFA num_layers must be >= 1, got {num_layers}; to leave FFA out use ffa: null."
            )
        if not set(merge_before) <= set(range(num_layers)):
            raise ValueError(
                f"FFA merge_before must name layers of 0 to {num_layers - 1}, got {merge_before}."
            )
        self.num_layers = num_layers
        self.merge_before = list(merge_before)
        self.layer_scale = layer_scale
        self.grad_checkpointing = False

    def build(self, channels: int, num_heads: int) -> None:
        """Create the blocks for tokens of width ``channels``; RES calls this once."""
        self.global_blocks = nn.ModuleList(
            PackedBlock(channels, num_heads, self.layer_scale) for _ in range(self.num_layers)
        )
        self.local_blocks = nn.ModuleList(
            PackedBlock(channels, num_heads, self.layer_scale) for _ in range(self.num_layers)
        )

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass instead of storing its activations."""
        self.grad_checkpointing = enable

    def forward(
        self, tokens: Tensor, grids: Sequence[VolumeGrid], *, slices_only: bool = False
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Fuse packed tokens (N, C) within each volume of ``grids``.

        Returns:
            The slice tokens (sum of D, C), and the packed tokens after each global and after each
            local block, L of each. With ``slices_only`` the last local block computes slice tokens
            alone, the same numbers by a sixth of its work, and its patch tokens are missing.
        """
        all_slices, finer = grids, []  # the layouts before each merge
        globals_: list[Tensor] = []
        locals_: list[Tensor] = []
        for layer in range(self.num_layers):
            if layer in self.merge_before:
                finer.append(grids)
                tokens, grids = _merge(tokens, grids)
            volumes = [(1, grid.total) for grid in grids]
            slices = [(grid.depth, grid.per_slice) for grid in grids]
            tokens = self._run(self.global_blocks[layer], tokens, volumes)
            globals_.append(_repeat(tokens, finer))
            if slices_only and layer == self.num_layers - 1:
                first = self._run(self.local_blocks[layer], tokens, slices, first=1)
                alone = [[VolumeGrid(grid.depth, 0, 0) for grid in level] for level in finer]
                return _repeat(first, alone), globals_, locals_
            tokens = self._run(self.local_blocks[layer], tokens, slices)
            locals_.append(_repeat(tokens, finer))
        return slice_tokens(locals_[-1], all_slices), globals_, locals_

    def on_tensors(self) -> nn.Module:
        """Itself on volumes of one size: tokens (B, D, n, C) to fused tokens (B, D, n, C)."""
        return _TensorFFA(self)

    def _run(
        self, block: nn.Module, tokens: Tensor, sequences: Sequences, first: int | None = None
    ) -> Tensor:
        if self.grad_checkpointing:
            return checkpoint(block, tokens, sequences, first, use_reentrant=False)
        return block(tokens, sequences, first)


class _TensorFFA(nn.Module):
    def __init__(self, ffa: FFA) -> None:
        super().__init__()
        self.global_blocks = nn.ModuleList(map(SequenceBlock, ffa.global_blocks))
        self.local_blocks = nn.ModuleList(map(SequenceBlock, ffa.local_blocks))
        self.merges = [layer in ffa.merge_before for layer in range(ffa.num_layers)]

    def forward(self, tokens: Tensor) -> Tensor:
        layer = 0
        finer: List[int] = []  # noqa: UP006
        for global_block, local_block in zip(self.global_blocks, self.local_blocks):  # noqa: B905  TorchScript has no strict
            if self.merges[layer]:
                finer.append(tokens.shape[1])
                tokens = merge_slices(tokens)
            batch, depth = tokens.shape[0], tokens.shape[1]
            tokens = global_block(tokens.flatten(1, 2)).unflatten(1, (depth, -1))
            tokens = local_block(tokens.flatten(0, 1)).unflatten(0, (batch, depth))
            layer += 1  # noqa: SIM113  TorchScript enumerates no zip
        for depth in finer[::-1]:
            tokens = repeat_slices(tokens, depth)
        return tokens


def _merge(tokens: Tensor, grids: Sequence[VolumeGrid]) -> tuple[Tensor, list[VolumeGrid]]:
    """Packed tokens of half as many slices, and their layout."""
    merged = [merge_slices(volume) for volume in unpack(tokens, grids)]
    halved = [grid._replace(depth=len(volume)) for grid, volume in zip(grids, merged, strict=True)]
    return cat([volume.flatten(0, 1) for volume in merged]), halved


def _repeat(tokens: Tensor, finer: Sequence[Sequence[VolumeGrid]]) -> Tensor:
    """Packed tokens of merged slices as those of all, given the layouts before each merge."""
    for grids in reversed(finer):
        halved = [grid._replace(depth=-(-grid.depth // 2)) for grid in grids]
        volumes = zip(unpack(tokens, halved), grids, strict=True)
        tokens = cat([repeat_slices(volume, grid.depth).flatten(0, 1) for volume, grid in volumes])
    return tokens
