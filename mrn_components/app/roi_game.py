"""The game of the ROIs: what is predicted as they are masked, and what each adds to it.

An ROI's Shapley value is the mean, over all orders in which ROIs become visible, of what it adds to
P(PD), of other targets to the probability of the positive class or to the score.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from monai.networks.utils import eval_mode
from torch import Tensor, nn

from mrn_components.data.predictions import check_finite
from mrn_components.data.target import HC_PD, Target
from mrn_components.metrics.shapley import masked_states, shapley_values
from mrn_components.networks.ensemble import folds_of
from mrn_components.networks.inferers import MaskedStatesInferer, reference_states
from mrn_components.networks.masking import References, StateMode

_QUANTILES = (0.1, 0.5, 0.9)

Spread = dict[str, dict[str, list[float]]]  # of each ROI and class: 10th, 50th, 90th percentile


def masked_values(
    network: nn.Module,
    images: Mapping[str, Sequence[Tensor]],
    *,
    target: Target,
    mask_mode: StateMode = "voxels",
    references: Sequence[References] = (),
    patients: Sequence[Tensor] | None = None,
) -> dict[str, list[float]]:
    """Ask about one subject with every subset of the ROIs masked, in the order of the states.

    Network, mode and references are those of ``MaskedStatesInferer``, which ``patients`` save a
    pass; the images are one crop (channels, D, H, W) in [0, 1] of each ROI. What is returned is,
    of each of the target's columns, P(PD), or what else is predicted, in every state.

    Raises:
        ValueError: for a network without ROI tokens, or an answer that is no finite number.
    """
    inferer = MaskedStatesInferer(mask_mode=mask_mode, references=references)
    with eval_mode(network):
        logits = inferer(images, network, patients=patients)["state_logits"][0]
    columns = {name: values.tolist() for name, values in target.values(logits).items()}
    check_finite(target, chain.from_iterable(columns.values()))
    return columns


def roi_shapley(states: Sequence[float], rois: Sequence[str]) -> dict[str, float]:
    """Return the Shapley value of each ROI, by what ``masked_values`` gives of every state."""
    visible = [frozenset(rois) - frozenset(masked) for masked in masked_states(rois)]
    return shapley_values(dict(zip(visible, states, strict=True)), rois)


def training_spread(
    network: nn.Module, references: Sequence[References], *, target: Target = HC_PD
) -> Spread:
    """Return percentiles of the references' own Shapley values, by ROI and class.

    Each reference is compared with the others of its network. Of an ensemble it is the mean of the
    networks' percentiles; classes of which a network has a single reference are left out.
    """
    folds = folds_of(network)
    with eval_mode(network):
        found = [_spread(*pair, target) for pair in zip(folds, references, strict=True)]
    names = [name for name in found[0] if all(name in each for each in found)]
    return {
        roi: {name: np.mean([each[name][roi] for each in found], axis=0).tolist() for name in names}
        for roi in folds[0].rois
    }


def _spread(fold: Any, references: References, target: Target) -> dict[str, dict[str, np.ndarray]]:
    """Percentiles, by class and ROI, of the references of one network."""
    spread = {}
    device = next(fold.parameters()).device
    for name, tokens in references.items():
        if len(tokens) < 2:
            continue
        values = []
        for number, patient in enumerate(tokens.to(device)):
            others = {**references, name: tokens[torch.arange(len(tokens)) != number]}
            logits = reference_states(fold, patient[None], others)[0]
            values.append(roi_shapley(target.values(logits)[target.lead].tolist(), fold.rois))
        spread[name] = {
            roi: np.quantile([each[roi] for each in values], _QUANTILES) for roi in fold.rois
        }
    return spread
