"""What moved a subject's P(PD): the ROIs' Shapley values, and maps of occlusion and attention."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from monai.networks.utils import eval_mode
from torch import Tensor, nn

from mrn_components.app.roi_game import masked_values, roi_shapley
from mrn_components.data.target import HC_PD, Target
from mrn_components.networks.attention_map import AttentionWatch, Maps, weigh_by_mask
from mrn_components.networks.ensemble import folds_of, merge_logits
from mrn_components.networks.inferers import check_late_fusion
from mrn_components.networks.masking import References, StateMode, token_blocks

# Cells along the longer side of a crop: of SN about 8 mm, the size of a nucleus's side.
NUM_CELLS = 5
_NUM_FINE_CELLS = 16  # of an attention map: the paper's patches of a crop of 224 pixels

# What moved a subject's P(PD), as ``subjects/ID/explanation.json`` holds it:
# - the target's leading column, such as "prob_pd": with all ROIs visible, without mirrored views;
# - "references": by class, how many training subjects of a network lend the tokens of masked ROIs;
#   {} where the weights have none, and voxels are zeros instead;
# - "baseline": the first with all ROIs masked;
# - "shapley": of each ROI; they sum to the first less the baseline;
# - "spread": of each ROI and class, percentiles of the references' own Shapley values;
# - "occlusion": of each ROI, rows of cells, anterior to posterior, each from the patient's right to
#   left: the first less the same with this cell of all slices covered; {} where none were wanted;
# - "attention": of each ROI where its token looked (``AttentionWatch``): shares of "slices", low to
#   high, and finer "cells" of all slices together, whose mean is 1; {} of a network without such;
# - "weighed_by_mask": whether these are no attention but the weights that the mask gives patches.
Explanation = dict[str, Any]


class Pass(NamedTuple):
    """What a pass of a network with all ROIs visible gave, of one subject."""

    patients: list[Tensor]  # (1, R * C) of each network of an ensemble, or of one network
    attention: Maps


def explain_subject(
    network: nn.Module,
    images: Mapping[str, Sequence[Tensor]],
    *,
    target: Target = HC_PD,
    references: Sequence[References] = (),
    known: Pass | None = None,
    occlusion: bool = True,
    num_cells: int = NUM_CELLS,
) -> Explanation:
    """Mask the ROIs of one subject, then cover parts of them, and see how P(PD) moves.

    Of other targets it is the probability of the positive class, or the score, that moves.

    Shapley values compare the subject with references, or, without any, with voxels that are zeros
    (``MaskedStatesInferer``). The attention comes with the pass that they need. An occlusion map
    covers one cell after another, in all slices, by the crop's mean; only its ROI is computed anew,
    so that all maps together take about as many passes as a crop has cells.

    Args:
        network: one that ``MaskedStatesInferer`` takes.
        images: one crop (channels, D, H, W) in [0, 1] of each ROI, as ``PrepareROIBatch`` gives.
        target: what is predicted.
        references: of each network of an ensemble, or of one network.
        known: what a pass gave already; None makes one.
        occlusion: make occlusion maps too.
        num_cells: cells of them along the longer side of each crop.

    Raises:
        ValueError: for several subjects, no cells, or a network without ROI tokens.
    """
    counts = {roi: len(crops) for roi, crops in images.items()}
    if set(counts.values()) != {1} or num_cells < 1:
        raise ValueError(
            f"explain_subject takes one crop of each ROI and num_cells >= 1, got {counts} crops "
            f"and num_cells {num_cells}."
        )
    folds = check_late_fusion(network)
    rois = tuple(folds[0].rois)
    known = known or _look(network, images)
    mode: StateMode = "reference" if references else "voxels"
    states = masked_values(
        network,
        images,
        target=target,
        mask_mode=mode,
        references=references,
        patients=known.patients,
    )[target.lead]
    maps = {}
    if occlusion:
        with eval_mode(network):  # and without gradients
            for roi in rois:
                rows = _occluded(folds, images, known.patients, roi, num_cells)
                maps[roi] = [
                    [states[0] - float(target.values(each)[target.lead]) for each in row]
                    for row in rows
                ]
    first: References = references[0] if references else {}
    return {
        target.lead: states[0],
        "references": {name: len(tokens) for name, tokens in first.items()},
        "baseline": states[-1],
        "shapley": roi_shapley(states, rois),
        "occlusion": maps,
        "attention": {roi: _shares(crops[0]) for roi, crops in known.attention.items()},
        "weighed_by_mask": weigh_by_mask(network),
    }


def _look(network: nn.Module, images: Mapping[str, Sequence[Tensor]]) -> Pass:
    folds = folds_of(network)
    with eval_mode(network), AttentionWatch(network) as watch:
        return Pass([fold(images)["patient"] for fold in folds], watch.maps())


def _shares(attention: Tensor) -> dict[str, Any]:
    """Shares of the slices of a map (D, H, W), and its cells as multiples of their mean."""
    plane = attention.sum(0) / attention.sum()
    slices = attention.sum((1, 2)) / attention.sum()
    rows, columns = (_edges(size, max(plane.shape), _NUM_FINE_CELLS) for size in plane.shape)
    cells = [
        [
            round(float(plane[top:bottom, left:right].mean()) * plane.numel(), 4)
            for left, right in pairwise(columns)
        ]
        for top, bottom in pairwise(rows)
    ]
    return {"slices": [round(float(share), 6) for share in slices], "cells": cells}


def _occluded(
    folds: Sequence[Any],
    images: Mapping[str, Sequence[Tensor]],
    patients: Sequence[Tensor],
    roi: str,
    num_cells: int,
) -> Iterator[list[Tensor]]:
    """Logits (1, K) as each cell of an ROI is covered, in rows."""
    # An ROI's token depends on no other ROI: of the others one slice is computed and dropped.
    thin = {other: [crops[0][:, :1]] for other, crops in images.items()}
    for row in _covered_crops(images[roi][0], num_cells):
        yield [_logits(folds, patients, {**thin, roi: [crop]}, roi) for crop in row]


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
