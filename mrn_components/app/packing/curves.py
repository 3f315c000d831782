"""The curves of a training, as a picture in the card."""

from pathlib import Path

from matplotlib.figure import Figure

from mrn_components.app.figures import save_figure

CURVES = "curves"
_LOSSES = {"loss": "training", "validation_loss": "validation"}
_METRICS = ("roc_auc", "accuracy", "f1_macro", "pearson", "mae")  # of the validation

Points = list[tuple[int, float]]  # epoch, value


def draw_curves(events: Path, folder: Path) -> bool:
    """Draw loss and validation metrics over the epochs; False where TensorBoard has none.

    Args:
        events: folder that a run's curves lie in.
        folder: gets ``curves.png`` and ``curves.svg``.
    """
    found = read_curves(events) if events.is_dir() else {}
    panels = {
        "Loss": {label: found[tag] for tag, label in _LOSSES.items() if tag in found},
        "Validation": {tag: found[tag] for tag in _METRICS if tag in found},
    }
    panels = {title: lines for title, lines in panels.items() if lines}
    if not panels:
        return False
    figure = Figure(figsize=(5 * len(panels), 3.5), layout="constrained")
    for axes, (title, lines) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        for label, points in lines.items():
            axes.plot(*zip(*points, strict=True), label=label)
        axes.set(title=title, xlabel="Epoch")
        axes.legend(fontsize=8)
    save_figure(figure, folder / CURVES)
    return True


def read_curves(events: Path) -> dict[str, Points]:
    """Return the scalars in a folder of TensorBoard's files: of an epoch done twice the later."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(events), size_guidance={"scalars": 0})  # keeps all
    accumulator.Reload()
    return {
        tag: sorted({event.step: event.value for event in accumulator.Scalars(tag)}.items())
        for tag in accumulator.Tags()["scalars"]
    }
