"""Figures of an evaluation, from the ROC to the learning curve, as PNG and SVG.

Colours are of Okabe and Ito's colour-blind safe set; lines and markers differ as well, so that
the figures can be read in grey.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from sklearn.calibration import CalibrationDisplay
from sklearn.metrics import (
    ConfusionMatrixDisplay,
    RocCurveDisplay,
    precision_recall_curve,
    roc_curve,
)

from mrn_components.data.target import HC_PD, Classes, Score, Target
from mrn_components.metrics import (
    CONFIDENCE,
    NUM_BINS,
    Metric,
    Z,
    net_benefit,
    reliability_bins,
    wilson_interval,
)
from mrn_components.metrics.calibration import expected_calibration_error
from mrn_components.system.files import replacing

_STYLES: list[dict[str, Any]] = [
    {"color": "#0072B2", "linestyle": "-", "marker": "o"},
    {"color": "#E69F00", "linestyle": "--", "marker": "s"},
    {"color": "#009E73", "linestyle": "-.", "marker": "^"},
    {"color": "#CC79A7", "linestyle": ":", "marker": "v"},
]
FIGURES = ("roc", "precision", "reliability", "decision", "confusion", "scatter", "difference")
_THRESHOLDS = np.arange(0.01, 0.991, 0.01)  # of the net benefit
_LONGEST_NAME = 24

# Of a reliability curve: name, probabilities, style, and whether each subject is of the class.
Curve = tuple[str, np.ndarray, Mapping[str, Any], np.ndarray]


class Scored(NamedTuple):
    """What the figures show of one model."""

    name: str  # for the legends
    prob: np.ndarray  # P(PD) or the score of each subject, or (N, K) of more than two classes
    metrics: Mapping[str, Metric]  # what the target's ``metrics`` returns
    confusion: Mapping[str, int]  # what its ``confusion`` returns; empty of a score
    calibrated: np.ndarray | None = None  # the same as ``prob``, where there is a calibration
    further: Mapping[str, Any] = MappingProxyType({})  # what ``judge_calibration`` says

    @property
    def label(self) -> str:
        """The name as matplotlib can show it: it reads $ as mathematics and hides _names."""
        name = self.name.lstrip("_")
        name = name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
        return name.replace("$", r"\$")


def write_figures(
    models: list[Scored], truth: np.ndarray, output_dir: Path, target: Target = HC_PD
) -> None:
    """Write the figures as .png and .svg, the same bytes for the same input.

    They are roc, precision, reliability, decision and confusion; of more than two classes roc and
    reliability, a curve a class, and confusion; of a score scatter and difference. There are one or
    two models, and in ``truth`` the label of each subject. Each file appears whole or not at all;
    others of an earlier evaluation are removed.
    """
    subjects = target.cohort(truth)
    if isinstance(target, Score):
        figures = {"scatter": _scatter(models, truth, target, subjects)}
        figures["difference"] = _difference(models, truth, target, subjects)
    else:
        figures = {"roc": _roc(models, truth, target, subjects)}
        figures["reliability"] = _reliability(models, truth, target, subjects)
        if target.is_binary:
            figures["precision"] = _precision(models, truth, target, subjects)
            figures["decision"] = _decision(models, truth, target, subjects)
        figures["confusion"] = _confusion(models, target.names, subjects)
    for name, figure in figures.items():
        save_figure(figure, output_dir / name)
    for name in {*FIGURES} - {*figures}:
        for suffix in (".png", ".svg"):
            (output_dir / f"{name}{suffix}").unlink(missing_ok=True)


def write_learning_curve(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write ``path`` as .png and .svg: a line a metric over the number of training subjects.

    A row has ``training_subjects`` and, of each metric, its value, ``_low`` and ``_high``.
    """
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    names = [key.removesuffix("_low") for key in rows[0] if key.endswith("_low")]
    for name, style in zip(names, cycle(_STYLES), strict=False):
        points = [row for row in rows if row[name] is not None]
        at = [row["training_subjects"] for row in points]
        axes.plot(at, [row[name] for row in points], label=name, **style)
        known = [row for row in points if row[f"{name}_low"] is not None]
        axes.vlines(
            [row["training_subjects"] for row in known],
            [row[f"{name}_low"] for row in known],
            [row[f"{name}_high"] for row in known],
            color=style["color"],
        )
    axes.legend(loc="best", fontsize=8)
    axes.set(
        title="Learning curve, all subjects out of fold",
        xlabel="Training subjects of a fold",
        ylabel=f"Metric (bars: {CONFIDENCE:.0%})",
    )
    save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as .png and .svg, the same bytes for the same input."""
    figure.text(0.995, 0.008, "Research use only", ha="right", va="bottom", fontsize=7)
    for suffix, metadata in {".png": {"Software": None}, ".svg": {"Date": None}}.items():
        with (
            mpl.rc_context({"svg.hashsalt": "mrn", "svg.fonttype": "none"}),
            replacing(path.with_suffix(suffix)) as temporary,
        ):
            figure.savefig(temporary, dpi=150, metadata=metadata)


def _roc(models: list[Scored], truth: np.ndarray, target: Classes, subjects: str) -> Figure:
    """A panel with a curve a model; of more than two classes a panel a model, a curve a class."""
    if target.is_binary:
        own = truth == target.number
        curves = [(model.label, model.metrics["roc_auc"], own, model.prob) for model in models]
        panels = [(f"ROC, {subjects}", curves)]
    else:
        panels = []
        for model in models:
            aucs = [model.metrics[f"roc_auc_{name.lower()}"] for name in target.names]
            curves = [
                (f"{name} against the rest", auc, truth == number, model.prob[:, number])
                for number, (name, auc) in enumerate(zip(target.names, aucs, strict=True))
            ]
            panels.append((f"ROC of {model.label}, {subjects}", curves))
    figure = Figure(figsize=(5 * len(panels), 5), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _draw_curves(axes, *panel)
    return figure


def _draw_curves(
    axes: Any, title: str, curves: Sequence[tuple[str, Metric, np.ndarray, np.ndarray]]
) -> None:
    for (name, auc, own, prob), style in zip(curves, cycle(_STYLES), strict=False):
        if own.all() or not own.any():
            continue
        fpr, tpr, _ = roc_curve(own, prob, drop_intermediate=False)
        label = f"{name}: AUC {auc['value']:.3f}"
        if auc["low"] is not None:
            label += f" (DeLong {CONFIDENCE:.0%}: {auc['low']:.3f} to {auc['high']:.3f})"
        line = {"color": style["color"], "linestyle": style["linestyle"], "linewidth": 2}
        line["label"] = label
        RocCurveDisplay(fpr=fpr, tpr=tpr).plot(axes, curve_kwargs=line)
    if axes.lines:
        axes.plot((0, 1), (0, 1), color="grey", linestyle=":", label="Chance: AUC 0.5")
        axes.legend(loc="lower right", fontsize=8)
    else:
        axes.text(0.5, 0.5, "Undefined: the subjects are of one class", ha="center")
    axes.set(
        title=title,
        xlabel="1 − specificity (false positive rate)",
        ylabel="Sensitivity (true positive rate)",
        xlim=(-0.01, 1.01),
        ylim=(-0.01, 1.01),
        aspect="equal",
    )


def _precision(models: list[Scored], truth: np.ndarray, target: Classes, subjects: str) -> Figure:
    own = truth == target.number
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    for model, style in zip(models, _STYLES, strict=False):
        if own.all() or not own.any():
            continue
        precision, recall, _ = precision_recall_curve(own, model.prob)
        label = f"{model.label}: average {model.metrics['average_precision']['value']:.3f}"
        line = {"color": style["color"], "linestyle": style["linestyle"], "linewidth": 2}
        axes.step(recall, precision, where="post", label=label, **line)
    share = own.mean()
    axes.axhline(share, color="grey", linestyle=":", label=f"Chance: {share:.3f}")
    axes.legend(loc="lower left", fontsize=8)
    axes.set(
        title=f"Precision and recall, {subjects}",
        xlabel="Recall (sensitivity)",
        ylabel=f"Precision (share of {target.positive} among those called so)",
        xlim=(-0.01, 1.01),
        ylim=(-0.01, 1.01),
        aspect="equal",
    )
    return figure


def _decision(models: list[Scored], truth: np.ndarray, target: Classes, subjects: str) -> Figure:
    own = (truth == target.number).astype(int)
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    for model, style in zip(models, _STYLES, strict=False):
        benefit = net_benefit(model.prob, own, _THRESHOLDS)
        line = {"color": style["color"], "linestyle": style["linestyle"], "linewidth": 2}
        axes.plot(_THRESHOLDS, benefit["model"], label=model.label, **line)
    axes.plot(_THRESHOLDS, benefit["everybody"], color="grey", label="Everybody")
    axes.axhline(0, color="grey", linestyle=":", label="Nobody")
    axes.legend(loc="best", fontsize=8)
    share = float(own.mean())
    axes.set(
        title=f"Decision curve, {subjects}",
        xlabel=f"{target.title} from which one acts",
        ylabel="Net benefit (true positives a subject)",
        xlim=(0, 1),
        ylim=(-0.1 - share / 4, share + 0.05),
    )
    return figure


def _scatter(models: list[Scored], truth: np.ndarray, target: Score, subjects: str) -> Figure:
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    for model, style in zip(models, _STYLES, strict=False):
        shown = {name: model.metrics[name]["value"] for name in ("pearson", "mae")}
        r = "undefined" if shown["pearson"] is None else f"{shown['pearson']:.3f}"
        label = f"{model.label}: r {r}, mean error {shown['mae']:.3g}"
        axes.scatter(truth, model.prob, color=style["color"], marker=style["marker"], label=label)
    axes.plot(target.span, target.span, color="grey", linestyle=":", label="As labelled")
    axes.legend(loc="best", fontsize=8)
    axes.set(title=subjects, xlabel=f"{target.title}, label", ylabel="Prediction", aspect="equal")
    return figure


def _difference(models: list[Scored], truth: np.ndarray, target: Score, subjects: str) -> Figure:
    """Bland and Altman's plot: errors over the mean of both, with the limits of agreement."""
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    for model, style in zip(models, _STYLES, strict=False):
        errors = model.prob - truth
        mean, spread = errors.mean(), Z * errors.std(ddof=1) if len(errors) > 1 else 0.0
        label = f"{model.label}: {mean:+.3g}, {CONFIDENCE:.0%} within {spread:.3g} of it"
        color = style["color"]
        axes.scatter(
            (model.prob + truth) / 2, errors, color=color, marker=style["marker"], label=label
        )
        axes.axhline(mean, color=color)
        for end in (mean - spread, mean + spread):
            axes.axhline(end, color=color, linestyle="--")
    axes.axhline(0, color="grey", linestyle=":", label="As labelled")
    axes.legend(loc="best", fontsize=8)
    axes.set(
        title=f"Differences, {subjects}",
        xlabel=f"{target.title}, mean of both",
        ylabel="Prediction less label",
    )
    return figure


def _reliability(models: list[Scored], truth: np.ndarray, target: Classes, subjects: str) -> Figure:
    """A panel with a curve a model; of more than two classes a panel a model, a curve a class."""
    every = list(_reliability_curves(models))
    if target.is_binary:
        own = truth == target.number
        curves: list[Curve] = [(*curve, own) for curve in every]
        panels = [(f"Reliability, {subjects}", target.positive, target.title, curves)]
    else:
        panels = []
        for label, prob, _ in every:
            curves = [
                (name, prob[:, number], style, truth == number)
                for (number, name), style in zip(
                    enumerate(target.names), cycle(_STYLES), strict=False
                )
            ]
            title = f"Reliability of {label}, {subjects}"
            panels.append((title, "the class", "P(class)", curves))
    figure = Figure(figsize=(5 * len(panels), 6), layout="constrained")
    rows = figure.subplots(2, len(panels), height_ratios=(4, 1), sharex=True, squeeze=False)
    for axes, counts, (title, of, value, curves) in zip(*rows, panels, strict=True):
        for number, curve in enumerate(curves):
            _draw_reliability(axes, counts, curve, ref_line=number == 0)
        axes.legend(loc="best", fontsize=8)
        axes.set(
            title=title,
            xlabel="",
            ylabel=f"Share of {of} (bars: Wilson {CONFIDENCE:.0%})",
            xlim=(-0.02, 1.02),
            ylim=(-0.02, 1.02),
        )
        counts.set(xlabel=f"{value}, mean of the bin", ylabel="Subjects")
    return figure


def _draw_reliability(axes: Any, counts: Any, curve: Curve, *, ref_line: bool) -> None:
    """Draw how many subjects of each bin are of a class, and below it how many there are."""
    name, prob, style, own = curve
    bins = reliability_bins(prob, own)
    wilson = [wilson_interval(part.diseased, part.subjects) for part in bins]
    low, size, diseased, mean = np.array(bins).T
    share = diseased / size
    ece, brier = expected_calibration_error(bins), np.mean((prob - own) ** 2)
    label = f"{name}: ECE {ece:.3f}, Brier {brier:.3f}"
    CalibrationDisplay(share, mean, prob).plot(ax=axes, name=label, ref_line=ref_line, **style)
    ends = [share - [part["low"] for part in wilson], [part["high"] for part in wilson] - share]
    lengths = np.maximum(ends, 0)  # rounding may leave -1e-17, which matplotlib refuses
    axes.errorbar(mean, share, lengths, fmt="none", ecolor=style["color"], capsize=3)
    edge = {"edgecolor": style["color"], "linestyle": style["linestyle"]}
    counts.bar(low, size, width=1 / NUM_BINS, align="edge", fill=False, **edge)


def _reliability_curves(models: list[Scored]) -> Iterator[tuple[str, np.ndarray, dict[str, Any]]]:
    """Yield name, probabilities and style of each model, and of its calibrated probabilities."""
    for model, style, other in zip(models, _STYLES[:2], _STYLES[2:], strict=False):
        yield model.label, model.prob, style
        if model.calibrated is not None:
            yield f"{model.label}, calibrated", model.calibrated, other


def _confusion(models: list[Scored], names: Sequence[str], subjects: str) -> Figure:
    side = 1.5 + len(names)  # inches
    figure = Figure(figsize=(1 + side * len(models), side + 0.5), layout="constrained")
    for axes, model in zip(figure.subplots(1, len(models), squeeze=False)[0], models, strict=True):
        counts = np.array(list(model.confusion.values())).reshape(len(names), -1)
        totals = np.maximum(counts.sum(axis=1, keepdims=True), 1)
        shares = counts / totals  # of each label's subjects
        display = ConfusionMatrixDisplay(shares, display_labels=names)
        display.plot(ax=axes, cmap="Blues", colorbar=False, im_kw={"vmin": 0, "vmax": 1})
        for text, count, share in zip(display.text_.flat, counts.flat, shares.flat, strict=True):
            text.set(text=f"{count}\n{share:.0%}", fontsize=13)
        axes.set(title=model.label, xlabel="Prediction", ylabel="Label")
    figure.suptitle(f"Confusion, {subjects}")
    return figure
