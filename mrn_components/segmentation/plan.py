"""The plan of a nuclei network: what nnU-Net decided about it, and all that inference needs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mrn_components.images.image import Image
from mrn_components.system.plain_data import read_plain

Plan = Mapping[str, Any]

# Axes of the arrays that nnU-Net learns from: slices upwards, rows forwards, columns leftwards.
# They are those of SimpleITK in a file of the challenge, whose axes run to left, front and top.
ORIENTATION = "SAL"

CONFIGURATION = "3d_fullres"  # of those that nnU-Net plans

_KEYS = {"image", "labels", "folds", "spacing_mm", "patch_voxels", "normalization", "architecture"}
# nnU-Net imports and calls what a plan names: these are the names that its planners write.
_NETWORKS = {
    f"dynamic_network_architectures.architectures.unet.{name}"
    for name in ("PlainConvUNet", "ResidualEncoderUNet")
}
_LAYERS: dict[str, set[Any]] = {
    "conv_op": {"torch.nn.modules.conv.Conv3d"},
    "norm_op": {"torch.nn.modules.instancenorm.InstanceNorm3d"},
    "dropout_op": {None},
    "nonlin": {"torch.nn.LeakyReLU"},
}
_SCHEMES = {f"{name}Normalization" for name in ("CT", "No", "RGBTo01", "RescaleTo01", "ZScore")}


def read_plan(plan: str | Path | Plan) -> Plan:
    """Read a plan from a JSON file, or check one that was read.

    Its keys: ``image``, its name; ``labels``, the number of ids in masks, which count from 1;
    ``folds``, the number of networks whose logits are averaged; ``spacing_mm`` and ``patch_voxels``
    along ``ORIENTATION``; ``normalization``, a class of nnU-Net (``scheme``) and
    its arguments (``use_mask``, ``intensity``); ``architecture``, as in nnU-Net's own plans.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no plan, or names other code than nnU-Net's planners write.
    """
    if isinstance(plan, Mapping):
        _check_plan(plan, "the plan")
        return plan
    path = Path(plan)
    if not path.is_file():
        raise FileNotFoundError(
            f"plan {str(path)!r} is not there; a bundle keeps it in configs/, a training in its "
            "run's configs/. Train first (configs/train.yaml), or name another with --plan FILE."
        )
    try:
        content = read_plain(path)
    except ValueError as error:
        raise ValueError(f"{path} is no plan of a nuclei network: it {error}.") from error
    _check_plan(content, str(path))
    return content


def _check_plan(plan: Plan, where: str) -> None:
    """Refuse what is no plan, or names other code than nnU-Net's planners do."""
    if missing := _KEYS - set(plan):
        raise ValueError(f"{where} is no plan of a nuclei network: it lacks {sorted(missing)}.")
    try:
        foreign = [(name, known) for name, known in _named_code(plan) if name not in known]
        sizes = [*plan["spacing_mm"], *plan["patch_voxels"], plan["labels"], plan["folds"]]
        sound = len(sizes) == 8 and all(0 < size < 10_000 for size in sizes)
        sound = sound and all(type(size) is int for size in sizes[3:]) and plan["labels"] < 256
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{where} is no plan of a nuclei network ({type(error).__name__}: {error}); take the "
            "one that training wrote."
        ) from error
    for name, known in foreign:
        raise ValueError(
            f"{where} names {str(name)[:80]!r}, which nnU-Net would import and run; expected one "
            f"of {', '.join(sorted(map(str, known)))}."
        )
    if not sound:
        raise ValueError(
            f"{where} is no plan of a nuclei network: spacing_mm, patch_voxels, labels and folds "
            f"must be positive numbers, got {str(sizes)[:80]}."
        )


def _named_code(plan: Plan) -> list[tuple[Any, set[Any]]]:
    """The names in a plan that nnU-Net imports, and those that it may have there."""
    architecture = plan["architecture"]
    arguments = architecture["arch_kwargs"]
    imported = architecture["_kw_requires_import"]
    return [
        (architecture["network_class_name"], _NETWORKS),
        (plan["normalization"]["scheme"], _SCHEMES),
        *((name, {*_LAYERS}) for name in imported),
        *((arguments.get(name), _LAYERS.get(name) or {None}) for name in imported),
    ]


def export_plan(image: Image, plans: Mapping[str, Any], num_folds: int) -> dict[str, Any]:
    """Take from nnU-Net's plans what inference with the networks of some folds needs."""
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
