"""SliceEncoder: a 2D vision foundation model as the patchnizer of axial slices (Eq. 2)."""

import logging
from collections.abc import Sequence
from typing import Any, Literal, Self

import timm
import torch
from torch import Tensor, cat, nn
from torch.nn.functional import conv2d

from mrn_components.networks.freezing import Freezable
from mrn_components.networks.lora import LoRA
from mrn_components.networks.packing import VolumeGrid, whole_patches
from mrn_components.networks.slice_blocks import check_blocks, class_attention, encode_slices
from mrn_components.networks.volume_blocks import VolumeBlocks
from mrn_components.networks.weights import read_weights
from mrn_components.system.values import did_you_mean, nearest

_logger = logging.getLogger(__name__)
_WHAT_TO_TYPE = (
    "Pass a weight file in the official DINOv2 layout with --encoder_weights PATH, or train from "
    "random weights with --encoder_weights none."
)

_NO_WEIGHTS = (None, "none")  # a word too, because MONAI ignores None as an override

# Arguments of timm that lead to `torch.load` without `weights_only`.
_SOURCES = {"cache_dir", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay"}


class SliceEncoder(Freezable):
    """Encodes axial slices into slice and patch tokens with a vision transformer of timm.

    Slices have one channel in [0, 1]; the repeat to three channels and ImageNet's mean and standard
    deviation are folded into the patch convolution, whose weight keeps its shape (C, 3, p, p).
    Slices are padded with zeros to a multiple of the patch size, symmetrically; slices of all sizes
    share a call, whichever volume they come from, and none is padded to another's size.

    Args:
        name: model in timm: DINOv2 with registers, or DINOv3. Paper: ViT-B/14 with four registers
            (section 4.1.2).
        weights: "hub" downloads timm's weights; a path reads a file in the official DINOv2 layout
            (.pth or .safetensors); "none" starts from random weights.
        drop_path_rate: rate of dropped branches in the last block, falling linearly to 0 in the
            first. Paper: 0.2 (section 4.1.2).
        keep_registers: hand register tokens on to FFA. The paper names none there; VGGT drops them.
        attention: what a patch attends to in the blocks. Paper: "slices", its own slice; "planes",
            those of its slice and of the two orthogonal planes in turn; "volume", all. The two need
            no new parameter, and take the place of FFA (``VolumeBlocks`` says how).
        frozen: keep the weights as they are, without dropped branches. Weights from "hub" or a path
            then stay out of the network's files, which name them by their hash.
        lora: adaptation of the attention, which alone is trained; the weights are frozen then.
        **model_args: further arguments of the timm model, e.g. depth, embed_dim, num_heads,
            init_values.

    Attributes:
        channels: token width C.
        num_heads: attention heads of a block.
        patch_size: side p of a patch, in pixels.
        depth: blocks of the transformer.

    Raises:
        ValueError: if ``name`` or ``model_args`` name weights: timm would read them as pickles.
        FileNotFoundError: if ``weights`` names no file.
        RuntimeError: if the weights cannot be downloaded or do not fit the model.
    """

    def __init__(
        self,
        *,
        name: str = "vit_base_patch14_reg4_dinov2.lvd142m",
        weights: str | None = "none",
        drop_path_rate: float = 0.2,
        keep_registers: bool = False,
        attention: Literal["slices", "planes", "volume"] = "slices",
        frozen: bool = False,
        lora: LoRA | None = None,
        **model_args: Any,
    ) -> None:
        super().__init__()
        if ":" in name or (named := sorted(_SOURCES & model_args.keys())):
            source = repr(name) if ":" in name else ", ".join(named)
            raise ValueError(
                f"SliceEncoder got {source}, from which timm reads files that can run code; name a "
                "model of timm, and its file by --encoder_weights PATH."
            )
        if attention not in ("slices", "planes", "volume"):
            raise ValueError(
                f"SliceEncoder attention must be 'slices', 'planes' or 'volume', got {attention!r}."
            )
        if "dinov2" in name and "reg4" not in name:
            _logger.warning(
                "encoder %r has no registers: timm resamples its position table with antialiasing, "
                "the official code without, so features differ by about 4 %%; prefer the reg4 "
                "model.",
                name,
            )
        # timm's default for DINOv2 is a position table for 518 x 518, the size it was trained at.
        # Any other (img_size=224) would resample the table twice.
        args = {"num_classes": 0, "dynamic_img_size": True, "drop_path_rate": drop_path_rate}
        self.vit: Any = _create(name, weights, {**args, **model_args})
        check_blocks(self.vit, name)
        cfg = self.vit.pretrained_cfg
        self.vit.patch_embed.proj = _OneChannelConv2d(
            self.vit.patch_embed.proj, cfg["mean"], cfg["std"]
        )
        self.channels: int = self.vit.embed_dim
        self.depth = len(self.vit.blocks)
        self.num_heads: int = self.vit.blocks[0].attn.num_heads
        self.patch_size: int = self.vit.patch_embed.patch_size[0]
        self.prefix: int = self.vit.num_prefix_tokens if keep_registers else 1
        self.attention = attention
        self.fixed = frozen and lora is None
        if frozen or lora is not None:
            self.freeze(found_elsewhere=weights not in _NO_WEIGHTS)
            self.train()
        if lora is not None:
            lora.adapt(self.vit)

    def train(self, mode: bool = True) -> Self:
        """Choose training or evaluation; what is frozen as a whole drops no branch in either."""
        super().train(mode)
        self.vit.train(mode and not self.fixed)
        return self

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass instead of storing its activations."""
        self.vit.set_grad_checkpointing(enable)

    def group_matcher(self) -> dict[str, Any]:
        """Tell timm's ``group_parameters`` the layers: all that embeds, then each block."""
        return {
            "stem": r"^vit\.(?:cls_token|reg_token|pos_embed|patch_embed)",
            # The last one, by timm's convention, joins the layer before it.
            "blocks": [(r"^vit\.blocks\.(\d+)", None), (r"^vit\.norm", (99999,))],
        }

    def forward(
        self, volumes: Sequence[Tensor], blocks: Sequence[int] = ()
    ) -> tuple[list[Tensor], list[VolumeGrid]]:
        """Encode every slice of every volume (Eq. 2).

        Args:
            volumes: V volumes (D, H, W) in [0, 1], of any sizes.
            blocks: indices of blocks whose tokens are wanted besides the last one's.

        Returns:
            Packed tokens (N, C) of each of ``blocks`` and, at the end, of the last block, all
            normalised by the final norm; and the layout of the volumes.
        """
        p = self.patch_size
        padded = [whole_patches(volume, p)[:, None] for volume in volumes]  # (D, 1, p * h, p * w)
        members, wanted = self._members(padded), [*blocks, self.depth - 1]
        slices = [cat([padded[i] for i in group]) for group in members]
        depths = [len(padded[group[0]]) for group in members]
        levels = {
            block: self._by_volume(tokens, padded, members)
            for block, tokens in self._encode(slices, depths, sorted(set(wanted))).items()
        }
        shapes = [(len(volume), *volume.shape[-2:]) for volume in padded]
        grids = [VolumeGrid(d, h // p, w // p, self.prefix) for d, h, w in shapes]
        return [levels[block] for block in wanted], grids

    def class_attention(self, tokens: Tensor, volumes: Sequence[Tensor]) -> list[Tensor]:
        """Share out the attention of each slice's class token among its patches: (D, h, w).

        They are of each volume, by the packed ``tokens`` (N, C) that the first norm of the last
        block gave when these V ``volumes`` were encoded with ``attention`` "slices".
        """
        p = self.patch_size
        padded = [whole_patches(volume, p)[:, None] for volume in volumes]
        members = self._members(padded)
        depths = [[len(padded[i]) for i in group] for group in members]
        sizes = [padded[group[0]].shape[-2:] for group in members]
        shapes = [(sum(d), h // p, w // p) for d, (h, w) in zip(depths, sizes, strict=True)]
        found: dict[int, Tensor] = {}
        shares = class_attention(self.vit, tokens, shapes)
        for part, group, each in zip(shares, members, depths, strict=True):
            found.update(zip(group, part.split(each), strict=True))
        return [found[i] for i in range(len(volumes))]

    def on_tensors(self) -> nn.Module:
        """Itself on crops of one size: (B, 1, D, H, W) to the last block's tokens (B, D, n, C)."""
        return _TensorSliceEncoder(self)

    def _members(self, padded: Sequence[Tensor]) -> list[list[int]]:
        """Group padded volumes whose slices, or which themselves, are of one size."""
        groups: dict[torch.Size, list[int]] = {}
        for i, volume in enumerate(padded):
            one = volume.shape[-2:] if self.attention == "slices" else volume.shape
            groups.setdefault(one, []).append(i)
        return list(groups.values())

    def _encode(
        self, groups: Sequence[Tensor], depths: Sequence[int], indices: list[int]
    ) -> dict[int, list[Tensor]]:
        """Tokens (S, n, C) behind each block of ``indices``, of each group of slices (S, 1, H, W).

        Where blocks attend beyond the slice, S is a multiple of the ``depths`` of volumes.
        """
        if self.attention == "slices":
            return encode_slices(self.vit, groups, indices)
        beyond = VolumeBlocks(self.vit, self.attention)
        found = [beyond(slices, d, indices) for slices, d in zip(groups, depths, strict=True)]
        return dict(zip(indices, map(list, zip(*found, strict=True)), strict=True))

    def _by_volume(
        self, groups: Sequence[Tensor], volumes: Sequence[Tensor], members: Sequence[Sequence[int]]
    ) -> Tensor:
        """Pack what is kept of tokens (S, n, C) of each group, volume by volume."""
        encoded: dict[int, Tensor] = {}
        for tokens, group in zip(groups, members, strict=True):
            kept = _without(tokens, self.prefix, self.vit.num_prefix_tokens)
            encoded.update(zip(group, kept.split([len(volumes[i]) for i in group]), strict=True))
        return cat([encoded[i].flatten(0, 1) for i in range(len(volumes))])


class _TensorSliceEncoder(nn.Module):
    def __init__(self, encoder: SliceEncoder) -> None:
        super().__init__()
        self.patch_size, self.prefix = encoder.patch_size, encoder.prefix
        self.all_prefix: int = encoder.vit.num_prefix_tokens
        self.last = [encoder.depth - 1]
        beyond = encoder.attention != "slices"
        self.vit: Any = None if beyond else encoder.vit
        self.volume_blocks = VolumeBlocks(encoder.vit, encoder.attention) if beyond else None

    def forward(self, volume: Tensor) -> Tensor:
        slices = whole_patches(volume.transpose(1, 2).flatten(0, 1), self.patch_size)
        if self.volume_blocks is not None:  # of (B * D, 1, p * h, p * w)
            tokens = self.volume_blocks(slices, volume.shape[2], self.last)[0]
        else:
            tokens = self.vit.forward_features(slices)
        tokens = _without(tokens, self.prefix, self.all_prefix)
        return tokens.unflatten(0, (volume.shape[0], volume.shape[2]))


def _without(tokens: Tensor, kept: int, prefix: int) -> Tensor:
    """Leave out of tokens (..., n, C) the prefix tokens from ``kept`` on, such as registers."""
    return cat([tokens[:, :kept], tokens[:, prefix:]], 1)


class _OneChannelConv2d(nn.Conv2d):
    """Patch convolution whose 3-channel weight is applied to one-channel slices in [0, 1].

    Equal to repeating a slice three times, normalising it and convolving with ``conv``.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, conv: nn.Conv2d, mean: Sequence[float], std: Sequence[float]) -> None:
        size = conv.out_channels, conv.weight.shape[-1]
        super().__init__(3, *size, stride=size[1], device="meta")
        self.weight, self.bias = conv.weight, conv.bias
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight / self.std
        # mypy does not know buffers, and TorchScript allows nothing behind its comment.
        bias = self.bias - (weight * self.mean).sum((1, 2, 3))  # type: ignore[operator]
        return conv2d(x, weight.sum(1, keepdim=True), bias, self.stride)


def _create(name: str, weights: str | None, args: dict[str, Any]) -> Any:
    """Return the timm model ``name`` with its weights, or say what to type."""
    if not timm.is_model(name):
        raise ValueError(
            f"SliceEncoder: name {name!r} is no model of timm."
            f"{did_you_mean(nearest(name, timm.list_models()))} timm.list_models() lists them."
        )
    if weights in _NO_WEIGHTS:
        return timm.create_model(name, **args)
    overlay = {} if weights == "hub" else {"state_dict": _read(weights, name)}
    try:
        vit: Any = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **args)
    except Exception as error:
        raise RuntimeError(
            f"encoder weights {weights!r} could not be loaded into {name!r} "
            f"({type(error).__name__}: {error}). {_WHAT_TO_TYPE}"
        ) from error
    vit.pretrained_cfg.pop("state_dict", None)  # else every copy of the model holds them twice
    return vit


def _read(path: str, name: str) -> dict[str, Tensor]:
    weights = read_weights(path, _WHAT_TO_TYPE)
    if "reg4" in name and not {"register_tokens", "reg_token"} & weights.keys():
        raise RuntimeError(
            f"encoder weights {path!r} hold no register tokens, which {name!r} needs: take the "
            f"file whose name has reg4, e.g. dinov2_vitb14_reg4_pretrain.pth. {_WHAT_TO_TYPE}"
        )
    return weights
