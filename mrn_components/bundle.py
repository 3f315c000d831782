"""What a bundle's config needs to know about its own run: where it lies and how it was started.

``python -m monai.bundle run`` gives a config neither its own path nor the arguments it was started
with, accepts misspelt keys, and ends a user's slip in pages of traceback. The functions here fill
that gap. All of them do nothing in a process that was started in another way.
"""

import difflib
import inspect
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from pydoc import locate
from typing import Any

import fire
from monai.bundle import ConfigParser, update_kwargs
from monai.utils import ensure_tuple

from mrn_components.system.errors import install_messages
from mrn_components.system.files import write_text

# Blocks of a training config that decide what a trained network can be fed with.
NETWORK_BLOCKS = ("image_size", "rois", "preprocessing", "mask_channels", "network_def")
# Keys that a resumed run may change unasked: where things are, and how long it trains.
_FREE_KEYS = (
    *("resume", "allow_changed", "epochs", "save_interval", "run_name", "bundle_root"),
    *("dataset_dir", "labels", "output_dir", "ckpt_dir", "cache_dir", "device"),
)


@dataclass(frozen=True)
class RunArguments:
    """The arguments of one ``python -m monai.bundle run``.

    Args:
        config_files: the config files in the order they are merged; the first is complete, the
            others are overlays.
        overrides: ``{"rois#qsm3#_disabled_": True}`` and the like.
    """

    config_files: tuple[Path, ...]
    overrides: Mapping[str, Any] = field(default_factory=dict)

    @property
    def bundle_root(self) -> Path:
        """The folder that holds ``configs``."""
        return self.config_files[0].parent.parent

    def merged(self) -> dict[str, Any]:
        """The configs with overlays and overrides applied, references unresolved."""
        parser = ConfigParser()
        parser.read_config([str(file) for file in self.config_files])
        parser.update(dict(self.overrides))
        return {key: value for key, value in parser.get().items() if key != "_meta_"}


def run_arguments() -> RunArguments | None:
    """Read the arguments of this process, or None if it is no ``monai.bundle run``."""
    program = Path(sys.argv[0])
    if program.parent.name != "bundle" or sys.argv[1:2] != ["run"]:
        return None

    def capture(run_id: Any = None, **arguments: Any) -> dict[str, Any]:
        return update_kwargs(arguments.pop("args_file", None), run_id=run_id, **arguments)

    arguments = fire.Fire(capture, command=sys.argv[2:], serialize=lambda _: None)
    config_files = arguments.pop("config_file", None) or ()
    if isinstance(config_files, str):
        config_files = (config_files,)
    for name in ("run_id", "init_id", "final_id", "meta_file", "logging_file", "tracking"):
        arguments.pop(name, None)
    if not config_files:
        return None
    return RunArguments(tuple(Path(file) for file in config_files), arguments)


def locate_bundle(*, name: str) -> str:
    """Find the bundle's folder: beside the config that runs, here, or in ``bundles/``.

    A packed bundle that holds this package is found from anywhere.

    Args:
        name: folder name of the bundle in the repository.
    """
    arguments = run_arguments()
    candidates = [Path(), Path("bundles") / name]
    if (packed := Path(__file__).resolve().parent.parent).name == name:
        candidates.append(packed)
    if arguments is not None:
        candidates.insert(0, arguments.bundle_root)
    for candidate in candidates:
        if (candidate / "configs" / "metadata.json").is_file():
            return str(candidate)
    return "."


def check_run() -> None:
    """Refuse overrides and overlay keys that no config knows, and end errors in one message.

    Raises:
        ValueError: naming the unknown key and the nearest known ones.
    """
    arguments = run_arguments()
    if arguments is None:
        return
    install_messages()
    base = ConfigParser.load_config_file(str(arguments.config_files[0]))
    for overlay in arguments.config_files[1:]:
        for key in ConfigParser.load_config_file(str(overlay)):
            check_key(key, base, source=f"{overlay}:")
            base = RunArguments((arguments.config_files[0], overlay)).merged()
    for key in arguments.overrides:
        check_key(key, base, source="--")


def check_key(key: str, config: Mapping[str, Any], source: str) -> None:
    """Check that ``key`` names something in ``config``, or a parameter of a component in it.

    Args:
        key: id such as ``network_def#res#ffa#num_layers``; a leading ``+`` extends.
        config: merged config, references unresolved.
        source: where the key stands, for the message.

    Raises:
        ValueError: naming the unknown part and the nearest known names.
    """
    node: Any = config
    parts = key.lstrip("+").replace("::", "#").split("#")
    for depth, part in enumerate(parts):
        known = _known_keys(node, is_top=depth == 0)
        if known is not None and part not in known:
            near = difflib.get_close_matches(part, sorted(known), n=3)
            where = "#".join(parts[:depth]) or "the config"
            meant = f"Did you mean {' or '.join(near)}?" if near else f"It has {sorted(known)}."
            raise ValueError(f"{source}{key}: {where} has no {part!r}. {meant}")
        if not isinstance(node, Mapping | list):
            return
        node = node.get(part) if isinstance(node, Mapping) else node[int(part)]


def _known_keys(node: Any, is_top: bool) -> set[str] | None:
    """Names that may follow ``node``; None where any name may (``rois``, handlers)."""
    if isinstance(node, list):
        return {str(index) for index in range(len(node))}
    if not isinstance(node, Mapping):
        return set()
    if "_target_" not in node:
        return set(node) if is_top else None
    target = locate(str(node["_target_"])) or locate(f"monai.{node['_target_']}")
    if target is None:  # a bare MONAI name: MONAI's own error names what is wrong
        return None
    parameters = inspect.signature(target).parameters.values()  # type: ignore[arg-type]
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return None
    names = {parameter.name for parameter in parameters}
    return names | {"_target_", "_disabled_", "_requires_", "_desc_", "_mode_"}


def save_run(
    *, output_dir: str, resume: bool = False, allow_changed: str | Sequence[str] = ()
) -> None:
    """Make the run's folder a bundle: the exact config of this run, and what predicts with it.

    ``configs/train.json`` is the merged config; ``configs/inference.json`` is the bundle's own
    with the rois, the preprocessing and the network of this run; the overlays, metadata and logging
    set-up are copied.

    Args:
        output_dir: folder of the run.
        resume: whether the run was begun before, with the config that the folder holds.
        allow_changed: keys that may differ from that config; a key stands for all below it.

    Raises:
        ValueError: if a resumed run has another config than it was begun with.
    """
    arguments = run_arguments()
    if arguments is None or int(os.environ.get("RANK", "0")) > 0:
        return
    configs = Path(output_dir) / "configs"
    train = arguments.merged()
    if resume and (configs / "train.json").is_file():
        _check_unchanged(configs / "train.json", train, ensure_tuple(allow_changed))
    inference = inference_config(train, arguments.bundle_root)
    configs.mkdir(parents=True, exist_ok=True)
    for name in ("evaluate.yaml", "multi_gpu_evaluate.yaml", "metadata.json", "logging.conf"):
        if (arguments.bundle_root / "configs" / name).is_file():
            shutil.copyfile(arguments.bundle_root / "configs" / name, configs / name)
    for name, config in {"train": train, "inference": inference}.items():
        write_text(configs / f"{name}.json", json.dumps(config, indent=2) + "\n")


def _check_unchanged(path: Path, train: Mapping[str, Any], allowed: Sequence[str]) -> None:
    """Refuse a config that differs from the one a run was begun with."""
    free = (*_FREE_KEYS, *allowed)
    begun = json.loads(path.read_text(encoding="utf-8"))
    changed = [
        (key, was, now)
        for key, was, now in differences(begun, json.loads(json.dumps(train)))
        if not any(key == name or key.startswith(f"{name}#") for name in free)
    ]
    if changed:
        keys = sorted({key for key, *_ in changed})
        listed = "; ".join(f"{key} was {was}, is now {now}" for key, was, now in changed)
        raise ValueError(
            f"the run in {path.parent.parent} was begun with another config: {listed}. Resume it "
            "with the same command and --resume True, or start another by --run_name NEW_NAME; to "
            f'change it nevertheless add --allow_changed "{keys}".'
        )


def differences(one: Any, other: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The ids at which two configs differ, and both values there; None for a missing one."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in sorted({*one, *other}):
            below = f"{path}#{key}" if path else str(key)
            yield from differences(one.get(key), other.get(key), below)
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, pair in enumerate(zip(one, other, strict=True)):
            yield from differences(*pair, f"{path}#{index}")
    elif one != other:
        yield path, one, other


def inference_config(train: Mapping[str, Any], bundle_root: Path) -> dict[str, Any]:
    """The bundle's inference config, with the blocks of a training config that its weights need.

    The modules that the checkpoint handler leaves out of the weights (``training_only``, DPT in
    section 4.1.2) are left out of the network too.

    Args:
        train: merged training config, references unresolved.
        bundle_root: folder of the bundle.
    """
    inference = ConfigParser.load_config_file(str(bundle_config(bundle_root, "inference")))
    own = inference.get("network_def", {})
    inference.update({key: train[key] for key in NETWORK_BLOCKS if key in train})
    inference = json.loads(json.dumps(inference))  # the two configs share blocks: copy, then edit
    if own.get("_target_") == inference["network_def"].get("_target_"):
        inference["network_def"] = own | inference["network_def"]  # keep `masked_rois`
    for module in train.get("train", {}).get("checkpoint", {}).get("training_only", []):
        *parents, name = module.split(".")
        part = inference["network_def"]
        for parent in parents:
            part = part.get(parent, {})
        part.pop(name, None)
    return inference


def bundle_config(bundle_root: Path, name: str) -> Path:
    """The bundle's config ``name``, in YAML or JSON."""
    for suffix in (".yaml", ".json"):
        if (bundle_root / "configs" / f"{name}{suffix}").is_file():
            return bundle_root / "configs" / f"{name}{suffix}"
    raise FileNotFoundError(
        f"{bundle_root} is no bundle: it has no configs/{name}.yaml or .json. "
        "Name a bundle (bundles/mrn) or the folder of a training run."
    )
