"""``mrn contributions``: what each ROI adds to P(PD), in a cohort (Table 4) and in each subject."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mrn_components.app.states import (
    METRICS,
    StateScores,
    leakage,
    score_states,
    state_metrics,
    state_name,
)
from mrn_components.metrics.shapley import shapley_values
from mrn_components.networks.inferers import masked_states
from mrn_components.networks.masking import MaskMode
from mrn_components.system.files import write_csv, write_text

_logger = logging.getLogger(__name__)


def contributions(
    input: str | Path,  # noqa: A002  `mrn contributions INPUT OUTPUT` reads as users write it
    output: str | Path,
    *,
    bundle: str = "bundles/mrn",
    labels: str | Path | None = None,
    mask_mode: MaskMode = "voxels",
    **overrides: Any,
) -> Path:
    """Write what each ROI adds to P(PD): Shapley values, and with labels the paper's Table 4.

    Every subject is run with every subset of its ROIs masked. Files in ``output``: ``states.csv``,
    P(PD) of each subject in each state, a column named after the masked ROIs;
    ``contributions.csv``, each subject's P(PD), its baseline with all ROIs masked, and the Shapley
    value of each ROI, which add up from one to the other; ``contributions.json``, the cohort's mean
    absolute Shapley values and the test for leakage; with labels ``table.csv`` and ``table.md``,
    the metrics of each state as in Table 4. The files of ``predict`` stand beside them.

    Args:
        input: folder of subjects in the challenge's layout, with masks; or a JSON datalist.
        output: folder of the results.
        bundle: folder of a bundle with weights, or of a training run.
        labels: csv or JSON datalist of the diagnoses, as typed or relative to ``input``.
        mask_mode: hide an ROI's voxels by zeros, noise or their mean, or its token.
        overrides: config keys and their values, e.g. --ckpt_path FILE, --precision fp32.

    Returns:
        The path of ``contributions.csv``.

    Raises:
        FileNotFoundError: if a path is missing or ``bundle`` is no bundle.
        ValueError: for an unknown mask mode, an override that the config does not know or that
            states what is varied here, or a network that gives no ROI tokens.
    """
    scores = score_states(
        str(input), str(output), bundle=bundle, labels=labels, mask_mode=mask_mode, **overrides
    )
    output = Path(output)
    shapley = _write_subjects(output, scores)
    leak = _write_table(output, scores, mask_mode) if scores.labels else None
    if leak is None:  # of an earlier call
        for name in ("table.csv", "table.md"):
            (output / name).unlink(missing_ok=True)
    mean = {roi: sum(abs(row[roi]) for row in shapley) / len(shapley) for roi in scores.rois}
    summary = {
        "mask_mode": mask_mode,
        "subjects": len(shapley),
        "mean_absolute_shapley": mean,
        "leakage": leak,
    }
    write_text(output / "contributions.json", json.dumps(summary, indent=2) + "\n")
    _logger.info("contributions of the ROIs are in %s (research use only)", output)
    return output / "contributions.csv"


def format_table(rows: Sequence[Mapping[str, Any]], leak: Mapping[str, Any]) -> str:
    """Lay the states out as a Markdown table, in percent.

    Args:
        rows: what ``state_metrics`` returns.
        leak: what ``leakage`` returns.
    """
    rois, with_paper = rows[-1]["masked"], "paper" in rows[0]
    header = [*rois, *(f"{name} (95 % interval)" for name in METRICS.values())]
    header += ["paper: accuracy, ROC AUC, F1"] * with_paper
    lines = [header, ["---"] * len(header)]
    for row in rows:
        cells = ["✕" if roi in row["masked"] else "" for roi in rois]
        cells += [_percent(row[metric]) for metric in METRICS]
        if with_paper:
            cells.append(", ".join(f"{value * 100:.1f}" for value in row["paper"].values()))
        lines.append(cells)
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"✕ marks a masked ROI.\n\n{table}\n\n{leak['finding']} Research use only.\n"


def _write_subjects(output: Path, scores: StateScores) -> list[dict[str, float]]:
    """Write what is known of each subject; the Shapley values of its ROIs."""
    states = masked_states(scores.rois)
    names = [state_name(masked) for masked in states]
    visible = [frozenset(scores.rois) - frozenset(masked) for masked in states]
    state_rows, rows, shapley = [], [], []
    for subject, prob_pd in scores.prob_pd.items():
        # A subset's value is P(PD) with just these ROIs visible.
        values = shapley_values(dict(zip(visible, prob_pd, strict=True)), scores.rois)
        shapley.append(values)
        state_rows.append({"subject": subject, **dict(zip(names, prob_pd, strict=True))})
        rows.append({"subject": subject, "prob_pd": prob_pd[0], "baseline": prob_pd[-1], **values})
    write_csv(output / "states.csv", state_rows, floats=".8f")
    write_csv(output / "contributions.csv", rows, floats=".8f")
    return shapley


def _write_table(output: Path, scores: StateScores, mask_mode: str) -> dict[str, Any]:
    """Write the metrics of the cohort; the test for leakage."""
    rows = state_metrics(scores)
    leak = leakage(rows[-1]["roc_auc"], mask_mode)
    write_csv(output / "table.csv", [_flat(row) for row in rows], floats=".8f")
    write_text(output / "table.md", format_table(rows, leak))
    return leak


def _percent(metric: Mapping[str, Any]) -> str:
    if metric["value"] is None:
        return "-"
    interval = "" if metric["low"] is None else f" ({metric['low']:.1%}-{metric['high']:.1%})"
    return f"{metric['value']:.1%}{interval}".replace("%", "")


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of ``state_metrics`` as columns."""
    columns: dict[str, Any] = {"masked": state_name(row["masked"])}
    for name in METRICS:
        columns |= {name: row[name]["value"], f"{name}_low": row[name]["low"]}
        columns[f"{name}_high"] = row[name]["high"]
    return columns | {f"paper_{name}": value for name, value in row.get("paper", {}).items()}
