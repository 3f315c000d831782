"""Whom a network was trained on: found by id, person and voxels, and refused in an evaluation."""

import gzip
import json
import logging
import shutil
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.bundle import ConfigWorkflow
from monai.handlers import CheckpointLoader
from stand_in import StandIn
from tiny_training import checkpoint_of, make_run

from mrn_components.data import (
    DataLeakageError,
    identify_subjects,
    load_subjects,
    split_folds,
)
from mrn_components.data.ledger import (
    TrainingLedger,
    check_training_subjects,
    find_trained_on,
    read_ledger,
    read_ledgers,
    unlike_voxels,
)

BUNDLES = Path(__file__).parent.parent.parent / "bundles"


@pytest.fixture
def copied(cohort, tmp_path):
    """The cohort, to be changed."""
    return Path(shutil.copytree(cohort, tmp_path / "data"))


def make_ledger(subjects):
    return TrainingLedger(subjects=subjects, identities=identify_subjects(subjects))


def trained_on(subjects, weights):
    return find_trained_on(subjects, read_ledgers(weights))


def save_weights(path, subjects):
    torch.save(StandIn().state_dict(), path)
    make_ledger(subjects).append_to(path)
    return path


@pytest.fixture(scope="module")
def weights(cohort, tmp_path_factory):
    """Weights that were trained on the first four of the cohort's ten subjects."""
    return save_weights(tmp_path_factory.mktemp("run") / "model.pt", load_subjects(cohort)[:4])


TRAINED = {f"SUBJ_{i:03d}" for i in range(4)}


# ---- the file


def test_the_training_subjects_are_found_and_no_others(cohort, weights):
    assert trained_on(load_subjects(cohort), weights) == TRAINED


def test_the_weights_stay_a_plain_state_dict(weights):
    expected = StandIn().state_dict().keys()
    for options in ({}, {"mmap": True}):
        state = torch.load(weights, weights_only=True, **options)
        assert state.keys() == expected
        assert all(map(torch.is_tensor, state.values()))
    with zipfile.ZipFile(weights) as archive:
        assert archive.testzip() is None


def test_monai_loads_the_weights(weights):
    network = StandIn()
    CheckpointLoader(str(weights), {"network": network}, map_location="cpu")(Engine(print))
    state = torch.load(weights, weights_only=True)
    assert all(torch.equal(state[name], value) for name, value in network.state_dict().items())


def test_no_name_stands_in_the_file_and_every_run_has_its_salt(cohort, tmp_path, weights):
    content = weights.read_bytes()
    assert b"training_subjects.json" in content
    assert b"SUBJ" not in content
    other = save_weights(tmp_path / "other.pt", load_subjects(cohort)[:4])
    (salt, hashes, *_), (other_salt, other_hashes, *_) = read_ledger(weights), read_ledger(other)
    assert salt != other_salt
    assert not hashes & other_hashes
    assert len(hashes) == len(other_hashes) == 12  # an id and two images each


def test_any_of_several_weight_files_counts(cohort, tmp_path, weights):
    other = save_weights(tmp_path / "other.pt", load_subjects(cohort)[8:])
    both = trained_on(load_subjects(cohort), [weights, str(other)])
    assert both == TRAINED | {"SUBJ_008", "SUBJ_009"}


@pytest.mark.parametrize("content", ["plain", "no archive"])
def test_weights_without_a_ledger_are_warned_of(cohort, tmp_path, caplog, content):
    path = tmp_path / "foreign.pt"
    if content == "plain":
        torch.save(StandIn().state_dict(), path)
    else:
        path.write_bytes(b"0123")
    with caplog.at_level(logging.WARNING):
        assert trained_on(load_subjects(cohort), path) == set()
    assert "foreign.pt does not say whom it was trained on" in caplog.text


# ---- under another id


def test_a_person_is_found_under_another_id(copied, weights):
    (copied / "SUBJ_002").rename(copied / "NEW")
    table = copied / "train_cases.csv"
    table.write_text(table.read_text().replace("SUBJ_002", "NEW"))
    found = trained_on(load_subjects(copied), weights)
    assert found == TRAINED - {"SUBJ_002"} | {"NEW"}


def compress_anew(path):
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), compresslevel=1))


def edit_header(path):
    image = nibabel.load(path)
    header = image.header.copy()
    header["descrip"] = b"exported again"
    affine = image.affine.copy()
    affine[:3, 3] += 5
    nibabel.save(nibabel.Nifti1Image(np.asanyarray(image.dataobj), affine, header), path)


def store_as_double(path):
    image = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image(image.get_fdata(), image.affine), path)


@pytest.mark.parametrize("change", [compress_anew, edit_header, store_as_double])
def test_one_image_in_another_file_is_enough(copied, weights, change):
    """NM is the same voxels in another file; QSM and the id are new."""
    folder = (copied / "SUBJ_002").rename(copied / "NEW")
    before = (folder / "NM.nii.gz").read_bytes()
    change(folder / "NM.nii.gz")
    assert (folder / "NM.nii.gz").read_bytes() != before
    shutil.copy(copied / "SUBJ_009" / "QSM.nii.gz", folder / "QSM.nii.gz")
    found = trained_on(load_subjects(copied, require_labels=False), weights)
    assert found == TRAINED - {"SUBJ_002"} | {"NEW"}


def test_other_voxels_or_another_shape_are_another_image(copied):
    subjects = load_subjects(copied)[:1]
    marks = identify_subjects(subjects)["SUBJ_000"]
    path = Path(subjects[0]["nm"])
    image = nibabel.load(path)
    voxels = image.get_fdata(dtype=np.float32)
    for other in (voxels.transpose(1, 0, 2).reshape(12, 24, 24), voxels + (voxels == voxels.max())):
        nibabel.save(nibabel.Nifti1Image(other, image.affine), path)
        assert len(marks - identify_subjects(subjects)["SUBJ_000"]) == 1


def test_a_person_is_found_by_name(weights, cohort):
    new = load_subjects(cohort)[9] | {"subject": "NEW", "person": "SUBJ_001"}
    assert trained_on([new], weights) == {"NEW"}


def test_hashes_are_remembered_while_a_file_is_unchanged(copied, tmp_path, monkeypatch):
    subjects = load_subjects(copied)[:2]
    first = identify_subjects(subjects, tmp_path / "cache")
    assert first == identify_subjects(subjects)
    monkeypatch.setattr("mrn_components.data.identities.read_volume", None)
    assert identify_subjects(subjects, tmp_path / "cache") == first
    monkeypatch.undo()
    edit_header(Path(subjects[0]["nm"]))
    Path(subjects[1]["nm"]).write_bytes(Path(subjects[0]["nm"]).read_bytes())
    second = identify_subjects(subjects, tmp_path / "cache")
    assert second["SUBJ_000"] == first["SUBJ_000"]
    assert len(second["SUBJ_000"] & second["SUBJ_001"]) == 1


def test_a_damaged_image_is_left_to_its_reader(copied):
    path = copied / "SUBJ_000" / "NM.nii.gz"
    path.write_bytes(path.read_bytes()[:4000])
    assert len(identify_subjects(load_subjects(copied)[:1])["SUBJ_000"]) == 3


# ---- folds


def test_folds_that_share_an_image_are_refused(copied, tmp_path):
    folds = split_folds(load_subjects(copied), path=tmp_path / "folds.json")
    one, other = folds["folds"][0][0], folds["folds"][3][0]
    shutil.copy(copied / one / "NM.nii.gz", copied / other / "NM.nii.gz")
    compress_anew(copied / other / "NM.nii.gz")
    subjects = load_subjects(copied)
    message = rf"{one} \(fold 0\) and {other} \(fold 3\): image [0-9a-f]+\nGive both .*folds\.json"
    with pytest.raises(DataLeakageError, match=message):
        split_folds(subjects, path=tmp_path / "folds.json", identities=identify_subjects(subjects))


def test_a_new_split_is_refused_before_it_is_written(copied, tmp_path):
    for number in range(1, 10):  # one scan under ten names: some fold shares it with another
        shutil.copy(copied / "SUBJ_000" / "QSM.nii.gz", copied / f"SUBJ_{number:03d}")
    subjects = load_subjects(copied)
    with pytest.raises(DataLeakageError, match=r"third column of the csv .*person\)\.$"):
        split_folds(subjects, path=tmp_path / "folds.json", identities=identify_subjects(subjects))
    assert not (tmp_path / "folds.json").exists()


def test_one_name_for_both_mends_it(copied):
    shutil.copy(copied / "SUBJ_000" / "QSM.nii.gz", copied / "SUBJ_002")
    subjects = load_subjects(copied)
    for subject in subjects:
        subject["person"] = subject["subject"].replace("SUBJ_002", "SUBJ_000")
    folds = split_folds(subjects, num_folds=4, identities=identify_subjects(subjects))
    assert any({"SUBJ_000", "SUBJ_002"} <= set(members) for members in folds["folds"])


# ---- a run


def test_every_file_of_a_run_carries_the_ledger_also_when_resumed(cohort, tmp_path):
    subjects = load_subjects(cohort)
    make_run(tmp_path, epochs=3, ledger=make_ledger(subjects[:3]))[0].run()
    salt = read_ledger(tmp_path / "model.pt").salt
    other = {"ledger": make_ledger(subjects[1:4]), "epochs": 4, "resume": True}
    with pytest.raises(ValueError, match="trained on other subjects, or"):
        make_run(tmp_path, **other)[0].run()
    make_run(tmp_path, **other, allow_changed="subjects")[0].run()
    files = ["model.pt", "model_last.pt", "checkpoints/epoch_0004.pt"]
    for name in files:
        assert trained_on(subjects, tmp_path / name) == TRAINED
        assert read_ledger(tmp_path / name)[0] == salt
    assert "network" in checkpoint_of(tmp_path, 4)


# ---- an evaluation


def test_missing_weights_are_named(cohort, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no\.pt is not there\. Train first"):
        trained_on(load_subjects(cohort), tmp_path / "no.pt")


def test_an_evaluation_on_training_subjects_is_refused_by_name(cohort, weights):
    subjects = load_subjects(cohort)
    message = r"trained on 2 of the 7 subjects.*: SUBJ_002, SUBJ_003\. Take them out"
    with pytest.raises(DataLeakageError, match=message):
        check_training_subjects(subjects=subjects[2:9], ckpt_paths=weights, evaluation=True)
    assert not check_training_subjects(subjects=subjects[4:], ckpt_paths=weights, evaluation=True)


def test_a_prediction_marks_them_and_an_allowed_evaluation_warns(cohort, weights, caplog):
    check = {"subjects": load_subjects(cohort), "ckpt_paths": weights}
    with caplog.at_level(logging.WARNING):
        assert check_training_subjects(**check, evaluation=False) == TRAINED
        assert not caplog.text
        assert check_training_subjects(**check, evaluation=True, allow=True) == TRAINED
    assert "THESE METRICS ARE TOO GOOD: these weights were trained on 4 of the 10" in caplog.text


@pytest.mark.parametrize(
    "bundle", sorted(p.parent.parent.name for p in BUNDLES.glob("*/configs/evaluate.yaml"))
)
def test_the_evaluation_of_a_bundle_refuses(cohort, weights, tmp_path, bundle):
    def evaluate(**overrides):
        configs = BUNDLES / bundle / "configs"
        workflow = ConfigWorkflow(
            [f"{configs}/inference.yaml", f"{configs}/evaluate.yaml"],
            workflow_type="infer",
            logging_file=False,
            dataset_dir=str(cohort),
            output_dir=str(tmp_path),
            ckpt_path=str(weights),
            **overrides,
        )
        return workflow.parser.get_parsed_content("trained_on")

    with pytest.raises(RuntimeError) as caught:
        evaluate()
    assert isinstance(caught.value.__cause__, DataLeakageError)
    assert "SUBJ_000, SUBJ_001, SUBJ_002, SUBJ_003" in str(caught.value.__cause__)
    assert evaluate(allow_training_subjects=True) == evaluate(require_labels=False) == TRAINED


def test_the_record_is_json_a_person_can_read(weights):
    with zipfile.ZipFile(weights) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("training_subjects.json")]
        assert archive.namelist()[0].split("/")[0] == name.split("/")[0]
        assert set(json.loads(archive.read(name))) == {"salt", "sha256", "slices_mm", "pixels_mm"}


# ---- how large the voxels were


def test_weights_tell_slices_of_another_thickness_and_coarser_pixels(cohort, weights, tmp_path):
    ledgers = read_ledgers(weights)
    assert ledgers[0].slices_mm == {"nm": [2.0, 2.0], "qsm": [2.0, 2.0]}
    assert ledgers[0].pixels_mm == {"nm": [0.6667, 0.6667], "qsm": [0.6667, 0.6667]}
    assert unlike_voxels({"nm": (2.0, 0.8), "qsm": (2.4, 0.3)}, ledgers) == []
    assert unlike_voxels({"nm": (2.0, 0.7), "r2star": (1.0, 2.0)}, ledgers) == []
    (flag,) = unlike_voxels({"nm": (1.0, 0.7), "qsm": (2.0, 0.7)}, ledgers)
    assert flag.startswith(
        "nm: its slices are 1 mm apart, those that the weights were trained on 2 mm"
    )
    (flag,) = unlike_voxels({"nm": (2.0, 2.0)}, ledgers)
    assert flag.startswith(
        "nm: its pixels are 2 mm wide, those that the weights were trained on 0.667 mm"
    )
    assert len(unlike_voxels({"nm": (3.0, 0.7), "qsm": (3.0, 1.0)}, ledgers)) == 3


def test_weights_of_earlier_versions_say_nothing_of_voxels(tmp_path):
    torch.save(StandIn().state_dict(), tmp_path / "model.pt")
    with zipfile.ZipFile(tmp_path / "model.pt", "a") as archive:
        root = archive.namelist()[0].split("/")[0]
        archive.writestr(f"{root}/training_subjects.json", '{"salt": "a", "sha256": []}')
    assert unlike_voxels({"nm": (1.0, 9.0)}, read_ledgers(tmp_path / "model.pt")) == []


@pytest.mark.parametrize(
    "record",
    [
        '{"salt": "a"}',
        "[]",
        '{"salt": "a',
        '{"salt": "a", "sha256": [], "slices_mm": {"nm": ["x", 2]}}',
    ],
)
def test_a_damaged_ledger_is_named_with_its_file(tmp_path, record):
    torch.save(StandIn().state_dict(), tmp_path / "model.pt")
    with zipfile.ZipFile(tmp_path / "model.pt", "a") as archive:
        root = archive.namelist()[0].split("/")[0]
        archive.writestr(f"{root}/training_subjects.json", record)
    with pytest.raises(ValueError, match=r"model\.pt: what it says .* damaged.*copy the weights"):
        read_ledgers(tmp_path / "model.pt")
