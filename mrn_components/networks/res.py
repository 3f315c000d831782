"""RES: ROI feature extraction and segmentation (section 3.2, Figure 2)."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, List, Literal  # noqa: UP035  TorchScript knows List

from torch import Tensor, cat, is_grad_enabled, nn, stack

from mrn_components.networks.dpt import NUM_LEVELS, SegmentationHead
from mrn_components.networks.ffa import Fusion
from mrn_components.networks.nucleus_pool import NucleusPool, nuclei_shares
from mrn_components.networks.packing import EncodedVolume, VolumeGrid, slice_tokens
from mrn_components.networks.recomputing import MemoryBudget
from mrn_components.networks.sfa import SlicePool
from mrn_components.networks.slice_embedding import SliceEmbedding, slice_vectors
from mrn_components.networks.slice_encoder import SliceEncoder
from mrn_components.networks.tensors import tensor_form


class RES(nn.Module):
    """ROI feature extraction and segmentation: a volume to its ROI token and nuclei logits.

    Every part but the encoder may be left out (Table 2): without FFA, slices do not see each other;
    without SFA, the ROI token is the mean of the slice tokens; without DPT there are no masks.
    No part is told the token width in a config: ``build``, which MRN calls once, passes the
    encoder's width to the ``build`` of each part. RES is a ``VolumeEncoder``.

    Args:
        encoder: slices to tokens.
        ffa: fusion across and within slices, ``FFA`` or another ``Fusion``; None leaves it out.
        sfa: slice tokens to ROI token, ``SFA`` or another ``SlicePool``; None averages them.
        dpt: ``DPTHead`` or another ``SegmentationHead``; None leaves it out.
        nuclei_pool: ``NucleusPool`` pools the patch tokens over the nuclei, beside SFA or in its
            place; None leaves it out, as the paper does.
        slice_embedding: kind of slice position embedding (Eq. 3); "none" leaves it out.
        slice_pos_std: standard deviation a learned slice embedding starts with. The paper is
            silent.
        checkpointing: recompute activations of encoder, FFA and DPT in the backward pass: a
            quarter more time for about a quarter of the memory. "auto" does so for batches whose
            activations would not fit into the GPU's free memory, and always on a CPU.

    Attributes:
        channels: width of an ROI token: C, the encoder's, or 2 C with a pool beside SFA.
    """

    def __init__(
        self,
        *,
        encoder: SliceEncoder,
        ffa: Fusion | None = None,
        sfa: SlicePool | None = None,
        dpt: SegmentationHead | None = None,
        nuclei_pool: NucleusPool | None = None,
        slice_embedding: Literal["learned", "sincos", "none"] = "learned",
        slice_pos_std: float = 0.02,
        checkpointing: bool | Literal["auto"] = False,
    ) -> None:
        super().__init__()
        if slice_embedding not in ("learned", "sincos", "none"):
            raise ValueError(
                "RES slice_embedding must be 'learned', 'sincos' or 'none', "
                f"got {slice_embedding!r}."
            )
        if checkpointing not in (True, False, "auto"):
            raise ValueError(
                f"RES checkpointing must be true, false or 'auto', got {checkpointing!r}."
            )
        self.encoder = encoder
        beside = nuclei_pool is not None and nuclei_pool.mode == "beside"
        self.channels = (1 + beside) * encoder.channels
        self.slice_embedding = (
            SliceEmbedding(encoder.channels, kind=slice_embedding, std=slice_pos_std)
            if slice_embedding != "none"
            else None
        )
        self.ffa, self.dpt, self.nuclei_pool = ffa, dpt, nuclei_pool
        self.sfa = sfa if nuclei_pool is None or beside else None
        self.budget = MemoryBudget() if checkpointing == "auto" else None
        if checkpointing:
            self._set_checkpointing(True)

    @property
    def uses_masks(self) -> bool:
        """Whether crops come with the channels of ``ROIMaskChannelsd``."""
        return self.nuclei_pool is not None

    @property
    def pools_alone(self) -> bool:
        """Whether a ``NucleusPool`` makes the ROI tokens without SFA."""
        return self.nuclei_pool is not None and self.nuclei_pool.mode == "instead"

    def build(self, num_classes: Mapping[str, int]) -> None:
        """Create the parts' parameters, given the classes K of each ROI; MRN calls this once."""
        for part in (self.ffa, self.sfa):
            if part is not None:
                part.build(self.encoder.channels, self.encoder.num_heads)
        segmented = {roi: classes for roi, classes in num_classes.items() if classes > 1}
        if not segmented:
            self.dpt = None
        if self.dpt is not None:
            self.dpt.build(self.encoder.channels, self.encoder.patch_size, segmented)

    def encode(self, volumes: Sequence[Tensor]) -> list[EncodedVolume]:
        """Encode crops (1 or 1 + K, D, H, W) once for many epochs with a frozen encoder (Eq. 2)."""
        levels, grids = self.encoder([volume[0] for volume in volumes])
        tokens = levels[-1].split([grid.total for grid in grids])
        shares = [nuclei_shares(volume, self.encoder.patch_size) for volume in volumes]
        return [EncodedVolume(*parts) for parts in zip(tokens, grids, shares, strict=True)]

    def forward(
        self, volumes: Sequence[Tensor | EncodedVolume], rois: Sequence[str]
    ) -> tuple[Tensor, Sequence[Tensor | None] | None]:
        """Map V volumes (1, D, H, W) in [0, 1], any sizes, and the ROI of each to tokens (Eq. 1).

        With ``nuclei_pool`` they are (1 + K, D, H, W): the image, and the one-hot mask. Without a
        DPT they may be what ``encode`` made of them.

        Returns:
            ROI tokens (V, channels); and, in training with a DPT, logits (K, D, H, W) of each
            volume, None where its ROI has no nuclei; otherwise None.
        """
        if self.budget is not None and self.training and is_grad_enabled():
            self._choose_checkpointing(self.budget, volumes, rois)
        return self._forward(volumes, rois)

    def _forward(
        self, volumes: Sequence[Tensor | EncodedVolume], rois: Sequence[str]
    ) -> tuple[Tensor, Sequence[Tensor | None] | None]:
        dpt = self.dpt if self.training else None
        tapped = self._tapped_blocks() if dpt is not None else ()
        encoded, grids, shares = self._encoded(volumes, tapped)  # Eq. 2
        tokens, levels = encoded[-1], encoded
        if self.slice_embedding is not None:
            tokens = self.slice_embedding(tokens, grids)  # Eq. 3
        if self.ffa is None:
            slices = slice_tokens(tokens, grids)
        else:
            local = dpt is not None and dpt.features == "local"
            patches_read = local or self.nuclei_pool is not None
            slices, globals_, locals_ = self.ffa(tokens, grids, slices_only=not patches_read)
            levels = [*encoded, *globals_[:-1], locals_[-1] if local else globals_[-1]]
            tokens = locals_[-1] if patches_read else tokens
        roi_tokens = self._roi_tokens(slices, tokens, grids, shares)
        if dpt is None:
            return roi_tokens, None
        sizes = [(v.shape[-2], v.shape[-1]) for v in volumes if isinstance(v, Tensor)]
        return roi_tokens, dpt(levels[-NUM_LEVELS:], grids, sizes, rois)

    def _choose_checkpointing(
        self, budget: MemoryBudget, volumes: Sequence[Any], rois: Sequence[str]
    ) -> None:
        """Recompute activations where those of the batch, judged by one crop's, do not fit."""
        pixels = [volume[0].numel() for volume in volumes]
        one = pixels.index(max(pixels))
        self._set_checkpointing(False)
        run = partial(self._forward, [volumes[one]], [rois[one]])
        self._set_checkpointing(not budget.fits(self, run, pixels[one], sum(pixels)))

    def _set_checkpointing(self, enable: bool) -> None:
        for part in (self.encoder, self.ffa, self.dpt):
            if part is not None:
                part.set_grad_checkpointing(enable)

    def _encoded(
        self, volumes: Sequence[Any], blocks: Sequence[int]
    ) -> tuple[list[Tensor], list[VolumeGrid], list[Tensor]]:
        """Tokens of ``blocks`` and the last block; each volume's layout, and shares to pool by."""
        if isinstance(volumes[0], EncodedVolume):
            if self.dpt is not None:
                raise ValueError(
                    "volumes that were encoded once have no pixels for DPT to segment; switch it "
                    "off by --network_def#res#dpt#_disabled_ True."
                )
            tokens, grids, shares = zip(*volumes, strict=True)
            return [cat(tokens)], list(grids), list(shares)
        levels, grids = self.encoder([volume[0] for volume in volumes], blocks)
        pooled = volumes if self.nuclei_pool is not None else []
        return levels, grids, [nuclei_shares(v, self.encoder.patch_size) for v in pooled]

    def _roi_tokens(
        self,
        slices: Tensor,
        tokens: Tensor,
        grids: Sequence[VolumeGrid],
        shares: Sequence[Tensor],
    ) -> Tensor:
        """ROI tokens (V, channels) of slice tokens (sum of D, C) and of all tokens (N, C)."""
        pooled = []
        if not self.pools_alone:
            depths = [grid.depth for grid in grids]
            if self.sfa is None:
                pooled.append(stack([volume.mean(0) for volume in slices.split(depths)]))
            else:
                pooled.append(self.sfa(slices, depths))
        if self.nuclei_pool is not None:
            pooled.append(self.nuclei_pool(tokens, grids, shares))
        return cat(pooled, 1)

    def on_tensors(self, rois: Sequence[str]) -> nn.Module:  # noqa: ARG002  the Protocol's
        """These parts without DPT, called with one tensor (B, 1 or 1 + K, D, H, W) an ROI."""
        return _TensorRES(self)

    def _tapped_blocks(self) -> list[int]:
        """Encoder blocks, besides the last, that DPT reads where FFA has fewer than three layers.

        The paper reads 3, 6, 9 and 11 of 12 without FFA (section 4.3.2), and only the last with
        three layers; between these, the deepest ones. Other depths are scaled.
        """
        from_ffa = self.ffa.num_layers if self.ffa is not None else 0
        paper = [3, 6, 9, 11][-max(NUM_LEVELS - from_ffa, 1) :]
        return [max(round((block + 1) * self.encoder.depth / 12), 1) - 1 for block in paper[:-1]]


class _TensorRES(nn.Module):
    """RES on crops of one size, without DPT: tensors (B, 1 or 1 + K, D, H, W) to (B, channels)."""

    def __init__(self, res: RES) -> None:
        super().__init__()
        self.encoder = res.encoder.on_tensors()
        self.table = None if res.slice_embedding is None else res.slice_embedding.table
        self.ffa = None if res.ffa is None else tensor_form(res.ffa)
        self.sfa = None if res.sfa is None else tensor_form(res.sfa)
        pool, size = res.nuclei_pool, (res.encoder.patch_size, res.encoder.prefix)
        self.pool = None if pool is None else tensor_form(pool, *size)
        self.pooled_alone = res.pools_alone

    def forward(self, volumes: List[Tensor]) -> List[Tensor]:  # noqa: UP006
        return [self.encode(volume) for volume in volumes]

    def encode(self, volume: Tensor) -> Tensor:
        tokens = self.encoder(volume[:, :1])  # (B, D, n, C), Eq. 2
        if self.table is not None:
            tokens = tokens + slice_vectors(self.table, tokens.shape[1])[:, None]  # Eq. 3
        if self.ffa is not None:
            tokens = self.ffa(tokens)
        slices = tokens[:, :, 0]  # (B, D, C)
        token = slices.mean(1) if self.sfa is None else self.sfa(slices)
        if self.pool is None:
            return token
        pooled = self.pool(tokens, volume)
        return pooled if self.pooled_alone else cat([token, pooled], 1)
