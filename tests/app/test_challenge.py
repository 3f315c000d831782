"""The organisers' files, exactly."""

import os
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from tiny_cohort import make_subject
from tiny_run import make_run, read_rows
from tiny_segmentation import make_segmentation_bundle

from mrn_components.app import cli
from mrn_components.app.challenge import challenge
from mrn_components.app.predict import predict
from mrn_components.system.errors import FailedSubjectsError

DOCKER = Path(__file__).parents[2] / "docker"


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    root = tmp_path_factory.mktemp("bundles")
    segmentation = make_segmentation_bundle(root / "segmentation")
    return {"bundle": str(make_run(root / "run", 0)), "segmentation": str(segmentation)}


@pytest.fixture
def mount(tmp_path):
    """Two raw cases as the organisers mount them, T1 included."""
    for number in range(2):
        folder = make_subject(tmp_path / "inputs" / f"RJPD_00{number}", number, number)
        for mask in folder.glob("*_mask.nii.gz"):
            mask.unlink()
        (folder / "T1.nii.gz").write_bytes((folder / "NM.nii.gz").read_bytes())
    return tmp_path


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_docker(mount, bundles):
    before = contents(mount / "inputs")
    challenge(mount / "inputs", mount / "outputs", **bundles)
    files = contents(mount / "outputs")
    assert list(files) == [
        "RJPD_000/NM_pred.nii.gz",
        "RJPD_000/PD_pred.txt",
        "RJPD_000/QSM_pred.nii.gz",
        "RJPD_001/NM_pred.nii.gz",
        "RJPD_001/PD_pred.txt",
        "RJPD_001/QSM_pred.nii.gz",
    ]
    rows = read_rows(predict(mount / "inputs", mount / "predicted", abstain=False, **bundles))
    for row in rows:
        assert files[f"{row['subject']}/PD_pred.txt"] == row["class"].encode()
        for image in ("NM", "QSM"):
            mask = nibabel.load(mount / "outputs" / row["subject"] / f"{image}_pred.nii.gz")
            like = nibabel.load(mount / "inputs" / row["subject"] / f"{image}.nii.gz")
            assert mask.shape == like.shape
            assert mask.get_data_dtype() == np.uint8
            assert np.asanyarray(mask.dataobj).any()
            np.testing.assert_array_equal(mask.affine, like.affine)
    assert contents(mount / "inputs") == before  # only read
    challenge(mount / "inputs", mount / "again", **bundles)
    assert contents(mount / "again") == files


def test_email(mount, bundles):
    challenge(mount / "inputs", mount / "zip", format="email", **bundles)
    files = contents(mount / "zip")
    assert list(files) == [
        "label_predict.csv",
        "outputs/RJPD_000/NM_pred.nii.gz",
        "outputs/RJPD_000/QSM_pred.nii.gz",
        "outputs/RJPD_001/NM_pred.nii.gz",
        "outputs/RJPD_001/QSM_pred.nii.gz",
    ]
    lines = files["label_predict.csv"].decode().splitlines()
    assert lines[0] == "patient_id,prediction"
    assert [line.split(",")[0] for line in lines[1:]] == ["RJPD_000", "RJPD_001"]
    assert {line.split(",")[1] for line in lines[1:]} <= {"0", "1"}


def test_baseline(mount, bundles):
    challenge(mount / "inputs", mount / "out", format="baseline", **bundles)
    files = contents(mount / "out")
    assert list(files) == [
        "RJPD_000/NM_mask.nii.gz",
        "RJPD_000/QSM_mask.nii.gz",
        "RJPD_001/NM_mask.nii.gz",
        "RJPD_001/QSM_mask.nii.gz",
        "pred.csv",
    ]
    text = files["pred.csv"].decode()
    assert not text.endswith("\n")
    first, second = (line.split(",") for line in text.split("\n"))
    assert (first[0], second[0]) == ("RJPD_000", "RJPD_001")
    assert {first[1], second[1]} <= {"0", "1"}


def test_every_case_gets_an_answer(mount, bundles):
    """A cut NM, no image, given masks, no NM, a bad id: each is answered, failures are named."""
    cut = mount / "inputs" / "RJPD_000" / "NM.nii.gz"
    cut.write_bytes(cut.read_bytes()[:-100])
    (mount / "inputs" / "RJPD_002").mkdir()
    given = make_subject(mount / "inputs" / "RJPD_003", 1, 3)
    no_nm = make_subject(mount / "inputs" / "RJPD_004", 1, 4)
    (no_nm / "NM.nii.gz").unlink()
    (no_nm / "NM_mask.nii.gz").unlink()
    make_subject(mount / "inputs" / "case 2", 1, 5)
    with pytest.raises(FailedSubjectsError) as caught:
        challenge(mount / "inputs", mount / "outputs", **bundles)
    message = str(caught.value)
    assert "3 of 6 cases are answered 0 because they cannot be predicted" in message
    assert "RJPD_000: RJPD_000 NM.nii.gz: a gzip stream that stops" in message
    assert "RJPD_002: RJPD_002 NM.nii.gz: no NM image" in message
    assert "  case 2: an id with ' '; expected 1 to 64 letters" in message
    answers = {path.parent.name: path.read_text() for path in mount.glob("outputs/*/PD_pred.txt")}
    assert sorted(answers) == [*(f"RJPD_00{number}" for number in range(5)), "case 2"]
    assert set(answers.values()) <= {"0", "1"}
    assert answers["RJPD_000"] == answers["RJPD_002"] == answers["case 2"] == "0"
    files = contents(mount / "outputs")
    assert "RJPD_000/NM_pred.nii.gz" not in files  # no grid to put it on
    blank = nibabel.load(mount / "outputs" / "RJPD_000" / "QSM_pred.nii.gz")
    assert not np.asanyarray(blank.dataobj).any()
    for image in ("NM", "QSM"):
        mask = nibabel.load(mount / "outputs" / "RJPD_003" / f"{image}_pred.nii.gz")
        drawn = nibabel.load(given / f"{image}_mask.nii.gz")
        np.testing.assert_array_equal(np.asanyarray(mask.dataobj), np.asanyarray(drawn.dataobj))


def test_what_cannot_be_answered_is_refused(mount, bundles):
    with pytest.raises(
        ValueError, match=r"format must be one of \['baseline', 'docker', 'email'\]"
    ):
        challenge(mount / "inputs", mount / "out", format="pdf", **bundles)
    with pytest.raises(FileNotFoundError, match="does not exist; name a folder of subjects"):
        challenge(mount / "nowhere", mount / "out", **bundles)
    assert not (mount / "out").exists()


def test_the_command_says_where_the_answers_are(mount, bundles, monkeypatch, capsys):
    options = [part for key, value in bundles.items() for part in (f"--{key}", value)]
    arguments = ["mrn", "challenge", str(mount / "inputs"), str(mount / "out"), *options]
    monkeypatch.setattr(sys, "argv", [*arguments, "--format", "baseline"])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # main replaces it
    cli.main()
    assert capsys.readouterr().out.splitlines()[-1] == f"answers: {mount / 'out'}"
    assert (mount / "out" / "pred.csv").is_file()


@pytest.mark.slow
def test_auto_run_answers_a_mount_twice_with_the_same_bytes(mount, bundles):
    """Inputs read-only, no network, the entry point as the organisers start it."""
    for path in [*mount.glob("inputs/**/*"), mount / "inputs"]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHON": sys.executable,
        "PYTHONPATH": str(DOCKER.parent),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "BUNDLE": bundles["bundle"],
        "SEGMENTATION": bundles["segmentation"],
        "HOME": str(mount / "home"),
    }
    seen = []
    for _ in range(2):
        command = ["bash", str(DOCKER / "auto_run.sh"), str(mount)]
        done = subprocess.run(command, env=environment, check=False, cwd="/", capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
        seen.append(contents(mount / "outputs"))
    assert seen[0] == seen[1]
    assert sorted({path.split("/")[1] for path in seen[0]}) == [
        "NM_pred.nii.gz",
        "PD_pred.txt",
        "QSM_pred.nii.gz",
    ]


def test_the_image_runs_the_script_offline_and_without_root():
    text = (DOCKER / "Dockerfile").read_text()
    assert "COPY docker/auto_run.sh /auto_run.sh" in text
    assert text.rindex("\nUSER mrn\n") > text.rindex("\nRUN ")
    install = text.index("RUN pip install")
    assert text.index("COPY setup.py ") < install  # which puts the bundles into the package
    for bundle in (path.name for path in (DOCKER.parent / "bundles").glob("*")):
        assert f"COPY bundles/{bundle}/configs bundles/{bundle}/configs" in text[:install]
    assert "HF_HUB_OFFLINE=1" in text
    script = (DOCKER / "auto_run.sh").read_text()
    assert "ROOT=${1:-/pdcad}" in script
    assert (DOCKER / "auto_run.sh").stat().st_mode & 0o100
