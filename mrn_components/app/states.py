"""P(PD) of subjects with every subset of the ROIs masked: the 16 states of Table 4."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai.engines import IterationEvents

from mrn_components.app.paper import load_table
from mrn_components.app.predict import inference_workflow
from mrn_components.metrics import ZERO_VARIANCE, diagnosis_metrics
from mrn_components.networks.inferers import MaskedStatesInferer, masked_states
from mrn_components.networks.masking import MaskMode

METRICS = {"accuracy": "accuracy", "roc_auc": "ROC AUC", "f1_macro": "macro F1"}


@dataclass(frozen=True)
class StateScores:
    """P(PD) of subjects with every subset of the ROIs masked.

    Args:
        rois: the ROIs.
        prob_pd: of each subject, P(PD) in every state, in the order of ``masked_states(rois)``.
        labels: diagnosis of each subject, 0 or 1; empty where unknown.
    """

    rois: tuple[str, ...]
    prob_pd: dict[str, list[float]]
    labels: dict[str, int]


def score_states(
    input_dir: str,
    output_dir: str,
    *,
    bundle: str,
    labels: str | Path | None = None,
    mask_mode: MaskMode = "voxels",
    **overrides: Any,
) -> StateScores:
    """Run every subject with every subset of its ROIs masked.

    Args:
        input_dir: as of ``predict``.
        output_dir: as of ``predict``, whose files are written there.
        bundle: as of ``predict``.
        labels: as of ``contributions``.
        mask_mode: as of ``contributions``.
        overrides: as of ``predict``.

    Raises:
        FileNotFoundError: as of ``contributions``.
        ValueError: as of ``contributions``.
    """
    if varied := sorted({"masked_rois", "inferer", "tta"} & set(overrides)):
        raise ValueError(
            f"contributions masks the ROIs itself and averages no views; leave out --{varied[0]}."
        )
    inferer = MaskedStatesInferer(mask_mode=mask_mode)
    if labels is not None:
        overrides |= {"labels": str(labels), "require_labels": True}
    workflow = inference_workflow(input_dir, output_dir, bundle=bundle, **overrides)
    evaluator = workflow.parser.get_parsed_content("evaluator")
    evaluator.inferer = inferer
    prob_pd: dict[str, list[float]] = {}
    known: dict[str, int] = {}

    def collect(engine: Any) -> None:
        subjects, output = engine.state.batch["subject"], engine.state.output
        states = output["pred"]["state_logits"].softmax(dim=-1)[..., 1]
        prob_pd.update(zip(subjects, states.tolist(), strict=True))
        if "label" in output["label"]:
            known.update(zip(subjects, output["label"]["label"].tolist(), strict=True))

    # Before postprocessing, which keeps of the network's output only what a diagnosis needs.
    evaluator.add_event_handler(IterationEvents.FORWARD_COMPLETED, collect)
    workflow.run()
    workflow.finalize()
    rois = tuple(workflow.parser.get_parsed_content("rois"))
    return StateScores(rois, dict(sorted(prob_pd.items())), known)


def state_metrics(scores: StateScores, seed: int = 1) -> list[dict[str, Any]]:
    """Score each state, as Table 4 does, with 95 % intervals.

    Args:
        scores: of labelled subjects.
        seed: seed of the bootstrap intervals.

    Returns:
        A row a state, in the order of ``masked_states``: ``{"masked": [...], "accuracy": {"value",
        "low", "high"}, "roc_auc": ..., "f1_macro": ...}`` and, for the paper's four ROIs, "paper":
        ``{"accuracy": ..., "roc_auc": ..., "f1_macro": ...}``. All are shares, 0 to 1.

    Raises:
        ValueError: if labels are missing.
    """
    if missing := sorted(scores.prob_pd.keys() - scores.labels.keys()):
        raise ValueError(f"subjects {missing} have no label; name a table by --labels CSV.")
    truth = [scores.labels[subject] for subject in scores.prob_pd]
    paper = {tuple(row.masked_rois or ()): row.paper for row in load_table(4).rows}
    states = masked_states(scores.rois)
    rows = []
    for index, masked in enumerate(states):
        prob = [in_states[index] for in_states in scores.prob_pd.values()]
        metrics = diagnosis_metrics(prob, truth, seed=seed)
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

    Args:
        roc_auc: ROC AUC with all ROIs masked, and its interval.
        mask_mode: how they were masked.

    Returns:
        ``{"roc_auc": ..., "seen": True, False or None, "finding": a sentence}``; None where the
        test says nothing.
    """
    value, low, high = (roc_auc[key] for key in ("value", "low", "high"))
    interval = f", 95 % interval {low:.3f} to {high:.3f}," if low is not None else ","
    if low is None and value in (0, 1) and roc_auc["reason"] == ZERO_VARIANCE:
        low = high = value  # told apart without an error: no interval, and no doubt
    seen = None
    if mask_mode == "token":
        finding = "the score is constant, since zero ROI tokens tell nothing: no test for leaks"
    elif low is None:
        finding = f"the ROC AUC has no interval ({roc_auc['reason']})"
    else:
        seen = not low <= 0.5 <= high
        finding = f"the ROC AUC is {value:.3f}{interval} which "
        kept = "geometry or the mean" if mask_mode == "mean" else "geometry"
        finding += (
            f"leaves 0.5 out: the {kept} of the crops leaks the class"
            if seen
            else f"holds 0.5: no leak through the {kept} of the crops is seen"
        )
    return {"roc_auc": dict(roc_auc), "seen": seen, "finding": f"With all ROIs masked, {finding}."}
