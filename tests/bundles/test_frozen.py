"""The overlay frozen.yaml: MRN trained on tokens that were computed once."""

import json
import math
import shutil

import pytest
import torch
from tiny_bundles import train
from tiny_run import make_datalist, read_rows

from mrn_components import RES
from mrn_components.app.predict import predict

OPTIONS = {
    "num_folds": 2,
    "num_views": 3,
    "network_def#res#encoder#frozen": True,  # which the tiny encoder does not say
}


@pytest.fixture(autouse=True)
def kept_tokens(tmp_path, monkeypatch):
    """One folder of tokens for the runs of a test; those in a run's folder end with the run."""
    monkeypatch.setitem(OPTIONS, "cache_dir", str(tmp_path / "cache"))


@pytest.fixture
def six(cohort, tmp_path):
    """A datalist of six subjects: three to train on, three to validate with."""
    return make_datalist(cohort, tmp_path / "six.json", count=6)


@pytest.fixture
def encoded(monkeypatch):
    """The numbers of volumes that were encoded."""
    counts, encode = [], RES.encode

    def spy(self, volumes):
        counts.append(len(volumes))
        return encode(self, volumes)

    monkeypatch.setattr(RES, "encode", spy)
    return counts


def test_it_trains_on_tokens_that_other_runs_find_and_predicts_from_crops(
    six, cohort, tmp_path, encoded
):
    run = tmp_path / "run"
    trainer = train(six, run, overlays=["frozen"], **OPTIONS)
    assert encoded == [4] * (3 * 3 + 3)  # the ROIs of each view; validation sees the crops
    assert math.isfinite(trainer.state.metrics["loss"])
    assert {group["name"] for group in trainer.optimizer.param_groups} >= {"features", "heads"}
    frozen = {id(p) for p in trainer.network.res.encoder.parameters()}
    trained = [p for group in trainer.optimizer.param_groups for p in group["params"]]
    assert not frozen & {id(parameter) for parameter in trained}

    encoded.clear()
    pool = {
        "network_def#res#nuclei_pool": {"_target_": "mrn_components.NucleusPool"},
        "mask_channels": {"_target_": "mrn_components.ROIMaskChannelsd", "rois": "@rois"},
    }
    further = {"network_def#res#ffa#_disabled_": True, "network_def#dropout": 0.1}
    train(six, tmp_path / "again", overlays=["frozen"], **OPTIONS, **further)
    assert encoded == []
    train(six, tmp_path / "pooled", overlays=["frozen"], **OPTIONS, **pool)
    assert len(encoded) == 12  # with the shares of the nuclei

    two = make_datalist(cohort, tmp_path / "two.json", count=2)
    for made in (run, tmp_path / "pooled"):
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        rows = read_rows(predict(two, str(made / "out"), bundle=str(made), num_workers=0))
        assert [row["status"] for row in rows] == ["ok"] * 2


def test_a_resumed_run_draws_the_same_views(six, tmp_path):
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    train(six, whole, overlays=["frozen"], **OPTIONS)
    checkpoints = resumed / "models" / "checkpoints"
    checkpoints.mkdir(parents=True)
    for name in ("epoch_0001.pt", "epoch_0001.pt.sha256"):
        shutil.copy(whole / "models" / "checkpoints" / name, checkpoints)
    train(six, resumed, overlays=["frozen"], resume=True, **OPTIONS)
    one, other = (
        torch.load(run / "models" / "model_last.pt", weights_only=True) for run in (whole, resumed)
    )
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_small_overlay_comes_before_it(six, tmp_path):
    own = {key: value for key, value in OPTIONS.items() if key != "network_def#res#encoder#frozen"}
    size = {"image_size": 28, "epochs": 2, "num_workers": 0}
    overlays = ["small", "frozen"]
    trainer = train(six, tmp_path / "run", overlays=overlays, tiny=size, **own)
    assert math.isfinite(trainer.state.metrics["loss"])
    config = json.loads((tmp_path / "run" / "configs" / "inference.json").read_text())
    assert config["network_def"]["res"]["encoder"]["frozen"] is True
    assert "dpt" not in config["network_def"]["res"]
    assert config["prepare_batch"]["_target_"] == "mrn_components.PrepareROIBatch"
