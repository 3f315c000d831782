"""Every row of ``faults.yaml``: what is typed, how it ends, what it prints."""

import re
import shutil
import sys
from pathlib import Path

import faults_data
import numpy as np
import pytest
import yaml

from mrn_components.app import cli
from mrn_components.checks import check_subject
from mrn_components.checks.nifti import read_volume
from mrn_components.data import load_subjects

TESTS = Path(__file__).parent
ROWS = yaml.safe_load((TESTS / "faults.yaml").read_text())
COMMANDS = [row for row in ROWS if "command" in row]


@pytest.fixture(scope="session")
def sound(tmp_path_factory):
    """Sound data sets by their number of subjects."""
    made = {}

    def make(count):
        if count not in made:
            made[count] = tmp_path_factory.mktemp("sound")
            faults_data.make_sound_cohort(made[count], count)
        return made[count]

    return make


def run(command, monkeypatch, capsys):
    """Run a row's command in this process: its exit code and all that it printed."""
    program, *arguments = command.split()
    if program == "load":
        try:
            folders = not command.endswith(".json")  # datalists here name images alone
            load_subjects(*arguments, require_masks=folders, require_labels=folders)
        except (ValueError, OSError) as error:
            return 2, str(error)
        return 0, ""
    monkeypatch.setattr(sys, "argv", ["mrn", *arguments, "--workers", "1"])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # main replaces it
    with pytest.raises(SystemExit) as end:
        cli.main()
    printed = capsys.readouterr()
    return end.value.code, printed.out + printed.err


@pytest.mark.parametrize("row", COMMANDS, ids=[row["id"] for row in COMMANDS])
def test_a_fault_is_named(row, sound, tmp_path, monkeypatch, capsys):
    data = tmp_path / "data"
    shutil.copytree(sound(row.get("subjects", 2)), data)
    getattr(faults_data, row["builder"])(data)
    code, printed = run(row["command"].format(data=data), monkeypatch, capsys)
    assert re.search(row["message"], printed), printed
    assert code == row["exit"], printed
    assert "Traceback" not in printed


def test_rows_are_whole_and_none_stands_twice():
    ids = [row["id"] for row in ROWS]
    assert len(set(ids)) == len(ids)
    for row in ROWS:
        assert row["fault"]
        kinds = {"test", "decision"} & row.keys() or {"builder", "command", "exit", "message"}
        assert row.keys() - {"subjects"} == {"id", "fault"} | kinds
    wanted = [*(f"I{n}" for n in range(1, 22)), *(f"T{n}" for n in range(1, 9))]
    assert {name.rstrip("abcdefghijklmn") for name in ids} == {"I0", *wanted}


@pytest.mark.parametrize("row", [r for r in ROWS if "test" in r], ids=lambda row: row["id"])
def test_the_named_test_exists(row):
    file, *names = row["test"].split("::")
    source = (TESTS.parent / file).read_text()
    for name in names:
        assert re.search(rf"^\s*(def|class) {name}\b", source, re.MULTILINE)


@pytest.mark.parametrize("row", [r for r in ROWS if "decision" in r], ids=lambda row: row["id"])
def test_the_named_decision_is_written_down(row):
    assert row["decision"] in (TESTS.parent / "docs" / "decisions.md").read_text()


def test_every_builder_belongs_to_a_row():
    used = {row["builder"] for row in COMMANDS}
    tools = {"make_sound_subject", "make_sound_cohort", "path", "read", "write", "write_nifti"}
    made_here = {
        name
        for name, value in vars(faults_data).items()
        if getattr(value, "__module__", "") == "faults_data" and not name.startswith("_")
    }
    assert made_here - tools == used


def test_a_hundred_flipped_bits_are_found(sound, tmp_path):
    """All bits of a file but those of gzip's header that no reader uses."""
    root = tmp_path / "data"
    shutil.copytree(sound(1), root)
    path = faults_data.path(root)
    content = path.read_bytes()
    unused = {8 * 3, *range(8 * 4, 8 * 10)}  # "is text"; time, compression, system
    places = [place for place in range(8 * len(content)) if place not in unused]
    subject = {"subject": "SUBJ_000", "qsm": str(path)}
    assert check_subject(subject, deep=False) == []
    for place in np.random.default_rng(1).choice(places, 100, replace=False):
        faults_data.flip_a_bit(root, int(place))
        findings = check_subject(subject, deep=False)
        assert [finding.severity for finding in findings] == ["error"], place
        path.write_bytes(content)


def test_a_flipped_bit_that_no_reader_uses_changes_no_voxel(sound, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(sound(1), root)
    before = read_volume(faults_data.path(root))
    faults_data.flip_a_bit(root, 8 * 4)
    after = read_volume(faults_data.path(root))
    assert np.array_equal(before.voxels, after.voxels)
    assert before.sha256 != after.sha256
