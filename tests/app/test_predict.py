"""``mrn predict`` from files to tables: the law of the bundle, faulty subjects, resume, masks."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from tiny_cohort import make_mask, make_subject, read_biomarkers, write_nifti
from tiny_run import make_datalist, make_run, read_rows
from tiny_segmentation import make_segmentation_bundle

from mrn_components.app import cli
from mrn_components.app.contributions import contributions
from mrn_components.app.ensemble import save_ensemble
from mrn_components.app.predict import inference_workflow, predict
from mrn_components.app.records import read_record
from mrn_components.checks import examine_subject
from mrn_components.data.predictions import read_predictions
from mrn_components.system.errors import FailedSubjectsError
from mrn_components.system.files import lock


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return str(make_run(tmp_path_factory.mktemp("predict") / "run", 0))


@pytest.fixture(scope="module")
def segmentation(tmp_path_factory):
    return str(make_segmentation_bundle(tmp_path_factory.mktemp("segmentation") / "bundle"))


@pytest.fixture
def few(tmp_path):
    """Three subjects to be changed."""
    for number in range(3):
        make_subject(tmp_path / "few" / f"S{number}", number % 2, number)
    return tmp_path / "few"


def remove_masks(folder: Path) -> None:
    for mask in folder.glob("**/*_mask.nii.gz"):
        mask.unlink()


def turn(folder: Path, target: Path, axes: str) -> None:
    """A subject's files with their axes in another order, on the same places."""
    target.mkdir(parents=True)
    for file in folder.glob("*.nii.gz"):
        volume = nibabel.load(file)
        way = ornt_transform(io_orientation(volume.affine), axcodes2ornt(axes))
        nibabel.save(volume.as_reoriented(way), target / file.name)


def test_the_numbers_are_those_of_the_bundles_workflow(cohort, tmp_path):
    """With given masks: what ``python -m monai.bundle run --config_file inference.yaml`` writes."""
    members = [make_run(tmp_path / f"fold{seed}", seed) for seed in (1, 2)]
    bundle = str(save_ensemble(members, tmp_path / "ensemble"))
    options = {"bundle": bundle, "tta": True, "precision": "fp32"}
    subjects = make_datalist(cohort, tmp_path / "subjects.json")
    workflow = inference_workflow(subjects, str(tmp_path / "workflow"), **options)
    workflow.run()
    ours = read_rows(predict(subjects, tmp_path / "ours", **options))
    theirs = read_rows(tmp_path / "workflow" / "predictions.csv")
    assert len(ours) == 4
    numbers = ("subject", "prob_pd", "class", "prob_pd_fold0", "prob_pd_fold1", "trained_on")
    for column in (*numbers, "fold_agreement", "fold_std", "tta_std"):
        assert [row[column] for row in ours] == [row[column] for row in theirs], column
    assert len({row["prob_pd"] for row in ours}) == 4


def test_files_of_a_cohort(run, cohort, tmp_path):
    table = predict(make_datalist(cohort, tmp_path / "subjects.json"), tmp_path / "out", bundle=run)
    rows = read_rows(table)
    columns = ["subject", "status", "prob_pd", "class", "trained_on", "mask_source"]
    assert list(rows[0]) == [*columns, "missing_rois", "flags", "error"]
    assert {(row["status"], row["mask_source"], row["error"]) for row in rows} == {
        ("ok", "given", "")
    }
    record = json.loads((tmp_path / "out/subjects/SUBJ_001/prediction.json").read_text())
    assert record["prob_pd"] == pytest.approx(float(rows[1]["prob_pd"]), abs=1e-6)
    assert record["mask_source"] == {"nm": "given", "qsm": "given"}
    assert record["research_use_only"] is True
    assert {"read", "crop", "classify", "measure", "total"} <= set(record["timings_s"])
    assert sorted(path.name for path in (tmp_path / "out/subjects/SUBJ_001").iterdir()) == [
        "prediction.json"
    ]
    assert set(read_biomarkers(tmp_path / "out")) == {row["subject"] for row in rows}
    assert record["biomarkers"]["volume_mm3_SN_left"] > 0

    text = (tmp_path / "out" / "manifest.json").read_text()
    manifest = json.loads(text)
    assert manifest["subjects"] == {"ok": 4, "abstained": 0, "failed": 0}
    assert len(manifest["weights"]["models/model.pt"]) == 64
    assert len(manifest["inputs"]["SUBJ_000"]["nm"]) == 64
    assert manifest["timings_s"]["crop"]["total"] > manifest["timings_s"]["crop"]["mean"] > 0
    assert {"torch", "monai", "mrn_components", "python"} <= manifest["versions"].keys()
    assert manifest["device"]
    assert str(tmp_path) not in text
    assert str(cohort) not in text + json.dumps(record)


def test_masks_are_made_where_they_are_missing(run, segmentation, few, tmp_path):
    remove_masks(few / "S1")
    (few / "S2" / "QSM_mask.nii.gz").unlink()
    options = {"bundle": run, "segmentation": segmentation, "abstain": False}
    rows = read_rows(predict(few, tmp_path / "out", **options))
    sources = ["given", "segmented", "nm given, qsm segmented"]
    assert [row["mask_source"] for row in rows] == sources
    assert all(row["status"] == "ok" for row in rows)
    made = sorted(
        path.relative_to(tmp_path / "out/subjects") for path in tmp_path.rglob("out/**/*.gz")
    )
    assert [str(path) for path in made] == [
        "S1/NM_mask.nii.gz",
        "S1/QSM_mask.nii.gz",
        "S2/QSM_mask.nii.gz",
    ]
    mask = nibabel.load(tmp_path / "out/subjects/S1/QSM_mask.nii.gz")
    image = nibabel.load(few / "S1" / "QSM.nii.gz")
    assert mask.shape == image.shape
    assert mask.get_data_dtype() == np.uint8
    np.testing.assert_allclose(mask.affine, image.affine)
    timings = read_record(tmp_path / "out", "S1")["timings_s"]
    assert {"segment_nm", "segment_qsm", "write"} <= timings.keys()
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert {"models/model.pt", "models/model_nm.pt"} <= manifest["segmentation"].keys()


@pytest.mark.parametrize("masks", ["given", "segmented"])
def test_orientation_does_not_matter(masks, run, segmentation, few, tmp_path):
    turned = tmp_path / "turned"
    for axes in ("LAS", "RAS", "PIR", "SAL"):
        turn(few / "S1", turned / axes, axes)
    if masks == "segmented":
        remove_masks(turned)
    options = {"bundle": run, "segmentation": segmentation, "abstain": False}
    table = predict(turned, tmp_path / "out", **options)
    prob_pd = [float(row["prob_pd"]) for row in read_rows(table)]
    assert prob_pd == pytest.approx([prob_pd[0]] * 4, abs=1e-4)
    for file in tmp_path.glob("out/subjects/*/*_mask.nii.gz"):
        image = nibabel.load(turned / file.parent.name / file.name.replace("_mask", ""))
        assert nibabel.load(file).shape == image.shape
        np.testing.assert_allclose(nibabel.load(file).affine, image.affine, atol=1e-5)


def make_faulty(root: Path) -> dict[str, str]:
    """A cohort with one fault a subject: {subject: what its error or flags say}."""
    for name in ("cut", "empty", "four_d", "good", "late_nan", "nan", "no_nm", "zz_good"):
        make_subject(root / name, 1, 1)
    cut = root / "cut" / "NM.nii.gz"
    cut.write_bytes(cut.read_bytes()[:-200])
    write_nifti(root / "four_d" / "QSM.nii.gz", np.ones((24, 24, 12, 3), np.float32))
    write_nifti(root / "nan" / "NM.nii.gz", np.full((24, 24, 12), np.nan, np.float32))
    volume = nibabel.load(root / "late_nan" / "NM.nii.gz").get_fdata(dtype=np.float32)
    volume[9, 9, 4] = np.nan  # in the SN
    write_nifti(root / "late_nan" / "NM.nii.gz", volume)
    (root / "no_nm" / "NM.nii.gz").unlink()
    (root / "no_nm" / "NM_mask.nii.gz").unlink()
    write_nifti(root / "empty" / "NM_mask.nii.gz", np.zeros((24, 24, 12), np.uint8))
    return {
        "cut": "cut NM.nii.gz: a gzip stream that stops before its end",
        "four_d": "four_d QSM.nii.gz: ",
        "late_nan": "late_nan NM.nii.gz: voxels that are NaN or infinite: 1 in ROI nm",
        "nan": "nan NM.nii.gz: ",
        "no_nm": "no_nm NM.nii.gz: no NM image",
        "empty": "nm",
    }


def test_faulty_subjects_are_named_and_the_others_predicted(run, tmp_path, capsys):
    faults = make_faulty(tmp_path / "cohort")
    with pytest.raises(FailedSubjectsError) as caught:
        predict(tmp_path / "cohort", tmp_path / "out", bundle=run)
    rows = {row["subject"]: row for row in read_rows(tmp_path / "out" / "predictions.csv")}
    statuses = {name: row["status"] for name, row in rows.items()}
    assert statuses == {
        "cut": "failed",
        "empty": statuses["empty"],  # estimated from the QSM's nuclei, or abstained
        "four_d": "failed",
        "good": "ok",
        "late_nan": "failed",
        "nan": "failed",
        "no_nm": "abstained",
        "zz_good": "ok",
    }
    assert statuses["empty"] in ("ok", "abstained")
    for name, text in faults.items():
        row = rows[name]
        assert text in (row["error"] if row["status"] == "failed" else row["flags"])
        if row["status"] != "ok":
            assert row["prob_pd"] == row["class"] == ""
        if row["status"] == "failed":
            assert f"{name}: {row['error']}" in str(caught.value)
    assert "4 of 8 subjects failed; mend them and add --resume True" in str(caught.value)
    assert (
        "no probability, because the NM region is missing (nm); add what" in rows["no_nm"]["flags"]
    )
    assert f"no_nm: {rows['no_nm']['flags']}" in capsys.readouterr().out
    assert rows["good"]["prob_pd"] == rows["zz_good"]["prob_pd"] != ""
    # What has no probability is left out of an evaluation, and named there.
    assert set(read_predictions(tmp_path / "out" / "predictions.csv")) == {
        name for name, status in statuses.items() if status == "ok"
    }


def test_a_missing_region_gives_a_number_when_asked_for(run, few, tmp_path):
    (few / "S0" / "NM.nii.gz").unlink()
    rows = read_rows(predict(few, tmp_path / "out", bundle=run, abstain=False))
    assert rows[0]["missing_rois"] == "nm"
    assert rows[0]["status"] == "ok"
    assert 0 < float(rows[0]["prob_pd"]) < 1
    assert "no NM image" in rows[0]["flags"]


def test_resume_repeats_what_changed_and_nothing_else(run, few, tmp_path, capsys):
    image = few / "S1" / "NM.nii.gz"
    whole = image.read_bytes()
    image.write_bytes(whole[:-200])
    with pytest.raises(FailedSubjectsError, match=r"S1: S1 NM.nii.gz: a gzip stream that stops"):
        predict(few, tmp_path / "out", bundle=run)
    inputs = json.loads((tmp_path / "out/subjects/S1/prediction.json").read_text())["inputs"]
    assert inputs["nm"] == {"path": "S1/NM.nii.gz", "sha256": None}  # as far as it is known
    assert len(inputs["qsm"]["sha256"]) == 64
    record = tmp_path / "out" / "subjects" / "S0" / "prediction.json"
    first = record.stat().st_mtime_ns

    def resumed(**options):
        capsys.readouterr()
        predict(few, tmp_path / "out", **{"bundle": run, "resume": True} | options)
        return next(line for line in capsys.readouterr().out.splitlines() if "resume" in line)

    image.write_bytes(whole)
    assert resumed() == "resume: 2 subjects are done; left: 1 failed before"
    assert record.stat().st_mtime_ns == first
    assert resumed() == "resume: 3 subjects are done; left: none"
    lacking = "resume: 0 subjects are done; left: 3 without what --report shows"
    (few / "S0" / "NM.json").write_text('{"AcquisitionDate": "1999-12-31"}')
    assert resumed(report=True, scan_date=True) == lacking
    pages = [(tmp_path / f"out/subjects/{name}/report.html").read_text() for name in ("S0", "S1")]
    assert ["1999-12-31" in page for page in pages] == [True, False]
    assert resumed(report=True) == "resume: 3 subjects are done; left: none"
    shutil.copyfile(few / "S0" / "NM.nii.gz", image)
    assert resumed() == "resume: 2 subjects are done; left: 1 with other files"
    assert (
        resumed(tta=True) == "resume: 0 subjects are done; left: 3 with other weights or settings"
    )
    rows = read_rows(tmp_path / "out" / "predictions.csv")
    assert [row["status"] for row in rows] == ["ok"] * 3
    (record.parent / "prediction.json").unlink()
    assert resumed(tta=True) == "resume: 2 subjects are done; left: 1 new"
    predict(few, tmp_path / "out", bundle=run, tta=True)  # without resume: anew
    assert record.stat().st_mtime_ns != first


def test_one_folder_serves_one_process(run, few, tmp_path, monkeypatch):
    monkeypatch.setattr("mrn_components.system.files._PATIENCE_S", 0)
    with lock(tmp_path / "out"), pytest.raises(RuntimeError, match="out is in use by process"):
        predict(few, tmp_path / "out", bundle=run)


def test_without_weights_it_says_what_to_do(run, few, tmp_path):
    remove_masks(few / "S1")
    empty = tmp_path / "bundle"
    shutil.copytree(Path(__file__).parents[2] / "bundles/segmentation/configs", empty / "configs")
    with pytest.raises(
        FailedSubjectsError, match=r"S1: there is no QSM mask, and .* has no weights"
    ):
        predict(few, tmp_path / "out", bundle=run, segmentation=str(empty))
    remove_masks(few)
    with pytest.raises(ValueError, match=r"there is no QSM mask, and .* weights for qsm .* train"):
        predict(few, tmp_path / "out", bundle=run, segmentation=str(empty))
    with pytest.raises(ValueError, match=r"no.pt is not there. Train first"):
        raise_cause(predict, few, tmp_path / "out", bundle=run, ckpt_path="no.pt")


def raise_cause(call, *arguments, **options):
    """Call, and raise what lies behind MONAI's error."""
    try:
        call(*arguments, **options)
    except RuntimeError as error:
        cause = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise ValueError(str(cause)) from error


def test_options_that_are_not_of_prediction_are_refused(run, few, tmp_path):
    with pytest.raises(ValueError, match=r"--labels: .* no such option; `mrn evaluate` scores"):
        predict(few, tmp_path / "out", bundle=run, labels="x.csv")
    with pytest.raises(ValueError, match=r"--ckpt: the config has no 'ckpt'"):
        predict(few, tmp_path / "out", bundle=run, ckpt="x")
    config = Path(run) / "configs" / "inference.json"
    other = tmp_path / "other" / "configs"
    other.mkdir(parents=True)
    content = json.loads(config.read_text())
    del content["checkpoint"]
    (other / "inference.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"inference config has no \['checkpoint'\], of which"):
        predict(few, tmp_path / "out", bundle=str(other.parent), trust_bundle=True)


def test_flags_and_errors_are_one_cell_and_no_formula(run, few, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise ValueError("=cmd()\nsecond line, with a comma")

    monkeypatch.setattr("mrn_components.app.masking.examine_subject", fail)
    with pytest.raises(FailedSubjectsError):
        predict(few, tmp_path / "out", bundle=run)
    rows = read_rows(tmp_path / "out" / "predictions.csv")
    assert len(rows) == 3
    assert rows[0]["error"].endswith("=cmd() second line, with a comma")
    assert not rows[0]["error"].startswith("=")


@pytest.mark.parametrize("masks", ["given", "made"])
def test_workers_change_nothing(masks, run, segmentation, tmp_path):
    """Read in two processes or in this one: the same rows, faulty subjects among them."""
    for number in range(5):
        make_subject(tmp_path / "few" / f"S{number}", number % 2, number)
    (tmp_path / "few" / "S1" / "NM.nii.gz").write_bytes(b"nothing")
    if masks == "made":
        remove_masks(tmp_path / "few")
    for workers in (0, 2):
        out = tmp_path / str(workers)
        with pytest.raises(FailedSubjectsError, match="1 of 5 subjects failed"):
            predict(
                tmp_path / "few", out, bundle=run, segmentation=segmentation, num_workers=workers
            )
    for name in ("predictions.csv", "biomarkers.csv"):
        assert (tmp_path / "0" / name).read_text() == (tmp_path / "2" / name).read_text()
    records = [read_record(tmp_path / number, "S2") for number in ("0", "2")]
    for record in records:
        assert list(record["timings_s"])[-1] == "total"
        record["timings_s"] = sorted(record["timings_s"])
    assert records[0] == records[1]


def test_quality_that_cannot_be_measured_costs_no_prediction(run, few, tmp_path, monkeypatch):
    def fail(*_arguments):
        raise IndexError("of the quality")

    monkeypatch.setattr("mrn_components.app.predict.pipeline.measure_quality", fail)
    out = tmp_path / "out"
    (row,) = read_rows(predict(few / "S0", out, bundle=run, report=True, occlusion=False))
    assert row["status"] == "ok"
    assert row["flags"].endswith("no quality of the images: of the quality")
    record = read_record(out, "S0")
    assert record["quality"] == {}
    assert record["biomarkers"]
    page = (out / "subjects" / "S0" / "report.html").read_text()
    assert "Contrast, noise and ghosts could not be measured." in page
    assert record["timings_s"]["draw"] > 0


def test_a_worker_that_dies_costs_its_subject_alone(run, few, tmp_path, monkeypatch):
    make_subject(tmp_path / "few" / "S3", 0, 3)

    def examine(subject, *arguments, **options):
        if subject["subject"] == "S1":
            os.kill(os.getpid(), signal.SIGKILL)
        return examine_subject(subject, *arguments, **options)

    monkeypatch.setattr("mrn_components.app.masking.examine_subject", examine)
    with pytest.raises(FailedSubjectsError, match=r"S1: the process that read its files died"):
        predict(few, tmp_path / "out", bundle=run, num_workers=2)
    rows = read_rows(tmp_path / "out" / "predictions.csv")
    assert [row["status"] for row in rows] == ["ok", "failed", "ok", "ok"]


def predict_and_note(log, data, output, options):
    """Predict, and note the images that this process and its workers read."""
    torch.set_num_threads(1)  # a fork has one
    file = log.open("a", buffering=1)

    def note(event, arguments):
        if event == "open" and str(arguments[0]).endswith(".nii.gz") and "r" in str(arguments[1]):
            file.write(f"{arguments[0]}\n")

    sys.addaudithook(note)  # for as long as the process lives
    predict(data, output, **options)


@pytest.mark.parametrize(
    "how",
    [
        ("given", 1),
        ("made", 0),
        pytest.param(("given", 0), marks=pytest.mark.slow),
        pytest.param(("made", 1), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_file_is_opened_once(how, run, segmentation, few, forks):
    masks, workers = how
    if masks == "made":
        remove_masks(few)
    for folder in ("S0", "S1"):
        shutil.copytree(few / folder, few / f"more_{folder}")
    log, out = few.parent / "opened.txt", few.parent / "out"
    options = {"bundle": run, "segmentation": segmentation, "num_workers": workers, "report": True}
    assert forks.end(forks.start(predict_and_note, log, few, out, options)) == 0
    opened = [Path(line) for line in log.read_text().splitlines()]
    inputs = sorted(path for path in opened if path.is_relative_to(few))
    assert inputs == sorted(few.glob("*/*.nii.gz"))
    assert (out / "subjects" / "S0" / "report.html").stat().st_size > 10_000


@pytest.mark.slow
def test_two_processes_share_the_subjects(run, few, tmp_path):
    (few / "S1" / "QSM.nii.gz").write_bytes(b"nothing")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    program = ["-m", "mrn_components.app.cli", "predict", str(few)]
    command = [sys.executable, "-W", "ignore", *program, str(tmp_path / "one"), "--bundle", run]
    one = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert one.returncode == 1
    assert "error: 1 of 3 subjects failed" in one.stderr
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", *program]
    command = [sys.executable, "-W", "ignore", *start, str(tmp_path / "two"), "--bundle", run]
    two = subprocess.run(command, env=environment, check=False)
    assert two.returncode == 1
    for name in ("predictions.csv", "biomarkers.csv"):
        assert (tmp_path / "one" / name).read_text() == (tmp_path / "two" / name).read_text()
    manifest = json.loads((tmp_path / "two" / "manifest.json").read_text())
    assert manifest["subjects"] == {"ok": 2, "abstained": 0, "failed": 1}


@pytest.mark.slow
def test_exit_codes_and_flags_of_the_command(run, few, tmp_path):
    (few / "S1" / "NM.nii.gz").write_bytes(b"nothing")

    def mrn(*arguments):
        command = [sys.executable, "-W", "ignore", "-m", "mrn_components.app.cli", *arguments]
        return subprocess.run(command, check=False, capture_output=True, text=True)

    done = mrn("predict", str(few), str(tmp_path / "out"), "--bundle", run)
    assert done.returncode == 1
    assert "S1: S1 NM.nii.gz: " in done.stderr
    assert "expected a NIfTI file, gzip (its name ends in .gz). Copy the file anew" in done.stderr
    assert "Traceback" not in done.stderr
    done = mrn("predict", str(tmp_path / "nowhere"), str(tmp_path / "out"), "--bundle", run)
    assert done.returncode == 2
    assert "does not exist; name a folder of subjects, one subject's folder" in done.stderr
    shutil.rmtree(few / "S1")
    done = mrn("predict", str(few), str(tmp_path / "out"), "--bundle", run, "--resume", "True")
    assert done.returncode == 0
    assert "resume: 2 subjects are done; left: none" in done.stdout


def test_the_command_prints_where_the_table_is(run, few, tmp_path, monkeypatch, capsys):
    arguments = ["mrn", "predict", str(few), str(tmp_path / "out"), "--bundle", run]
    monkeypatch.setattr(sys, "argv", [*arguments, "--precision", "fp32"])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # main replaces it
    cli.main()
    out = capsys.readouterr().out
    assert "3 subjects: a folder of subjects" in out
    assert "3 predicted, 0 abstained, 0 failed; 3 have flags (research use only)" in out
    assert out.splitlines()[-1] == f"predictions: {tmp_path / 'out' / 'predictions.csv'}"


def test_subjects_that_the_weights_were_trained_on_are_marked(run, few, tmp_path):
    from mrn_components.data import identify_subjects
    from mrn_components.data.ledger import TrainingLedger

    bundle = shutil.copytree(run, tmp_path / "trained")
    subject = {"subject": "another", "nm": few / "S1/NM.nii.gz", "qsm": few / "S1/QSM.nii.gz"}
    ledger = TrainingLedger(subjects=[subject], identities=identify_subjects([subject]))
    ledger.append_to(bundle / "models" / "model.pt")
    (few / "S0" / "NM.nii.gz").unlink()
    rows = read_rows(predict(few, tmp_path / "out", bundle=str(bundle)))
    assert [row["trained_on"] for row in rows] == ["0", "1", "0"]


def test_subjects_that_their_segmenter_was_trained_on_are_marked(run, segmentation, few, tmp_path):
    from mrn_components.data import identify_subjects
    from mrn_components.data.ledger import TrainingLedger

    bundle = shutil.copytree(segmentation, tmp_path / "trained")
    subjects = [
        {"subject": name, "nm": few / name / "NM.nii.gz", "qsm": few / name / "QSM.nii.gz"}
        for name in ("S0", "S1")
    ]
    ledger = TrainingLedger(subjects=subjects, identities=identify_subjects(subjects))
    ledger.append_to(bundle / "models" / "model_nm.pt")
    for name in ("S1", "S2"):
        (few / name / "NM_mask.nii.gz").unlink()
    rows = read_rows(predict(few, tmp_path / "out", bundle=run, segmentation=str(bundle)))
    assert [row["trained_on"] for row in rows] == ["0", "1", "0"]  # S0 brings its masks


def test_corrected_masks_in_the_output_stay_and_are_used(run, tmp_path):
    data, out = make_subject(tmp_path / "data" / "S0", 0, 0).parent, tmp_path / "out"
    (out / "subjects" / "S0").mkdir(parents=True)
    masks = {}
    drawn = make_mask("nm")
    write_nifti(data / "S0" / "NM_mask.nii.gz", (drawn > 0).astype(np.uint8))  # one label
    for name in ("NM_mask.nii.gz", "QSM_mask.nii.gz"):
        path = (data / "S0" / name).rename(out / "subjects" / "S0" / name)
        masks[path] = path.read_bytes()
    (row,) = read_rows(predict(data, out, bundle=run, masks=out, format="bids"))
    assert (row["status"], row["mask_source"]) == ("ok", "given")
    assert {path: path.read_bytes() for path in masks} == masks
    told = nibabel.load(out / "sub-S0" / "anat" / "sub-S0_desc-NM_dseg.nii.gz")
    np.testing.assert_array_equal(told.dataobj, drawn)


def test_results_are_never_written_between_the_images(run, few):
    before = sorted(few.rglob("*"))
    for source, output in ((few, few), (few / "S0", few / "S0"), (few, few / "S1")):
        with pytest.raises(ValueError, match="holds the images, and results are never"):
            predict(source, output, bundle=run)
    assert sorted(few.rglob("*")) == before


def test_stray_folders_and_names_that_differ_in_case_fail_alone(run, few, tmp_path):
    shutil.copytree(few / "S0", few / "s0")
    shutil.copytree(few / "S0", few / "case 2")
    with pytest.raises(FailedSubjectsError, match=r"the ids S0, s0; .*Rename one") as caught:
        predict(few, tmp_path / "out", bundle=run)
    told = "  case 2: an id with ' '; expected 1 to 64 letters, digits, "
    assert told in str(caught.value)
    rows = {row["subject"]: row for row in read_rows(tmp_path / "out" / "predictions.csv")}
    assert {name for name, row in rows.items() if row["status"] == "ok"} == {"S1", "S2"}
    assert rows["case 2"]["prob_pd"] == ""
    assert not (tmp_path / "out" / "subjects" / "case 2").exists()


def test_a_damaged_record_is_predicted_again_and_stops_nothing(run, few, tmp_path):
    predict(few, tmp_path / "out", bundle=run)
    whole = (tmp_path / "out" / "predictions.csv").read_bytes()
    folder = tmp_path / "out" / "subjects" / "S1"
    record = json.loads((folder / "prediction.json").read_text())
    rests = [folder, folder.parent / "S0", tmp_path / "out"]  # of killed processes
    for rest in rests:
        (rest / ".unfinished.1.prediction.json").write_text("{")
    (folder.parent / ".unfinished.2.folder").mkdir()
    others = [{"inputs": []}, {"inputs": {"nm": "x"}}, {"flags": None}, {"subject": "S2"}]
    texts = [json.dumps(record | other) for other in others]
    for damaged in ("", '{"subject": "S1"', "[]", "\xff", *texts):
        (folder / "prediction.json").write_text(damaged, encoding="latin-1")
        predict(few, tmp_path / "out", bundle=run, resume=True)
        assert (tmp_path / "out" / "predictions.csv").read_bytes() == whole
    assert [path.name for path in folder.iterdir()] == ["prediction.json"]
    assert not list((tmp_path / "out").rglob(".unfinished*"))


def test_damaged_weights_fail_the_subjects_and_name_the_cause(few, tmp_path, capsys):
    """What is no finite number is no probability: in prediction and in contributions."""
    run = make_run(tmp_path / "run", 0)
    weights = torch.load(run / "models" / "model.pt", weights_only=True)
    last = [name for name in weights if name.startswith("classifier.")][-1]
    weights[last] = torch.full_like(weights[last], float("nan"))
    torch.save(weights, run / "models" / "model.pt")
    for verb in (predict, contributions):
        out = tmp_path / verb.__name__
        with pytest.raises(
            FailedSubjectsError, match=r"3 of 3 .*\n.*S0: P\(PD\) is nan: .*damaged"
        ):
            verb(few, out, bundle=str(run))
        rows = read_rows(out / "predictions.csv")
        assert {(row["status"], row["prob_pd"], row["class"]) for row in rows} == {
            ("failed", "", "")
        }
        assert "diverged" in read_record(out, "S0")["error"]
