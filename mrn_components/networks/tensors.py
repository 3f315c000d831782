"""The networks on one plain tensor an ROI: what TorchScript and ONNX compile, other tools call.

Training and prediction hand over ragged crops by ROI. MONAI's ``verify_net_in_out``,
``ckpt_export`` and ``onnx_export``, and MONAI Deploy, know tensors by name. Parts and parameters
are the network's own; only the bookkeeping of ragged crops is left out: the numbers are the same.

B subjects, R ROIs; D slices, H rows, W columns of a crop; n tokens of a slice, C channels.
"""

from typing import Any, Dict, List, Optional, Protocol  # noqa: UP035  TorchScript knows these

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from mrn_components.networks.ffa import FFA
from mrn_components.networks.masking import MaskMode
from mrn_components.networks.sfa import SFA
from mrn_components.networks.slice_embedding import SliceEmbedding
from mrn_components.networks.slice_encoder import SliceEncoder

_NAMED_ROIS = ("qsm1", "qsm2", "qsm3")  # the arguments of forward, besides the first ROI


class HasTensors(Protocol):
    """What ``TensorNetwork`` needs of a network: ``MRN`` or ``PatientClassifier``."""

    rois: tuple[str, ...]
    in_channels: dict[str, int]
    masked_rois: frozenset[str]
    mask_mode: MaskMode
    classifier: nn.Module | None

    def tensor_encoder(self) -> nn.Module:
        """A module that maps R tensors (B, channels, D, H, W) to R features (B, C)."""


class TensorNetwork(nn.Module):
    """A network called with a tensor an ROI: ``image`` is its first ROI, others go by their name.

    Computes in float32, whatever the network's precision.

    Args:
        network: whose parts and parameters are used, not copied.

    Raises:
        ValueError: for a network that masks ROIs, has no classifier, or has an ROI other than its
            first that is none of the arguments of ``forward``; and, when called, for a tensor of no
            ROI.
    """

    def __init__(self, network: HasTensors) -> None:
        super().__init__()
        if unnamed := [roi for roi in network.rois[1:] if roi not in _NAMED_ROIS]:
            raise ValueError(
                f"ROIs {unnamed} are none of the tensors {_NAMED_ROIS} that a network can be "
                "called with besides its first ROI; give it {roi: [crops]}."
            )
        if network.masked_rois or network.classifier is None:
            raise ValueError(
                f"{type(network).__name__} takes tensors with its classifier and all ROIs visible; "
                "leave masked_rois empty, and leave out the tensor of an ROI to hide it."
            )
        self.others = list(network.rois[1:])
        self.channels = [network.in_channels[roi] for roi in self.others]
        self.zero_tokens = network.mask_mode == "token"
        self.encoder = network.tensor_encoder()
        self.classifier = network.classifier

    def forward(
        self,
        image: Tensor,
        qsm1: Optional[Tensor] = None,  # noqa: UP045
        qsm2: Optional[Tensor] = None,  # noqa: UP045
        qsm3: Optional[Tensor] = None,  # noqa: UP045
    ) -> Tensor:
        """Diagnose B subjects whose crops of an ROI have one size.

        Args:
            image: crops (B, channels, D, H, W) in [0, 1] of the network's first ROI.
            qsm1: crops of the ROI of this name; None hides it as the network's ``mask_mode`` says
                ("noise" and "mean", which need a crop, as "voxels": zeros as large as ``image``).
            qsm2: as ``qsm1``.
            qsm3: as ``qsm1``.

        Returns:
            Logits (B, num_classes).
        """
        named: Dict[str, Optional[Tensor]] = {  # noqa: UP006, UP045
            "qsm1": qsm1,
            "qsm2": qsm2,
            "qsm3": qsm3,
        }
        for roi, given in named.items():
            if given is not None and roi not in self.others:
                raise ValueError(
                    f"tensor '{roi}' belongs to no ROI of the network, which has, after the first, "
                    f"{self.others}."
                )
        volumes = [image.float()]
        hidden = [False]
        for i, roi in enumerate(self.others):
            given = named[roi]
            if given is None:
                shape = [image.shape[0], self.channels[i]] + list(image.shape[2:])  # noqa: RUF005
                volumes.append(torch.zeros(shape, device=image.device))
            else:
                volumes.append(given.float())
            hidden.append(given is None)
        features: List[Tensor] = self.encoder(volumes)  # noqa: UP006
        if self.zero_tokens:
            for i, hide in enumerate(hidden):
                if hide:
                    features[i] = torch.zeros_like(features[i])
        return self.classifier(torch.cat(features, 1))


class TensorRES(nn.Module):
    """RES on tensors: crops to ROI tokens, without DPT (section 3.2, Figure 2).

    Args:
        encoder: of the RES, as are the other arguments.
        slice_embedding: or None.
        ffa: or None.
        sfa: or None.

    Raises:
        TypeError: for a part that is not of this package.
    """

    def __init__(
        self,
        *,
        encoder: SliceEncoder,
        slice_embedding: SliceEmbedding | None,
        ffa: FFA | None,
        sfa: SFA | None,
    ) -> None:
        super().__init__()
        for part, known in ((encoder, SliceEncoder), (ffa, FFA), (sfa, SFA)):
            if part is not None and not isinstance(part, known):
                raise TypeError(
                    f"{type(part).__name__} stands in place of {known.__name__}, and only "
                    f"{known.__name__} can be called with tensors or exported; give the network "
                    "{roi: [crops]}."
                )
        self.vit = encoder.vit
        self.patch_size = encoder.patch_size
        self.prefix = encoder.prefix
        self.all_prefix: int = encoder.vit.num_prefix_tokens
        self.slice_table = None if slice_embedding is None else slice_embedding.table
        fused = [] if ffa is None else zip(ffa.global_blocks, ffa.local_blocks, strict=True)
        self.ffa = nn.ModuleList(_GlobalLocal(a, b) for a, b in fused)
        self.sfa = None if sfa is None else _TensorSFA(sfa)

    def forward(self, volumes: List[Tensor]) -> List[Tensor]:  # noqa: UP006
        """Map R crops (B, 1, D, H, W) in [0, 1] to R ROI tokens (B, C)."""
        return [self.encode(volume) for volume in volumes]

    def encode(self, volume: Tensor) -> Tensor:
        """One crop (B, 1, D, H, W) to its ROI token (B, C)."""
        batch, depth = volume.shape[0], volume.shape[2]
        bottom, right = -volume.shape[3] % self.patch_size, -volume.shape[4] % self.patch_size
        sides = [right // 2, right - right // 2, bottom // 2, bottom - bottom // 2]
        slices = pad(volume.transpose(1, 2).flatten(0, 1), sides)  # (B * D, 1, p * h, p * w)
        tokens = self.vit.forward_features(slices)  # Eq. 2
        tokens = torch.cat([tokens[:, : self.prefix], tokens[:, self.all_prefix :]], 1)
        tokens = tokens.unflatten(0, (batch, depth))  # (B, D, n, C)
        if self.slice_table is not None:
            tokens = tokens + _slice_rows(self.slice_table, depth)[:, None]  # Eq. 3
        for layer in self.ffa:
            tokens = layer(tokens)
        slice_tokens = tokens[:, :, 0]  # (B, D, C)
        return slice_tokens.mean(1) if self.sfa is None else self.sfa(slice_tokens)


class _GlobalLocal(nn.Module):
    """A layer of FFA on tokens (B, D, n, C)."""

    def __init__(self, global_block: nn.Module, local_block: nn.Module) -> None:
        super().__init__()
        self.global_block = _Block(global_block)
        self.local_block = _Block(local_block)

    def forward(self, tokens: Tensor) -> Tensor:
        batch, depth = tokens.shape[0], tokens.shape[1]
        tokens = self.global_block(tokens.flatten(1, 2)).unflatten(1, (depth, -1))
        return self.local_block(tokens.flatten(0, 1)).unflatten(0, (batch, depth))


class _TensorSFA(nn.Module):
    """SFA on slice tokens (B, D, C)."""

    def __init__(self, sfa: SFA) -> None:
        super().__init__()
        self.roi_token = sfa.roi_token
        self.blocks = nn.ModuleList(_Block(block) for block in sfa.blocks)
        self.norm = sfa.norm

    def forward(self, slices: Tensor) -> Tensor:
        x = torch.cat([self.roi_token.expand(slices.shape[0], 1, -1), slices], 1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x[:, 0])


class _Block(nn.Module):
    """The parts of a ``PackedBlock`` as timm's own block, on sequences (B, length, C)."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.norm1, self.attn, self.ls1 = block.norm1, block.attn, block.ls1
        self.norm2, self.mlp, self.ls2 = block.norm2, block.mlp, block.ls2

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


def _slice_rows(table: Tensor, depth: int) -> Tensor:
    """As ``SliceEmbedding.at``, which TorchScript cannot call."""
    if depth <= table.shape[0]:
        return table[:depth]
    return interpolate(table.t()[None], depth, mode="linear", align_corners=True)[0].t()
