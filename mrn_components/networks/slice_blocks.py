"""The blocks of a vision transformer of timm, on slices of all shapes at once.

S slices of one shape, n tokens of each (prefix, then patches); N tokens of all slices; C features.
"""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import torch
from timm.models.eva import EvaBlock
from timm.models.vision_transformer import Block
from torch import Tensor, cat
from torch.utils.checkpoint import checkpoint

from mrn_components.networks.attention import Sequences, attend, first_attention


class _Layout(NamedTuple):
    """Where the tokens of the slices lie in a packed (N, C), and how they are turned."""

    sequences: Sequences  # (S, n) of each shape
    slice_of: Tensor  # (N,): the slice that a token belongs to
    rope: Tensor | None  # (N, 1, 2 * C / heads): sines and cosines of a DINOv3


def check_blocks(vit: Any, name: str) -> None:
    """Raise a ValueError for a transformer of timm that ``encode_slices`` does not know to run."""
    kinds = {type(block) for block in vit.blocks}
    if kinds <= {Block, EvaBlock} and not getattr(vit, "rope_mixed", False):
        return
    raise ValueError(
        f"SliceEncoder: model {name!r} of timm has blocks {sorted(k.__name__ for k in kinds)} in "
        "an order or with positions of their own; take one with the blocks of DINOv2 or DINOv3, "
        "such as vit_base_patch14_reg4_dinov2.lvd142m."
    )


def encode_slices(
    vit: Any, groups: Sequence[Tensor], wanted: Collection[int]
) -> dict[int, list[Tensor]]:
    """Run the transformer on slices of several shapes, without padding.

    Norms, projections and MLPs see the tokens of all slices as one sequence; attention alone runs
    by shape. The numbers are those of one call a shape, but for rounding and for the order in which
    dropped branches are drawn.

    Args:
        vit: ``VisionTransformer`` or ``Eva`` of timm that ``check_blocks`` lets pass.
        groups: slices (S, 1, H, W) of whole patches, one tensor a shape.
        wanted: indices of blocks.

    Returns:
        For each wanted block the tokens (S, n, C) of each group, normalised by the final norm.
    """
    embedded, ropes = zip(*(_embed(vit, slices) for slices in groups), strict=True)
    x, layout = cat([tokens.flatten(0, 1) for tokens in embedded]), _layout(vit, embedded, ropes)
    shapes = [tokens.shape for tokens in embedded]
    found: dict[int, list[Tensor]] = {}
    for i, block in enumerate(vit.blocks):
        if vit.grad_checkpointing:
            x = checkpoint(_run, block, x, layout, use_reentrant=False)
        else:
            x = _run(block, x, layout)
        if i in wanted:
            parts = vit.norm(x).split([count * length for count, length in layout.sequences])
            found[i] = [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
    return found


def class_attention(
    vit: Any, tokens: Tensor, shapes: Sequence[tuple[int, int, int]]
) -> list[Tensor]:
    """Share out the attention of each slice's class token in the last block among its patches.

    Args:
        vit: what ``encode_slices`` took.
        tokens: packed (N, C) as the last block's first norm gave them.
        shapes: (S, h, w), number and patches of the slices of each shape.

    Returns:
        Shares (S, h, w) of each shape, the mean of the heads; each slice's sum to 1.
    """
    prefix, rope = vit.num_prefix_tokens, getattr(vit, "rope", None)
    sequences = [(count, prefix + h * w) for count, h, w in shapes]
    turns = None
    if rope is not None:
        turns = cat(
            [_turns(rope.get_embed([h, w]), prefix).repeat(count, 1) for count, h, w in shapes]
        )[:, None]
    found = first_attention(vit.blocks[-1].attn, tokens, sequences, rope=turns)
    patches = [shares[:, prefix:] / shares[:, prefix:].sum(1, keepdim=True) for shares in found]
    return [part.view(shape) for part, shape in zip(patches, shapes, strict=True)]


def _embed(vit: Any, slices: Tensor) -> tuple[Tensor, Tensor | None]:
    """Tokens (S, n, C) with their positions; and of a DINOv3 the turns (h * w, 2 * C / heads)."""
    embedded = vit._pos_embed(vit.patch_embed(slices))
    tokens, rope = embedded if isinstance(embedded, tuple) else (embedded, None)
    return vit.norm_pre(tokens), rope


def _layout(vit: Any, embedded: Sequence[Tensor], ropes: Sequence[Tensor | None]) -> _Layout:
    sequences = [(tokens.shape[0], tokens.shape[1]) for tokens in embedded]
    slices = torch.arange(sum(count for count, _ in sequences), device=embedded[0].device)
    numbers = slices.split([count for count, _ in sequences])
    slice_of = cat(
        [
            part[:, None].expand(shape).flatten()
            for part, shape in zip(numbers, sequences, strict=True)
        ]
    )
    turns = [
        _turns(rope, vit.num_prefix_tokens).expand(count, -1, -1).flatten(0, 1)
        for rope, (count, _) in zip(ropes, sequences, strict=True)
        if rope is not None
    ]
    return _Layout(sequences, slice_of, cat(turns)[:, None] if turns else None)


def _turns(rope: Tensor, prefix: int) -> Tensor:
    """Sines and cosines (n, 2 * C / heads) of a slice's tokens; prefix tokens are not turned."""
    still = rope.new_zeros(prefix, rope.shape[1])
    still[:, rope.shape[1] // 2 :] = 1
    return cat([still, rope])


def _run(block: Any, x: Tensor, layout: _Layout) -> Tensor:
    """``block`` of timm on packed tokens (N, C)."""
    attended = attend(block.attn, block.norm1(x), layout.sequences, rope=layout.rope)
    x = x + _drop(block.drop_path1, _scaled(block, 1, attended), layout)
    return x + _drop(block.drop_path2, _scaled(block, 2, block.mlp(block.norm2(x))), layout)


def _scaled(block: Any, branch: int, x: Tensor) -> Tensor:
    """LayerScale, which a DINOv2 has as a module and a DINOv3 as a parameter, or not at all."""
    if isinstance(block, Block):
        return getattr(block, f"ls{branch}")(x)
    gamma = getattr(block, f"gamma_{branch}")
    return x if gamma is None else gamma * x


def _drop(path: Any, branch: Tensor, layout: _Layout) -> Tensor:
    """Stochastic depth: drop the branch for whole slices, as timm does for rows of a batch."""
    if not (path.training and getattr(path, "drop_prob", 0)):
        return branch
    factors = path(branch.new_ones(sum(count for count, _ in layout.sequences), 1))
    return branch * factors[layout.slice_of]
