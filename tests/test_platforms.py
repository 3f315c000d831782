"""What macOS and Windows lack is not needed: neither modules and signals, nor bash 4."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_run import make_datalist, make_run, read_rows

from mrn_components import choose_device
from mrn_components.networks.precision import autocast
from mrn_components.system.workers import in_order

ROOT = Path(__file__).parents[1]
# A process in which what Linux has and others have not is hidden.
ELSEWHERE = """
import importlib, os, pkgutil, signal, sys

sys.modules["fcntl"] = None
for name in ("SIGUSR1", "SIGUSR2", "SIGHUP", "SIGKILL", "SIGALRM"):
    delattr(signal, name)
for name in ("fork", "forkpty", "killpg", "setsid"):
    delattr(os, name)
"""
CHECK = """
from mrn_components.app.check import check

print(check(sys.argv[1]))
"""
PREDICT = """
import mrn_components

for module in pkgutil.walk_packages(mrn_components.__path__, "mrn_components."):
    importlib.import_module(module.name)
from mrn_components.app.predict import predict

data, output, run = sys.argv[1:]
predict(data, output, bundle=run, num_workers=0)
"""
BASH_4 = {  # what macOS's bash 3.2 does not know, or stops at under `set -u`
    "commands": r"\b(mapfile|readarray|coproc)\b|declare -[Ag]|local -[An]",
    "operators": r"&>>|\|&|;;&",
    "cases of letters": r"\$\{\w+(\^|,)",
    "an array that may be empty": r'(?<!\+)"\$\{\w+\[[@*]\]\}"',
}


def run_elsewhere(code, *words):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ELSEWHERE + code, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_a_check_needs_nothing_of_linux_alone(cohort, tmp_path):
    data = make_datalist(cohort, tmp_path / "two.json", count=2)
    assert "usable:    2" in run_elsewhere(CHECK, data)


@pytest.mark.slow
def test_neither_imports_nor_predictions_need_anything_of_linux_alone(cohort, tmp_path):
    run = make_run(tmp_path / "run", seed=0)
    data = make_datalist(cohort, tmp_path / "two.json", count=2)
    run_elsewhere(PREDICT, data, tmp_path / "out", run)
    rows = read_rows(tmp_path / "out" / "predictions.csv")
    assert [row["status"] for row in rows] == ["ok", "ok"]


def test_workers_that_are_not_forked_give_the_same(monkeypatch):
    monkeypatch.delattr(os, "fork")
    assert list(in_order(abs, [-3, 2, -1], workers=1)) == [3, 2, 1]


@pytest.mark.parametrize("script", sorted(ROOT.glob("[sd]*/*.sh")), ids=lambda path: path.name)
def test_scripts_are_of_bash_3(script):
    text = script.read_text()
    assert {what for what, pattern in BASH_4.items() if re.search(pattern, text)} == set()


@pytest.mark.parametrize(
    ("cuda", "mps", "found"),
    [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_the_best_device_is_taken_unless_one_is_named(monkeypatch, cuda, mps, found):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert choose_device().type == found
    assert choose_device(name="cpu").type == "cpu"
    assert str(choose_device(name="cuda:1")) == "cuda:1"


@pytest.mark.parametrize(("device", "halves"), [("cpu", True), ("mps", False)])
def test_apples_gpus_compute_in_single_precision(device, halves):
    with autocast(torch.device(device), "bf16"):
        assert torch.is_autocast_enabled(device) is halves
