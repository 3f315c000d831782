"""Figures of an evaluation: ROC, reliability and confusion, as PNG and SVG.

Colours are of Okabe and Ito's colour-blind safe set; lines and markers differ as well, so that
the figures can be read in grey.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from sklearn.calibration import CalibrationDisplay
from sklearn.metrics import ConfusionMatrixDisplay, RocCurveDisplay, roc_curve

from mrn_components.metrics import CONFIDENCE, NUM_BINS, Metric, reliability_bins, wilson_interval
from mrn_components.system.files import replacing

_STYLES: list[dict[str, Any]] = [
    {"color": "#0072B2", "linestyle": "-", "marker": "o"},
    {"color": "#E69F00", "linestyle": "--", "marker": "s"},
]
_LONGEST_NAME = 24


@dataclass(frozen=True)
class Scored:
    """What the figures show of one model.

    Args:
        name: for the legends.
        prob: P(PD) of each subject.
        metrics: what ``diagnosis_metrics`` returns.
        confusion: what ``confusion_counts`` returns.
    """

    name: str
    prob: np.ndarray
    metrics: Mapping[str, Metric]
    confusion: Mapping[str, int]

    @property
    def label(self) -> str:
        """The name as matplotlib can show it: it reads $ as mathematics and hides _names."""
        name = self.name.lstrip("_")
        name = name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
        return name.replace("$", r"\$")


def write_figures(models: list[Scored], truth: np.ndarray, output_dir: Path) -> None:
    """Write roc, reliability and confusion as .png and .svg, the same bytes for the same input.

    Args:
        models: one or two.
        truth: label of each subject, 0 or 1.
        output_dir: folder of the files; each appears whole or not at all.
    """
    subjects = f"{len(truth)} subjects, {int(truth.sum())} PD"
    figures = {
        "roc": _roc(models, truth, subjects),
        "reliability": _reliability(models, truth, subjects),
        "confusion": _confusion(models, subjects),
    }
    for name, figure in figures.items():
        figure.text(0.995, 0.008, "Research use only", ha="right", va="bottom", fontsize=7)
        for suffix, metadata in {".png": {"Software": None}, ".svg": {"Date": None}}.items():
            with (
                mpl.rc_context({"svg.hashsalt": "mrn", "svg.fonttype": "none"}),
                replacing(output_dir / f"{name}{suffix}") as temporary,
            ):
                figure.savefig(temporary, dpi=150, metadata=metadata)


def _roc(models: list[Scored], truth: np.ndarray, subjects: str) -> Figure:
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    if len(set(truth.tolist())) < 2:
        axes.text(0.5, 0.5, "Undefined: the subjects are of one class", ha="center")
    else:
        for model, style in zip(models, _STYLES, strict=False):
            rates = roc_curve(truth, model.prob, drop_intermediate=False)
            line = {key: style[key] for key in ("color", "linestyle")} | {"linewidth": 2}
            line["label"] = _auc_label(model)
            RocCurveDisplay(fpr=rates[0], tpr=rates[1]).plot(axes, curve_kwargs=line)
        axes.plot((0, 1), (0, 1), color="grey", linestyle=":", label="Chance: AUC 0.5")
        axes.legend(loc="lower right", fontsize=8)
    axes.set(
        title=f"ROC, {subjects}",
        xlabel="1 − specificity (false positive rate)",
        ylabel="Sensitivity (true positive rate)",
        xlim=(-0.01, 1.01),
        ylim=(-0.01, 1.01),
        aspect="equal",
    )
    return figure


def _auc_label(model: Scored) -> str:
    auc = model.metrics["roc_auc"]
    label = f"{model.label}: AUC {auc['value']:.3f}"
    if auc["low"] is None:
        return label
    return f"{label} (DeLong {CONFIDENCE:.0%}: {auc['low']:.3f} to {auc['high']:.3f})"


def _reliability(models: list[Scored], truth: np.ndarray, subjects: str) -> Figure:
    figure = Figure(figsize=(5, 6), layout="constrained")
    axes, counts = figure.subplots(2, height_ratios=(4, 1), sharex=True)
    for number, (model, style) in enumerate(zip(models, _STYLES, strict=False)):
        bins = reliability_bins(model.prob, truth)
        share = np.array([part.diseased / part.subjects for part in bins])
        mean = np.array([part.mean_prob for part in bins])
        wilson = [wilson_interval(part.diseased, part.subjects) for part in bins]
        label = f"{model.label}: ECE {model.metrics['ece']['value']:.3f}, "
        label += f"Brier {model.metrics['brier']['value']:.3f}"
        CalibrationDisplay(share, mean, model.prob).plot(
            ax=axes, name=label, ref_line=number == 0, **style
        )
        ends = [
            share - [interval["low"] for interval in wilson],
            [interval["high"] for interval in wilson] - share,
        ]
        lengths = np.maximum(ends, 0)  # rounding may leave -1e-17, which matplotlib refuses
        axes.errorbar(mean, share, lengths, fmt="none", ecolor=style["color"], capsize=3)
        counts.bar(
            [part.low for part in bins],
            [part.subjects for part in bins],
            width=1 / NUM_BINS,
            align="edge",
            fill=False,
            edgecolor=style["color"],
            linestyle=style["linestyle"],
        )
    axes.legend(loc="best", fontsize=8)
    axes.set(
        title=f"Reliability, {subjects}",
        xlabel="",
        ylabel=f"Share of PD (bars: Wilson {CONFIDENCE:.0%})",
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
    )
    counts.set(xlabel="P(PD), mean of the bin", ylabel="Subjects")
    return figure


def _confusion(models: list[Scored], subjects: str) -> Figure:
    figure = Figure(figsize=(1 + 3.5 * len(models), 4), layout="constrained")
    for axes, model in zip(figure.subplots(1, len(models), squeeze=False)[0], models, strict=True):
        counts = np.array(
            [
                [model.confusion["true_hc"], model.confusion["false_pd"]],
                [model.confusion["false_hc"], model.confusion["true_pd"]],
            ]
        )
        totals = np.maximum(counts.sum(axis=1, keepdims=True), 1)
        shares = counts / totals  # of each label's subjects
        display = ConfusionMatrixDisplay(shares, display_labels=["HC", "PD"])
        display.plot(ax=axes, cmap="Blues", colorbar=False, im_kw={"vmin": 0, "vmax": 1})
        for text, count, share in zip(display.text_.flat, counts.flat, shares.flat, strict=True):
            text.set(text=f"{count}\n{share:.0%}", fontsize=13)
        axes.set(title=model.label, xlabel="Prediction", ylabel="Label")
    figure.suptitle(f"Confusion, {subjects}")
    return figure
