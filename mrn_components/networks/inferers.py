"""How a network is asked: once, or several times with the answers averaged (section 4.1.2)."""

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor

from mrn_components.metrics.shapley import masked_states
from mrn_components.networks.ensemble import merge_logits
from mrn_components.networks.masking import (
    MaskMode,
    check_mask_mode,
    mask_images,
    mask_tokens,
    token_blocks,
)


class TTAInferer(Inferer):
    """Test-time augmentation: also diagnose the mirrored crops, and average the probabilities.

    Args:
        mirror: also flip left and right; False asks once, as MONAI's ``SimpleInferer`` does.
            Paper: on in the final submission only; its views are not given.
    """

    def __init__(self, *, mirror: bool = False) -> None:
        super().__init__()
        self.mirror = mirror

    def __call__(self, inputs: Any, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Diagnose a batch of B subjects, B crops (..., D, H, W) of each ROI.

        Their columns W run from right to left. The network maps them, with the further arguments,
        to "logits" (B, O), an ensemble also to "fold_logits" (B, F, O).

        Returns:
            The network's output. With ``mirror``, logits are those of the mean probabilities of
            both views, and "view_logits" (B, 2, O) holds the views'.
        """
        plain = network(inputs, *args, **kwargs)
        if not self.mirror:
            return plain
        flipped = {roi: [crop.flip(-1) for crop in crops] for roi, crops in inputs.items()}
        mirrored = network(flipped, *args, **kwargs)
        output = {**plain, **merge_logits([plain["logits"], mirrored["logits"]], "view_logits")}
        if "fold_logits" in plain:
            folds = merge_logits([plain["fold_logits"], mirrored["fold_logits"]], "views")
            output["fold_logits"] = folds["logits"]
        return output


class MaskedStatesInferer(Inferer):
    """Diagnose with every subset of the ROIs masked (Table 4), at the price of two passes.

    An ROI's token depends on no other ROI, so that the tokens of one pass with all ROIs visible and
    one with all masked, mixed, give what the network gives with some masked. Only the head runs
    for each of the 2^R states.

    Args:
        mask_mode: hide an ROI's voxels by "voxels" (zeros), "noise" or "mean", or its "token".

    Raises:
        ValueError: for an unknown ``mask_mode``.
    """

    def __init__(self, *, mask_mode: MaskMode = "voxels") -> None:
        super().__init__()
        check_mask_mode(mask_mode)
        self.mask_mode = mask_mode

    def __call__(
        self, inputs: Any, network: Callable[..., Any], *_args: Any, **_kwargs: Any
    ) -> dict[str, Tensor]:
        """Diagnose a batch of B subjects, B crops of each ROI, in each of the S = 2^R states.

        The network has ``rois``, ``classify`` and "patient" in its output, as ``MRN``; or it is a
        ``FoldEnsemble`` of such, whose probabilities are averaged.

        Returns:
            "logits" (B, O) with all ROIs visible; "state_logits" (B, S, O) in the order of
            ``masked_states``.

        Raises:
            ValueError: for another network, or one that masks ROIs already.
        """
        folds = [self._states(inputs, fold) for fold in getattr(network, "folds", [network])]
        states = merge_logits(folds, "folds")["logits"]
        return {"logits": states[:, 0], "state_logits": states}

    def _states(self, inputs: Any, network: Any) -> Tensor:
        """Logits (B, S, O) of one network."""
        if not hasattr(network, "classify"):
            raise ValueError(
                f"{type(network).__name__} has no method `classify`; contributions of ROIs need a "
                "network that classifies ROI tokens side by side, such as MRN."
            )
        if network.masked_rois:
            raise ValueError(
                f"the network masks {sorted(network.masked_rois)} already; leave masked_rois empty."
            )
        rois, mode = network.rois, self.mask_mode
        shown = network(inputs)["patient"]  # (B, R * C)
        hidden = network(mask_images(inputs, rois, mode))["patient"]
        hidden = mask_tokens(hidden, rois, rois, mode)
        masks = (token_blocks(shown, rois, masked) for masked in masked_states(rois))
        mixed = (torch.where(mask, hidden, shown) for mask in masks)
        return torch.stack([network.classify(patient) for patient in mixed], dim=1)
