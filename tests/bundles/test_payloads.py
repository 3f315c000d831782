"""A file of weights that carries code: every way in which we read one refuses it."""

import contextlib
import copy
import os
import pickle
from types import SimpleNamespace

import pytest
import torch
from attacks import foreign_bundle, poison
from tiny_run import make_datalist, make_run
from tiny_segmentation import make_plan, make_segmentation_bundle
from tiny_training import make_run as make_training

from mrn_components import FoldCheckpointLoader, NucleiUNet, SliceEncoder, VolumeViT
from mrn_components.app.inspect import inspect_bundle
from mrn_components.app.mask_makers import NucleiSegmenter
from mrn_components.app.predict import predict
from mrn_components.data.dataset import ROIDataset
from mrn_components.segmentation.plan import read_plan
from mrn_components.segmentation.training import _Adapted
from mrn_components.system.errors import DamagedFileError, UntrustedBundleError


@pytest.fixture
def trace(tmp_path):
    path = tmp_path / "trace"
    yield path
    assert not path.exists()


def test_the_payload_is_one(tmp_path):
    torch.load(poison(tmp_path / "w.pt", tmp_path / "run"), weights_only=False)
    assert (tmp_path / "run").exists()


def test_in_the_weights_of_a_bundle(cohort, tmp_path, trace):
    run = make_run(tmp_path / "run", seed=0)
    assert inspect_bundle(run) == []
    poison(run / "models" / "model.pt", trace)
    assert [str(problem) for problem in inspect_bundle(run)] == [
        f"models/model.pt: it would run {os.system.__module__}.system"
    ]
    data = make_datalist(cohort, tmp_path / "data.json", count=1)
    with pytest.raises(UntrustedBundleError, match=r"it would run posix\.system"):
        predict(data, str(tmp_path / "out"), bundle=str(run))
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):  # torch's own
        predict(data, str(tmp_path / "out"), bundle=str(run), trust_bundle=True)


def test_in_a_fold_of_an_ensemble(tmp_path, trace):
    path = poison(tmp_path / "w.pt", trace)
    fold = torch.nn.Linear(1, 1)
    loader = FoldCheckpointLoader(network=SimpleNamespace(folds=[fold]), paths=path)
    with pytest.raises(Exception, match=r"(?i)weights_only|weights only"):
        loader.loaders[0](SimpleNamespace(state=SimpleNamespace(max_epochs=1)))


def test_in_a_checkpoint_to_resume(tmp_path, trace):
    make_training(tmp_path, epochs=1)[0].run()
    for path in tmp_path.rglob("epoch_*.pt"):
        poison(path, trace)
    with pytest.raises(DamagedFileError, match="none of the checkpoints in"):
        make_training(tmp_path, epochs=2, resume=True)[0].run()


def test_in_the_weights_of_an_encoder(tmp_path, trace):
    path = poison(tmp_path / "w.pth", trace)
    with pytest.raises(RuntimeError, match="no checkpoint of tensors"):
        SliceEncoder(name="vit_small_patch14_reg4_dinov2.lvd142m", weights=path, depth=1)
    with pytest.raises(RuntimeError, match="no checkpoint of tensors"):
        VolumeViT(weights=path, hidden_size=12, mlp_dim=12, num_layers=1, num_heads=1)


def test_in_the_cache(tmp_path, trace):
    data = [{"subject": "S0", "label": 0}]
    dataset = ROIDataset(data=data, transform=[copy.deepcopy], cache_dir=tmp_path / "cache")
    assert dataset[0] == data[0]
    (entry,) = (tmp_path / "cache").glob("*.pt")
    poison(entry, trace)
    with contextlib.suppress(Exception):  # made anew or refused
        dataset[0]


def test_in_the_weights_of_a_segmenter(tmp_path, trace):
    bundle = make_segmentation_bundle(tmp_path / "bundle")
    poison(bundle / "models" / "model.pt", trace)
    with pytest.raises(UntrustedBundleError, match=r"models/model.pt: it would run posix.system"):
        NucleiSegmenter(str(bundle), "qsm")
    with pytest.raises(Exception, match=r"(?i)weights_only|weights only"):
        NucleiSegmenter(str(bundle), "qsm", trust_bundle=True)


def test_in_a_checkpoint_of_nnunet(tmp_path, trace):
    path = poison(tmp_path / "checkpoint_latest.pth", trace)
    with pytest.raises(ValueError, match=r"would run posix.system; a checkpoint of nnU-Net's own"):
        _Adapted().load_checkpoint(path)


def test_numbers_of_numpy_in_a_checkpoint_of_nnunet_are_no_code(tmp_path):
    class Trainer:
        def load_checkpoint(self, filename):
            self.read = torch.load(filename, weights_only=False)

    torch.save({"logging": [torch.ones(1).numpy()[0]], "t": torch.ones(1)}, tmp_path / "c.pth")
    trainer = type("T", (_Adapted, Trainer), {})()
    trainer.load_checkpoint(str(tmp_path / "c.pth"))
    assert trainer.read["logging"] == [1.0]


@pytest.mark.parametrize(
    "change",
    [
        lambda plan: plan["architecture"].update(network_class_name="subprocess.Popen"),
        lambda plan: plan["architecture"]["arch_kwargs"].update(conv_op="os.system"),
        lambda plan: plan["normalization"].update(scheme="np"),
    ],
)
def test_in_a_plan(change):
    plan = make_plan()
    assert read_plan(plan) is plan
    change(plan)
    with pytest.raises(ValueError, match="which nnU-Net would import and run"):
        NucleiUNet(plan=plan)


def test_in_a_bundle_beside_others(tmp_path, trace):
    bundle = foreign_bundle(tmp_path / "b")
    (bundle / "models").mkdir()
    poison(bundle / "models" / "other.ckpt", trace)
    assert [problem.file for problem in inspect_bundle(bundle)] == ["models/other.ckpt"]
