"""A study as QSMxT leaves it: QSM in ppm among the derivatives, raw NM slabs, several sessions."""

import inspect
import json
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nibabel.processing import resample_from_to
from nibabel.spaces import vox2out_vox
from tiny_cohort import read_biomarkers
from tiny_run import make_run, read_rows

from mrn_components.app.biomarkers import measure_subjects
from mrn_components.app.check import check
from mrn_components.app.cli import COMMANDS
from mrn_components.app.predict import predict
from mrn_components.app.predict.bids_output import (
    bids_names,
    clear_derivatives,
    clear_others,
    describe_columns,
)
from mrn_components.data import load_subjects, split_folds
from mrn_components.data.target import Classes, Score
from mrn_components.images.image import CHALLENGE_IMAGES
from mrn_components.phantom import make_subject
from mrn_components.segmentation.dataset import DATASET, write_dataset
from mrn_components.system.errors import FailedSubjectsError
from mrn_components.system.hashes import file_hash

COLUMNS = ["subject", "status", "class", "fold_agreement", "fold_std", "tta_std", "trained_on"]
COLUMNS += ["mask_source", "missing_rois", "flags", "error", "label", "session_id", "run"]
SCANS = [("sub-01", "ses-1"), ("sub-01", "ses-2"), ("sub-02", "ses-1"), ("sub-03", "ses-1")]
SCANS += [("sub-04", "ses-1")]
NAMES = {"NM": "acq-NM_MTw", "NM_mask": "acq-NM_dseg", "QSM": "Chimap", "QSM_mask": "desc-QSM_dseg"}
QSMXT = "derivatives/qsmxt-9.0.0"


def slab(image, degrees=20):
    """A grid of thick slices over an image, tilted as SN slabs are."""
    angle = np.deg2rad(degrees)
    turn = np.array(
        [
            [1, 0, 0],
            [0, np.cos(angle), -np.sin(angle)],
            [0, np.sin(angle), np.cos(angle)],
        ]
    )
    size = np.array([110, 110, 20])
    affine = np.eye(4)
    affine[:3, :3] = turn * [0.6, 0.6, 2.5]
    centre = image.affine @ [*(np.array(image.shape) / 2), 1]
    affine[:3, 3] = centre[:3] - affine[:3, :3] @ (size / 2)
    return tuple(size), affine


def volumes_of(number):
    """The challenge's four volumes of a phantom: QSM in RAS at 1 mm in ppm, NM on its slab."""
    phantom = make_subject(number, view="midbrain")
    images = {
        name: nibabel.Nifti1Image(voxels.astype(np.float32), phantom.affine)
        for name, voxels in phantom.volumes.items()
    }
    qsm_grid = vox2out_vox(images["QSM"], (1.0, 1.0, 1.0))
    made = {}
    for name, image in images.items():
        grid = qsm_grid if "QSM" in name else slab(image)
        order = 0 if name.endswith("_mask") else 1
        made[name] = resample_from_to(image, grid, order=order)
    ppm = made["QSM"].get_fdata(dtype=np.float32) / np.float32(1000)
    made["QSM"] = nibabel.Nifti1Image(ppm, made["QSM"].affine)
    return made


def save(image, path, dtype=np.float32, factor=1.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.asarray(image.get_fdata(dtype=np.float32) * factor, dtype)
    nibabel.save(nibabel.Nifti1Image(voxels, image.affine), path)


def read_tsv(path):
    header, *lines = (line.split("\t") for line in path.read_text().splitlines())
    return [dict(zip(header, line, strict=True)) for line in lines]


def compare_biomarkers(*folders):
    ours, theirs = map(read_biomarkers, folders)
    assert ours.keys() == theirs.keys()
    for subject, values in ours.items():  # 1000 times a float has more digits than a float
        assert values == pytest.approx(theirs[subject], rel=1e-4), subject


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The same scans as BIDS and as challenge folders, and a tiny run."""
    root = tmp_path_factory.mktemp("study")
    # The nuclei of phantom 0 lie apart enough for a look at its alignment, which takes seconds.
    for number, (person, session) in zip((0, 5, 2, 3, 4), SCANS, strict=True):
        made, stem = volumes_of(number), f"{person}_{session}"
        raw = root / "bids" / person / session / "anat"
        derived = root / "bids" / QSMXT / person / session / "anat"
        save(made["NM"], raw / f"{stem}_acq-NM_MTw.nii.gz")
        save(made["NM_mask"], raw / f"{stem}_acq-NM_dseg.nii.gz", np.uint8)
        save(made["NM"], raw / f"{stem}_T1w.nii.gz")
        save(made["QSM"], derived / f"{stem}_Chimap.nii.gz")
        save(made["QSM_mask"], derived / f"{stem}_desc-QSM_dseg.nii.gz", np.uint8)
        save(made["QSM_mask"], derived / f"{stem}_dseg.nii.gz", np.uint8, 2)  # of other tissues
        for part in ("desc-paramagnetic", "desc-diamagnetic"):
            save(made["QSM"], derived / f"{stem}_{part}_Chimap.nii.gz")
        folder = root / "challenge" / stem
        save(made["NM"], folder / "NM.nii.gz")
        save(made["QSM"], folder / "QSM.nii.gz", factor=1000.0)
        for name in ("NM_mask", "QSM_mask"):
            save(made[name], folder / f"{name}.nii.gz", np.uint8)
    (root / "bids" / "labels.csv").write_text("sub-01,1\nsub-02,0\nsub-03,1\nsub-04,0\n")
    make_run(root / "run", 0)
    return root


@pytest.fixture(scope="module")
def predicted(study):
    """The prediction of the BIDS study, made BIDS again, and what was printed."""
    with redirect_stdout(StringIO()) as printed:
        predict(study / "bids", study / "out", bundle=str(study / "run"), format="bids")
    return study / "out", printed.getvalue()


def test_a_study_of_qsmxt_is_predicted_as_in_the_challenges_layout(study, predicted, tmp_path):
    out, printed = predicted
    assert "QSM times 1000" in printed
    theirs = predict(study / "challenge", tmp_path / "challenge", bundle=str(study / "run"))
    rows = read_rows(out / "predictions.csv")
    for row in rows:  # the flags name the files
        for name, ending in NAMES.items():
            row["flags"] = row["flags"].replace(f"{row['subject']}_{ending}", name)
    assert rows == read_rows(theirs)
    assert [row["subject"] for row in rows] == [f"{p}_{s}" for p, s in SCANS]
    assert {row["status"] for row in rows} == {"ok"}
    assert len({row["prob_pd"] for row in rows}) == len(SCANS)
    compare_biomarkers(out, tmp_path / "challenge")
    record = json.loads((out / "subjects/sub-01_ses-1/prediction.json").read_text())
    assert record["inputs"]["qsm"]["factor"] == 1000.0
    assert "factor" not in record["inputs"]["nm"]


def validate(folder):
    """What the official validator finds: {severity: [code and place]}."""
    pytest.importorskip("bids_validator_deno")
    program = Path(sys.executable).with_name("bids-validator-deno")
    done = subprocess.run(
        [program, "--format", "json", folder], capture_output=True, text=True, check=False
    )
    issues = json.loads(done.stdout)["issues"]["issues"]
    assert (done.returncode == 0) == all(one["severity"] != "error" for one in issues)
    return {
        kind: [f"{one['code']} {one['location']}" for one in issues if one["severity"] == kind]
        for kind in ("error", "warning")
    }


def test_the_output_is_a_bids_data_set(study, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(study / "bids", tmp_path / "bids")
    damaged = tmp_path / "bids" / "sub-04" / "ses-1" / "anat" / "sub-04_ses-1_acq-NM_MTw.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    with pytest.raises(FailedSubjectsError, match="sub-04_ses-1: "):
        predict(tmp_path / "bids", out, bundle=str(study / "run"), format="bids", align="off")
    assert validate(out)["error"] == []
    description = json.loads((out / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert description["GeneratedBy"][0]["Name"] == "mrn-components"
    rows = {row["subject"]: row for row in read_rows(out / "predictions.csv")}
    for visit, people in (("session1", 4), ("session2", 1)):
        for table in ("predictions", "biomarkers"):
            path = out / "phenotype" / f"{table}_{visit}.tsv"
            lines = read_tsv(path)
            first, *columns = lines[0]
            assert first == "participant_id"
            assert len(lines) == people
            about = json.loads(path.with_suffix(".json").read_text())
            assert set(columns) == about.keys() - {"MeasurementToolMetadata"}
            assert all(about[column]["Description"] for column in columns)
            for line in lines:
                assert line["subject"] == f"{line['participant_id']}_{line['session_id']}"
                if table == "predictions":
                    assert line["prob_pd"] == (rows[line["subject"]]["prob_pd"] or "n/a")
    about = json.loads((out / "phenotype" / "predictions_session1.json").read_text())
    assert about["class"]["Levels"] == {"0": "HC", "1": "PD"}
    about = json.loads((out / "phenotype" / "biomarkers_session1.json").read_text())
    assert about["qsm_mean_ppb_SN_left"]["Units"] == "ppb"


def test_masks_are_label_maps_with_tables_and_serve_as_masks(study, predicted, tmp_path):
    out, _ = predicted
    anat = out / "sub-01" / "ses-2" / "anat"
    for name, image in CHALLENGE_IMAGES.items():
        stem = f"sub-01_ses-2_desc-{name.upper()}_dseg"
        ours = nibabel.load(anat / f"{stem}.nii.gz")
        theirs = nibabel.load(study / "challenge" / "sub-01_ses-2" / f"{image.mask}.nii.gz")
        np.testing.assert_array_equal(ours.get_fdata(), theirs.get_fdata())
        np.testing.assert_allclose(ours.affine, theirs.affine, atol=1e-6)
        about = json.loads((anat / f"{stem}.json").read_text())
        assert about["SHA256"] == file_hash(anat / f"{stem}.nii.gz")
        header, *lines = (anat / f"{stem}.tsv").read_text().splitlines()
        assert header == "index\tname\tabbreviation"
        assert [int(line.split("\t")[0]) for line in lines] == [0, *sorted(image.ids)]
    assert "12\tleft SN\tSNL" in (anat / f"{stem}.tsv").read_text().splitlines()
    options = {"bundle": str(study / "run"), "masks": out, "align": "off"}
    again = predict(study / "bids", tmp_path / "again", **options)
    prob_pd = [[row["prob_pd"] for row in read_rows(path)] for path in (again, out / again.name)]
    assert prob_pd[0] == prob_pd[1]


def test_other_ids_become_names_of_bids(study, tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    for name in ("A_1", "B.2-x"):
        shutil.copytree(study / "challenge" / "sub-02_ses-1", data / name)
    run = str(study / "run")
    predict(data, out, bundle=run, format="bids")
    people = (out / "participants.tsv").read_text().splitlines()
    assert people == ["participant_id", "sub-A1", "sub-B2x"]
    (row,) = [r for r in read_tsv(out / "phenotype/predictions.tsv") if r["subject"] == "B.2-x"]
    assert row["participant_id"] == "sub-B2x"
    assert (out / "sub-A1" / "anat" / "sub-A1_desc-NM_dseg.nii.gz").is_file()
    assert validate(out)["error"] == []
    shutil.copytree(data / "A_1", data / "a1")
    with pytest.raises(ValueError, match="the ids 'A_1' and 'a1' would both be 'sub-a1'"):
        predict(data, tmp_path / "other", bundle=run, format="bids")
    with pytest.raises(ValueError, match=r"format must be one of .'bids', 'tables'., got 'tsv'"):
        predict(data, tmp_path / "other", bundle=run, format="tsv")


def test_nothing_stays_of_subjects_that_have_left(tmp_path):
    """But masks that somebody corrected, masks that are given now, and what is not ours."""
    masks = {}
    for place in ("sub-01/ses-1", "sub-01/ses-2", "sub-02", "sub-03", "sub-04"):
        stem = f"{place.replace('/', '_')}_desc-NM_dseg"
        masks[place] = mask = tmp_path / place / "anat" / f"{stem}.nii.gz"
        mask.parent.mkdir(parents=True)
        mask.write_bytes(place.encode())
        mask.with_name(f"{stem}.tsv").touch()
        mask.with_name(f"{stem}.json").write_text(json.dumps({"SHA256": file_hash(mask)}))
    masks["sub-03"].write_bytes(b"corrected")
    (tmp_path / "sub-02" / "notes.txt").touch()
    tables = tmp_path / "phenotype"
    tables.mkdir()
    for name in ("predictions_session2.tsv", "biomarkers.json", "predictions_mine.tsv"):
        (tables / name).touch()
    now = [{"subject": "sub-01_ses-1"}, {"subject": "A", "mask_nm": str(masks["sub-04"])}]
    clear_others(tmp_path, bids_names(now), now)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.nii.gz")}
    kept = ("sub-01/ses-1", "sub-03", "sub-04")
    assert left == {str(masks[place].relative_to(tmp_path)) for place in kept}
    assert [path.name for path in tables.iterdir()] == ["predictions_mine.tsv"]
    assert not (tmp_path / "sub-01" / "ses-2").exists()
    assert [path.name for path in (tmp_path / "sub-02").iterdir()] == ["notes.txt"]
    assert len(list(tmp_path.rglob("*_dseg.*"))) == 3 * len(kept)


def test_masks_that_were_given_are_never_cleared(tmp_path):
    anat = tmp_path / "sub-01" / "ses-1" / "anat"
    anat.mkdir(parents=True)
    given, made = (anat / f"sub-01_ses-1_desc-{name}_dseg.nii.gz" for name in ("NM", "QSM"))
    for path in (given, made, anat / made.name.replace(".nii.gz", ".json")):
        path.touch()
    subject = {"subject": "sub-01_ses-1", "mask_nm": str(given)}
    clear_derivatives(tmp_path, subject, CHALLENGE_IMAGES.values())
    assert [*anat.iterdir()] == [given]


def test_every_column_has_a_description():
    folds = [f"prob_{name}_fold{fold}" for name in ("hc", "pd", "msa") for fold in (0, 1)]
    columns = [*COLUMNS, "prob_hc", "prob_pd", "prob_msa", *folds]
    classes = Classes(names=["HC", "PD", "MSA"], positive="PD")
    about = describe_columns(columns, classes, CHALLENGE_IMAGES)
    assert list(about) == columns
    assert about["class"]["Levels"] == {"HC": "HC", "PD": "PD", "MSA": "MSA"}
    assert about["prob_msa_fold1"]["Description"].endswith("Of the network of fold 1.")
    score = Score(name="updrs", unit="points", range=[0, 60])
    about = describe_columns(["updrs", "updrs_fold3", "fold_std"], score, CHALLENGE_IMAGES)
    assert {one["Units"] for one in about.values()} == {"points"}


def test_every_verb_reads_ppm(study, tmp_path):
    findings = {found.id for found in check(study / "bids", workers=1).findings}
    assert not findings & {"qsm-unit", "qsm-sign", "modality", "several-files"}
    for kind in ("bids", "challenge"):
        measure_subjects(study / kind, tmp_path / kind)
    compare_biomarkers(tmp_path / "bids", tmp_path / "challenge")


def test_training_and_nnunet_read_ppm(study, tmp_path, rois):
    subjects = load_subjects(study / "bids", rois=rois)
    assert [subject["factor_qsm"] for subject in subjects] == [1000.0] * len(SCANS)
    folds = split_folds(subjects, 2)
    sides = [{name.split("_")[0] for name in members} for members in folds["folds"]]
    assert not sides[0] & sides[1]  # no person is split
    write_dataset(subjects, folds, CHALLENGE_IMAGES["qsm"], tmp_path)
    made = nibabel.load(tmp_path / DATASET / "imagesTr" / "sub-01_ses-1_0000.nii.gz")
    assert 50 < np.percentile(np.abs(made.get_fdata()), 99) < 1000  # ppb


def test_ppb_in_a_chimap_is_refused_with_what_to_do(study, tmp_path):
    shutil.copytree(study / "bids" / "sub-03", tmp_path / "sub-03")
    anat = tmp_path / "sub-03" / "ses-1" / "anat"
    shutil.copy(study / "challenge" / "sub-03_ses-1" / "QSM.nii.gz", anat / "sub-03_Chimap.nii.gz")
    (fault,) = [found for found in check(tmp_path, workers=1).findings if found.id == "qsm-unit"]
    assert "after 1000 times the file's" in fault.found
    assert 'write {"Units": "ppb"} into its JSON file' in fault.fix
    sidecar = anat / "sub-03_Chimap.json"
    sidecar.write_text('{"Units": "ppb"}')
    assert "qsm-unit" not in {found.id for found in check(tmp_path, workers=1).findings}
    for text, found in (('{"Units": "Hz"}', "the unit 'Hz'"), ("{", "is no JSON object")):
        sidecar.write_text(text)
        (fault,) = [one for one in check(tmp_path, workers=1).findings if one.id == "file-unit"]
        assert found in fault.found
        assert fault.expected == "ppb or ppm"


VERBS = [
    "predict",
    "check",
    "segment",
    "biomarkers",
    "contributions",
    "challenge",
    "evaluate_masks",
    "baseline",
]


@pytest.mark.parametrize("verb", VERBS)
def test_a_filter_chooses_a_pipeline(verb):
    """Its options are there; that they choose is a matter of the one finder."""
    module, _, name = COMMANDS[verb][0].partition(":")
    function = getattr(import_module(f"mrn_components.{module}"), name)
    assert {"nm_filter", "qsm_filter"} <= inspect.signature(function).parameters.keys()


def test_resume_sees_another_unit(study, tmp_path, capsys):
    data = tmp_path / "bids"
    shutil.copytree(
        study / "bids", data, ignore=shutil.ignore_patterns("sub-02", "sub-03", "sub-04")
    )
    options = {"bundle": str(study / "run"), "align": "off"}
    predict(data, tmp_path / "out", **options)
    (data / QSMXT / "Chimap.json").write_text('{"Units": "ppb"}')
    with pytest.raises(FailedSubjectsError, match="as in ppm"):
        predict(data, tmp_path / "out", **options, resume=True)
    assert "2 with other files" in capsys.readouterr().out
