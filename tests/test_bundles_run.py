"""The MRN bundle, trained and used for prediction in miniature, with regions and parts swapped."""

import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigWorkflow
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mrn_components.app.predict import predict
from mrn_components.bundle import NETWORK_BLOCKS

BUNDLE = Path(__file__).parent.parent / "bundles" / "mrn"
CONFIGS = BUNDLE / "configs"
TINY = {
    "encoder_weights": "none",
    "image_size": 28,
    "epochs": 2,
    "pretrain_epochs": 1,
    "batch_size": 3,  # 8 subjects: the last batch is smaller
    "num_workers": 0,
    "network_def#res#encoder": {
        "_target_": "mrn_components.SliceEncoder",
        "name": "vit_small_patch14_reg4_dinov2.lvd142m",
        "depth": 2,
        "embed_dim": 48,
        "num_heads": 2,
    },
    "network_def#res#ffa#num_layers": 1,
    "network_def#res#sfa#num_layers": 1,
    "network_def#res#dpt#fusion_channels": 16,
}


def train(cohort, run, **overrides):
    """Train in miniature; the trainer, and the run's folder made a bundle."""
    overrides = TINY | overrides
    workflow = ConfigWorkflow(
        f"{CONFIGS}/train.yaml",
        logging_file=False,
        dataset_dir=str(cohort),
        bundle_root=str(run.parent),
        output_dir=str(run),
        **overrides,
    )
    workflow.initialize()
    workflow.run()
    return workflow.parser.get_parsed_content("train#trainer"), overrides


def write_inference(run, overrides):
    """What save_run writes in a process of its own."""
    workflow = ConfigWorkflow(f"{CONFIGS}/train.yaml", logging_file=False, **overrides)
    inference = ConfigWorkflow(f"{CONFIGS}/inference.yaml", logging_file=False)
    own = inference.parser["network_def"]
    for key in NETWORK_BLOCKS:
        inference.parser[key] = workflow.parser[key]
    inference.parser["network_def"] = own | inference.parser["network_def"]
    inference.parser["network_def#res"].pop("dpt")
    config = {k: v for k, v in inference.parser.get().items() if k != "_meta_"}
    (run / "configs").mkdir()
    (run / "configs" / "inference.json").write_text(json.dumps(config))


def predictions(path):
    with path.open() as file:
        return list(csv.DictReader(file))


MINE = {"_target_": "mrn_components.ROI", "image": "qsm", "nuclei": ["SN", "RN"], "size": 28}


@pytest.mark.parametrize(
    ("overrides", "classes"),
    [
        ({}, {"nm": 2, "qsm1": 5, "qsm2": 4, "qsm3": 2}),
        ({"rois#qsm3#_disabled_": True}, {"nm": 2, "qsm1": 5, "qsm2": 4}),
        ({"rois#mine": MINE}, {"nm": 2, "qsm1": 5, "qsm2": 4, "qsm3": 2, "mine": 3}),
        ({f"rois#qsm{i}#_disabled_": True for i in (1, 2, 3)}, {"nm": 2}),
    ],
    ids=["paper", "without qsm3", "with a new one", "nm only"],
)
def test_regions_are_swapped_by_config_alone(cohort, tmp_path, overrides, classes):
    """Crops, class counts, heads and predictions follow the config."""
    run = tmp_path / "run"
    trainer, used = train(cohort, run, **overrides)
    output = trainer.state.output["pred"]
    assert {roi: len(masks[0]) for roi, masks in output["masks"].items()} == classes
    assert output["patient"].shape[1] == 48 * len(classes)
    assert math.isfinite(trainer.state.metrics["loss"])

    write_inference(run, used)
    rows = predictions(predict(str(cohort), str(tmp_path / "out"), bundle=str(run), num_workers=0))
    assert list(rows[0]) == ["subject", "prob_pd", "class", "trained_on"]
    assert len(rows) == 10
    assert all(0 <= float(row["prob_pd"]) <= 1 for row in rows)


@pytest.mark.parametrize(
    "part",
    ["network_def#res#ffa", "network_def#res#sfa", "network_def#res#dpt", "handlers#msupmoco"],
)
def test_parts_are_dropped_by_config_alone(cohort, tmp_path, part):
    trainer, _ = train(cohort, tmp_path / "run", **{f"{part}#_disabled_": True})
    metrics = trainer.state.metrics
    assert math.isfinite(metrics["loss"])
    assert ("contrastive" in metrics) == (part != "handlers#msupmoco")
    assert ("segmentation" in metrics) == (part != "network_def#res#dpt")


def test_a_run_leaves_weights_for_inference_and_curves(cohort, tmp_path):
    train(cohort, tmp_path / "run")
    models = tmp_path / "run" / "models"
    weights = torch.load(models / "model.pt", weights_only=True)
    assert not any(name.startswith("res.dpt") for name in weights)
    assert sorted(path.name for path in (models / "checkpoints").iterdir()) == [
        "epoch_0001.pt",
        "epoch_0002.pt",
    ]
    curves = set()
    for file in (tmp_path / "run" / "tensorboard").glob("events*"):
        curves |= set(EventAccumulator(str(file)).Reload().Tags()["scalars"])
    losses = {"loss", "classification", "segmentation", "contrastive"}
    assert losses | {"bank_fill", "lr/features", "lr/heads"} <= curves
    assert {"roc_auc", "accuracy", "f1_macro"} <= curves


def test_predicting_without_weights_says_what_to_do(cohort, tmp_path):
    with pytest.raises(RuntimeError) as caught:
        predict(str(cohort), str(tmp_path), bundle=str(BUNDLE), ckpt_path=str(tmp_path / "no.pt"))
    cause = caught.value
    while cause.__cause__ is not None:
        cause = cause.__cause__
    assert "no.pt is not there. Train first" in str(cause)


def test_predicting_refuses_a_misspelt_override(cohort, tmp_path):
    with pytest.raises(ValueError, match=r"--ckpt: the config has no 'ckpt'"):
        predict(str(cohort), str(tmp_path), bundle=str(BUNDLE), ckpt="x")


def start(cohort, root, name, *options):
    """``python -m monai.bundle run`` in miniature, as a user starts it."""
    overrides = {**TINY, "epochs": 4, "pretrain_epochs": 2, "dataset_dir": cohort}
    overrides |= {"output_dir": root / name, "cache_dir": root / "cache"}
    flags = [str(part) for key, value in overrides.items() for part in (f"--{key}", value)]
    command = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run"]
    command += ["--config_file", str(CONFIGS / "train.yaml"), *flags, *options]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=root, env=env, stdout=subprocess.DEVNULL)


def equal(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    return torch.equal(one, other) if torch.is_tensor(one) else one == other


@pytest.mark.slow
def test_three_processes_count_every_subject_once(cohort, tmp_path):
    """Ten subjects on three gloo processes (4, 3 and 3): the files of one process, bit for bit."""
    run = tmp_path / "run"
    _, used = train(cohort, run)
    write_inference(run, used)
    for name in ("one", "three"):
        overlays = ["evaluate"] + ["multi_gpu_evaluate"] * (name == "three")
        configs = [str(run / "configs/inference.json"), *(f"{CONFIGS}/{o}.yaml" for o in overlays)]
        program = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=3"]
        command = [sys.executable, "-W", "ignore", *(program if name == "three" else [])]
        command += ["-m", "monai.bundle", "run", "--config_file", str(configs)]
        command += ["--dataset_dir", str(cohort), "--output_dir", str(tmp_path / name)]
        command += ["--num_workers", "0", "--allow_training_subjects", "True"]
        command += ["--ckpt_path", str(run / "models" / "model.pt"), "--bundle_root", str(run)]
        subprocess.run(command, check=True, cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert len(predictions(tmp_path / "three" / "predictions.csv")) == 10
    assert "10 subjects" in (tmp_path / "three" / "metrics.txt").read_text()
    for file in ("predictions.csv", "metrics.json"):
        assert (tmp_path / "three" / file).read_text() == (tmp_path / "one" / file).read_text()


@pytest.mark.slow
def test_a_run_killed_in_mid_epoch_goes_on_to_the_same_end(cohort, tmp_path):
    """SIGKILL after epoch 2, in epoch 3, which is the first with the full loss; then --resume."""
    assert start(cohort, tmp_path, "whole").wait() == 0
    process = start(cohort, tmp_path, "killed")
    second = tmp_path / "killed" / "models" / "checkpoints" / "epoch_0002.pt"
    while not second.exists():
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()

    again = start(cohort, tmp_path, "killed")
    assert again.wait() != 0  # the folder holds a run: nothing is overwritten
    assert start(cohort, tmp_path, "killed", "--resume", "True").wait() == 0
    ends = [
        torch.load(tmp_path / run / "models/checkpoints/epoch_0004.pt", weights_only=True)
        for run in ("whole", "killed")
    ]
    assert equal(*ends)
    assert {"msupmoco"} <= ends[0]["handlers"].keys()
