"""The plan of a nuclei network: what nnU-Net decided about it, and all that inference needs."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mrn_components.images.image import Image

Plan = Mapping[str, Any]

# Axes of the arrays that nnU-Net learns from: slices upwards, rows forwards, columns leftwards.
# They are those of SimpleITK in a file of the challenge, whose axes run to left, front and top.
ORIENTATION = "SAL"

CONFIGURATION = "3d_fullres"  # of those that nnU-Net plans

_KEYS = {
    "image",
    "labels",
    "folds",
    "spacing_mm",
    "patch_voxels",
    "normalization",
    "architecture",
}
# nnU-Net imports and calls what a plan names.
_NETWORK = re.compile(r"dynamic_network_architectures\.architectures\.\w+\.\w+")
_LAYER = re.compile(r"torch\.nn\.(modules\.\w+\.)?[A-Z]\w*")
_SCHEME = re.compile(r"[A-Z]\w*Normalization")


def read_plan(plan: str | Path | Plan) -> Plan:
    """Read a plan.

    Its keys: ``image``, its name; ``labels``, the number of ids in masks, which count from 1;
    ``folds``, the number of networks whose logits are averaged; ``spacing_mm`` and ``patch_voxels``
    along ``ORIENTATION``; ``normalization``, a class of nnU-Net (``scheme``) and
    its arguments (``use_mask``, ``intensity``); ``architecture``, as in nnU-Net's own plans.

    Args:
        plan: JSON file, or the plan itself.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no plan, or names other code than networks, layers and schemes.
    """
    if isinstance(plan, Mapping):
        _check_names(plan, "the plan")
        return plan
    path = Path(plan)
    if not path.is_file():
        raise FileNotFoundError(
            f"plan {str(path)!r} is not there; a bundle keeps it in configs/, a training in its "
            "run's configs/. Train first (configs/train.yaml), or name another with --plan FILE."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        missing = _KEYS - set(content)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is no valid JSON: {error}.") from error
    if missing:
        raise ValueError(f"{path} is no plan of a nuclei network: it lacks {sorted(missing)}.")
    _check_names(content, str(path))
    return content


def _check_names(plan: Plan, where: str) -> None:
    """Refuse a plan that names other code than networks, layers and normalizations."""
    architecture = plan["architecture"]
    arguments = architecture["arch_kwargs"]
    layers = [arguments.get(name) for name in architecture["_kw_requires_import"]]
    names = [
        (architecture["network_class_name"], _NETWORK),
        (plan["normalization"]["scheme"], _SCHEME),
        *((layer, _LAYER) for layer in layers if layer is not None),
    ]
    for name, expected in names:
        if not expected.fullmatch(str(name)):
            raise ValueError(
                f"{where} names {name!r}, which nnU-Net would import and run; expected "
                f"{expected.pattern}."
            )


def export_plan(image: Image, plans: Mapping[str, Any], num_folds: int) -> dict[str, Any]:
    """Take from nnU-Net's plans what inference needs.

    Args:
        image: that was segmented.
        plans: content of nnU-Net's plans file.
        num_folds: networks whose logits are averaged.
    """
    chosen = plans["configurations"][CONFIGURATION]
    return {
        "image": image.name,
        "labels": len(image.ids),
        "folds": num_folds,
        "spacing_mm": [float(step) for step in chosen["spacing"]],
        "patch_voxels": [int(size) for size in chosen["patch_size"]],
        "normalization": {
            "scheme": chosen["normalization_schemes"][0],
            "use_mask": bool(chosen["use_mask_for_norm"][0]),
            "intensity": plans["foreground_intensity_properties_per_channel"]["0"],
        },
        "architecture": chosen["architecture"],
    }
