"""Attention over a volume by the slice encoder's own blocks, without a new parameter."""

import math
from typing import Any, Final, List, Tuple  # noqa: UP035  TorchScript knows these

import torch
from torch import Tensor, arange, cat, nn
from torch.utils.checkpoint import checkpoint

# Axis of (B, D, h, w, C) along which those planes are stacked that a block attends in.
_STACKED = {"HW": 1, "DW": 2, "DH": 3}
_CYCLE = ("HW", "DW", "DH", "HW")  # PlaneCycle's


class VolumeBlocks(nn.Module):
    """A vision transformer of timm whose blocks attend beyond the slice; TorchScript compiles it.

    In "planes" (PlaneCycle, arXiv:2603.04165) a block attends within each plane of the volume; the
    planes are HW, DW, DH and HW, one block after the other. Each plane has prefix tokens (class and
    registers) of its own: those of the D slices are averaged, in adaptive windows, into as many as
    there are planes, and back after the block. In "volume" (its Flatten3D) all patches attend
    together, with one set of prefix tokens, of which every slice gets a copy at the end.

    A DINOv3 turns queries and keys by a patch's place in the plane, or in the volume. DINOv2 has a
    table of places in the slice alone: its blocks know the order of slices by the prefix tokens of
    "planes" or not at all.

    Args:
        vit: the transformer, whose parameters these are.
        attention: "planes" or "volume".
    """

    rotary: Final[bool]

    def __init__(self, vit: Any, attention: str) -> None:
        super().__init__()
        self.vit, self.rotary = vit, _rope(vit) is not None
        self.prefix: int = vit.num_prefix_tokens
        self.whole: bool = attention == "volume"
        axes = [0 if self.whole else _STACKED[_CYCLE[i % 4]] for i in range(len(vit.blocks))]
        self.blocks = nn.ModuleList(_VolumeBlock(vit, i, axis) for i, axis in enumerate(axes))

    def forward(self, slices: Tensor, depth: int, levels: List[int]) -> List[Tensor]:  # noqa: UP006
        """Encode B volumes of D = ``depth`` slices of whole patches, (B * D, 1, p * h, p * w).

        Returns:
            Normalised tokens (B * D, n, C) after each block of ``levels``, which rise from 0.
        """
        patches = self.vit.patch_embed(slices)  # (B * D, h, w, C)
        size = patches.shape[1:3]
        if self.rotary:  # noqa: SIM108  TorchScript compiles both ends of a line
            x = self.vit._pos_embed(patches)[0]
        else:
            x = self.vit._pos_embed(patches)
        x = self.vit.norm_pre(x).unflatten(0, [-1, depth])  # (B, D, n, C)
        prefix, patches = x[:, :, : self.prefix], x[:, :, self.prefix :].unflatten(2, size)
        if self.whole:
            prefix = prefix[:, :1]  # all slices have the same
        found: List[Tensor] = []  # noqa: UP006
        for i, block in enumerate(self.blocks):
            if self.vit.grad_checkpointing and not torch.jit.is_scripting():
                prefix, patches = checkpoint(block, prefix, patches, use_reentrant=False)
            else:
                prefix, patches = block(prefix, patches)
            if i in levels:
                tokens = cat([in_windows(prefix, depth), patches.flatten(2, 3)], 2)
                found.append(self.vit.norm(tokens.flatten(0, 1)))
        return found


class _VolumeBlock(nn.Module):
    """A block of timm on planes stacked along an axis of (B, D, h, w, C), on the whole for 0."""

    rotary: Final[bool]

    def __init__(self, vit: Any, index: int, axis: int) -> None:
        super().__init__()
        self.block, self.rope, self.axis = vit.blocks[index], _rope(vit), axis
        self.rotary = self.rope is not None
        self.temperature: float = self.rope.temperature if self.rotary else 0.0
        self.num_angles: int = vit.embed_dim // self.block.attn.num_heads // 2

    def forward(self, prefix: Tensor, patches: Tensor) -> Tuple[Tensor, Tensor]:  # noqa: UP006
        """Map prefix tokens, (B, D, g, C) or of the whole (B, 1, g, C), and patches to new ones."""
        slots = prefix.shape[1]
        if self.axis == 0:
            planes = patches.flatten(1, 2).unsqueeze(1)  # (B, 1, D * h, w, C)
        else:
            planes = patches.movedim(self.axis, 1)  # (B, P, rows, columns, C)
        count, shape, first = planes.shape[1], planes.shape[2:4], prefix.shape[2]
        x = cat([in_windows(prefix, count), planes.flatten(2, 3)], 2).flatten(0, 1)
        if self.rotary:
            size = patches.shape[1:4] if self.axis == 0 else shape
            x = self.block(x, self._rotation(list(size)))
        else:
            x = self.block(x)
        x = x.unflatten(0, [-1, count])
        prefix, planes = in_windows(x[:, :, :first], slots), x[:, :, first:].unflatten(2, shape)
        if self.axis == 0:
            return prefix, planes.reshape(patches.shape)
        return prefix, planes.movedim(1, self.axis)

    def _rotation(self, size: List[int]) -> Tensor:  # noqa: UP006
        """Sines and cosines (tokens, 2 * head width) of the patches of a plane, or of a volume."""
        if len(size) == 2:
            return self.rope.get_embed(size)
        # Of a volume, as Flatten3D: a quarter of the angles tells the slice, if the rest is even.
        in_plane = (self.num_angles - self.num_angles // 4) // 2
        angles: List[Tensor] = []  # noqa: UP006
        for axis, width in enumerate([self.num_angles - 2 * in_plane, in_plane, in_plane]):
            side, like = size[axis], self.rope.periods
            place = (2 * arange(side, device=like.device, dtype=like.dtype) + 1) / side - 1
            steps = arange(width, device=like.device, dtype=like.dtype) / width
            angle = 2 * math.pi * place[:, None] / self.temperature**steps  # (side, width)
            shape = [1, 1, 1, width]
            shape[axis] = side
            angles.append(angle.view(shape).expand(size[0], size[1], size[2], width))
        all_angles = cat(angles, 3).flatten(0, 2).tile([2])
        return cat([all_angles.sin(), all_angles.cos()], 1)


def in_windows(tokens: Tensor, count: int) -> Tensor:
    """Average (B, P, g, C) along P in adaptive windows: (B, count, g, C)."""
    planes = tokens.shape[1]
    if planes == count:
        return tokens
    windows, place = arange(count, device=tokens.device), arange(planes, device=tokens.device)
    first, last = windows * planes // count, -(-(windows + 1) * planes // count)  # last excluded
    inside = ((place >= first[:, None]) & (place < last[:, None])).to(tokens.dtype)
    weights = inside / inside.sum(1, keepdim=True)  # (count, P)
    return (weights @ tokens.flatten(2)).unflatten(2, tokens.shape[2:])


def _rope(vit: Any) -> Any:
    """Rotary embedding of a DINOv3; None of a DINOv2."""
    return getattr(vit, "rope", None)
