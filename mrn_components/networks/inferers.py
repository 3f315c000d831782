"""How a network is asked: once, or several times with the answers averaged (section 4.1.2)."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor

from mrn_components.metrics.shapley import masked_states
from mrn_components.networks.ensemble import folds_of, merge_logits
from mrn_components.networks.masking import (
    STATE_MODES,
    References,
    StateMode,
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

    In mode "reference" the tokens of masked ROIs are those of one reference subject after the
    other, and the probabilities, or scores, are averaged: over the references of a class, then over
    the classes. Nothing is hidden, so that one pass is enough, and the network sees no crop unlike
    those that it was trained on (interventional Shapley values, Janzing et al. 2020).

    Args:
        mask_mode: hide an ROI's voxels by "voxels" (zeros), "noise" or "mean", or its "token"; or
            put the tokens of "reference" subjects.
        references: for mode "reference", those of each network of an ensemble, or of one network.

    Raises:
        ValueError: for an unknown ``mask_mode``, or one that lacks references.
    """

    def __init__(
        self, *, mask_mode: StateMode = "voxels", references: Sequence[References] = ()
    ) -> None:
        super().__init__()
        check_mask_mode(mask_mode, STATE_MODES)
        if mask_mode == "reference" and not references:
            raise ValueError("mask_mode 'reference' needs references of each network, got none.")
        self.mask_mode, self.references = mask_mode, references

    def __call__(
        self,
        inputs: Any,
        network: Callable[..., Any],
        *_args: Any,
        patients: Sequence[Tensor] | None = None,
        **_kwargs: Any,
    ) -> dict[str, Tensor]:
        """Diagnose a batch of B subjects, B crops of each ROI, in each of the S = 2^R states.

        The network has ``rois``, ``classify`` and "patient" in its output, as ``MRN``; or it is a
        ``FoldEnsemble`` of such, whose probabilities are averaged. What a pass with all ROIs
        visible gave, the ``patients`` (B, R * C) of each network, saves one.

        Returns:
            "logits" (B, O) with all ROIs visible; "state_logits" (B, S, O) in the order of
            ``masked_states``.

        Raises:
            ValueError: for another network, or one that masks ROIs already.
        """
        folds = check_late_fusion(network)
        shown = patients or [fold(inputs)["patient"] for fold in folds]  # (B, R * C)
        references = self.references if self.mask_mode == "reference" else [None] * len(folds)
        parts = zip(folds, shown, references, strict=True)
        states = merge_logits([self._states(inputs, *each) for each in parts], "folds")["logits"]
        return {"logits": states[:, 0], "state_logits": states}

    def _states(
        self, inputs: Any, network: Any, shown: Tensor, references: References | None
    ) -> Tensor:
        """Logits (B, S, O) of one network."""
        if references is not None:
            return reference_states(network, shown, references)
        rois, mode = network.rois, self.mask_mode
        hidden = network(mask_images(inputs, rois, mode))["patient"]
        hidden = mask_tokens(hidden, rois, rois, mode)
        masks = (token_blocks(shown, rois, masked) for masked in masked_states(rois))
        mixed = (torch.where(mask, hidden, shown) for mask in masks)
        return torch.stack([network.classify(patient) for patient in mixed], dim=1)


def check_late_fusion(network: Any) -> list[Any]:
    """Return the networks of an ensemble, or one network; refuse those without late ROI tokens.

    Raises:
        ValueError: for a network that does not classify ROI tokens, or masks ROIs already.
    """
    folds = folds_of(network)
    for fold in folds:
        if not hasattr(fold, "classify"):
            raise ValueError(
                f"{type(fold).__name__} has no method `classify`; contributions of ROIs need a "
                "network that classifies ROI tokens side by side, such as MRN."
            )
        if fold.masked_rois:
            raise ValueError(
                f"the network masks {sorted(fold.masked_rois)} already; leave masked_rois empty."
            )
    return folds


def reference_states(network: Any, patient: Tensor, references: References) -> Tensor:
    """Logits (B, S, O) of patients (B, R * C) with the tokens of reference subjects in each state.

    They are in the order of ``masked_states``; their softmax is the mean probability, where each
    class of the references counts the same.
    """
    states = [network.classify(patient)]
    for masked in masked_states(network.rois)[1:]:
        block = token_blocks(patient, network.rois, masked)
        classes = []
        for tokens in references.values():  # (N, R * C)
            mixed = torch.where(block, tokens.to(patient), patient[:, None])
            logits = network.classify(mixed.flatten(0, 1)).unflatten(0, mixed.shape[:2])
            classes.append(merge_logits(list(logits.unbind(1)), "references")["logits"])
        states.append(merge_logits(classes, "classes")["logits"])
    return torch.stack(states, dim=1)
