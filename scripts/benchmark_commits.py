"""Processor seconds of what users wait for, of this tree and of another commit, in one run.

    python scripts/benchmark_commits.py [--against COMMIT] [--cases predict,start,step,epoch]

Each tree does the same work on one thread, with random weights:

    predict   a full-size subject with masks (300 x 300 x 70 voxels an image), tiny network, in a
              process that runs
    start     the whole command for one small subject, of which nearly all are imports
    step      a training step of eight subjects by `small.yaml`, its network alike in both trees
    epoch     a whole epoch of the same: loading, augmentation, steps, validation, checkpoints

Clocks of a shared machine tell little; processor seconds of two trees in one run compare.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fire

from mrn_components.phantom import make_cohort

ROOT = Path(__file__).resolve().parents[1]
NETWORK: dict[str, Any] = {
    "network_def#res#encoder": {
        "_target_": "mrn_components.SliceEncoder",
        "name": "vit_small_patch14_reg4_dinov2.lvd142m",
        "depth": 2,
        "embed_dim": 48,
        "num_heads": 2,
    },
    "network_def#res#ffa#num_layers": 1,
    "network_def#res#sfa#num_layers": 1,
    "image_size": 28,
    "num_workers": 0,
}
# What a tree runs: its own package, in a process of its own; arguments are JSON.
_WEIGHTS = """
import json, sys, torch
from monai.bundle import ConfigParser
settings, path = json.loads(sys.argv[1])
config = ConfigParser()
config.read_config("bundles/mrn/configs/inference.yaml")
for key, value in settings.items():
    config[key] = value
torch.save(config.get_parsed_content("network_def").state_dict(), path)
"""
_PREDICT = """
import inspect, json, sys, tempfile, time, torch
from mrn_components.app.predict import predict
torch.set_num_threads(1)
settings, folders = json.loads(sys.argv[1])
if "align" in inspect.signature(predict).parameters:  # a search of its own, where images are apart
    settings["align"] = "off"
def seconds(folder):
    with tempfile.TemporaryDirectory() as output:
        start = time.process_time()
        predict(folder, output, **settings)
        return time.process_time() - start
seconds(folders[0])
print(json.dumps([seconds(folder) for folder in folders]))
"""
_COMMAND = "from mrn_components.app.cli import main; main()"
_STEP = """
import json, sys, time, torch
from monai.bundle import ConfigParser
from monai.engines import SupervisedTrainer
torch.set_num_threads(1)
torch.manual_seed(0)
configs, settings, repeats = json.loads(sys.argv[1])
config = ConfigParser()
config.read_config(configs)
for key, value in {**settings, "bundle_root": "bundles/mrn"}.items():
    config[key] = value
part = config.get_parsed_content
dataset, size = part("train#dataset"), settings["batch_size"]
starts = range(0, len(dataset) - size + 1, size)
batches = [part("collate")([dataset[start + i] for i in range(size)]) for start in starts]
trainer = SupervisedTrainer(
    device=torch.device("cpu"), max_epochs=1, train_data_loader=batches, network=part("network"),
    optimizer=part("optimizer"), loss_function=part("loss"), prepare_batch=part("prepare_batch"),
    train_handlers=[part("handlers#msupmoco")], decollate=False,
)
times = []
for _ in range(1 + repeats):
    trainer.state.epoch = 0
    start = time.process_time()
    trainer.run()
    times.append((time.process_time() - start) / len(batches))
print(min(times[1:]))
"""
_EPOCHS = "import runpy; runpy.run_module('monai.bundle', run_name='__main__', alter_sys=True)"
CONFIGS = [f"bundles/mrn/configs/{name}.yaml" for name in ("train", "small")]
SMALL = {"batch_size": 8, "network_def#res#dpt#fusion_channels": 16}  # as `small.yaml` has it now
CASES = ("predict", "start", "step", "epoch")


def benchmark(
    *, against: str | None = None, cases: str | tuple[str, ...] = CASES, repeats: int = 2
) -> None:
    """Measure this tree, and that of a commit, and print a table.

    Args:
        against: commit whose tree is measured too.
        cases: names, separated by commas.
        repeats: how often each tree is measured, in turn; the least counts.
    """
    names = cases.split(",") if isinstance(cases, str) else cases  # fire makes tuples of lists
    if unknown := set(names) - set(CASES):
        raise SystemExit(f"cases must be some of {CASES}, got {sorted(unknown)}.")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        trees = {"this tree": ROOT}
        if against is not None:
            trees[against] = work / "tree"
            _git("worktree", "add", "--detach", str(trees[against]), against)
        try:
            found = _measured(trees, work, names, repeats)
        finally:
            if against is not None:
                _git("worktree", "remove", "--force", str(trees[against]))
    print("| processor seconds | " + " | ".join([*trees, "ratio"]) + " |")
    print("|---" * (len(trees) + 2) + "|")
    for case, seconds in found.items():
        cells = [f"{each:.2f}" for each in seconds] + [f"{seconds[0] / seconds[-1]:.2f}"]
        print("| " + " | ".join([case, *cells]) + " |")


def _measured(
    trees: dict[str, Path], work: Path, names: Sequence[str], repeats: int
) -> dict[str, list[float]]:
    """Processor seconds of each case in each tree."""
    if "predict" in names:
        for name, count in (("1", 1), ("n", 4)):
            make_cohort(work / name, subjects=count, view="brain")
    make_cohort(work / "small", subjects=1, view="midbrain")
    if {"step", "epoch"} & set(names):
        make_cohort(work / "train", subjects=20, view="midbrain")
    measures = {"predict": _predict, "start": _start, "step": _step, "epoch": _epoch}
    rounds = [
        {name: [measures[name](tree, work) for tree in trees.values()] for name in names}
        for _ in range(repeats)
    ]
    return {
        name: [min(times) for times in zip(*(one[name] for one in rounds), strict=True)]
        for name in names
    }


def _settings(tree: Path, work: Path) -> dict[str, Any]:
    """Options of a prediction by random weights of a tree's own network."""
    weights = work / f"{tree.name}.pt"
    if not weights.exists():
        _run(tree, _WEIGHTS, json.dumps([NETWORK, str(weights)]))
    return {**NETWORK, "bundle": "bundles/mrn", "ckpt_path": str(weights)}


def _predict(tree: Path, work: Path) -> float:
    folders = [str(work / "1"), str(work / "n")]
    said, _ = _run(tree, _PREDICT, json.dumps([_settings(tree, work), folders]))
    one, many = json.loads(said.splitlines()[-1])
    return (many - one) / 3


def _start(tree: Path, work: Path) -> float:
    words = [f"--{key}={value}" for key, value in _settings(tree, work).items()]
    with tempfile.TemporaryDirectory() as output:
        return _run(tree, _COMMAND, "predict", str(work / "small"), output, *words)[1]


def _step(tree: Path, work: Path) -> float:
    settings = {**SMALL, **_folders(tree, work)}
    said, _ = _run(tree, _STEP, json.dumps([CONFIGS, settings, 3]))
    return float(said.splitlines()[-1])


def _epoch(tree: Path, work: Path) -> float:
    seconds = {}
    for epochs in (5, 1):  # in this order the round that fills the cache is not the least
        with tempfile.TemporaryDirectory() as output:
            settings = {**SMALL, **_folders(tree, work), "output_dir": output, "epochs": epochs}
            words = [f"--{key}={value}" for key, value in settings.items()]
            files = str([str(tree / config) for config in CONFIGS])
            _, seconds[epochs] = _run(tree, _EPOCHS, "run", "--config_file", files, *words)
    return (seconds[5] - seconds[1]) / 4


def _folders(tree: Path, work: Path) -> dict[str, str]:
    cache = str(work / f"{tree.name}-cache")
    return {"dataset_dir": str(work / "train"), "cache_dir": cache, "output_dir": cache}


def _run(tree: Path, code: str, *words: str) -> tuple[str, float]:
    """Run code with a tree's package; return what it printed, and its processor seconds."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", code, *words]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=tree, env=environment, stdout=subprocess.PIPE, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{tree}: exit status {done.returncode}")
    return done.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _git(*words: str) -> None:
    subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True)


if __name__ == "__main__":
    fire.Fire(benchmark)
