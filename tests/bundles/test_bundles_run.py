"""The bundles, trained and used for prediction in miniature, with regions and parts swapped."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_bundles import BUNDLES, LIGHT, SMALL, TINY, equal, train
from tiny_run import make_datalist, read_rows

from mrn_components import VolumeViT
from mrn_components.app.predict import predict
from mrn_components.data.weight_records import REFERENCES, REPRESENTATION, read_record
from mrn_components.metrics.spread import Spread

TINY_VIT = {
    "_target_": "mrn_components.VolumeViT",
    "weights": "@encoder_weights",
    "img_size": [4, 16, 16],
    "patch_size": [2, 8, 8],
    "hidden_size": 48,
    "mlp_dim": 48,
    "num_layers": 1,
    "num_heads": 2,
}


@pytest.fixture
def six(cohort, tmp_path):
    """A datalist of six subjects, with which a training of fold 0 of 2 takes seconds."""
    return make_datalist(cohort, tmp_path / "six.json", count=6)


@pytest.fixture
def two(cohort, tmp_path):
    """A datalist to predict."""
    return make_datalist(cohort, tmp_path / "two.json", count=2)


def read_curves(run):
    curves = set()
    for file in (run / "tensorboard").glob("events*"):
        curves |= set(EventAccumulator(str(file)).Reload().Tags()["scalars"])
    return curves


MINE = {
    "_target_": "mrn_components.ROI",
    "image": "@images#qsm",
    "nuclei": ["SN", "RN"],
    "size": 28,
}


PAPER = {"nm": 2, "qsm1": 5, "qsm2": 4, "qsm3": 2}
REGIONS = {  # {what: (overrides, classes of each region)}
    "paper": ({}, PAPER),
    "without qsm3": ({"rois#qsm3#_disabled_": True}, {"nm": 2, "qsm1": 5, "qsm2": 4}),
    "with a new one": ({"rois#mine": MINE}, {**PAPER, "mine": 3}),
    "nm only": ({f"rois#qsm{i}#_disabled_": True for i in (1, 2, 3)}, {"nm": 2}),
}


@pytest.mark.parametrize("bundle", TINY)
@pytest.mark.parametrize("regions", REGIONS)
def test_regions_are_swapped_by_config_alone(six, two, tmp_path, bundle, regions):
    """Crops, class counts, heads, mask channels and predictions follow the config."""
    overrides, classes = REGIONS[regions]
    run = tmp_path / "run"
    trainer = train(six, run, bundle, num_folds=2, **overrides)
    output = trainer.state.output["pred"]
    if bundle == "mrn":
        assert {roi: len(masks[0]) for roi, masks in output["masks"].items()} == classes
    else:
        stems = trainer.network.encoder.stems.items()
        assert {roi: stem[0].in_channels - 1 for roi, stem in stems} == classes
    assert output["patient"].shape[1] == 48 * len(classes)
    assert math.isfinite(trainer.state.metrics["loss"])

    rows = read_rows(predict(two, str(tmp_path / "out"), bundle=str(run), num_workers=0))
    assert [row["status"] for row in rows] == ["ok"] * 2
    assert all(0 <= float(row["prob_pd"]) <= 1 for row in rows)


@pytest.mark.parametrize(
    "part",
    ["network_def#res#ffa", "network_def#res#sfa", "network_def#res#dpt", "handlers#msupmoco"],
)
def test_parts_are_dropped_by_config_alone(six, tmp_path, part):
    dropped = {f"{part}#_disabled_": True}
    metrics = train(six, tmp_path / "run", num_folds=2, **dropped).state.metrics
    assert math.isfinite(metrics["loss"])
    assert ("contrastive" in metrics) == (part != "handlers#msupmoco")
    assert ("segmentation" in metrics) == (part != "network_def#res#dpt")


def test_seres10_without_msupmoco_is_classification_from_the_first_epoch(six, tmp_path):
    plain = {"handlers#msupmoco#_disabled_": True, "pretrain_epochs": 0}
    trainer = train(six, tmp_path / "run", "seres10", num_folds=2, **plain)
    assert "contrastive" not in trainer.state.metrics
    assert trainer.loss_function.cls_weight == 1
    curves = read_curves(tmp_path / "run")
    assert curves.isdisjoint({"contrastive", "segmentation", "lr/projector"})
    assert {"classification", "roc_auc"} <= curves


def test_the_strong_recipe_trains_on_fields_of_one_size_and_predicts(six, two, tmp_path):
    run = tmp_path / "run"
    trainer = train(six, run, overlays=["strong"], num_folds=2)
    assert len(trainer.optimizer.param_groups) > 3  # rates by layer
    crops = [item["nm"] for item in trainer.data_loader.dataset]
    assert len({crop.shape for crop in crops}) > 1  # jitter moves their sides
    row, _ = read_rows(predict(two, str(tmp_path / "out"), bundle=str(run), num_workers=0))
    assert row["status"] == "ok"
    record = json.loads(
        (tmp_path / "out" / "subjects" / row["subject"] / "prediction.json").read_text()
    )
    start, stop = (record["boxes"]["nm"][end] for end in ("start", "stop"))
    sides = [(b - a) * mm for a, b, mm in zip(start, stop, (2 / 3, 2 / 3, 2), strict=True)]
    assert sides == pytest.approx([38, 22, 22], abs=1)  # a fixed field


def test_tokens_are_pooled_over_the_nuclei_by_two_lines(six, two, tmp_path):
    run = tmp_path / "run"
    lines = {
        "network_def#res#nuclei_pool": {"_target_": "mrn_components.NucleusPool"},
        "mask_channels": {"_target_": "mrn_components.ROIMaskChannelsd", "rois": "@rois"},
    }
    output = train(six, run, num_folds=2, **lines).state.output["pred"]
    assert output["patient"].shape[1] == 4 * 2 * 48  # beside SFA's token
    assert set(output["masks"]) == set(PAPER)
    rows = read_rows(predict(two, str(tmp_path / "out"), bundle=str(run), num_workers=0))
    assert [row["status"] for row in rows] == ["ok"] * 2


@pytest.mark.parametrize("batch_size", [1, 2])  # 3 subjects: 2 leave a last batch of one
def test_seres10_trains_on_a_batch_of_one(six, tmp_path, batch_size):
    trainer = train(six, tmp_path / "run", "seres10", num_folds=2, batch_size=batch_size)
    assert len(trainer.state.output["label"]["label"]) == 1
    assert math.isfinite(trainer.state.metrics["loss"])


def test_m3d_clip_is_fine_tuned_and_predicts_without_its_first_weights(six, two, tmp_path):
    size = {key: value for key, value in TINY_VIT.items() if key not in {"_target_", "weights"}}
    first = {f"vision_encoder.{k}": v for k, v in VolumeViT(**size).vit.state_dict().items()}
    file, run = tmp_path / "M3D-CLIP.bin", tmp_path / "run"
    torch.save(first, file)
    options = {"encoder_weights": str(file), "pretrain_epochs": 0, "network_def#encoder": TINY_VIT}
    trainer = train(six, run, "seres10", ["m3d_clip"], tiny=SMALL, num_folds=2, **options)
    position = trainer.network.encoder.vit.patch_embedding.position_embeddings
    moved = position - first["vision_encoder.patch_embedding.position_embeddings"]
    assert 0 < moved.abs().max() < 1e-3  # a few steps of 1e-5 from the file's weights
    file.unlink()
    assert len(read_rows(predict(two, str(tmp_path / "out"), bundle=str(run), num_workers=0))) == 2


def test_a_run_leaves_weights_for_inference_and_curves(cohort, tmp_path):
    train(cohort, tmp_path / "run")
    models = tmp_path / "run" / "models"
    weights = torch.load(models / "model.pt", weights_only=True)
    assert not any(name.startswith("res.dpt") for name in weights)
    spread = Spread.from_record(read_record(models / "model.pt", REPRESENTATION))
    assert spread.mean.shape == (4 * 48,)
    assert spread.count == 8  # the training subjects, for two of the validation are few
    references = read_record(models / "model.pt", REFERENCES)
    assert references["rois"] == ["nm", "qsm1", "qsm2", "qsm3"]
    shapes = {name: (len(them), len(them[0])) for name, them in references["subjects"].items()}
    assert shapes == {"HC": (4, 4 * 48), "PD": (4, 4 * 48)}
    assert sorted(path.name for path in (models / "checkpoints").iterdir()) == [
        "epoch_0001.pt",
        "epoch_0001.pt.sha256",
        "epoch_0002.pt",
        "epoch_0002.pt.sha256",
    ]
    curves = read_curves(tmp_path / "run")
    losses = {"loss", "classification", "segmentation", "contrastive"}
    assert losses | {"bank_fill", "lr/features", "lr/heads"} <= curves
    assert {"roc_auc", "accuracy", "f1_macro"} <= curves


class FakeMLflow:
    """What MONAI's handler calls of MLflow, which is not installed with MONAI."""

    def __init__(self):
        self.metrics, self.run_names = {}, []
        self.entities = SimpleNamespace(
            RunStatus=SimpleNamespace(to_string=str, FINISHED="FINISHED"),
            LifecycleStage=SimpleNamespace(ACTIVE="active"),
            Param=lambda *_: None,
            Metric=lambda key, value, _time, step: (key, float(value), step),
        )
        run = SimpleNamespace(
            info=SimpleNamespace(run_id="1", run_name="tiny", status="RUNNING"),
            data=SimpleNamespace(params={}),
        )
        experiment = SimpleNamespace(experiment_id="1", lifecycle_stage="active")
        self.client = SimpleNamespace(
            tracking_uri="http://tracking",
            get_experiment_by_name=lambda _: experiment,
            search_runs=lambda _: [],
            create_run=lambda run_name, **_: self.run_names.append(run_name) or run,
            get_run=lambda _: run,
            log_batch=self.log_batch,
            set_terminated=lambda *_: None,
            log_artifact=lambda *_: None,
        )

    def MlflowClient(self, **_):  # noqa: N802  the name is MLflow's
        return self.client

    def log_batch(self, metrics, **_):
        for key, value, step in metrics:
            self.metrics.setdefault(key, {})[step] = value


def test_mlflow_tracks_a_training(six, tmp_path, monkeypatch):
    """MONAI's default settings, as ``--tracking mlflow`` gives them."""
    fake = FakeMLflow()
    monkeypatch.setattr("monai.handlers.mlflow_handler.mlflow", fake)
    options = {"tracking": "mlflow", "run_name": "tiny"}
    trainer = train(six, tmp_path / "run", num_folds=2, batch_size=2, **options)
    assert fake.run_names == ["tiny", "tiny"]  # of the trainer and of the validation
    losses = fake.metrics["train_loss"]
    assert list(losses) == [1, 2, 3, 4]
    assert losses[4] == pytest.approx(float(trainer.state.output["loss"]))
    assert {"contrastive", "classification", "lr/heads", "roc_auc"} <= fake.metrics.keys()


def test_predicting_without_weights_says_what_to_do(two, tmp_path):
    encoder = "network_def#res#encoder"
    options = {"ckpt_path": str(tmp_path / "no.pt"), encoder: TINY["mrn"][encoder]}
    with pytest.raises(RuntimeError) as caught:
        predict(two, str(tmp_path / "out"), bundle=str(BUNDLES / "mrn"), **options)
    cause = caught.value
    while cause.__cause__ is not None:
        cause = cause.__cause__
    assert "no.pt is not there. Train first" in str(cause)


def test_predicting_refuses_a_misspelt_override(cohort, tmp_path):
    with pytest.raises(ValueError, match=r"--ckpt: the config has no 'ckpt'"):
        predict(str(cohort), str(tmp_path), bundle=str(BUNDLES / "mrn"), ckpt="x")


STARTED = {  # configs, and overrides
    **{
        bundle: ([f"{bundle}/configs/train"], TINY[bundle] | {"pretrain_epochs": 2})
        for bundle in TINY
    },
    "light": (["mrn/configs/train", "mrn/configs/light"], LIGHT),
}


def start(what, cohort, root, name, *options):
    """``python -m monai.bundle run`` in miniature, as a user starts it."""
    configs, tiny = STARTED[what]
    overrides = {**tiny, "epochs": 4, "dataset_dir": cohort}
    overrides |= {"output_dir": root / name, "cache_dir": root / "cache"}
    flags = [str(part) for key, value in overrides.items() for part in (f"--{key}", value)]
    command = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run"]
    files = [str(BUNDLES / f"{config}.yaml") for config in configs]
    command += ["--config_file", str(files), *flags, *options]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=root, env=env, stdout=subprocess.DEVNULL)


@pytest.mark.slow
def test_three_processes_count_every_subject_once(cohort, tmp_path):
    """Ten subjects on three gloo processes (4, 3 and 3): the files of one process, bit for bit."""
    run = tmp_path / "run"
    train(cohort, run)
    for name in ("one", "three"):
        overlays = ["evaluate"] + ["multi_gpu_evaluate"] * (name == "three")
        configs = [
            str(run / "configs/inference.json"),
            *(f"{BUNDLES}/mrn/configs/{o}.yaml" for o in overlays),
        ]
        program = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=3"]
        command = [sys.executable, "-W", "ignore", *(program if name == "three" else [])]
        command += ["-m", "monai.bundle", "run", "--config_file", str(configs)]
        command += ["--dataset_dir", str(cohort), "--output_dir", str(tmp_path / name)]
        command += ["--num_workers", "0", "--allow_training_subjects", "True"]
        command += ["--ckpt_path", str(run / "models" / "model.pt"), "--bundle_root", str(run)]
        subprocess.run(command, check=True, cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert len(read_rows(tmp_path / "three" / "predictions.csv")) == 10
    assert "10 subjects" in (tmp_path / "three" / "metrics.txt").read_text()
    for file in ("predictions.csv", "metrics.json"):
        assert (tmp_path / "three" / file).read_text() == (tmp_path / "one" / file).read_text()


@pytest.mark.slow
@pytest.mark.parametrize("what", STARTED)
def test_a_run_killed_in_mid_epoch_goes_on_to_the_same_end(what, cohort, tmp_path):
    """SIGKILL after epoch 2, in epoch 3, which is the first with the full loss; then --resume."""
    assert start(what, cohort, tmp_path, "whole").wait() == 0
    process = start(what, cohort, tmp_path, "killed")
    second = tmp_path / "killed" / "models" / "checkpoints" / "epoch_0002.pt"
    while not second.exists():
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()

    again = start(what, cohort, tmp_path, "killed")
    assert again.wait() != 0  # the folder holds a run: nothing is overwritten
    assert start(what, cohort, tmp_path, "killed", "--resume", "True").wait() == 0
    ends = [
        torch.load(tmp_path / run / "models/checkpoints/epoch_0004.pt", weights_only=True)
        for run in ("whole", "killed")
    ]
    assert equal(*ends)
    assert ("msupmoco" in ends[0]["handlers"]) == (what != "light")
