"""The notebooks of ``examples/`` run from top to bottom, one after another."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
RUN = "import runpy, sys\nfor file in sys.argv[1:]: runpy.run_path(file, run_name='__main__')"


@pytest.mark.slow
def test_every_example_runs(tmp_path):
    (tmp_path / "bundles").symlink_to(ROOT / "bundles")
    command = [sys.executable, "-W", "ignore", "-c", RUN, *map(str, EXAMPLES)]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=os.environ | {"MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "from NM alone" in done.stdout
    assert "95%" in done.stdout or "95 %" in done.stdout
    work = tmp_path / "build" / "examples"
    assert len(list(work.glob("*.png"))) == 3
    assert len(list(work.glob("study/subjects/*/*.html"))) == 8
    assert {path.name for path in tmp_path.iterdir()} == {"bundles", "build"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_a_notebook_that_begins_with_its_title(path):
    text = path.read_text()
    assert "#       format_name: percent\n" in text
    cells = re.split(r"^# %%", text, flags=re.MULTILINE)
    assert re.match(r" \[markdown\]\n# # \w", cells[1])
    assert len(cells) >= 4


def test_the_six_are_there():
    assert [path.stem[:2] for path in EXAMPLES] == [f"{i:02d}" for i in range(1, 7)]
