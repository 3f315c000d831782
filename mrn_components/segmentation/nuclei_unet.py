"""NucleiUNet: nnU-Net's network as a plain module (section 4.1.2).

B subjects, K label ids, D slices, H rows, W columns.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mrn_components.networks.precision import autocast
from mrn_components.segmentation.plan import read_plan


class NucleiUNet(nn.Module):
    """The network that nnU-Net v2 planned for an image's nuclei, of one fold or several.

    The folds' logits are averaged, as nnU-Net does. Parameters of a fold have the names that
    nnU-Net gave them, behind ``folds.N.``.

    Args:
        plan: JSON file of the plan, or the plan; it says how many folds. Paper: five (section
            4.1.1).
        precision: "bf16" computes under autocast to bfloat16, "auto" where the hardware gains by
            it. The output is float32 in any case.

    Attributes:
        folds: nnU-Net's networks.

    Raises:
        ValueError: for a file that is no plan.
    """

    def __init__(
        self,
        *,
        plan: str | Path | Mapping[str, Any],
        precision: Literal["fp32", "bf16", "auto"] = "fp32",
    ) -> None:
        super().__init__()
        from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

        self.precision = precision
        content = read_plan(plan)
        architecture = content["architecture"]
        strides = zip(*architecture["arch_kwargs"]["strides"], strict=True)
        self.strides = tuple(math.prod(steps) for steps in strides)  # of the deepest stage
        self.folds = nn.ModuleList(
            get_network_from_plans(
                architecture["network_class_name"],
                architecture["arch_kwargs"],
                architecture["_kw_requires_import"],
                input_channels=1,
                output_channels=content["labels"] + 1,
                deep_supervision=False,
            )
            for _ in range(content["folds"])
        )

    def forward(self, image: Tensor) -> Tensor:
        """Map normalised patches (B, 1, D, H, W), of the plan's spacing and orientation, to logits.

        They are (B, 1 + K, D, H, W); channel 0 is background, channel i is label id i.
        """
        # ONNX has no convolution in bf16: exports compute in float32.
        precision = "fp32" if torch.compiler.is_exporting() else self.precision
        with autocast(image.device, precision):
            logits = self.folds[0](image)
            for fold in self.folds[1:]:
                logits = logits + fold(image)
        return (logits / len(self.folds)).float()

    @torch.no_grad()
    def __prepare_scriptable__(self) -> nn.Module:  # torch.jit.script compiles this instead
        """The folds traced: nnU-Net's encoders return a list or a tensor, which scripts cannot."""
        image = next(self.parameters()).new_zeros(1, 1, *(2 * stride for stride in self.strides))
        return _MeanLogits([torch.jit.trace(fold, image) for fold in self.folds])


class _MeanLogits(nn.Module):
    """The mean of several networks' logits."""

    def __init__(self, folds: Sequence[Any]) -> None:
        super().__init__()
        self.folds = nn.ModuleList(folds)
        self.count = len(folds)

    def forward(self, image: Tensor) -> Tensor:
        logits = torch.zeros(1, device=image.device)
        for fold in self.folds:
            logits = logits + fold(image)
        return logits / self.count
