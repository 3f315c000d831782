"""The configs of a packed bundle: those of a run in the bundle's own words, and their JSON."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import yaml
from monai.bundle import ConfigParser

from mrn_components.bundle import bundle_config, mark_run, unfrozen_config
from mrn_components.system.yaml_text import edited_yaml

_HEADER = """\
# As run {run} was trained. Comments are the bundle's own; where its value was another they say so.
#   python -m monai.bundle run --config_file configs/{name}.yaml --dataset_dir DIR
"""
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
    """
    for name in ("train", "inference"):
        path = configs / f"{name}.yaml"
        text = path.read_text(encoding="utf-8")
        own = yaml.safe_load(text)
        of = trained_run(run) if name == "train" else run
        config = ConfigParser.load_config_file(str(bundle_config(of, name)))
        if name == "inference":
            config = unfrozen_config(config)  # `take_weights` merges adapters
            if config.get("run") == _UNCHECKED:
                config["run"] = own["run"]
        for key, value in config.items():
            if _names_folder(value):
                config[key] = own.get(key)
        _keep_bars_in_terminals(config)
        body = re.sub(r"\A(?:#.*\n)*", _HEADER.format(run=run.name, name=name), text)
        path.write_text(edited_yaml(body, config), encoding="utf-8")
    for path in configs.glob("*.yaml"):
        if path.stem not in ("train", "inference", *_OVERLAYS):
            path.unlink()
    for plan in (run / "configs").glob("plan_*.json"):  # of nnU-Net
        shutil.copyfile(plan, configs / plan.name)


def trained_run(run: Path) -> Path:
    """Return the run whose training config an ensemble has: the first of those beside it."""
    first = run.parent / "fold0"
    is_ensemble = (run / "models" / "fold0.pt").is_file()
    return first if is_ensemble and not (run / "configs" / "train.json").is_file() else run


def _names_folder(value: Any) -> bool:
    """Whether a value of a config holds an absolute path."""
    if isinstance(value, dict | list):
        return any(map(_names_folder, value.values() if isinstance(value, dict) else value))
    return isinstance(value, str) and Path(value).is_absolute()


def _keep_bars_in_terminals(config: Any) -> None:
    """Let the bars of earlier runs, which filled files too, be drawn in a terminal alone."""
    if isinstance(config, dict) and str(config.get("_target_", "")).endswith(_BAR):
        config.setdefault("disable", None)
    if isinstance(config, dict | list):
        for value in config.values() if isinstance(config, dict) else config:
            _keep_bars_in_terminals(value)


def write_marks(configs: Path) -> None:
    """Mark the complete configs as those of this zip, so that they never find another's weights."""
    paths = [configs / "train.yaml", configs / "inference.yaml"]
    contents = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in paths]
    mark_run(contents)
    for path, content in zip(paths, contents, strict=True):
        text = edited_yaml(path.read_text(encoding="utf-8"), content)
        path.write_text(text, encoding="utf-8")


def write_twins(configs: Path) -> None:
    """Write JSON beside every YAML: ``monai.bundle.load`` and federated learning read no other."""
    for path in sorted(configs.glob("*.yaml")):
        config = ConfigParser.load_config_file(str(path))
        path.with_suffix(".json").write_text(json.dumps(config, indent=2) + "\n")


def parsed(folder: Path, **overrides: Any) -> ConfigParser:
    """Return the inference config of a bundle, of which parts can be built."""
    parser = ConfigParser()
    parser.read_config(str(folder / "configs" / "inference.json"))
    parser.update({"bundle_root": str(folder), **overrides})
    return parser
