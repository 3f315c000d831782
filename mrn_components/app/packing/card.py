"""``docs/README.md`` of a packed bundle: enough for a person who reads nothing else."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from mrn_components.app.packing.configs import parsed
from mrn_components.app.packing.curves import CURVES, draw_curves
from mrn_components.app.packing.evaluation import MASKS, METRICS, read_evaluation, read_overlaps
from mrn_components.app.packing.metadata import flat_metrics
from mrn_components.app.packing.origin import origin_of
from mrn_components.app.packing.sample import SampleRun
from mrn_components.app.packing.weights import build_network, packed_files
from mrn_components.app.sheet.facts import find_facts
from mrn_components.app.sheet.study import Study, bundle_study, find_folds
from mrn_components.app.sheet.write import write_card
from mrn_components.data.crop_sizes import crop_sizes
from mrn_components.data.target import HC_PD, Classes, Target
from mrn_components.data.weight_records import CROP_SIZES, read_record
from mrn_components.images.image import Image
from mrn_components.regions.roi import images_of
from mrn_components.system.files import write_text

_OF_EVALUATION = ("table", "metrics", "figures", "manifest")
_CLASS = {
    True: ": {lead} is {title}, 0 to 1; `class` is 1 ({positive}) above 0.5, else 0",
    False: ": probabilities of each class, 0 to 1, and the likeliest `class`",
}


def study_of(folder: Path, metrics: Path | None, source: Path, run: Path | None) -> Study:
    """Return what the records know of packed weights, and of their evaluation.

    Args:
        folder: of the packed bundle.
        metrics: what ``find_metrics`` returned, if there is an evaluation.
        source: folder that the weights were taken from.
        run: folder of the run, if they are one's; None for weights of an unknown training.

    Raises:
        ValueError: for an evaluation of other weights, or one that is damaged.
    """
    parser = parsed(folder)
    study = bundle_study(folder, target_of(parser))
    contents = dict(study.contents)
    if run is None:
        contents.pop("train", None)  # the config may be that of a run, and is not of these weights
    elif folds := find_folds(run):
        contents["folds"] = folds
    if metrics is not None and metrics.name == MASKS and "rois" in parser:
        raise ValueError(
            f"--metrics {metrics} scores masks, and this bundle makes none; name {METRICS} of "
            "`mrn evaluate`."
        )
    if metrics is None or metrics.name == MASKS:
        return replace(study, contents=contents)
    evaluated = read_evaluation(metrics, source, _typed(source, run))
    contents |= {
        key: evaluated.contents[key] for key in _OF_EVALUATION if key in evaluated.contents
    }
    contents["manifest"] = {**contents["manifest"], "weights": study.weights}
    return replace(study, contents=contents, rows=evaluated.rows)


def numbers_of(
    study: Study, metrics: Path | None, source: Path, run: Path | None
) -> dict[str, float]:
    """Return the metrics of packed weights as names and numbers; of none without an evaluation.

    Args:
        study: the records of the weights.
        metrics: what ``find_metrics`` returned, if there is an evaluation.
        source: folder that the weights were taken from.
        run: folder of the run, if they are one's.
    """
    if metrics is not None and metrics.name == MASKS:
        return read_overlaps(metrics, source, _typed(source, run))
    return flat_metrics(study)


def _typed(source: Path, run: Path | None) -> str:
    """Name the weights by the option that chooses them."""
    return f"--run {run}" if run is not None and source.parent == run else f"--weights {source}"


def target_of(parser: ConfigParser) -> Target:
    """Return what a bundle predicts; HC and PD where it does not say."""
    target: Target = parser.get_parsed_content("target") if "target" in parser.get() else HC_PD
    return target


def write_readme(
    folder: Path,
    *,
    study: Study,
    data: str,
    numbers: Mapping[str, float],
    sample: SampleRun | None,
    run: Path | None,
) -> None:
    """Write ``docs/README.md``, ``docs/data_license.txt`` and the picture of the curves.

    Args:
        folder: of the packed bundle, complete but for its hashes.
        study: the records of its weights.
        data: what they were trained on, and its licence.
        numbers: what they reached.
        sample: what they say of the sample; None if nobody asked them.
        run: folder of the run, with its curves.
    """
    (docs := folder / "docs").mkdir()
    metadata = json.loads((folder / "configs" / "metadata.json").read_text(encoding="utf-8"))
    study = replace(study, contents={**study.contents, "metadata": metadata})
    parser = parsed(folder)
    is_classifier = "rois" in parser
    facts = find_facts(study)
    if not is_classifier:  # masks are no prediction of a target
        facts = {name: fact for name, fact in facts.items() if name not in ("output", "ensemble")}
    pack = {
        "tags": ", ".join(_tags(metadata, parser, study.target)),
        "data": data,
        "encoder_license": origin_of(study).license,
        "images": [_image(image) for image in _images(parser)],
        "tensors": [_tensor(*item) for item in _tensors(metadata, "inputs")],
        "gives": "; ".join(_gives(*item) for item in _tensors(metadata, "outputs")),
        "curves": run is not None and draw_curves(run / "tensorboard", docs),
        "metrics": numbers,
        "runs": _options(folder),
        "is_single": (folder / "models" / "model.pt").is_file(),
        "expected": _expected(study.target, sample.table if sample is not None else []),
        "meaning": _meaning(study.target),
        "binary": isinstance(study.target, Classes) and study.target.is_binary,
        "is_classifier": is_classifier,
        "sizes": _sizes(folder, parser) if is_classifier else "",
        "memory": _memory(folder, sample),
    }
    write_text(docs / "README.md", write_card(study, facts, name=folder.name, pack=pack))
    write_text(docs / "data_license.txt", f"{data}\n")
    if pack["curves"]:
        (docs / f"{CURVES}.svg").unlink()  # one picture is enough


def _tags(metadata: Mapping[str, Any], parser: ConfigParser, target: Target) -> list[str]:
    kind = "Classification" if isinstance(target, Classes) else "Regression"
    kind = kind if "rois" in parser else "Segmentation"
    images = [image.facts.title for image in _images(parser)]
    return [kind, "MRI", str(metadata.get("organ", "brain")), *images, "MONAI", "research use only"]


def _images(parser: ConfigParser) -> list[Image]:
    if "rois" in parser:
        return list(images_of(parser.get_parsed_content("rois")).values())
    return list(parser.get_parsed_content("images").values())


def _image(image: Image) -> dict[str, str]:
    ids = (f"{name} {', '.join(map(str, own))}" for name, own in image.nuclei.items())
    return {
        "file": f"{image.file}.nii.gz",
        "mask": f"{image.mask}.nii.gz" if image.mask else "",
        "title": image.facts.title,
        "unit": image.unit,
        "nuclei": "; ".join(ids),
    }


def _tensors(metadata: Mapping[str, Any], part: str) -> Sequence[tuple[str, Mapping[str, Any]]]:
    return list(metadata["network_data_format"][part].items())


def _tensor(name: str, tensor: Mapping[str, Any]) -> dict[str, str]:
    channels = tensor["channel_def"]
    return {
        "name": name,
        "channels": ", ".join(channels.values()),
        "shape": ", ".join(map(str, tensor["spatial_shape"])),
        "description": tensor.get(
            "description", f"values {tensor['value_range'] or 'of any size'}"
        ),
    }


def _gives(name: str, tensor: Mapping[str, Any]) -> str:
    channels = ", ".join(tensor["channel_def"].values())
    return f"`{name}`, {tensor['num_channels']} channels: {channels}"


def _options(folder: Path) -> list[str]:
    """Return what chooses each network whose weights are there."""
    chosen = packed_files(folder).values()
    options = ("".join(f" --{key} {value}" for key, value in each.items()) for each in chosen)
    return list(dict.fromkeys(options))  # the files of an ensemble are asked together


def _expected(target: Target, rows: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    columns = ["subject", *target.columns, "class"]
    return [{name: row[name] for name in columns if name in row} for row in rows]


def _meaning(target: Target) -> str:
    if not isinstance(target, Classes):
        return f": {target.title}, {target.span[0]:g} to {target.span[1]:g}"
    text = _CLASS[target.is_binary]
    return text.format(lead=f"`{target.lead}`", title=target.title, positive=target.positive)


def _sizes(folder: Path, parser: ConfigParser) -> str:
    """Return the sizes of the crops that the weights say they were trained with."""
    files = [folder / "models" / file for file in packed_files(folder)]
    if any(read_record(file, CROP_SIZES) is None for file in files):
        return ""
    return ", ".join(map(str, sorted(set(crop_sizes(parser.get_parsed_content("rois")).values()))))


def _memory(folder: Path, sample: SampleRun | None) -> str:
    """Say what memory the weights take, and what a GPU that was there took for the sample."""
    networks = Counter(tuple(chosen.items()) for chosen in packed_files(folder).values())
    parameters = sum(
        count * sum(p.numel() for p in build_network(folder, dict(chosen)).parameters())
        for chosen, count in networks.items()
    )
    several = f"{networks.total()} networks, in all " if networks.total() > 1 else ""
    size = f"{parameters / 1e6:.1f} million parameters, {parameters * 4 / 2**20:.0f} MB"
    text = f"{several}{size} in single precision; a CPU is enough to predict."
    if sample is None or not sample.gpu:
        return f"{text} GPU memory was not measured: these weights were packed without a GPU."
    return f"{text} Predicting the sample took {sample.gpu_mb} MB of the memory of a {sample.gpu}."
