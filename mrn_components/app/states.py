"""The 16 states of Table 4: what is predicted with every subset of the ROIs masked."""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from mrn_components.app.paper import METRICS, load_table
from mrn_components.metrics import ZERO_VARIANCE, diagnosis_metrics
from mrn_components.metrics.shapley import masked_states


class StateScores(NamedTuple):
    """P(PD) of subjects with every subset of the ROIs masked, or what else is predicted."""

    rois: tuple[str, ...]
    prob_pd: dict[str, list[float]]  # of each subject, in the order of ``masked_states(rois)``
    labels: dict[str, int]  # 1 where a subject is of the positive class, else 0; known ones
    lead: str = "prob_pd"  # name of what is predicted in tables


def state_metrics(scores: StateScores) -> list[dict[str, Any]]:
    """Score each state of labelled subjects, as Table 4 does, with 95 % intervals.

    Returns:
        A row a state, in the order of ``masked_states``: ``{"masked": [...], "accuracy": {"value",
        "low", "high"}, "roc_auc": ..., "f1_macro": ...}`` and, for the paper's four ROIs, "paper":
        ``{"accuracy": ..., "roc_auc": ..., "f1_macro": ...}``. All are shares, 0 to 1.
    """
    if missing := sorted(scores.prob_pd.keys() - scores.labels.keys()):
        raise ValueError(f"subjects {missing} have no label; name a table by --labels CSV.")
    truth = [scores.labels[subject] for subject in scores.prob_pd]
    paper = {tuple(row.masked_rois or ()): row.paper for row in load_table(4).rows}
    states = masked_states(scores.rois)
    rows = []
    for masked, prob in zip(states, zip(*scores.prob_pd.values(), strict=True), strict=True):
        metrics = diagnosis_metrics(prob, truth)
        row: dict[str, Any] = {"masked": list(masked), **{m: metrics[m] for m in METRICS}}
        if set(states) == set(paper):
            percent = zip(METRICS, paper[masked], strict=True)
            row["paper"] = {metric: value / 100 for metric, value in percent if value is not None}
        rows.append(row)
    return rows


def state_name(masked: Collection[str]) -> str:
    """The name of a state in tables: its masked ROIs."""
    return "+".join(masked) or "none"


def leakage(roc_auc: Mapping[str, Any], mask_mode: str) -> dict[str, Any]:
    """Say whether the network tells the classes apart with all ROIs masked.

    The ``roc_auc`` is that of all ROIs masked, with its interval.

    Returns:
        ``{"roc_auc": ..., "seen": True, False or None, "finding": a sentence}``; None where the
        test says nothing.
    """
    value, low, high = (roc_auc[key] for key in ("value", "low", "high"))
    interval = f", 95 % interval {low:.3f} to {high:.3f}," if low is not None else ","
    if low is None and value in (0, 1) and roc_auc["reason"] == ZERO_VARIANCE:
        low = high = value  # told apart without an error: no interval, and no doubt
    kept = "geometry or the mean" if mask_mode == "mean" else "geometry"
    constant = {
        "token": "zero ROI tokens tell nothing",
        "reference": "all subjects get the same references",
    }
    seen = None if mask_mode in constant or low is None else not low <= 0.5 <= high
    if mask_mode in constant:
        finding = f"the score is constant, since {constant[mask_mode]}: no test for leaks"
    elif low is None:
        finding = f"the ROC AUC has no interval ({roc_auc['reason']})"
    elif seen:
        finding = f"the ROC AUC is {value:.3f}{interval} which leaves 0.5 out: "
        finding += f"the {kept} of the crops leaks the class"
    else:
        finding = f"the ROC AUC is {value:.3f}{interval} which holds 0.5: "
        finding += f"no leak through the {kept} of the crops is seen"
    return {"roc_auc": dict(roc_auc), "seen": seen, "finding": f"With all ROIs masked, {finding}."}
