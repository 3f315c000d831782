"""The overlay ``light.yaml``: trained, resumed, predicted with and packed, without masks."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigWorkflow
from safetensors import safe_open
from tiny_bundles import BUNDLES, ENCODER, LIGHT, equal, train
from tiny_run import read_rows

from mrn_components import SliceEncoder
from mrn_components.app.contributions import contributions
from mrn_components.app.ensemble import save_ensemble
from mrn_components.app.inspect import inspect_bundle
from mrn_components.app.predict import predict
from mrn_components.bundle import RunArguments, encoder_options, run_encoder

SIZE = {key: value for key, value in ENCODER.items() if key != "_target_"} | {"init_values": 1.0}


@pytest.fixture(scope="module")
def nm(cohort, tmp_path_factory):
    """Six subjects with NM alone, and no mask."""
    return make_data(cohort, tmp_path_factory.mktemp("nm"), ["NM"])


@pytest.fixture(scope="module")
def two(cohort, tmp_path_factory):
    """Two of them."""
    return make_data(cohort, tmp_path_factory.mktemp("two"), ["NM"], count=2)


def make_data(cohort, data, images, count=6):
    for number in range(count):
        folder = data / f"SUBJ_{number:03d}"
        folder.mkdir()
        for image in images:
            shutil.copy(cohort / folder.name / f"{image}.nii.gz", folder)
    (data / "labels.csv").write_text("".join(f"SUBJ_{n:03d},{n % 2}\n" for n in range(count)))
    return data


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A file of weights, as somebody downloaded it."""
    torch.manual_seed(7)
    path = tmp_path_factory.mktemp("encoder") / "encoder.pth"
    torch.save(SliceEncoder(**SIZE).vit.state_dict(), path)
    return path


def train_light(data, run, **overrides):
    return train(data, run, overlays=["light"], tiny=LIGHT, num_folds=2, **overrides)


@pytest.fixture(scope="module")
def run(nm, encoder, tmp_path_factory):
    """A run of two epochs with a moving average, which shares what is frozen, and its config."""
    folder = tmp_path_factory.mktemp("light") / "run"
    options = {"encoder_weights": str(encoder), "keep": "teacher"}
    train_light(nm, folder, **options)
    configs = [BUNDLES / "mrn" / "configs" / f"{name}.yaml" for name in ("train", "light")]
    config = RunArguments(tuple(configs), LIGHT | options).merged()
    (folder / "configs" / "train.json").write_text(json.dumps(config))  # as save_run does
    return folder


def weights_of(run):
    return torch.load(run / "models" / "model.pt", weights_only=True)


def probabilities(table):
    rows = read_rows(table)
    assert {row["status"] for row in rows} == {"ok"}
    return [row["prob_pd"] for row in rows]


def test_subjects_without_masks_get_numbers(run, two, encoder, tmp_path):
    """From all that asks a network, once the encoder is named."""
    kept = {name for name in weights_of(run) if name.startswith("res.encoder.")}
    assert {name.split(".")[-1] for name in kept} == {"lora_a", "lora_b", "frozen_sha256"}
    assert inspect_bundle(run) == []
    named = {"bundle": str(run), "num_workers": 0, "encoder_weights": str(encoder)}
    probs = probabilities(predict(str(two), str(tmp_path / "out"), report=True, **named))
    assert len(set(probs)) == 2
    assert (tmp_path / "out" / "index.html").is_file()
    contributions(str(two), str(tmp_path / "states"), **named)
    states = read_rows(tmp_path / "states" / "states.csv")
    assert [f"{float(row['none']):.6f}" for row in states] == probs
    assert all(row["nm"] != row["none"] for row in states)  # masked

    named["bundle"] = str(save_ensemble([run, run], tmp_path / "ensemble"))
    assert probabilities(predict(str(two), str(tmp_path / "both"), **named)) == probs


def test_predicting_without_the_encoder_says_what_to_type(run, two, tmp_path):
    with pytest.raises(ValueError, match=r"of SHA-256 \w{16}, and none is named.*encoder_weights"):
        predict(str(two), str(tmp_path), bundle=str(run), num_workers=0)


def stopped(run, folder):
    """The run as it was after its first epoch."""
    shutil.copytree(run / "models", folder / "models")
    shutil.copyfile(run / "folds.json", folder / "folds.json")
    for path in (folder / "models").rglob("*.pt*"):
        if "epoch_0001" not in path.name:
            path.unlink()
    return folder


def test_a_run_that_was_stopped_goes_on_to_the_same_end(run, nm, encoder, tmp_path):
    again = stopped(run, tmp_path / "run")
    train_light(nm, again, encoder_weights=str(encoder), keep="teacher", resume=True)
    end = Path("models", "checkpoints", "epoch_0002.pt")
    ends = [torch.load(folder / end, weights_only=True) for folder in (run, again)]
    assert equal(*ends)
    assert "res.encoder.frozen_sha256" in ends[0]["network"]
    assert equal(weights_of(run), weights_of(again))


def test_a_run_does_not_go_on_with_another_encoder(run, nm, encoder, tmp_path):
    changed = torch.load(encoder)
    changed["norm.bias"][0] += 1
    torch.save(changed, tmp_path / "other.pth")
    options = {"encoder_weights": str(tmp_path / "other.pth"), "keep": "teacher", "resume": True}
    with pytest.raises(RuntimeError) as caught:
        train_light(nm, stopped(run, tmp_path / "run"), **options)
    message = "does not fit this run (the weights need the frozen encoder of SHA-256"
    assert message in str(caught.value.__cause__)


def test_packed_weights_are_merged_and_need_no_other_file(run, two, encoder, tmp_path):
    path = BUNDLES.parent / "scripts" / "pack_bundle.py"
    spec = importlib.util.spec_from_file_location("pack_bundle", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    arguments = ["mrn", "--run", str(run), "--no_proof", "--safetensors"]
    script.main([*arguments, "--output", str(tmp_path / "mrn.zip")])
    shutil.unpack_archive(tmp_path / "mrn.zip", tmp_path)
    bundle = tmp_path / "mrn"
    plain = SliceEncoder(**SIZE)
    prefix = "res.encoder."
    merged = weights_of(bundle)
    plain.load_state_dict(
        {k.removeprefix(prefix): v for k, v in merged.items() if k.startswith(prefix)}
    )
    with safe_open(bundle / "models" / "model.safetensors", "pt") as file:
        assert "training_subjects" in file.metadata()
    options = {"num_workers": 0, "precision": "fp32"}  # bf16 rounds merged weights otherwise
    own = probabilities(predict(str(two), str(tmp_path / "a"), bundle=str(bundle), **options))
    options |= {"bundle": str(run), "encoder_weights": str(encoder)}
    theirs = probabilities(predict(str(two), str(tmp_path / "b"), **options))
    assert [float(p) for p in own] == pytest.approx([float(p) for p in theirs], abs=2e-6)


def test_both_images_at_the_small_size_and_random_weights_kept_whole(cohort, tmp_path):
    """With small.yaml before it, as `mrn reproduce` orders overlays."""
    data = tmp_path / "data"
    data.mkdir()
    make_data(cohort, data, ["NM", "QSM"])
    run = tmp_path / "run"
    options = {"epochs": 1, "image_size": 28, "num_workers": 0, "rois#qsm#_disabled_": False}
    trainer = train(data, run, overlays=["small", "light"], tiny=options, num_folds=2)
    assert trainer.network.rois == ("nm", "qsm")
    trained = {name for name, p in trainer.network.named_parameters() if p.requires_grad}
    assert {name.split(".")[0] for name in trained} == {"res", "classifier"}
    assert trained < weights_of(run).keys()
    assert "contrastive" not in trainer.state.metrics
    assert "segmentation" not in trainer.state.metrics
    table = predict(str(data), str(tmp_path / "out"), bundle=str(run), num_workers=0)
    assert len(probabilities(table)) == 6


def test_what_trains_and_predicts_names_the_encoder_itself(run, encoder):
    assert run_encoder(run) == {"encoder_weights": str(encoder)}
    configs = [str(BUNDLES / "mrn" / "configs" / f"{name}.yaml") for name in ("train", "strong")]
    parser = ConfigWorkflow(configs, workflow_type="train", logging_file=False).parser
    assert parser["encoder_weights"] == "hub"
    assert encoder_options(parser.get()) == {}
