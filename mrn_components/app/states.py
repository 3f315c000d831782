"""The 16 states of Table 4: what is predicted with every subset of the ROIs masked."""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from mrn_components.app.paper import METRICS, load_table
from mrn_components.data.target import HC_PD, Score, Target
from mrn_components.metrics import ZERO_VARIANCE
from mrn_components.metrics.shapley import masked_states

States = Mapping[str, list[float]]  # of each column, a value a state, as ``masked_states`` orders


class StateScores(NamedTuple):
    """What is predicted of subjects with every subset of the ROIs masked."""

    rois: tuple[str, ...]
    values: dict[str, States]  # of each subject
    labels: dict[str, Any]  # known ones, as the target parses them
    target: Target = HC_PD

    @property
    def lead(self) -> dict[str, list[float]]:
        """What stands for all of a subject: P(PD), that of the positive class, or the score."""
        return {subject: own[self.target.lead] for subject, own in self.values.items()}


def state_metrics(scores: StateScores) -> list[dict[str, Any]]:
    """Score each state of labelled subjects, as Table 4 does, with 95 % intervals.

    Returns:
        A row a state, in the order of ``masked_states``: ``{"masked": [...], "accuracy": {"value",
        "low", "high"}, "roc_auc": ..., "f1_macro": ...}``, of a score its main metrics, and, for
        HC and PD by the paper's four ROIs, "paper": ``{"accuracy": ..., "roc_auc": ..., "f1_macro":
        ...}``. All of classes are shares, 0 to 1.
    """
    target = scores.target
    if missing := sorted(scores.values.keys() - scores.labels.keys()):
        raise ValueError(f"subjects {missing} have no label; name a table by --labels CSV.")
    truth = np.array([scores.labels[subject] for subject in scores.values])
    values = [[own[name] for name in target.columns] for own in scores.values.values()]
    by_state = np.array(values).transpose(2, 0, 1)  # (S, N, columns)
    paper = {tuple(row.masked_rois or ()): row.paper for row in load_table(4).rows}
    states = masked_states(scores.rois)
    rows = []
    for masked, found in zip(states, by_state, strict=True):
        metrics = target.metrics(found if found.shape[1] > 1 else found[:, 0], truth)
        row: dict[str, Any] = {"masked": list(masked)}
        row |= {name: metrics[name] for name in target.main_metrics}
        if target == HC_PD and set(states) == set(paper):
            percent = zip(METRICS, paper[masked], strict=True)
            row["paper"] = {metric: value / 100 for metric, value in percent if value is not None}
        rows.append(row)
    return rows


def state_name(masked: Collection[str]) -> str:
    """The name of a state in tables: its masked ROIs."""
    return "+".join(masked) or "none"


def leakage(row: Mapping[str, Any], mask_mode: str, target: Target = HC_PD) -> dict[str, Any]:
    """Say whether the network tells the classes, or the score, with all ROIs masked.

    The ``row`` is what ``state_metrics`` says of that state.

    Returns:
        ``{"roc_auc": ..., "seen": True, False or None, "finding": a sentence}``, of a score with
        "pearson"; None where the test says nothing.
    """
    is_score = isinstance(target, Score)
    key, nothing = ("pearson", 0) if is_score else ("roc_auc", 0.5)
    name = "Pearson's correlation" if is_score else "the ROC AUC"
    name = name if is_score or target.is_binary else "the mean ROC AUC of each class"
    value, low, high = (row[key][part] for part in ("value", "low", "high"))
    interval = f", 95 % interval {low:.3f} to {high:.3f}," if low is not None else ","
    if low is None and value in (0, 1) and row[key]["reason"] == ZERO_VARIANCE:
        low = high = value  # told apart without an error: no interval, and no doubt
    kept = "geometry or the mean" if mask_mode == "mean" else "geometry"
    constant = {
        "token": "zero ROI tokens tell nothing",
        "reference": "all subjects get the same references",
    }
    seen = None if mask_mode in constant or low is None else not low <= nothing <= high
    if mask_mode in constant:
        finding = f"the score is constant, since {constant[mask_mode]}: no test for leaks"
    elif low is None:
        finding = f"{name} has no interval ({row[key]['reason']})"
    elif seen:
        finding = f"{name} is {value:.3f}{interval} which leaves {nothing:g} out: "
        finding += f"the {kept} of the crops leaks the {'score' if is_score else 'class'}"
    else:
        finding = f"{name} is {value:.3f}{interval} which holds {nothing:g}: "
        finding += f"no leak through the {kept} of the crops is seen"
    return {key: dict(row[key]), "seen": seen, "finding": f"With all ROIs masked, {finding}."}
