"""Builders of the faults of training in faults.yaml.

A builder makes a fault below ``folder`` and yields what the row's command is filled with.
"""

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from tiny_bundles import BUNDLES, TINY

from mrn_components.system.files import lock

CONFIGS = BUNDLES / "mrn" / "configs"


def quoted(overrides):
    """Overrides as a shell types them."""
    return [str(part) for key, value in overrides.items() for part in (f"--{key}", value)]


def names(folder, cohort):
    """What every command may be filled with; the run is in ``out``."""
    return {
        "python": [sys.executable, "-W", "ignore"],
        "train": ["--config_file", str(CONFIGS / "train.yaml")],
        "inference": ["--config_file", str(CONFIGS / "inference.yaml")],
        "tiny": quoted({**TINY["mrn"], "dataset_dir": cohort, "cache_dir": folder / "cache"}),
        "cohort": [str(cohort)],
        "out": [str(folder / "out")],
    }


def fill(command, values):
    """Words of a command; `mrn` in front and names in braces are replaced."""
    program, *words = command.split()
    filled = [*values["mrn"]] if program == "mrn" else fill_word(program, values)
    return filled + [part for word in words for part in fill_word(word, values)]


def fill_word(word, values):
    """A word, or those that a name in braces stands for; what follows is the last one's end."""
    if not word.startswith("{"):
        return [word]
    name, _, end = word[1:].partition("}")
    *first, last = values[name]
    return [*first, last + end]


def call(command, values, folder):
    """Run a filled command as a user does."""
    return subprocess.run(
        fill(command, values),
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=400,
    )


TRAIN = "{python} -m monai.bundle run {train} {tiny} --output_dir {out}"


@contextmanager
def nothing(folder, cohort):
    """No fault but the command's own."""
    yield names(folder, cohort)


@contextmanager
def finished_run(folder, cohort):
    """A run of two epochs that ended well."""
    values = names(folder, cohort)
    kept = Path(cohort).parent / "finished_run"  # one for all rows
    if not kept.exists():
        done = call(TRAIN, values, folder)
        assert done.returncode == 0, done.stderr
        shutil.copytree(folder / "out", kept)
    else:
        shutil.copytree(kept, folder / "out")
    yield values


@contextmanager
def damaged_weights(folder, cohort):
    """A byte of model.pt flipped, deep in a tensor, where torch notices nothing."""
    with finished_run(folder, cohort) as values:
        path = folder / "out" / "models" / "model.pt"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        yield values | {"weights": [str(path)]}


@contextmanager
def damaged_checkpoints(folder, cohort):
    """Both checkpoints cut short."""
    with finished_run(folder, cohort) as values:
        for path in (folder / "out" / "models" / "checkpoints").glob("*.pt"):
            os.truncate(path, path.stat().st_size // 2)
        yield values


@contextmanager
def weights_of_another_network(folder, cohort):
    """Good weights, and a config with more layers."""
    with finished_run(folder, cohort) as values:
        yield values | {"weights": [str(folder / "out" / "models" / "model.pt")]}


@contextmanager
def full_disk(folder, cohort):
    """A disk of a megabyte for the output."""
    out = folder / "out"
    out.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(out)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("a small disk needs the right to mount one")
    try:
        yield names(folder, cohort)
    finally:
        subprocess.run(["umount", str(out)], check=True)


@contextmanager
def output_is_a_file(folder, cohort):
    """A file where the run's folder should be."""
    (folder / "out").touch()
    yield names(folder, cohort)


@contextmanager
def folder_in_use(folder, cohort):
    """Another process trains in the folder."""
    with lock(folder / "out" / "models"):
        yield names(folder, cohort)
