"""What moved a subject's P(PD): the ROIs' Shapley values, and maps of occlusion."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from monai.networks.utils import eval_mode
from torch import Tensor, nn

from mrn_components.data.predictions import check_finite
from mrn_components.data.target import HC_PD, Target
from mrn_components.metrics.shapley import masked_states, shapley_values
from mrn_components.networks.ensemble import merge_logits
from mrn_components.networks.inferers import MaskedStatesInferer
from mrn_components.networks.masking import MaskMode, token_blocks

# Cells along the longer side of a crop: of SN about 8 mm, the size of a nucleus's side.
NUM_CELLS = 5

# What moved a subject's P(PD), as ``subjects/ID/explanation.json`` holds it:
# - the target's leading column, such as "prob_pd": with all ROIs visible, without mirrored views;
# - "baseline": the same with all ROIs masked;
# - "shapley": of each ROI; they sum to the first less the second;
# - "occlusion": of each ROI, rows of cells, anterior to posterior, each from the patient's right to
#   left: the first less the same with this cell of all slices covered.
Explanation = dict[str, Any]


def explain_subject(
    network: nn.Module,
    images: Mapping[str, Sequence[Tensor]],
    *,
    target: Target = HC_PD,
    num_cells: int = NUM_CELLS,
) -> Explanation:
    """Mask the ROIs of one subject, then cover parts of them, and see how P(PD) moves.

    Of other targets it is the probability of the positive class, or the score, that moves.

    Shapley values take two passes (``MaskedStatesInferer``). A map covers one cell after another,
    in all slices, by the crop's mean; only its ROI is computed anew, so that all maps together
    take about as many passes as a crop has cells.

    Args:
        network: one that ``MaskedStatesInferer`` takes.
        images: one crop (channels, D, H, W) in [0, 1] of each ROI, as ``PrepareROIBatch`` gives.
        target: what is predicted.
        num_cells: cells along the longer side of each crop.

    Raises:
        ValueError: for several subjects, no cells, or a network without ROI tokens.
    """
    counts = {roi: len(crops) for roi, crops in images.items()}
    if set(counts.values()) != {1} or num_cells < 1:
        raise ValueError(
            f"explain_subject takes one crop of each ROI and num_cells >= 1, got {counts} crops "
            f"and num_cells {num_cells}."
        )
    states = masked_values(network, images, target=target)
    with eval_mode(network):  # and without gradients
        folds = list(getattr(network, "folds", [network]))
        rois = tuple(folds[0].rois)
        patients = [fold(images)["patient"] for fold in folds]
        # An ROI's token depends on no other ROI: of the others one slice is computed and dropped.
        thin = {roi: [crops[0][:, :1]] for roi, crops in images.items()}
        maps: dict[str, list[list[float]]] = {roi: [] for roi in rois}
        for roi, rows in maps.items():
            for row in _covered_crops(images[roi][0], num_cells):
                logits = [_logits(folds, patients, {**thin, roi: [crop]}, roi) for crop in row]
                values = [float(target.values(each)[target.lead]) for each in logits]
                rows.append([states[0] - value for value in values])
    first = {target.lead: states[0], "baseline": states[-1]}
    return {**first, "shapley": roi_shapley(states, rois), "occlusion": maps}


def roi_shapley(states: Sequence[float], rois: Sequence[str]) -> dict[str, float]:
    """Return the Shapley value of each ROI, by what ``masked_values`` gives of every state."""
    visible = [frozenset(rois) - frozenset(masked) for masked in masked_states(rois)]
    return shapley_values(dict(zip(visible, states, strict=True)), rois)


def masked_values(
    network: nn.Module,
    images: Mapping[str, Sequence[Tensor]],
    *,
    target: Target,
    mask_mode: MaskMode = "voxels",
) -> list[float]:
    """Ask about one subject with every subset of the ROIs masked, in the order of the states.

    The network is one that ``MaskedStatesInferer`` takes; the images are one crop (channels, D, H,
    W) in [0, 1] of each ROI. What is returned is P(PD), or what else is predicted, in every state.

    Raises:
        ValueError: for a network without ROI tokens, or an answer that is no finite number.
    """
    with eval_mode(network):
        logits = MaskedStatesInferer(mask_mode=mask_mode)(images, network)["state_logits"][0]
    values: list[float] = target.values(logits)[target.lead].tolist()
    check_finite(target, values)
    return values


def _covered_crops(crop: Tensor, num_cells: int) -> Iterator[list[Tensor]]:
    """Rows of crops, each with another cell of all its slices at the crop's mean."""
    rows, columns = (_edges(size, max(crop.shape[2:]), num_cells) for size in crop.shape[2:])
    mean = crop.mean(dim=(1, 2, 3), keepdim=True)
    for top, bottom in pairwise(rows):
        covered = [crop.clone() for _ in columns[1:]]
        for copy, (left, right) in zip(covered, pairwise(columns), strict=True):
            copy[:, :, top:bottom, left:right] = mean
        yield covered


def _logits(folds: Sequence[Any], patients: Sequence[Tensor], crops: Any, roi: str) -> Tensor:
    """Logits (1, K), the mean of the folds, with the token of one ROI from other crops."""
    logits = []
    for fold, patient in zip(folds, patients, strict=True):
        covered = fold(crops)["patient"]
        block = token_blocks(patient, fold.rois, [roi])
        logits.append(fold.classify(torch.where(block, covered, patient)))
    return merge_logits(logits, "folds")["logits"]


def _edges(size: int, longest: int, num_cells: int) -> list[int]:
    """Where the cells along a side of ``size`` begin, and where the last one ends."""
    count = max(1, min(size, round(size / longest * num_cells)))
    return [round(size * index / count) for index in range(count + 1)]
