"""The faults of security: each row of faults_security.yaml ends as it says, and nothing runs."""

import ast
import os
import re
import subprocess
from pathlib import Path

import faults_security
import pytest
import yaml
from tiny_cohort import make_subject

from mrn_components.data import load_subjects

ROOT = Path(__file__).parent.parent
ROWS = yaml.safe_load((ROOT / "tests" / "faults_security.yaml").read_text())
COMMANDS = [row for row in ROWS if "command" in row]


def test_every_row_has_a_command_a_test_or_a_decision_that_exists():
    assert {re.match(r"S\d+", row["id"])[0] for row in ROWS} == {f"S{n}" for n in range(1, 15)}
    decisions = (ROOT / "docs" / "decisions.md").read_text()
    for row in ROWS:
        if "command" in row:
            assert row.keys() == {"id", "fault", "builder", "command", "exit", "message"}
            assert hasattr(faults_security, row["builder"])
        elif "decision" in row:
            assert f"- {row['decision']}" in decisions, row["id"]
        else:
            file, name = row["test"].split("::")
            tree = ast.parse((ROOT / file).read_text())
            defined = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
            assert name in defined, row["test"]


@pytest.mark.slow
@pytest.mark.parametrize("row", COMMANDS, ids=lambda row: row["id"])
def test_a_fault_ends_as_the_list_says(row, cohort, tmp_path):
    with getattr(faults_security, row["builder"])(tmp_path, cohort) as values:
        words = []
        for word in row["command"].replace("mrn ", "{mrn} ", 1).split():
            words += values[word[1:-1]] if word.startswith("{") else [word]
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
    assert done.returncode == row["exit"], done.stderr
    assert re.search(row["message"], done.stdout + done.stderr), done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "trace").exists()
    assert not (tmp_path.parent / "trace").exists()


@pytest.mark.parametrize(
    "name", ["..", "-x", "=cmd()", "a b", "<script>", "ä", "x" * 65, ".hidden", "a\nb"]
)
def test_ids_that_files_cannot_be_named_after_are_refused(name, tmp_path):
    if name == "..":
        (tmp_path / "list.json").write_text('[{"subject": "../../x", "nm": "a", "qsm": "b"}]')
        root = tmp_path / "list.json"
    else:
        make_subject(tmp_path / name, label=0, seed=0)
        root = tmp_path
    with pytest.raises(ValueError, match="subject id must be 1 to 64 letters, digits"):
        load_subjects(root, require_labels=False, require_masks=False)


@pytest.mark.parametrize(
    "page",
    ["README.md", "SECURITY.md", *(f"bundles/{n}/docs/README.md" for n in ("mrn", "seres10"))],
)
def test_every_page_says_research_use_only(page):
    assert "research use only" in (ROOT / page).read_text().lower()
