"""Self-attention over packed sequences: the block of FFA and SFA (section 3.2)."""

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

from timm.layers import apply_rot_embed_cat
from timm.models.vision_transformer import Block
from torch import Tensor, cat, nn
from torch.nn.functional import scaled_dot_product_attention

Sequences = Sequence[tuple[int, int]]


class PackedBlock(Block):
    """timm's transformer block for sequences of unequal lengths in one (N, C) tensor.

    Norms, projections and the MLP see all tokens at once; only the attention runs per group of
    equally long sequences, so no token is padding and no mask is needed. Parameters have timm's
    names, and the settings are those of VGGT, which FFA follows: query-key norm and LayerScale.

    Args:
        channels: token width C.
        num_heads: attention heads; must divide ``channels``.
        layer_scale: what LayerScale starts with.
    """

    def __init__(self, channels: int, num_heads: int, layer_scale: float = 0.01) -> None:
        super().__init__(
            channels,
            num_heads,
            qkv_bias=True,
            qk_norm=True,
            init_values=layer_scale,
            norm_layer=nn.LayerNorm,
        )
        self.apply(_init_linear)

    def forward(  # type: ignore[override]  # timm's takes x alone
        self, x: Tensor, sequences: Sequences, first: int | None = None
    ) -> Tensor:
        """Attend within each sequence.

        Args:
            x: packed tokens (N, C).
            sequences: (count, length) of consecutive groups of equally long sequences; the
                products add up to N.
            first: compute only the first so many tokens of every sequence (they still attend to
                all of theirs); None computes all.

        Returns:
            The new tokens, (N, C), or (sum of count * first, C).
        """
        sequences = _joined(sequences)
        attended = attend(self.attn, self.norm1(x), sequences, first=first)
        if first is not None:
            x = cat([group[:, :first].flatten(0, 1) for group in _groups(x, sequences)])
        x = x + self.ls1(attended)
        return x + self.ls2(self.mlp(self.norm2(x)))


class SequenceBlock(nn.Module):
    """A ``PackedBlock`` on sequences of one length (B, length, C), which TorchScript compiles."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.norm1, self.attn, self.ls1 = block.norm1, block.attn, block.ls1
        self.norm2, self.mlp, self.ls2 = block.norm2, block.mlp, block.ls2

    def forward(self, x: Tensor) -> Tensor:
        """Attend within each sequence."""
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


def attend(
    attn: Any,
    x: Tensor,
    sequences: Sequences,
    *,
    first: int | None = None,
    rope: Tensor | None = None,
) -> Tensor:
    """Attend within each of several sequences, packed one after the other.

    Args:
        attn: ``Attention``, ``EvaAttention`` or ``AttentionRope`` of timm.
        x: packed tokens (N, C).
        sequences: (count, length) of consecutive groups of equally long sequences; the products
            add up to N.
        first: compute only the first so many tokens of every sequence (they still attend to all of
            theirs); None computes all.
        rope: sines and cosines (N, 1, 2 * C / heads) by which queries and keys are turned.

    Returns:
        (N, C), or (sum of count * first, C).
    """
    q, k, v = _queries_keys_values(attn, x, rope)
    dropout = attn.attn_drop.p if attn.training else 0.0
    # Attention on CPUs is a quarter faster with a contiguous v; norms make q and k so.
    attended = [
        scaled_dot_product_attention(
            q[:, :first].transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), dropout_p=dropout
        ).transpose(1, 2)  # (count, length, heads, C / heads)
        for q, k, v in zip(*(_groups(part, sequences) for part in (q, k, v)), strict=True)
    ]
    joined = cat([group.flatten(0, 1) for group in attended]).flatten(1)
    return attn.proj_drop(attn.proj(attn.norm(joined)))


def first_attention(
    attn: Any, x: Tensor, sequences: Sequences, *, rope: Tensor | None = None
) -> list[Tensor]:
    """Return what the first token of every sequence attends to, in the mean of the heads.

    Arguments are those of ``attend``.

    Returns:
        For each group of sequences (count, length), of which each sums to 1.
    """
    q, k, _ = _queries_keys_values(attn, x, rope)
    scale = q.shape[-1] ** -0.5
    return [
        (keys @ queries[:, 0, :, :, None] * scale).squeeze(-1).softmax(-1).mean(1)
        for queries, keys in zip(
            _groups(q, sequences),  # (count, length, heads, C / heads)
            (keys.transpose(1, 2) for keys in _groups(k, sequences)),
            strict=True,
        )
    ]


def _queries_keys_values(
    attn: Any, x: Tensor, rope: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries and keys, normalised and turned, and values: (N, heads, C / heads)."""
    q, k, v = _project(attn, x)
    q, k = attn.q_norm(q), attn.k_norm(k)
    if rope is not None:
        half = getattr(attn, "rotate_half", False)
        q, k = (apply_rot_embed_cat(part, rope, half=half).type_as(v) for part in (q, k))
    return q, k, v


def _project(attn: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (N, heads, C / heads) of the tokens (N, C)."""
    if attn.qkv is None:  # three layers in place of one
        parts = attn.q_proj(x), attn.k_proj(x), attn.v_proj(x)
        q, k, v = (part.unflatten(-1, (attn.num_heads, -1)) for part in parts)
        return q, k, v
    qkv = attn.qkv(x)
    if getattr(attn, "q_bias", None) is not None:  # EvaAttention has no bias of keys
        qkv = qkv + cat([attn.q_bias, attn.k_bias, attn.v_bias])
    q, k, v = qkv.unflatten(-1, (3, attn.num_heads, -1)).unbind(1)
    return q, k, v.contiguous()


def _joined(sequences: Sequences) -> Sequences:
    """Neighbouring groups of one length as one: attention is asked less often."""
    by_length = groupby(sequences, key=itemgetter(1))
    return [(sum(count for count, _ in group), length) for length, group in by_length]


def _groups(x: Tensor, sequences: Sequences) -> list[Tensor]:
    """Views of the packed ``x`` (N, ...) as (count, length, ...) for each group of sequences."""
    parts = x.split([count * length for count, length in sequences])
    return [part.unflatten(0, shape) for part, shape in zip(parts, sequences, strict=True)]


def _init_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        # Xavier, not timm's deviation of 0.02: that suits the width of ViT-B, and at 64 channels it
        # leaves a block so weak that subjects look alike to the classifier for hundreds of steps.
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
