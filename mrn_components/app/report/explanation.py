"""What moved a subject's P(PD): the ROIs' Shapley values, and maps of occlusion."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, TypedDict

import torch
from monai.networks.utils import eval_mode
from torch import Tensor, nn

from mrn_components.metrics.shapley import shapley_values
from mrn_components.networks.ensemble import merge_logits
from mrn_components.networks.inferers import MaskedStatesInferer, masked_states
from mrn_components.networks.masking import token_blocks

# Cells along the longer side of a crop: of SN about 8 mm, the size of a nucleus's side.
NUM_CELLS = 5
UNEXPLAINED = "no explanation"  # how the flag begins of a subject that cannot be explained


class Explanation(TypedDict):
    """What moved a subject's P(PD), as ``subjects/ID/explanation.json`` holds it.

    Args:
        prob_pd: with all ROIs visible and without mirrored views.
        baseline: with all ROIs masked.
        shapley: of each ROI; they sum to ``prob_pd`` less ``baseline``.
        occlusion: of each ROI, rows of cells, anterior to posterior, each from the patient's right
            to left: ``prob_pd`` less P(PD) with this cell of all slices covered.
    """

    prob_pd: float
    baseline: float
    shapley: dict[str, float]
    occlusion: dict[str, list[list[float]]]


def explain_subject(
    network: nn.Module, images: Mapping[str, Sequence[Tensor]], *, num_cells: int = NUM_CELLS
) -> Explanation:
    """Mask the ROIs of one subject, then cover parts of them, and see how P(PD) moves.

    Shapley values take two passes (``MaskedStatesInferer``). A map covers one cell after another,
    in all slices, by the crop's mean; only its ROI is computed anew, so that all maps together
    take about as many passes as a crop has cells.

    Args:
        network: one that ``MaskedStatesInferer`` takes.
        images: one crop (channels, D, H, W) in [0, 1] of each ROI, as ``PrepareROIBatch`` gives.
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
    with eval_mode(network):  # and without gradients
        logits = MaskedStatesInferer()(images, network)["state_logits"][0]  # (S, 2)
        states = logits.softmax(dim=-1)[:, 1].tolist()
        folds = list(getattr(network, "folds", [network]))
        rois = tuple(folds[0].rois)
        patients = [fold(images)["patient"] for fold in folds]
        # An ROI's token depends on no other ROI: of the others one slice is computed and dropped.
        thin = {roi: [crops[0][:, :1]] for roi, crops in images.items()}
        maps = {}
        for roi in rois:
            ask = partial(_prob_pd, folds, patients, thin, roi)
            maps[roi] = [
                [states[0] - ask(covered) for covered in row]
                for row in _covered_crops(images[roi][0], num_cells)
            ]
    visible = [frozenset(rois) - frozenset(masked) for masked in masked_states(rois)]
    shapley = shapley_values(dict(zip(visible, states, strict=True)), rois)
    return {"prob_pd": states[0], "baseline": states[-1], "shapley": shapley, "occlusion": maps}


def _covered_crops(crop: Tensor, num_cells: int) -> Iterator[Iterator[Tensor]]:
    """Rows of crops, each with another cell of all its slices at the crop's mean."""
    rows, columns = (_edges(size, max(crop.shape[2:]), num_cells) for size in crop.shape[2:])
    mean = crop.mean(dim=(1, 2, 3), keepdim=True)

    def cover(top: int, bottom: int, left: int, right: int) -> Tensor:
        covered = crop.clone()
        covered[:, :, top:bottom, left:right] = mean
        return covered

    for row in pairwise(rows):
        yield (cover(*row, *column) for column in pairwise(columns))


def _prob_pd(
    folds: Sequence[Any],
    patients: Sequence[Tensor],
    thin: Mapping[str, list[Tensor]],
    roi: str,
    crop: Tensor,
) -> float:
    """P(PD), the mean of the folds, with another crop of one ROI."""
    inputs = {**thin, roi: [crop]}
    logits = []
    for fold, patient in zip(folds, patients, strict=True):
        block = token_blocks(patient, fold.rois, [roi])
        logits.append(fold.classify(torch.where(block, fold(inputs)["patient"], patient)))
    return float(merge_logits(logits, "folds")["logits"].softmax(dim=-1)[0, 1])


def _edges(size: int, longest: int, num_cells: int) -> list[int]:
    """Where the cells along a side of ``size`` begin, and where the last one ends."""
    count = max(1, min(size, round(size / longest * num_cells)))
    return [round(size * index / count) for index in range(count + 1)]
