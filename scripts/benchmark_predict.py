"""Processor seconds of `mrn predict`, of this tree and of another commit, in one run.

    python scripts/benchmark_predict.py [--against COMMIT] [--subjects 4]

Each tree predicts the same phantoms on one thread with a tiny network of random weights:

    predict   a full-size subject with masks (300 x 300 x 70 voxels an image) in a process that runs
    start     the whole command for one small subject, of which nearly all are imports

Clocks of a shared machine tell little; processor seconds of two trees in one run compare.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
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


def benchmark(*, against: str | None = None, subjects: int = 4) -> None:
    """Measure this tree, and that of a commit, and print a table.

    Args:
        against: commit whose tree is measured too.
        subjects: full-size phantoms that are predicted, beside one.
    """
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for name, count, view in (("1", 1, "brain"), ("n", 1 + subjects, "brain")):
            make_cohort(work / name, subjects=count, view=view)
        make_cohort(work / "small", subjects=1, view="midbrain")
        found = {"this tree": _measure(ROOT, work, subjects)}
        if against is not None:
            tree = work / "tree"
            _git("worktree", "add", "--detach", str(tree), against)
            try:
                found[against] = _measure(tree, work, subjects)
            finally:
                _git("worktree", "remove", "--force", str(tree))
    print("| processor seconds | " + " | ".join([*found, "ratio"]) + " |")
    print("|---" * (len(found) + 2) + "|")
    for case in ("predict", "start"):
        seconds = [times[case] for times in found.values()]
        cells = [f"{each:.2f}" for each in seconds] + [f"{seconds[0] / seconds[-1]:.2f}"]
        print("| " + " | ".join([case, *cells]) + " |")


def _measure(tree: Path, work: Path, subjects: int) -> dict[str, float]:
    """Processor seconds of a tree's cases."""
    weights = work / f"{tree.name}.pt"
    _run(tree, _WEIGHTS, json.dumps([NETWORK, str(weights)]))
    settings = {**NETWORK, "bundle": "bundles/mrn", "ckpt_path": str(weights)}
    folders = [str(work / "1"), str(work / "n")]
    said, _ = _run(tree, _PREDICT, json.dumps([settings, folders]))
    one, many = json.loads(said.splitlines()[-1])
    words = [f"--{key}={value}" for key, value in settings.items()]
    output = str(work / f"{tree.name}-out")
    _, start = _run(tree, _COMMAND, "predict", str(work / "small"), output, *words)
    return {"predict": (many - one) / subjects, "start": start}


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
