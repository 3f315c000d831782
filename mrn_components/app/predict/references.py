"""The training subjects that explanations compare a subject with, as the weights hold them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mrn_components.data.target import Classes, Target
from mrn_components.data.weight_records import REFERENCES, read_record
from mrn_components.networks.ensemble import folds_of
from mrn_components.networks.masking import References


def read_references(
    weights: Sequence[Path], network: nn.Module, target: Target
) -> list[References]:
    """Read the references of each network of an ensemble, or of one network, from their files.

    Weights that hold none, as those of before 2026-11-26, or of other ROIs give none at all; a
    ValueError names a file whose references are damaged.
    """
    folds = folds_of(network)
    if len(folds) != len(weights):
        return []
    found = []
    for path, fold in zip(weights, folds, strict=True):
        record = read_record(path, REFERENCES)
        if record is None:
            return []
        try:
            rois, subjects = list(record["rois"]), _tensors(record["subjects"])
            if rois != list(getattr(fold, "rois", ())):
                return []
            _check(subjects, target, getattr(fold, "patient_channels", None))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path}: what it says of its training is damaged: no reference subjects "
                f"({error!r}); copy the weights again, or train anew."
            ) from error
        found.append(subjects)
    return found


def _check(subjects: References, target: Target, width: int | None) -> None:
    """Refuse references of other classes, or of another width, than the network has."""
    names = {*target.names} if isinstance(target, Classes) else {"all"}
    if subjects.keys() != names:
        raise ValueError(f"classes {sorted(subjects)}, expected {sorted(names)}")
    widths = {tokens.shape[1] for tokens in subjects.values()}
    if widths != {width}:
        raise ValueError(f"vectors of {sorted(widths)} numbers, expected {width}")


def _tensors(subjects: Any) -> References:
    """Return representations (N, P) by class, as tensors."""
    found = {str(name): torch.tensor(rows, dtype=torch.float32) for name, rows in subjects.items()}
    sound = all(t.ndim == 2 and len(t) and t.isfinite().all() for t in found.values())
    if not found or not sound:
        raise ValueError("vectors that do not fit together")
    return found
