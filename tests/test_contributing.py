"""CONTRIBUTING.md, followed to the letter, and the tools that it names."""

import configparser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
TARGETS = re.findall(r"^(\w+):", MAKEFILE, flags=re.MULTILINE)


def blocks(language):
    found = re.findall(rf"( *)```{language}\n(.*?)```", TEXT, flags=re.DOTALL)
    return [text.replace(f"\n{indent}", "\n").removeprefix(indent) for indent, text in found]


def test_a_new_component_by_the_steps(tmp_path):
    component, line, test = (text.rstrip(" ") for text in blocks("python"))
    shutil.copytree(
        ROOT / "mrn_components",
        tmp_path / "mrn_components",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    shutil.copytree(ROOT / "bundles", tmp_path / "bundles", ignore=shutil.ignore_patterns("runs"))
    for name in ("setup.cfg", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "tests/networks").mkdir(parents=True)
    for written, name in ((component, r"`(mrn_\S+_pool\.py)`"), (test, r"`(tests/\S+_pool\.py)`")):
        (tmp_path / re.search(name, TEXT)[1]).write_text(written)
    register = tmp_path / "mrn_components/__init__.py"
    start = "_REGISTER = {\n"
    register.write_text(register.read_text().replace(start, start + line))

    commands = [line.split() for line in blocks("bash")[0].splitlines()]
    assert [words[0] for words in commands] == [".venv/bin/mrn", ".venv/bin/python", "make", "make"]
    python = [sys.executable, "-m"]
    calls = [[*python, "mrn_components.app.cli", *commands[0][1:]]]
    calls += [[*python, "pytest", "-p", "no:cacheprovider", *commands[1][3:]]]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    told, tested = (
        subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, text=True)
        for call in calls
    )
    assert "mrn_components.MeanPool, in mrn_components/networks/mean_pool.py" in told.stdout
    assert "scale: float = 1.0\n      what the mean is multiplied by, above 0." in told.stdout
    assert "_target_: mrn_components.MeanPool" in told.stdout
    assert "2 passed" in tested.stdout, tested.stdout + tested.stderr
    lint = [Path(sys.executable).parent / "ruff", "check", "--no-cache", "."]
    done = subprocess.run(lint, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\bmake (\w+)\b", TEXT))))
def test_a_task_that_it_names_is_one(target):
    assert target in TARGETS


@pytest.mark.skipif(shutil.which("make") is None, reason="no make; apt-get install make")
def test_make_lists_every_task():
    done = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert [line.split()[1] for line in done.stdout.splitlines()] == TARGETS


def test_the_workflow_calls_the_scripts_on_the_oldest_and_the_newest_python():
    jobs = yaml.safe_load((ROOT / ".github/workflows/test.yaml").read_text())["jobs"]
    assert jobs["test"]["strategy"]["matrix"]["python"] == ["3.11", "3.13"]
    steps = {name: [step.get("run", "") for step in job["steps"]] for name, job in jobs.items()}
    assert steps["test"][-1].endswith("scripts/test.sh --cpu")
    assert steps["docs"][-1].endswith("make docs")


def test_hooks_run_what_is_there():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    entries = [hook["entry"].split() for repo in config["repos"] for hook in repo["hooks"]]
    assert {Path(words[0]).name for words in entries} == {"ruff", "python"}
    for file in (word for words in entries for word in words if word.endswith(".py")):
        assert (ROOT / file).is_file()


def requirements():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    found = (line for text in lines for line in text.splitlines() if line)
    return {f"{one.name}{one.specifier}": one for one in map(Requirement, found)}


LOCK = {
    canonicalize_name(one.name): next(iter(one.specifier)).version
    for one in map(Requirement, re.findall("^[^#].*", (ROOT / "constraints.txt").read_text(), re.M))
}


@pytest.mark.parametrize("name", requirements())
def test_a_package_that_setup_names_is_locked_within_its_bounds(name):
    one = requirements()[name]
    if one.marker is not None and not one.marker.evaluate({"sys_platform": "linux"}):
        pytest.skip("of another system")
    assert one.specifier.contains(LOCK[canonicalize_name(one.name)])


def test_make_docs_installs_what_the_extra_names():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    names = [Requirement(line) for line in config["options.extras_require"]["docs"].split()]
    for one in names:
        assert one.name in MAKEFILE
