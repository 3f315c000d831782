"""Facts of the model: what it sees, how it was trained, what it gives."""

from collections.abc import Mapping
from typing import Any

from mrn_components.app.sheet.shown import shown
from mrn_components.app.sheet.study import NOTHING, Derived, Study
from mrn_components.data.target import Classes


def images(study: Study) -> Derived:
    """Say what the images are, as they were read: with the ids of nuclei that a call named."""
    found = study.value("manifest", "images")
    if not found:
        return NOTHING
    each = {}
    for name, image in found.items():
        idle = {"name", "bids"}
        if image.get("window") or image.get("relative_window"):
            idle.add("percentiles")
        each[name] = {key: value for key, value in image.items() if value and key not in idle}
    return shown(each, {}), [("manifest", "images")]


def network(study: Study) -> Derived:
    """Describe the network as it was trained, or else as it predicts, or a regression."""
    for record, key, words in (
        ("train", "network_def", ""),
        ("inference", "network_def", "as it predicts, with saved weights: "),
        ("crossval", "model", ""),
    ):
        if value := study.value(record, key):
            return words + shown(value, study.contents[record]), [(record, key)]
    return NOTHING


def imbalance(study: Study) -> Derived:
    """Say how the subjects of the classes are drawn for training."""
    loader = study.value("train", "train#dataloader")
    if not isinstance(loader, Mapping):
        return NOTHING
    sampler = study.value("train", "train#sampler")
    if sampler is None:
        return "as they come, no sampler", [("train", "train#dataloader")]
    return shown(sampler, study.contents["train"]), [("train", "train#sampler")]


def selection(study: Study) -> Derived:
    """Say how the epoch was chosen whose weights are used."""
    kept = study.value("crossval", "kept_weights")
    if kept:
        found = ("no record" if one is None else _kept(one) for one in kept)
        text = "; ".join(f"fold {number}: {words}" for number, words in enumerate(found))
        return text, [("crossval", "kept_weights")]
    if note := study.value("crossval", "note"):
        return note, [("crossval", "note")]
    if "kept" not in study.contents:
        return NOTHING
    kept = study.contents["kept"]
    return _kept(kept), [("kept", key) for key in ("rule", "epoch", "chosen_on_validation")]


def _kept(kept: Mapping[str, Any]) -> str:
    chosen = "chosen" if kept.get("chosen_on_validation") else "not chosen"
    epoch = f", epoch {kept['epoch']}" if kept.get("epoch") is not None else ""
    return f"rule {kept.get('rule')}{epoch}, {chosen} on validation subjects"


def ensemble(study: Study) -> Derived:
    """Say how many networks and views a prediction is the mean of."""
    weights = study.weights
    if not weights:
        return NOTHING
    columns = study.contents["table"]["columns"]
    places = [("manifest", "weights"), ("table", "columns")]
    views = "; mean of two mirrored views" if "tta_std" in columns else ""
    if study.is_cross_validated:
        return f"no average: each subject by the one network of its fold{views}", places
    if len(weights) == 1:
        return f"no average: one network{views}", places
    means = "probabilities" if isinstance(study.target, Classes) else "scores"
    return f"mean of the {means} of {len(weights)} networks{views}", places


def output(study: Study) -> Derived:
    """Say what the model gives, and where it decides."""
    target, threshold = study.target, study.value("metrics", "threshold")
    places = [("table", "columns")]
    if not isinstance(target, Classes):
        return f"{target.title}, {target.span[0]:g} to {target.span[1]:g}; no classes", places
    if threshold is None:
        return f"probabilities of {', '.join(target.names)}; the largest decides", places
    text = f"{target.title}, 0 to 1; {target.positive} above {threshold:g}, fixed in the program"
    places.append(("metrics", "threshold"))
    if (chosen := study.value("metrics", "threshold_from")) is not None:
        text += (
            f"; also above {chosen['value']:.3f}, the best of {chosen['subjects']} other subjects"
        )
        places.append(("metrics", "threshold_from"))
    return text, places


def updating(study: Study) -> Derived:
    """Say whether predictions are recalibrated."""
    columns = study.contents["table"]["columns"]
    if any(column.endswith("_calibrated") for column in columns):
        text = "recalibrated predictions stand beside the model's own, which the metrics are of"
        return text, [("table", "columns")]
    if "manifest" not in study.contents:
        return NOTHING
    text = "none in these predictions: the table has the model's own alone"
    return text, [("table", "columns"), ("manifest", "weights")]
