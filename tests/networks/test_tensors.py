"""The network on plain tensors, as TorchScript, ONNX and MONAI Deploy call them."""

import re
from types import SimpleNamespace

import pytest
import torch
from monai.networks.utils import convert_to_onnx
from torch import nn

from mrn_components import MRN, RES, AttentionPool, FoldEnsemble, LoRA, SERes10, VolumeViT

ROIS = {
    "nm": SimpleNamespace(num_classes=2),
    "qsm1": SimpleNamespace(num_classes=3),
    "mid": SimpleNamespace(num_classes=1),  # no nuclei
}
SIZES = {"nm": (3, 30, 56), "qsm1": (4, 42, 56), "mid": (2, 56, 20)}  # D, H, W


NETWORKS = ["mrn", "mrn without FFA and SFA", "mrn with registers", "light", "seres10", "vit"]


@pytest.fixture(params=NETWORKS)
def network(request, tiny_mrn, tiny_encoder):
    """A network in evaluation whose classifier shows every ROI."""
    if request.param == "seres10":
        encoder = SERes10(widths=[16, 16, 16, 16])
        made = MRN(rois=ROIS, encoder=encoder)
    elif request.param == "vit":
        size = {"img_size": (8, 16, 16), "hidden_size": 24, "mlp_dim": 24, "num_layers": 1}
        encoder = VolumeViT(**size, patch_size=(4, 8, 8), num_heads=2)
        made = MRN(rois=ROIS, encoder=encoder)
    elif request.param == "mrn":
        made = tiny_mrn(rois=ROIS)
    elif request.param == "light":
        res = RES(encoder=tiny_encoder(lora=LoRA()), sfa=AttentionPool(), slice_embedding="none")
        made = MRN(rois=ROIS, res=res)
        for name, parameter in made.named_parameters():
            if "lora_b" in name or "query" in name:
                nn.init.normal_(parameter)
    elif request.param == "mrn with registers":
        made = tiny_mrn(rois=ROIS, dpt=None, encoder=tiny_encoder(keep_registers=True))
    else:
        made = tiny_mrn(rois=ROIS, ffa=0, sfa=0, res={"slice_embedding": "sincos"})
    return made.eval()


def crops(network, batch=2, depth=0):
    """A tensor of each ROI; ``depth`` adds slices."""
    channels = network.in_channels
    return {
        roi: torch.rand(batch, channels[roi], d + depth, h, w) for roi, (d, h, w) in SIZES.items()
    }


def on_tensors(network, images):
    image, *others = images.values()
    return network(image, **dict(zip(list(images)[1:], others, strict=True)))


@torch.no_grad()
@pytest.mark.parametrize("depth", [0, 70])
def test_tensors_give_the_logits_of_the_same_crops(network, depth, close):
    images = crops(network, batch=1 if depth else 2, depth=depth)
    ragged = {roi: list(tensor) for roi, tensor in images.items()}
    close(on_tensors(network, images), network(ragged)["logits"])


@torch.no_grad()
def test_a_missing_tensor_is_a_crop_of_zeros(network, close):
    images = crops(network)
    shape = list(images["nm"].shape)
    shape[1] = network.in_channels["qsm1"]
    shown = on_tensors(network, images)
    hidden = on_tensors(network, images | {"qsm1": None})
    close(hidden, on_tensors(network, images | {"qsm1": torch.zeros(shape)}), 0)
    assert (hidden - shown).abs().max() > 1e-6


@torch.no_grad()
def test_a_missing_tensor_is_a_zero_token_in_that_mode(tiny_mrn, close):
    images = crops(network := tiny_mrn(rois=ROIS, mask_mode="token").eval())
    ragged = {roi: list(tensor) for roi, tensor in images.items()}
    got = on_tensors(network, images | {"qsm1": None})
    network.masked_rois = frozenset({"qsm1"})
    close(got, network(ragged)["logits"])


@torch.no_grad()
def test_torchscript_runs_any_size(network, close, tmp_path):
    torch.jit.save(torch.jit.script(network), tmp_path / "model.ts")
    script = torch.jit.load(tmp_path / "model.ts")
    for depth in (0, 3):
        images = crops(network, batch=1, depth=depth)
        close(on_tensors(script, images), on_tensors(network, images), 1e-6)
    close(script(images["nm"]), network(images["nm"]), 1e-6)


def test_the_state_dict_knows_nothing_of_tensors(network):
    before = list(network.state_dict())
    network(crops(network)["nm"])
    assert list(network.state_dict()) == before
    assert len(list(network.on_tensors().parameters())) <= len(before)


@torch.no_grad()
def test_an_ensemble_takes_tensors(tiny_mrn, close):
    ensemble = FoldEnsemble(network=tiny_mrn(rois=ROIS), num_folds=2).eval()
    images = crops(ensemble.folds[0])
    ragged = {roi: list(tensor) for roi, tensor in images.items()}
    close(on_tensors(ensemble, images), ensemble(ragged)["logits"])


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("kind", ["mrn", "seres10"])
def test_onnx_agrees_at_three_numbers_of_slices(kind, tiny_mrn, close):
    runtime = pytest.importorskip("onnxruntime")
    names = ["image", "qsm1", "mid", "left"]
    rois = dict.fromkeys(["nm", *names[1:]], ROIS["nm"])
    network = (
        tiny_mrn(rois=rois, dpt=None)
        if kind == "mrn"
        else MRN(rois=rois, encoder=SERes10(widths=[16, 16, 16, 16]))
    ).eval()
    channels = network.in_channels["nm"]
    inputs = [torch.rand(1, channels, 5, 28, 28) for _ in names]
    onnx = convert_to_onnx(
        network.on_tensors(),
        inputs,
        input_names=names,
        use_trace=False,
        dynamic_axes={name: {2: f"slices_{name}"} for name in names},
    )
    session = runtime.InferenceSession(onnx.SerializeToString())
    for depth in (2, 5, 12):
        inputs = [torch.rand(1, channels, depth + i, 28, 28) for i in range(4)]
        named = dict(zip(names, inputs, strict=True))
        (got,) = session.run(None, {name: tensor.numpy() for name, tensor in named.items()})
        close(torch.from_numpy(got), network(**named))


@torch.no_grad()
def test_networks_of_other_regions_do_not_share_a_signature(tiny_mrn, close):
    image, other = torch.rand(1, 1, 2, 28, 28), torch.rand(1, 1, 3, 28, 42)
    for name in ("mid", "left"):
        network = tiny_mrn(rois={"nm": ROIS["nm"], name: ROIS["qsm1"]}).eval()
        close(torch.jit.script(network)(image, **{name: other}), network(image, **{name: other}))


@pytest.mark.parametrize("name", ["left-SN", "class", "image", "others", "a=1):#"])
def test_an_roi_that_no_argument_can_be_called_is_named(name, tiny_mrn):
    network = tiny_mrn(rois={"nm": ROIS["nm"], name: ROIS["qsm1"]}, dpt=None)
    with pytest.raises(ValueError, match=f"ROI '{re.escape(name)}' cannot be the name of a tensor"):
        network(torch.rand(1, 1, 2, 28, 28))


def test_a_tensor_of_no_roi_is_refused(tiny_mrn):
    network = tiny_mrn(rois={"nm": ROIS["nm"]})
    with pytest.raises(ValueError, match=r"tensors \['qsm1'\] belong to no ROI.*has \['nm'\]"):
        network(torch.rand(1, 1, 2, 28, 28), qsm1=torch.rand(1, 1, 2, 28, 28))


def test_masked_rois_and_tensors_exclude_each_other(tiny_mrn):
    network = tiny_mrn(masked_rois=["nm"])
    with pytest.raises(ValueError, match="leave out the tensor of an ROI to hide it"):
        network(torch.rand(1, 1, 2, 28, 28))


def test_a_part_that_cannot_be_exported_is_named(tiny_mrn):
    class MyFusion(nn.Module):
        num_layers = 1

    network = tiny_mrn(rois={"nm": ROIS["nm"]})
    network.res.ffa = MyFusion()
    with pytest.raises(TypeError, match=r"MyFusion has no method `on_tensors`.*add it, or give"):
        network(torch.rand(1, 1, 2, 28, 28))
