"""Signals and deaths of whole trainings, and what several processes say of errors."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from faults_training import CONFIGS, TRAIN, fill, names
from tiny_bundles import equal


def start(values, folder, *options, processes=1):
    """A training of four epochs, in a process group of its own."""
    command = TRAIN
    if processes > 1:
        configs = str([str(CONFIGS / f"{name}.yaml") for name in ("train", "multi_gpu_train")])
        values = values | {"train": ["--config_file", configs]}
        torchrun = f"-m torch.distributed.run --standalone --nproc_per_node={processes}"
        command = command.replace("-m monai", f"{torchrun} -m monai")
    return subprocess.Popen(
        [*fill(command, values), "--epochs", "4", *options],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for(path, process):
    give_up = time.monotonic() + 300
    while not path.exists():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < give_up
        time.sleep(0.01)


def end(process):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_ends_a_run_at_its_next_step(number, cohort, tmp_path):
    """To the whole group, workers included, as a cluster sends it; then the run goes on."""
    values = names(tmp_path, cohort)
    workers = ("--num_workers", "2")
    process = start(values, tmp_path, *workers)
    wait_for(tmp_path / "out/models/checkpoints/epoch_0002.pt", process)
    os.killpg(process.pid, number)
    output, _ = process.communicate(timeout=120)
    assert f"Stopped by {number.name} in epoch " in output
    assert process.returncode == 143
    assert "Traceback" not in output
    if number != signal.SIGTERM:
        return
    end(start(values, tmp_path, *workers, "--resume", "True"))
    end(start(names(tmp_path / "whole", cohort), tmp_path, *workers))
    ends = [
        torch.load(tmp_path / run / "models/checkpoints/epoch_0004.pt", weights_only=True)
        for run in ("out", "whole/out")
    ]
    assert equal(*ends)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_command_in_one_message(number, tmp_path):
    """To the whole group, as a terminal sends it: worker processes say nothing."""
    command = [sys.executable, "-W", "ignore", "-m", "mrn_components.app.cli", "phantom", "cohort"]
    process = subprocess.Popen(
        [*command, "--subjects", "400", "--view", "midbrain", "--workers", "2"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    wait_for(tmp_path / "cohort" / "PHAN1_001", process)
    os.killpg(process.pid, number)
    output, _ = process.communicate(timeout=60)
    assert f"\nstopped by {number.name}: what is finished stays; the same command" in output
    assert process.returncode == 128 + number
    assert "Traceback" not in output


@pytest.mark.slow
def test_a_dead_process_ends_the_others(cohort, tmp_path):
    """Of two gloo processes the second is killed: the first ends soon, and nothing is lost."""
    values = names(tmp_path, cohort)
    process = start(values, tmp_path, processes=2)
    wait_for(tmp_path / "out/models/checkpoints/epoch_0002.pt", process)
    children = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
    ).stdout.split()
    ranks = {
        int(re.search(r"(?:^|\0)RANK=(\d+)", Path(f"/proc/{child}/environ").read_text())[1]): child
        for child in children
        if "\0RANK=" in Path(f"/proc/{child}/environ").read_text()
    }
    os.kill(int(ranks[1]), signal.SIGKILL)
    output, _ = process.communicate(timeout=120)
    assert process.returncode not in (0, None)
    assert re.search(r"rank\s*: 1 .*\n.*exitcode\s*: -9", output), output  # torchrun's own table
    end(start(values, tmp_path, "--resume", "True", processes=2))
    epochs = sorted((tmp_path / "out/models/checkpoints").glob("*.pt"))
    assert [path.stem for path in epochs] == ["epoch_0003", "epoch_0004"]


def test_errors_of_one_of_several_processes_name_it(tmp_path):
    code = (
        "from mrn_components.system.errors import install_messages;"
        "from mrn_components.system.files import existing_file;"
        "install_messages(); existing_file(path='no.pt', hint='Train.')"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"WORLD_SIZE": "2", "RANK": "1"},
    )
    assert done.stderr.strip() == "error: [rank 1] no.pt is not there. Train."
    assert done.returncode == 2
