"""Every row of ``faults.yaml``: what is typed, how it ends, what it prints."""

import logging
import re
import shutil
import sys
from io import StringIO
from pathlib import Path

import faults_data
import faults_security
import faults_training
import numpy as np
import pytest
import yaml

from mrn_components.app import cli
from mrn_components.checks import examine_subject
from mrn_components.checks.masks import REGIONS
from mrn_components.data import load_subjects
from mrn_components.data.dataset import ROIDataset
from mrn_components.data.nuclei import drawn_by
from mrn_components.images.image import CHALLENGE_IMAGES
from mrn_components.images.volume import read_volume
from mrn_components.regions.reading import ReadVolumesd
from mrn_components.regions.transforms import ROICropd

TESTS = Path(__file__).parent
ROWS = yaml.safe_load((TESTS / "faults.yaml").read_text())
COMMANDS = [row for row in ROWS if "command" in row]
BUILDERS = {"I": faults_data, "T": faults_data, "R": faults_training, "S": faults_security}
KINDS = {"I": 25, "T": 8, "R": 18, "S": 14, "C": 14}


def rows_of(kinds):
    rows = [row for row in COMMANDS if row["id"][0] in kinds]
    return pytest.mark.parametrize("row", rows, ids=[row["id"] for row in rows])


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


def crop(folder, nuclei=None):
    """What training does with a subject before a network sees it, and prediction alike."""
    _, rois = drawn_by(nuclei, CHALLENGE_IMAGES, REGIONS)
    (subject,) = load_subjects(folder, require_labels=False)
    log = StringIO()
    handler = logging.StreamHandler(log)
    logging.getLogger("mrn_components").addHandler(handler)
    try:
        ROIDataset(data=[subject], transform=[ReadVolumesd(rois=rois), ROICropd(rois=rois)])[0]
        code, printed = 0, log.getvalue()
    except RuntimeError as error:
        code, printed = 2, str(error)
    finally:
        logging.getLogger("mrn_components").removeHandler(handler)
    transforms = [step(rois=rois, missing="fallback") for step in (ReadVolumesd, ROICropd)]
    prediction = ROIDataset(data=[subject], transform=transforms)
    if code == 2:
        with pytest.raises(RuntimeError, match=re.escape(printed)):
            prediction[0]
    else:
        flags = prediction[0]["flags"]
        assert {f for f in printed.splitlines() if f.startswith(subject["subject"] + " ")} <= {
            *flags
        }
    return code, printed


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
    if program == "crop":
        return crop(*arguments)
    monkeypatch.setattr(sys, "argv", ["mrn", *arguments, "--workers", "1"])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # main replaces it
    code = 0
    try:
        cli.main()
    except SystemExit as end:
        code = end.code
    except Exception as error:
        with pytest.raises(SystemExit) as end:
            sys.excepthook(type(error), error, error.__traceback__)
        code = end.value.code
    printed = capsys.readouterr()
    return code, printed.out + printed.err


@rows_of("IT")
def test_a_fault_of_the_data_is_named(row, sound, tmp_path, monkeypatch, capsys):
    data = tmp_path / "data"
    shutil.copytree(sound(row.get("subjects", 2)), data)
    getattr(faults_data, row["builder"])(data)
    code, printed = run(row["command"].format(data=data), monkeypatch, capsys)
    assert re.search(row["message"], printed), printed
    assert code == row["exit"], printed
    assert "Traceback" not in printed


@pytest.mark.slow
@rows_of("RS")
def test_a_fault_of_a_run_ends_as_the_list_says(row, cohort, tmp_path):
    """In a process of its own; nothing is left half-written, and no attack makes ``trace``."""
    with getattr(BUILDERS[row["id"][0]], row["builder"])(tmp_path, cohort) as values:
        done = faults_training.call(row["command"], values, tmp_path)
    printed = done.stdout + done.stderr
    assert re.search(row["message"], printed), printed
    assert done.returncode == row["exit"], printed
    assert "Traceback" not in printed
    assert not list(tmp_path.rglob(".unfinished*"))
    assert not (tmp_path / "trace").exists()
    assert not (tmp_path.parent / "trace").exists()


def test_rows_are_whole_and_none_stands_twice():
    ids = [row["id"] for row in ROWS]
    assert len(set(ids)) == len(ids)
    for row in ROWS:
        assert row["fault"]
        kinds = {"test", "decision"} & row.keys() or {"builder", "command", "exit", "message"}
        assert row.keys() - {"subjects"} == {"id", "fault"} | kinds
    wanted = {f"{kind}{number}" for kind in KINDS for number in range(1, KINDS[kind] + 1)}
    assert {re.match(r"[A-Z]\d+", name)[0] for name in ids} == {"I0", *wanted}


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
    tools = {"make_sound_subject", "make_sound_cohort", "path", "read", "write"}
    tools |= {"names", "fill", "fill_word", "call", "quoted"}
    made = {
        name
        for module in BUILDERS.values()
        for name, value in vars(module).items()
        if getattr(value, "__module__", "") == module.__name__ and not name.startswith("_")
    }
    assert made - tools == used


def test_a_hundred_flipped_bits_are_found(sound, tmp_path):
    """All bits of a file but those of gzip's header that no reader uses."""
    root = tmp_path / "data"
    shutil.copytree(sound(1), root)
    path = faults_data.path(root)
    content = path.read_bytes()
    unused = {8 * 3, *range(8 * 4, 8 * 10)}  # "is text"; time, compression, system
    places = [place for place in range(8 * len(content)) if place not in unused]
    subject = {"subject": "SUBJ_000", "qsm": str(path)}
    assert examine_subject(subject, deep=False).findings == []
    for place in np.random.default_rng(1).choice(places, 100, replace=False):
        faults_data.flip_a_bit(root, int(place))
        findings = examine_subject(subject, deep=False).findings
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
