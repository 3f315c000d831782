"""LoRA: low-rank adaptation of a frozen vision transformer (Hu et al. 2021, arXiv:2106.09685)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from mrn_components.networks.freezing import Freezable


class LoRA:
    """Which projections of a frozen encoder are adapted, and by how much.

    Beside a frozen projection ``W x`` stands ``alpha / rank * B A x``, where A has ``rank`` rows
    and B as many columns. B starts at zero, so that the encoder starts as it was pretrained.

    Args:
        rank: rows of A. AnyMC3D (arXiv:2512.12887) and its repeat on this challenge: 8.
        alpha: scale of the adaptation, which is divided by ``rank``.
        layers: projections of each block's attention that are adapted: "qkv", "proj" or both.

    Raises:
        ValueError: for a rank below 1, or layers that are none or others.
    """

    def __init__(
        self, *, rank: int = 8, alpha: float = 16.0, layers: Sequence[str] = ("qkv", "proj")
    ) -> None:
        if rank < 1:
            raise ValueError(f"LoRA rank must be at least 1, got {rank}; to leave it out use null.")
        if isinstance(layers, str) or not layers or not {*layers} <= {"qkv", "proj"}:
            raise ValueError(f"LoRA layers must name some of ['qkv', 'proj'], got {layers!r}.")
        self.rank = rank
        self.alpha = alpha
        self.layers = tuple(layers)

    def adapt(self, vit: Any) -> None:
        """Adapt the attention of every block of a model of timm, whose weights are frozen.

        Raises:
            ValueError: for a model whose attention is built otherwise.
        """
        for block in vit.blocks:
            for name in self.layers:
                projection = getattr(block.attn, name, None)
                # timm keeps the biases of some models beside qkv, and then does not call it.
                if type(projection) is not nn.Linear or hasattr(block.attn, "k_bias"):
                    kind = type(vit).__name__
                    raise ValueError(
                        f"LoRA finds no plain projection {name!r} in the attention of {kind}; take "
                        "a DINOv2 encoder, or leave lora out and train the whole encoder."
                    )
                setattr(block.attn, name, LoRALinear(projection, self.rank, self.alpha / self.rank))


class LoRALinear(nn.Linear):
    """A frozen linear layer with its low-rank adaptation: ``W x + b + scale * B A x``.

    Weight and bias are those of ``layer`` and keep their names.

    Args:
        layer: the layer.
        rank: rows of A.
        scale: factor of the adaptation.
    """

    def __init__(self, layer: nn.Linear, rank: int, scale: float) -> None:
        super().__init__(layer.in_features, layer.out_features, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        self.scale = scale
        self.lora_a = nn.Parameter(layer.weight.detach().new_empty(rank, layer.in_features))
        self.lora_b = nn.Parameter(layer.weight.detach().new_zeros(layer.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_a, a=5**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Project (..., in) to (..., out)."""
        adapted = linear(linear(x, self.lora_a), self.lora_b)
        return linear(x, self.weight, self.bias) + self.scale * adapted

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """Return the plain layer that computes the same."""
        plain = nn.Linear(self.in_features, self.out_features, device="meta")
        plain.weight = nn.Parameter(self.weight + self.scale * self.lora_b @ self.lora_a)
        plain.bias = self.bias
        return plain


def merge_adapters(network: nn.Module) -> None:
    """Fold every adaptation into the layer beside it, and let the weights hold all there is.

    The network then is a plain one without ``lora`` and ``frozen``, with the same outputs.
    """
    for module in list(network.modules()):
        if isinstance(module, Freezable):
            module.frozen_sha256 = None
        for name, child in module.named_children():
            if isinstance(child, LoRALinear):
                setattr(module, name, child.merged())
