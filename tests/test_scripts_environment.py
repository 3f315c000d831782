"""``scripts/environment.sh``: which Python makes the environment, and what is told of it."""

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "environment.sh"
RUNS, BROKEN = "#!/bin/sh\n", "#!/bin/sh\nexit 127\n"  # as of a version manager without it
NONE = "No python3.13, python3.12 or python3.11 is on the PATH: install one, or name one by PYTHON"
PIP = 'echo "$@" >> {log}\ncase "$*" in {refused}) echo no such wheel; exit 1;; esac\n'


def bash(folder, command, **variables):
    """What the scripts do where only the programs of a folder, and those of the system, are."""
    for name in ("sed", "tail", "cksum", "cat"):
        if not (folder / name).exists():
            (folder / name).symlink_to(f"/usr/bin/{name}")
    return subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", f". {SCRIPT}; {command}"],
        cwd=SCRIPT.parent.parent,
        env={"PATH": str(folder), **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def program(path, text=RUNS):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("names", "broken", "taken"),
    [
        (["3.13"], [], "3.13"),
        (["3.11", "3.13", "3.12", "3.10"], [], "3.13"),
        (["3.11", "3.13", "3.12"], ["3.13"], "3.12"),
    ],
)
def test_the_newest_python_that_runs_is_taken(names, broken, taken, tmp_path):
    for name in names:
        program(tmp_path / f"python{name}", BROKEN if name in broken else RUNS)
    assert bash(tmp_path, "find_python").stdout == f"{tmp_path}/python{taken}\n"


def test_none_is_told_in_one_sentence(tmp_path):
    program(tmp_path / "python3.10")
    program(tmp_path / "python3.12", BROKEN)
    done = bash(tmp_path, "install_package .", VENV=str(tmp_path / "venv"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(NONE)
    assert done.stderr.count("\n") == 1


def install(tmp_path, options="", refused="nothing"):
    """Install where a named Python makes an environment of a pip that refuses some words."""
    venv = tmp_path / "venv"
    pip = RUNS + PIP.format(log=tmp_path / "pip.log", refused=refused)
    program(venv / "template", pip)
    make = f'echo Python 3.12.1; [ "$1" = -m ] && mkdir -p {venv}/bin && cp {venv}/template '
    program(tmp_path / "mine", f"{RUNS}{make} {venv}/bin/python || true")
    for name in ("mkdir", "cp"):
        (tmp_path / name).symlink_to(f"/usr/bin/{name}")
    done = bash(
        tmp_path, f"install_package . {options}", VENV=str(venv), PYTHON=str(tmp_path / "mine")
    )
    return done, (tmp_path / "pip.log").read_text().splitlines()


def test_python_and_size_are_told_before_anything_is_fetched(tmp_path):
    done, (call,) = install(tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"Python 3.12.1, {tmp_path}/mine, makes the environment" in done.stdout
    assert "about 6 GB on disk" in done.stdout
    assert call.endswith("--constraint constraints.txt --editable .")


def test_a_build_for_the_cpu_is_taken_where_there_is_one(tmp_path):
    done, calls = install(tmp_path, "--cpu")
    assert "+cpu" in calls[0]
    assert "for the CPU is installed: the environment takes about 2 GB" in done.stdout
    assert calls[-1].endswith("--editable .")


@pytest.mark.parametrize("refused", ["*+cpu*", "*import?torchvision*"])
def test_without_a_build_that_works_its_cost_is_told(tmp_path, refused):
    done, calls = install(tmp_path, "--cpu", refused)
    assert done.returncode == 0, done.stderr
    assert "the build with CUDA is taken" in done.stdout
    assert "about 4 GB more" in done.stdout
    assert any("uninstall" in call for call in calls)  # half of a build would stay otherwise
    assert calls[-1].endswith("--editable .")


def test_what_pip_says_is_shown_where_it_fails(tmp_path):
    done, _ = install(tmp_path, refused="*--editable*")
    assert done.returncode == 1
    assert "no such wheel" in done.stderr
    assert f"all it said is in {tmp_path}/venv/install.log" in done.stderr
