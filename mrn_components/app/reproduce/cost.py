"""What a row costs: parameters, operations, time and memory."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch.utils.flop_counter import FlopCounterMode

from mrn_components.app.bundle_run import BundleRun
from mrn_components.data import Subject
from mrn_components.data.dataset import collate_subjects
from mrn_components.system.files import write_json


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What the network of a run costs, and its prediction of one subject."""

    trained: float  # parameters that training changes, in millions
    total: float  # all parameters in training, in millions
    tflop: float  # of the network, predicting a test subject
    peak_gib: float | None  # of GPU memory meanwhile; None on CPUs
    seconds: float | None  # of the whole prediction, mean over the test subjects


def cost_of(run: BundleRun, subject: Subject) -> Cost:
    """Return what a finished run costs; its folder remembers what was counted of a ``subject``."""
    path = run.folder / "cost.json"
    if not path.is_file():
        write_json(path, _count(run.folder / "configs", subject))
    manifest = run.predictions.with_name("manifest.json")
    seconds = None
    if manifest.is_file():
        stages = json.loads(manifest.read_text(encoding="utf-8"))["timings_s"].values()
        seconds = sum(stage["mean"] for stage in stages)
    return Cost(**json.loads(path.read_text(encoding="utf-8")), seconds=seconds)


def _count(configs: Path, subject: Subject) -> dict[str, Any]:
    """Count by the networks of a run's configs, from random weights, and one subject's crops."""
    sizes = [
        (parameter.numel(), parameter.requires_grad)
        for parameter in _parser(configs / "train.json").get_parsed_content("network").parameters()
    ]
    config = _parser(configs / "inference.json")
    network, device = config.get_parsed_content("network"), config.get_parsed_content("device")
    crops = config.get_parsed_content("dataset#transform")(dict(subject))
    images, _ = config.get_parsed_content("prepare_batch")(collate_subjects([crops]), device)
    counter = FlopCounterMode(display=False)
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    with torch.no_grad(), counter:
        network.eval()(images)
    return {
        "trained": sum(size for size, trained in sizes if trained) / 1e6,
        "total": sum(size for size, _ in sizes) / 1e6,
        "tflop": counter.get_total_flops() / 1e12,
        "peak_gib": torch.cuda.max_memory_allocated(device) / 2**30 if on_gpu else None,
    }


def _parser(file: Path) -> ConfigParser:
    config = ConfigParser(ConfigParser.load_config_file(str(file)))
    config["encoder_weights"] = "none"
    return config
