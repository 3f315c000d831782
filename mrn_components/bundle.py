"""What a bundle's config needs to know about its own run: where it lies and how it was started.

``python -m monai.bundle run`` gives a config neither its own path nor the arguments it was started
with, accepts misspelt keys, and ends a user's slip in pages of traceback. The functions here fill
that gap. All of them do nothing in a process that was started in another way.
"""

import json
import logging
import os
import re
import shlex
import shutil
import sys
import uuid
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import fire
import ignite.distributed as idist
import torch
from monai.bundle import ConfigParser, update_kwargs
from monai.bundle.utils import merge_kv
from monai.utils import ensure_tuple, set_determinism

from mrn_components.networks.precision import fast_fp32_matmul
from mrn_components.system.errors import install_messages
from mrn_components.system.files import write_json
from mrn_components.system.keys import check_device, check_key, config_text, typed_value
from mrn_components.system.logs import keep_notices, start_logs
from mrn_components.system.memory import keep_freed_memory
from mrn_components.system.plain_data import differences
from mrn_components.system.values import flags

_logger = logging.getLogger(__name__)

# Blocks of a training config that decide what a trained network can be fed with.
NETWORK_BLOCKS = (
    *("images", "image_size", "target", "rois", "preprocessing", "mask_channels", "network_def"),
)
# Keys that a resumed run may change unasked: where things are, and how long it trains.
_FREE_KEYS = (
    *("resume", "allow_changed", "epochs", "save_interval", "run_name", "bundle_root"),
    *("dataset_dir", "labels", "output_dir", "ckpt_dir", "cache_dir", "device"),
)


@dataclass(frozen=True)
class RunArguments:
    """The arguments of one ``python -m monai.bundle run``."""

    config_files: tuple[Path, ...]  # in the order they are merged: a complete one, then overlays
    overrides: Mapping[str, Any] = field(default_factory=dict)  # {"rois#qsm3#_disabled_": True}
    sections: tuple[str, ...] = ()  # what runs instead of initialize, run and finalize

    @property
    def bundle_root(self) -> Path:
        """The folder that holds ``configs``."""
        return self.config_files[0].parent.parent

    def merged(self) -> dict[str, Any]:
        """Apply the overlays and overrides, and leave references unresolved.

        A ValueError refuses a key that nothing reads, and an override of the wrong type.
        """
        return self._applied("--")[0]

    def typed(self, source: str = "--") -> "RunArguments":
        """Give the overrides the types that the configs have there, no is False, or refuse them.

        The messages of refusals say that the overrides stand in ``source``.
        """
        return replace(self, overrides=self._applied(source)[1])

    def _applied(self, source: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """The merged config, and the overrides in its types."""
        files = {f"{file}:": ConfigParser.load_config_file(str(file)) for file in self.config_files}
        base, *overlays = files.items()
        readers = config_text([*files.values(), self.overrides, *(f"@{n}" for n in self.sections)])
        parser = ConfigParser({})
        for key, value in base[1].items():
            merge_kv(parser, key, value)
        for where, pairs in overlays:
            for key, value in pairs.items():
                check_key(key, parser.get(), where, readers)
                merge_kv(parser, key, value)
        overrides = {}
        for key, value in self.overrides.items():
            check_key(key, parser.get(), source, readers)
            overrides[key] = typed_value(key, value, parser.get(), source)
            merge_kv(parser, key, deepcopy(overrides[key]))  # a later override may change it
        return {k: value for k, value in parser.get().items() if k != "_meta_"}, overrides


def run_arguments() -> RunArguments | None:
    """Read the arguments of this process, or None if it is no ``monai.bundle run``."""
    program = Path(sys.argv[0])
    if program.parent.name != "bundle" or sys.argv[1:2] != ["run"]:
        return None

    def capture(run_id: Any = None, **arguments: Any) -> dict[str, Any]:
        return update_kwargs(arguments.pop("args_file", None), run_id=run_id, **arguments)

    arguments = fire.Fire(capture, command=sys.argv[2:], serialize=lambda _: None)
    config_files = ensure_tuple(arguments.pop("config_file", None) or ())
    ids = [arguments.pop(name, None) for name in ("run_id", "init_id", "final_id")]
    for name in ("meta_file", "logging_file", "tracking"):
        arguments.pop(name, None)
    if not config_files:
        return None
    sections = tuple(name for name in ids if name is not None)
    return RunArguments(tuple(map(Path, config_files)), arguments, sections)


def locate_bundle(*, name: str, run: str | None = None, made_in: str | None = None) -> str:
    """Find the folder of the bundle, or of the run, whose config this is.

    ``monai.bundle run`` says where the config lies. A config that Python reads does not know its
    file: the folder is the current one, ``made_in``, ``bundles/NAME``, or a packed bundle with this
    package, and only one whose own config has the same name and run: no other's weights are used.

    Args:
        name: of the bundle.
        run: of the run, or of the packed bundle, as ``save_run`` wrote it.
        made_in: folder that the run was written to.

    Raises:
        FileNotFoundError: if none of them is it.
    """
    arguments = run_arguments()
    if arguments is not None and (arguments.bundle_root / "configs" / "metadata.json").is_file():
        return str(arguments.bundle_root)
    package = Path(__file__).resolve().parent.parent
    folders = [Path(), Path("bundles", name), package / "bundles" / name, package]
    folders += [Path(made_in)] if made_in is not None else []
    for folder in folders:
        if _mark_of(folder) == (name, run):
            return str(folder)
    raise FileNotFoundError(
        f"the config of {name} (run {run}) does not know its folder: it is none of "
        f"{sorted(set(map(str, folders)))}. Name the folder that holds its "
        "configs: bundle_root=FOLDER in Python, --bundle_root FOLDER on the command line."
    )


def _mark_of(folder: Path) -> tuple[Any, Any] | None:
    """The name and the run that the inference config in ``folder`` has; None without one."""
    try:
        config = ConfigParser.load_config_file(str(bundle_config(folder, "inference")))
    except (OSError, ValueError):
        return None
    mark = config.get("bundle_root")
    return (mark.get("name"), mark.get("run")) if isinstance(mark, Mapping) else None


def mark_run(configs: Iterable[dict[str, Any]], folder: Path | None = None) -> None:
    """Let the configs of one run find their folder, and no other, when Python reads them.

    They will be in ``folder/configs``; None if nobody knows. One that names its root otherwise
    stays as it is.
    """
    own = {"run": uuid.uuid4().hex, "made_in": None if folder is None else str(folder.resolve())}
    for config in configs:
        if isinstance(mark := config.get("bundle_root"), Mapping) and "name" in mark:
            config["bundle_root"] = {**mark, **own}


def start_run(
    *,
    seed: int | None = None,
    num_threads: int | None = None,
    fast_matmul: bool = True,
    distributed: bool = False,
) -> None:
    """Begin a run: a config's ``initialize``. It reads no data, and beginning twice does no harm.

    Unknown keys are refused, and the memory that tensors free is kept for the next ones.

    Args:
        seed: seed of all random numbers. None leaves them as they are.
        num_threads: threads of the CPU. None takes one a core.
        fast_matmul: multiply float32 matrices by oneDNN where that is exact and faster.
        distributed: join the processes that ``torchrun`` started.

    Raises:
        ValueError: naming an unknown key and the nearest known ones.
    """
    check_run()
    if distributed and not torch.distributed.is_initialized():
        idist.initialize("nccl" if torch.cuda.is_available() else "gloo")
    if seed is not None:
        set_determinism(seed)
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    if fast_matmul:
        fast_fp32_matmul()
    keep_freed_memory()


def check_run() -> None:
    """Refuse keys that no config knows, naming the nearest, and end errors in one message."""
    arguments = run_arguments()
    if arguments is None:
        return
    install_messages()
    start_logs()
    check_device(arguments.overrides)
    for key, value in arguments.typed().overrides.items():
        given = arguments.overrides[key]
        if isinstance(given, str) and given != value:  # MONAI has read it by now
            raise ValueError(f"--{key}: {given!r} is text to monai.bundle; type {value}.")


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
    keep_notices(output_dir)
    configs = Path(output_dir) / "configs"
    train = arguments.merged()
    if resume and (configs / "train.json").is_file():
        _check_unchanged(configs / "train.json", train, ensure_tuple(allow_changed))
    inference = inference_config(train, arguments.bundle_root)
    mark_run([train, inference], Path(output_dir))
    configs.mkdir(parents=True, exist_ok=True)
    for name in ("evaluate.yaml", "multi_gpu_evaluate.yaml", "metadata.json", "logging.conf"):
        if (source := arguments.bundle_root / "configs" / name).is_file():
            shutil.copyfile(source, configs / name)
    for name, config in {"train": train, "inference": inference}.items():
        write_json(configs / f"{name}.json", config)


def tell_run(*, output_dir: str, verb: Literal["predict", "segment"] = "predict") -> None:
    """Say at the end of a training in ``output_dir`` which command uses its weights."""
    if run_arguments() is None or idist.get_rank() > 0:
        return
    run = Path(output_dir)
    option = {"predict": "bundle", "segment": "segmentation"}[verb]
    words = flags({option: str(run)} | (run_encoder(run) if verb == "predict" else {}))
    _logger.info("Weights, curves and configs are in %s (research use only)", run)
    _logger.info("Next, for new subjects: %s", shlex.join(["mrn", verb, "INPUT", "OUTPUT", *words]))


def _check_unchanged(path: Path, train: Mapping[str, Any], allowed: Sequence[str]) -> None:
    """Refuse a config that differs from the one a run was begun with."""
    free = tuple(f"{name}#" for name in (*_FREE_KEYS, *allowed))
    begun = json.loads(path.read_text(encoding="utf-8"))
    found = differences(begun, json.loads(json.dumps(train)))
    if changed := [one for one in found if not f"{one[0]}#".startswith(free)]:
        keys = sorted({key for key, *_ in changed})
        listed = "; ".join(f"{key} was {was}, is now {now}" for key, was, now in changed)
        raise ValueError(
            f"the run in {path.parent.parent} was begun with another config: {listed}. Resume it "
            "with the same command and --resume True, or start another by --run_name NEW_NAME; to "
            f'change it nevertheless add --allow_changed "{keys}".'
        )


def inference_config(train: Mapping[str, Any], bundle_root: Path) -> dict[str, Any]:
    """The bundle's inference config, with the blocks of a training config that its weights need.

    What these refer to and the inference config lacks comes with them. The modules that the
    checkpoint handler leaves out of the weights (``training_only``, DPT in section 4.1.2) are left
    out of the network too. References stay unresolved.
    """
    inference = ConfigParser.load_config_file(str(bundle_config(bundle_root, "inference")))
    own = inference.get("network_def", {})
    shared = [key for key in NETWORK_BLOCKS if key in train and key in inference]
    inference.update({key: train[key] for key in shared})
    while (
        names := set(re.findall(r"@(\w+)", json.dumps(inference))) & train.keys() - inference.keys()
    ):
        inference.update({name: train[name] for name in names})  # what an overlay brought
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


def encoder_options(train: Mapping[str, Any]) -> dict[str, Any]:
    """What predicting with a run's weights needs besides: the encoder that they do not hold.

    Args:
        train: the config that the run was trained with.

    Returns:
        ``encoder_weights`` of a frozen encoder from a file or a download, as an override.
    """
    weights = train.get("encoder_weights") or "none"
    return {"encoder_weights": weights} if weights != "none" and _frozen_encoder(train) else {}


def run_encoder(run: Path) -> dict[str, Any]:
    """``encoder_options`` of the config that is kept in a run's folder."""
    return encoder_options(ConfigParser.load_config_file(str(bundle_config(run, "train"))))


def unfrozen_config(inference: Mapping[str, Any]) -> dict[str, Any]:
    """An inference config for weights into which the adapters of an encoder were merged."""
    config = deepcopy(dict(inference))
    for key in _frozen_encoder(config):
        del config["network_def"]["res"]["encoder"][key]
    return config


def _frozen_encoder(config: Mapping[str, Any]) -> list[str]:
    """The arguments by which a config's encoder is frozen."""
    part: Any = config
    for name in ("network_def", "res", "encoder"):
        part = part.get(name) if isinstance(part, Mapping) else None
    return [key for key in ("frozen", "lora") if isinstance(part, Mapping) and part.get(key)]


def bundle_config(bundle_root: Path, name: str) -> Path:
    """The bundle's config ``name``, in YAML or JSON."""
    for suffix in (".yaml", ".json"):
        if (path := bundle_root / "configs" / f"{name}{suffix}").is_file():
            return path
    raise FileNotFoundError(
        f"{bundle_root} is no bundle: it has no configs/{name}.yaml or .json. "
        "Name a bundle (bundles/mrn) or the folder of a training run; `mrn init` lays bundles out."
    )
