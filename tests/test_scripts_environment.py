"""``scripts/environment.sh``: which Python makes the environment."""

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "environment.sh"


def chosen(folder, command="echo $PYTHON", **variables):
    """What the scripts do where only the programs of a folder are there."""
    return subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", f". {SCRIPT}; {command}"],
        env={"PATH": str(folder), **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("names", [["3.13"], ["3.13", "3.12"], ["3.13", "3.11", "3.12", "3.10"]])
def test_the_python_that_is_there_is_taken(names, tmp_path):
    for name in names:
        program = tmp_path / f"python{name}"
        program.touch(0o755)
    known = sorted(name for name in names if name >= "3.11")
    assert chosen(tmp_path).stdout == f"{tmp_path}/python{known[0]}\n"
    assert chosen(tmp_path, PYTHON="mine").stdout == "mine\n"


def test_none_is_told(tmp_path):
    (tmp_path / "python3.10").touch(0o755)
    done = chosen(tmp_path, "install_package .", VENV=str(tmp_path / "venv"))
    assert done.returncode > 0
    assert "no python3.11 to python3.13 is on the PATH; name one by PYTHON=FILE" in done.stderr
