"""DPT: dense prediction transformer, the segmentation head (section 3.2.1, Figure 3)."""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor, cat, nn
from torch.nn.functional import interpolate, relu
from torch.utils.checkpoint import checkpoint

from mrn_components.networks.packing import VolumeGrid, unpack

NUM_LEVELS = 4


class SegmentationHead(Protocol):
    """What RES needs of a part in place of DPT, an ``nn.Module``: it segments nuclei in training.

    Attributes:
        features: "local" or "global": after which attention of FFA's last layer the last level is
            taken.
    """

    features: Literal["local", "global"]

    def build(self, channels: int, patch_size: int, num_classes: Mapping[str, int]) -> None:
        """Create the parameters for tokens of width C; RES calls this once.

        The side of a patch is in pixels; ``num_classes`` are the classes K, background included, of
        each ROI that has nuclei.
        """

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations in the backward pass, or store them."""

    def __call__(
        self,
        levels: Sequence[Tensor],
        grids: Sequence[VolumeGrid],
        sizes: Sequence[tuple[int, int]],
        rois: Sequence[str],
    ) -> Sequence[Tensor | None]:
        """Segment the nuclei of each volume.

        Args:
            levels: four packed token sets (N, C), shallow to deep: a volume of D slices with h x w
                patches is D * n rows, n = prefix + h * w, in each slice first the slice token.
            grids: layout of the V volumes in each of ``levels``.
            sizes: H and W of each volume's slices, in pixels. Slices were padded with zeros to
                whole patches, equally on opposite sides (one more at the end).
            rois: ROI of each volume.

        Returns:
            Logits (K, D, H, W) of each volume; None for one whose ROI has no nuclei.
        """


class DPTHead(nn.Module):
    """Dense prediction transformer: nuclei logits from four levels of patch tokens.

    Each level becomes a feature map at 4x, 2x, 1x and 1/2 of the patch grid; maps are fused from
    the deepest up; class logits are made on the 4x grid and resized to the slice. After Ranftl et
    al., "Vision Transformers for Dense Prediction" (2021), as in Depth Anything.

    Args:
        features: attention whose tokens end the FFA levels. "local" takes the last layer's local
            attention, "global" its global one (section 3.2.1). Paper: local (Table 8).
        project_channels: widths of the four levels. None is C/8, C/4, C/2, C: 96, 192, 384, 768 for
            ViT-B, as in the paper.
        fusion_channels: width of the fused maps. Paper: 256.
        chunk_size: most slices decoded at a time, to bound memory.

    Raises:
        ValueError: for an unknown ``features`` or other than four ``project_channels``.
    """

    def __init__(
        self,
        *,
        features: Literal["local", "global"] = "local",
        project_channels: Sequence[int] | None = None,
        fusion_channels: int = 256,
        chunk_size: int = 16,
    ) -> None:
        super().__init__()
        if features not in ("local", "global"):
            raise ValueError(f"DPTHead features must be 'local' or 'global', got {features!r}.")
        if project_channels is not None and len(project_channels) != NUM_LEVELS:
            raise ValueError(
                f"DPTHead project_channels must be {NUM_LEVELS} widths such as "
                f"[96, 192, 384, 768], got {project_channels!r}."
            )
        self.features = features
        self.project_channels = project_channels
        self.fusion_channels = fusion_channels
        self.chunk_size = chunk_size
        self.grad_checkpointing = False

    def build(self, channels: int, patch_size: int, num_classes: Mapping[str, int]) -> None:
        """Create the parameters, with an output layer for each ROI that has nuclei."""
        self.patch_size = patch_size
        widths = self.project_channels or [channels // 8, channels // 4, channels // 2, channels]
        fused = self.fusion_channels
        self.norm = nn.LayerNorm(channels)
        self.projections = nn.ModuleList(nn.Conv2d(channels, width, 1) for width in widths)
        self.resizes = nn.ModuleList(
            [
                nn.ConvTranspose2d(widths[0], widths[0], 4, stride=4),
                nn.ConvTranspose2d(widths[1], widths[1], 2, stride=2),
                nn.Identity(),
                nn.Conv2d(widths[3], widths[3], 3, stride=2, padding=1),
            ]
        )
        self.convs = nn.ModuleList(
            nn.Conv2d(width, fused, 3, padding=1, bias=False) for width in widths
        )
        self.fusions = nn.ModuleList(
            _Fusion(fused, with_skip=level < NUM_LEVELS - 1) for level in range(NUM_LEVELS)
        )
        self.head = nn.Sequential(nn.Conv2d(fused, fused // 2, 3, padding=1), nn.ReLU())
        self.outputs = nn.ModuleDict(
            {roi: nn.Conv2d(fused // 2, classes, 1) for roi, classes in num_classes.items()}
        )

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each chunk of slices in the backward pass instead of storing activations."""
        self.grad_checkpointing = enable

    def forward(
        self,
        levels: Sequence[Tensor],
        grids: Sequence[VolumeGrid],
        sizes: Sequence[tuple[int, int]],
        rois: Sequence[str],
    ) -> list[Tensor | None]:
        """Map four packed token sets (N, C), shallow to deep, to float32 logits (K, D, H, W).

        There are logits for each volume; None for one whose ROI has no nuclei.
        """
        volumes = list(zip(*(unpack(level, grids) for level in levels), strict=True))
        alike: dict[tuple[int, int, int], list[int]] = {}  # volumes whose slices go together
        for i, (grid, roi) in enumerate(zip(grids, rois, strict=True)):
            if roi in self.outputs:
                alike.setdefault(grid[1:], []).append(i)
        masks: list[Tensor | None] = [None] * len(volumes)
        for members in alike.values():
            slices = [cat(parts) for parts in zip(*(volumes[i] for i in members), strict=True)]
            maps = self._decode(slices, grids[members[0]]).split([grids[i].depth for i in members])
            for i, volume_maps in zip(members, maps, strict=True):
                logits = self.outputs[rois[i]](volume_maps)  # (D, K, 4h, 4w)
                masks[i] = self._resize(logits, grids[i], sizes[i]).transpose(0, 1)
        return masks

    def fuse(self, levels: Sequence[Tensor], grid: VolumeGrid) -> Tensor:
        """Fuse four token sets (D, n, C) of a few slices, shallow to deep, into (D, F, 4h, 4w)."""
        maps = []
        for i, tokens in enumerate(levels):
            patches = self.norm(tokens[:, grid.prefix :]).unflatten(1, (grid.height, grid.width))
            x = self.projections[i](patches.permute(0, 3, 1, 2))  # channels last, as tokens are
            maps.append(self.convs[i](self.resizes[i](x)))
        x = maps[-1]
        for i in reversed(range(NUM_LEVELS)):
            skip = maps[i] if i < NUM_LEVELS - 1 else None
            x = self.fusions[i](x, skip, maps[i - 1].shape[-2:] if i else None)
        return x

    def _decode(self, levels: Sequence[Tensor], grid: VolumeGrid) -> Tensor:
        """Feature maps (D, F / 2, 4h, 4w) of any number of slices, chunk by chunk."""

        def decode(*chunk: Tensor) -> Tensor:
            return self.head(self.fuse(chunk, grid))

        count = -(-len(levels[0]) // self.chunk_size)
        chunks = zip(*(level.tensor_split(count) for level in levels), strict=True)
        if self.grad_checkpointing:
            return cat([checkpoint(decode, *chunk, use_reentrant=False) for chunk in chunks])
        return cat([decode(*chunk) for chunk in chunks])

    def _resize(self, logits: Tensor, grid: VolumeGrid, size: tuple[int, int]) -> Tensor:
        """Logits (D, K, 4h, 4w) in pixels of the slice: (D, K, H, W), float32."""
        padded = (grid.height * self.patch_size, grid.width * self.patch_size)
        with torch.autocast(logits.device.type, enabled=False):
            rows, columns = (
                _bilinear(logits.shape[axis], full, side, logits.device)
                for axis, full, side in zip((-2, -1), padded, size, strict=True)
            )
            return rows @ (logits.float() @ columns.T)


def _bilinear(old: int, new: int, side: int, device: torch.device) -> Tensor:
    """Weights (side, old) that resize an axis bilinearly, and keep its middle.

    Two products by them are several times faster on a CPU than torch's resizing and its gradient.
    """
    start = (new - side) // 2
    axis = torch.eye(old, device=device)[None]  # a row for each old place
    return interpolate(axis, new, mode="linear")[0, :, start : start + side].T


class _Fusion(nn.Module):
    """Adds a level to the fused map, and resizes the result to the next level."""

    def __init__(self, channels: int, *, with_skip: bool) -> None:
        super().__init__()
        self.skip = _ResidualUnit(channels) if with_skip else None
        self.residual = _ResidualUnit(channels)
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, skip: Tensor | None, size: tuple[int, int] | None) -> Tensor:
        if self.skip is not None:
            x = x + self.skip(skip)
        x = self.project(self.residual(x))  # before resizing, which commutes, on fewer pixels
        if size is None:
            return x
        return interpolate(x, size, mode="bilinear", align_corners=True)


class _ResidualUnit(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        # Not in place: that would turn the skip into relu(x), as in VGGT's head.
        return x + self.conv2(relu(self.conv1(relu(x))))
