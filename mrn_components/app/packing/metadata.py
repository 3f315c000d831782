"""``metadata.json`` of a packed bundle: what these weights take, give and reached."""

import json
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from packaging.version import Version

from mrn_components.app.packing.configs import parsed
from mrn_components.app.packing.origin import origin_of
from mrn_components.app.sheet.numbers import metrics_of
from mrn_components.app.sheet.study import Study
from mrn_components.data.target import HC_PD, Classes, Target
from mrn_components.images.image import Image
from mrn_components.regions.roi import ROI, images_of
from mrn_components.system.files import write_json, write_text

OWN = "mrn-components"
_DIGITS = 4
RANDOM = "Nobody trained these weights: they are random numbers."
UNKNOWN = "For the authors: whose data the weights were trained on, and under which licence."


def write_metadata(folder: Path, *, study: Study, metrics: Mapping[str, float], data: str) -> None:
    """Write ``metadata.json``, and the packages that it names into ``requirements.txt``.

    Args:
        folder: of the packed bundle, with its configs.
        study: the records of its weights.
        metrics: what they reached, by name.
        data: what they were trained on, and its licence.
    """
    path = folder / "configs" / "metadata.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["required_packages_version"].pop(OWN, None)  # it is in the bundle
    _write_versions(content)
    content["data_source"] = data
    content["eval_metrics"] = dict(metrics)
    parser = parsed(folder)
    if "rois" in parser:
        content |= _of_classifier(parser, study)
    else:
        content["network_data_format"] = _of_segmenter(parser, content["network_data_format"])
    write_json(path, content)
    write_text(folder / "requirements.txt", "\n".join(requirements(content)) + "\n")


def requirements(content: Mapping[str, Any]) -> list[str]:
    """Return the pins of a bundle's metadata, as the Model Zoo's CI installs them."""
    pins = {
        "monai": content["monai_version"],
        "torch": content["pytorch_version"],
        "numpy": content["numpy_version"],
        **content["required_packages_version"],
    }
    return [f"{name}=={version}" for name, version in pins.items()]


def _write_versions(content: dict[str, Any]) -> None:
    """Put the versions that are installed, with which the bundle is proved."""
    for key, name in (("monai", "monai"), ("pytorch", "torch"), ("numpy", "numpy")):
        content[f"{key}_version"] = Version(version(name)).public
    for name in content["required_packages_version"]:
        content["required_packages_version"][name] = Version(version(name)).public


def flat_metrics(study: Study) -> dict[str, float]:
    """Return the metrics of an evaluation as names and numbers: values, bounds, subjects."""
    numbers = _flat(metrics_of(study))
    return {**numbers, "subjects": study.value("metrics", "n")} if numbers else {}


def flat_overlaps(masks: Mapping[str, Any]) -> dict[str, float]:
    """Return what ``mrn evaluate_masks`` found as names and numbers: the Dice of each nucleus."""
    each = {f"dice_{row['image']}_{row['nucleus']}": row["dice"] for row in masks["nuclei"]}
    return {**_flat(each), "subjects": masks["n"]}


def _flat(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    return {
        name if bound == "value" else f"{name}_{bound}": round(metric[bound], _DIGITS)
        for name, metric in metrics.items()
        for bound in ("value", "low", "high")
        if metric[bound] is not None
    }


def tensor_names(rois: Mapping[str, ROI]) -> dict[str, str]:
    """Return the argument of the network that takes each region: the first is ``image``."""
    return {name: "image" if i == 0 else name for i, name in enumerate(rois)}


def _of_classifier(parser: ConfigParser, study: Study) -> dict[str, Any]:
    """Describe what a network of regions takes and gives."""
    rois, target = parser.get_parsed_content("rois"), study.target
    channels = parser.get().get("mask_channels") or {"transforms": []}
    with_masks = channels.get("transforms") != []  # an empty Compose adds none
    inputs = {
        tensor: _region(name, rois[name], with_masks, may_lack=tensor != "image")
        for name, tensor in tensor_names(rois).items()
    }
    images = images_of(rois).values()
    classes = _classes(target)
    return {
        **_task(target, images),
        "description": _description(parser, study, rois),
        "image_classes": "; ".join(f"{i.title}: {_shown(i)}" for i in images),
        "label_classes": classes,
        "pred_classes": classes,
        "network_data_format": {
            "inputs": inputs,
            "outputs": {"pred": _prediction(target, "as the network gives it", [])},
            "post_processed_outputs": {
                "pred": _prediction(target, "as tables have it", list(target.span))
            },
        },
    }


def _task(target: Target, images: Iterable[Image]) -> dict[str, str]:
    """Say what the network is for, where it is not what the bundle's metadata say."""
    if target == HC_PD:
        return {}
    kind = "Classification" if isinstance(target, Classes) else "Regression"
    what = ", ".join(target.names) if isinstance(target, Classes) else target.title
    return {"task": f"{kind} of {what} from {' and '.join(image.title for image in images)}"}


def _shown(image: Image) -> str:
    return f"{image.facts.title} in {image.unit}" if image.unit else image.facts.title


def _description(parser: ConfigParser, study: Study, rois: Mapping[str, ROI]) -> str:
    network = str(parser["network_def"]["_target_"]).rsplit(".", 1)[-1]
    sizes = ", ".join(sorted({str(roi.size) for roi in rois.values()}))
    name = study.value("inference", "network_def#res#encoder#name")
    encoder = f" Its encoder, {name}, began with {origin_of(study).words}."
    return (
        f"{network} predicts {study.target.title} from {len(rois)} regions of "
        f"{' and '.join(image.title for image in images_of(rois).values())}, in crops of {sizes} "
        f"pixels: {', '.join(rois)}.{encoder if name else ''} Research use only."
    )


def _region(name: str, roi: ROI, with_masks: bool, *, may_lack: bool) -> dict[str, Any]:
    """Describe the tensor of a region."""
    image = roi.image.facts.title
    channels = [image, "background of the mask", *roi.nuclei] if with_masks else [image]
    shown = f"{', '.join(roi.nuclei)} in {roi.image.title}" if roi.nuclei else roi.image.title
    lacking = "; left out, the region is hidden" if may_lack else ""
    return {
        "type": "image",
        "format": "magnitude",
        "modality": "MR",
        "num_channels": len(channels),
        "spatial_shape": ["*", "*", roi.size],
        "dtype": "float32",
        "value_range": [0, 1],
        "is_patch_data": False,
        "description": f"ROI {name}: {shown}; axial slices, rows, columns; the longer in-plane "
        f"side has {roi.size} pixels{lacking}",
        "channel_def": {str(i): channel for i, channel in enumerate(channels)},
    }


def _prediction(target: Target, description: str, values: list[float]) -> dict[str, Any]:
    names = target.names if isinstance(target, Classes) else target.columns
    is_class = isinstance(target, Classes)
    return {
        "type": "probabilities" if is_class else "score",
        "format": "classes" if is_class else "value",
        "num_channels": len(names),
        "spatial_shape": [],
        "dtype": "float32",
        "value_range": values,
        "is_patch_data": False,
        "description": description,
        "channel_def": {str(i): name for i, name in enumerate(names)},
    }


def _classes(target: Target) -> str:
    if isinstance(target, Classes):
        return ", ".join(f"{i}: {name}" for i, name in enumerate(target.names))
    return target.title


def _of_segmenter(parser: ConfigParser, known: dict[str, Any]) -> dict[str, Any]:
    """Put the strides of the planned network into what the bundle says of its tensors."""
    network = parser.get_parsed_content("network_def")
    shape = [f"{2 * stride}*n" for stride in network.strides]  # norms need more than a voxel
    for part in ("inputs", "outputs"):
        for tensor in known[part].values():
            tensor["spatial_shape"] = shape
    return known
