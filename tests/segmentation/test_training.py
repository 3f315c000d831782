"""nnU-Net trained for two steps, through the bundle; then against nnU-Net's own predictor."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from mrn_components import NNUNetTraining
from mrn_components.app.mask_makers import NucleiSegmenter
from mrn_components.data import load_subjects, split_folds
from mrn_components.data.ledger import read_ledger
from mrn_components.images.image import CHALLENGE_IMAGES
from mrn_components.images.volume import read_volume

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "bundles" / "segmentation" / "configs"
TINY = {"epochs": 2, "iterations": 2, "val_iterations": 1, "base_features": 4, "num_workers": 0}


def bundle_run(cwd, files, **overrides):
    names = [str(CONFIGS / name) if isinstance(name, str) else str(name) for name in files]
    options = [f"--{key}={value}" for key, value in overrides.items()]
    command = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run"]
    return subprocess.run(
        [*command, "--config_file", str(names), *options],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={key: value for key, value in os.environ.items() if not key.startswith("nnUNet")},
    )


@pytest.fixture(scope="module")
def run(cohort, tmp_path_factory):
    """The folder of a run that trained two folds, one after the other."""
    folder = tmp_path_factory.mktemp("run")
    for fold in (0, 1):
        done = bundle_run(
            folder,
            ["train.yaml", "small.yaml"],
            dataset_dir=cohort,
            image="nm",
            output_dir=folder / "nuclei",
            cache_dir=folder / "cache",
            folds_to_train=[fold],
            **TINY,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder / "nuclei"


@pytest.mark.slow
def test_a_run_is_a_bundle_of_tensors_that_knows_its_subjects(run):
    assert json.loads((run / "configs" / "plan_nm.json").read_text())["folds"] == 2
    state = torch.load(run / "models" / "model_nm.pt", weights_only=True)
    assert {name.split(".")[1] for name in state} == {"0", "1"}
    assert read_ledger(run / "models" / "model_nm.pt") is not None
    segment = NucleiSegmenter(str(run), "nm", device="cpu")
    for number in (0, 1):
        fold = torch.load(run / "models" / f"nm_fold{number}.pt", weights_only=True)
        ours = segment.network.folds[number].state_dict()
        assert all(torch.equal(ours[name], tensor) for name, tensor in fold.items())


@pytest.mark.slow
def test_inference_runs_from_the_run_folder(run, cohort, tmp_path):
    done = bundle_run(
        tmp_path,
        [run / "configs" / "inference.json"],
        bundle_root=run,
        dataset_dir=cohort,
        image="nm",
        output_dir=tmp_path / "masks",
        num_workers=0,
        precision="fp32",
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    segment = NucleiSegmenter(str(run), "nm", device="cpu", precision="fp32")
    for folder in sorted(cohort.glob("SUBJ_*")):
        saved = nibabel.load(tmp_path / "masks" / folder.name / "NM_mask.nii.gz")
        image = nibabel.load(folder / "NM.nii.gz")
        np.testing.assert_allclose(saved.affine, image.affine, atol=1e-5)
        np.testing.assert_array_equal(
            np.asanyarray(saved.dataobj), segment(read_volume(folder / "NM.nii.gz"))
        )


@pytest.mark.slow
def test_a_trained_fold_is_left_and_other_data_are_refused(run, cohort):
    before = (run / "models" / "nm_fold0.pt").stat().st_mtime_ns
    arguments = {"dataset_dir": cohort, "image": "nm", "output_dir": run, **TINY}
    arguments["cache_dir"] = run.parent / "cache"
    done = bundle_run(run, ["train.yaml", "small.yaml"], folds_to_train=[0], **arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (run / "models" / "nm_fold0.pt").stat().st_mtime_ns == before
    again = bundle_run(run, ["train.yaml", "small.yaml"], **arguments | {"memory_gb": 0.3})
    assert again.returncode != 0
    assert "trained on other subjects, or with other settings" in again.stderr


@pytest.mark.slow
def test_an_unfinished_fold_is_resumed(cohort, tmp_path):
    arguments = {
        "dataset_dir": cohort,
        "image": "nm",
        "output_dir": tmp_path / "run",
        "cache_dir": tmp_path / "cache",
        **TINY,
    }
    files = ["train.yaml", "small.yaml"]
    assert bundle_run(tmp_path, files, **arguments).returncode == 0
    fold = tmp_path / "run" / "models" / "nm_fold0.pt"
    fold.unlink()  # as if it had been killed before the export
    checkpoint = next((tmp_path / "run" / "nnunet").rglob("checkpoint_final.pth"))
    checkpoint.rename(checkpoint.with_name("checkpoint_latest.pth"))
    refused = bundle_run(tmp_path, files, **arguments)
    assert "holds an unfinished training; go on with --resume True" in refused.stderr
    resumed = bundle_run(tmp_path, files, resume=True, **arguments | {"epochs": 3})
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert "Epoch 2" in resumed.stdout
    assert "Epoch 1" not in resumed.stdout
    assert fold.is_file()


@pytest.mark.slow
def test_it_agrees_with_nnunets_own_predictor(run, cohort, tmp_path):
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    trained = next((run / "nnunet").rglob("fold_0")).parent
    path = cohort / "SUBJ_001" / "NM.nii.gz"
    voxels = np.asanyarray(nibabel.load(path).dataobj, np.float32).T
    properties = {"spacing": [2.0, 0.6667, 0.6667]}
    segment = NucleiSegmenter(str(run), "nm", device="cpu", precision="fp32")
    image = segment.preprocessing({"image": str(path)})["image"]

    def compare(folds, network, where, atol):
        predictor = nnUNetPredictor(
            use_mirroring=False,
            perform_everything_on_device=False,
            device=torch.device("cpu"),
            allow_tqdm=False,
        )
        predictor.initialize_from_trained_model_folder(str(trained), folds)
        _, theirs = predictor.predict_single_npy_array(voxels[None], properties, None, None, True)
        with torch.inference_mode():
            ours = segment.inferer.logits(image[None], network).softmax(dim=1)[0]
        np.testing.assert_allclose(ours.numpy()[where], theirs[where], atol=atol)

    compare((0,), segment.network.folds[0], ..., 1e-6)
    # nnU-Net rounds the sums of each fold to half precision, ours those of their mean; it shows
    # in the corners of a window, which weigh next to nothing.
    inner = (slice(None), slice(2, -2), slice(4, -4), slice(4, -4))
    compare((0, 1), segment.network, inner, 2e-3)


def test_an_unfinished_training_is_not_removed_when_the_data_change(cohort, tmp_path):
    subjects = load_subjects(cohort)
    checkpoint = tmp_path / "nnunet" / "nm" / "results" / "fold_0" / "checkpoint_latest.pth"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"days of work")
    training = NNUNetTraining(
        subjects=subjects,
        folds=split_folds(subjects, 5),
        identities={},
        image=CHALLENGE_IMAGES["nm"],
        output_dir=str(tmp_path),
        weights=str(tmp_path / "models" / "model_nm.pt"),
        device="cpu",
    )
    with pytest.raises(FileExistsError, match="trained on other subjects, or with other settings"):
        training.run()
    assert checkpoint.read_bytes() == b"days of work"
