"""Where ROI tokens look in a pass: attention to slices times attention to patches.

The medical slice transformer (arXiv:2411.15802), DINOv2 and SFA alone, is shown by such maps.

D slices, H rows, W columns of a crop; h x w patches of a slice; N packed tokens of C features.
"""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn, stack

from mrn_components.networks.ensemble import folds_of
from mrn_components.networks.nucleus_pool import nuclei_shares, pool_weights
from mrn_components.networks.packing import without_padding
from mrn_components.networks.res import RES

Maps = dict[str, list[Tensor]]  # of each ROI a map (D, H, W) of every subject


class AttentionWatch:
    """Watches a network and maps the attention of its first pass, at next to no cost.

    A map is the attention of the ROI token to a slice (``SlicePool.slice_attention``) times that of
    the slice's class token to a patch, in the encoder's last block, mean of its heads. It is spread
    evenly over the pixels of a patch, and sums to 1, less what lies on a slice's padding. What FFA
    mixes between the two is not in it. Where a ``NucleusPool`` is in the place of SFA, it is the
    weight of a patch in the mean. An ensemble's map is the mean of its networks'.

    It is a context around the pass::

        with AttentionWatch(network) as watch:
            network(images)
        maps = watch.maps()

    Args:
        network: ``MRN`` with a ``RES``, or a ``FoldEnsemble`` of such; others have no maps.
    """

    def __init__(self, network: nn.Module) -> None:
        self._passes = [_Pass(getattr(fold, "res", None)) for fold in folds_of(network)]

    def __enter__(self) -> Self:
        for each in self._passes:
            each.watch()
        return self

    def __exit__(self, *_error: object) -> None:
        for each in self._passes:
            each.leave()

    @torch.no_grad()
    def maps(self) -> Maps:
        """Return the maps, none of a network without such attention or that was not asked."""
        folds = [each.maps() for each in self._passes]
        return {
            roi: [
                stack(crops).mean(0) for crops in zip(*(fold[roi] for fold in folds), strict=True)
            ]
            for roi in folds[0]
        }


def weigh_by_mask(network: nn.Module) -> bool:
    """Whether a network's maps are no attention but weights of a ``NucleusPool``, by the mask."""
    parts = (getattr(fold, "res", None) for fold in folds_of(network))
    return all(isinstance(res, RES) and res.pools_alone for res in parts)


class _Pass:
    """The first pass of one part: its crops and their ROIs, and what two parts inside saw."""

    def __init__(self, res: Any) -> None:
        self.res: RES | None = res if isinstance(res, RES) and _has_attention(res) else None
        self._hooks: list[Any] = []
        self._seen: dict[str, Any] = {}

    def watch(self) -> None:
        if self.res is None:
            return
        parts = {"block": self.res.encoder.vit.blocks[-1].norm1, "res": self.res}
        if self.res.sfa is not None:
            parts["sfa"] = self.res.sfa
        for name, part in parts.items():
            self._hooks.append(part.register_forward_hook(self._note(name)))

    def leave(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def _note(self, name: str) -> Any:
        def note(_part: nn.Module, inputs: Any, output: Any) -> None:
            self._seen.setdefault(name, output if name == "block" else inputs)

        return note

    def maps(self) -> Maps:
        found: Maps = {}
        if self.res is None or "res" not in self._seen:
            return found
        crops, rois = self._seen["res"]
        p = self.res.encoder.patch_size
        for crop, roi, shares in zip(crops, rois, self._shares(self.res, crops), strict=True):
            found.setdefault(roi, []).append(without_padding(shares, p, crop.shape[-2:]))
        return found

    def _shares(self, res: RES, crops: Sequence[Tensor]) -> list[Tensor]:
        """Shares (D, h, w) of the patches of each crop."""
        # Computed anew here, in full precision, whatever the pass was computed in.
        tokens = self._seen["block"].float()
        patches = res.encoder.class_attention(tokens, [crop[0] for crop in crops])
        if res.pools_alone:
            weights = [pool_weights(nuclei_shares(c, res.encoder.patch_size)[None]) for c in crops]
            return [w.view_as(volume) for w, volume in zip(weights, patches, strict=True)]
        if res.sfa is None:  # the mean of the slices
            return [volume / len(volume) for volume in patches]
        slices, depths = self._seen["sfa"]
        part: Any = res.sfa
        weights = part.slice_attention(slices.float(), depths)
        return [w[:, None, None] * volume for w, volume in zip(weights, patches, strict=True)]


def _has_attention(res: RES) -> bool:
    looks_in_slices = getattr(res.encoder, "attention", None) == "slices"  # as SliceEncoder has it
    return looks_in_slices and (res.sfa is None or hasattr(res.sfa, "slice_attention"))
