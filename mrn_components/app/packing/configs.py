"""The configs of a packed bundle: those of a run in the bundle's own words, and their JSON."""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from monai.bundle import ConfigParser

from mrn_components.app.inspect.vocabulary import ENCODER_WEIGHTS
from mrn_components.app.installed import installed_bundles
from mrn_components.app.sheet.study import AS_TRAINED
from mrn_components.bundle import bundle_config, mark_run, unfrozen_config
from mrn_components.system.files import write_json, write_text
from mrn_components.system.plain_data import items
from mrn_components.system.yaml_text import edited_yaml

_HEADER = (
    AS_TRAINED
    + """{run} was trained. Comments are the bundle's own; where its value was another they say so.
#   python -m monai.bundle run --config_file configs/{name}.yaml --dataset_dir DIR
"""
)
# What goes with any training; other overlays of the bundle are ways to train it anew.
_OVERLAYS = ("evaluate", "ensemble", "multi_gpu_train", "multi_gpu_evaluate")
_UNCHECKED = ["$@evaluator.run()"]  # how runs predicted before sizes of crops were checked

_BAR = "ignite.handlers.ProgressBar"


def take_configs(run: Path, configs: Path) -> None:
    """Put the configs that a run was trained with, and that predict with it, in the bundle's place.

    Folders of this machine (``--dataset_dir /data/patients``) are nobody else's: they stay out. The
    bundle's comments stay in.

    Raises:
        FileNotFoundError: if ``run`` is no folder of a run.
        ValueError: if it is one of another bundle.
    """
    for name in ("train", "inference"):
        path = configs / f"{name}.yaml"
        text = path.read_text(encoding="utf-8")
        own = yaml.safe_load(text)
        of = trained_run(run) if name == "train" else run
        config = ConfigParser.load_config_file(str(bundle_config(of, name)))
        _check_bundle(run, config, own)
        if name == "inference":
            config = unfrozen_config(config)  # `take_weights` merges adapters
            if config.get("run") == _UNCHECKED:
                config["run"] = own["run"]
        config = _portable(config, own)
        _keep_bars_in_terminals(config)
        body = re.sub(r"\A(?:#.*\n)*", _HEADER.format(run=run.resolve().name, name=name), text)
        write_text(path, edited_yaml(body, config))
    for path in configs.glob("*.yaml"):
        if path.stem not in ("train", "inference", *_OVERLAYS):
            path.unlink()
    for plan in (run / "configs").glob("plan_*.json"):  # of nnU-Net
        shutil.copyfile(plan, configs / plan.name)


def trained_run(run: Path) -> Path:
    """Return the run whose training config an ensemble has: the first of those beside it."""
    first = run.resolve().parent / "fold0"
    is_ensemble = (run / "models" / "fold0.pt").is_file()
    return first if is_ensemble and not (run / "configs" / "train.json").is_file() else run


def _check_bundle(run: Path, config: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Refuse the run of another bundle that comes with the package."""
    marks = (each.get("bundle_root") for each in (config, own))
    name, wanted = (mark.get("name") if isinstance(mark, dict) else None for mark in marks)
    if name != wanted and name in {bundle.name for bundle in installed_bundles()}:
        raise ValueError(
            f"--run {run} is a run of the bundle {name}, not of {wanted}; name {name}."
        )


def _portable(value: Any, own: Any, key: Any = "") -> Any:
    """Return a run's value with the bundle's own in the place of each absolute path.

    Only the name is left of a file that the encoder began with, which says whose weights are in
    those of the run, and of a path in a place that the bundle has not.
    """
    if isinstance(value, dict | list):
        known = dict(items(own))
        parts = {k: _portable(part, known.get(k, part), k) for k, part in items(value)}
        return parts if isinstance(value, dict) else list(parts.values())
    if not isinstance(value, str) or not Path(value).is_absolute():
        return value
    return Path(value).name if key == ENCODER_WEIGHTS or own == value else own


def _keep_bars_in_terminals(config: Any) -> None:
    """Let the bars of earlier runs, which filled files too, be drawn in a terminal alone."""
    if isinstance(config, dict) and str(config.get("_target_", "")).endswith(_BAR):
        config.setdefault("disable", None)
    for _, value in items(config):
        _keep_bars_in_terminals(value)


def write_marks(configs: Path) -> None:
    """Mark the complete configs as those of this zip, so that they never find another's weights."""
    paths = [configs / "train.yaml", configs / "inference.yaml"]
    contents = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in paths]
    mark_run(contents)
    for path, content in zip(paths, contents, strict=True):
        write_text(path, edited_yaml(path.read_text(encoding="utf-8"), content))


def write_twins(configs: Path) -> None:
    """Write JSON beside every YAML: ``monai.bundle.load`` and federated learning read no other."""
    for path in sorted(configs.glob("*.yaml")):
        config = ConfigParser.load_config_file(str(path))
        write_json(path.with_suffix(".json"), config)


def parsed(folder: Path, **overrides: Any) -> ConfigParser:
    """Return the inference config of a bundle, of which parts can be built."""
    parser = ConfigParser()
    parser.read_config(str(folder / "configs" / "inference.json"))
    parser.update({"bundle_root": str(folder), **overrides})
    return parser
