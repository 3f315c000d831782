import copy
import pickle
from types import SimpleNamespace

import pytest
import torch
from tiny import ROIS

from mrn_components import FFA, MRN, RES, SFA, Classes, DPTHead, Score, SliceEncoder

# (FFA, SFA, DPT) beside DINOv2: the eight networks of Table 2's ten rows, two of which differ from
# others only in mSupMoCo, a handler; and Table 8's global features.
TABLE_2 = [(f, s, d) for f in (3, 0) for s in (2, 0) for d in ("local", None)] + [
    (3, 2, "global"),
    (3, 0, "global"),
]


def total(output):
    """A number that every output of the network enters."""
    parts = [output["logits"], output["patient"]]
    parts += [mask for masks in output.get("masks", {}).values() for mask in masks]
    return sum(part.square().mean() for part in parts)


def subject(images, index):
    return {roi: volumes[index : index + 1] for roi, volumes in images.items()}


@pytest.mark.parametrize(("ffa", "sfa", "dpt"), TABLE_2)
def test_every_row_of_table_2_trains_all_its_parameters(ffa, sfa, dpt, tiny_mrn, images):
    network = tiny_mrn(ffa=ffa, sfa=sfa, dpt=dpt).train()
    output = network(images)
    assert output["logits"].shape == (2, 2)
    assert output["patient"].shape == (2, network.patient_channels) == (2, 64)
    assert ("masks" in output) == (dpt is not None)
    total(output).backward()
    unused = [name for name, p in network.named_parameters() if p.grad is None]
    assert unused == []


def test_masks_have_the_input_size(tiny_mrn, images):
    masks = tiny_mrn().train()(images)["masks"]
    for roi, volumes in images.items():
        for mask, volume in zip(masks[roi], volumes, strict=True):
            assert mask.shape == (ROIS[roi].num_classes, *volume.shape[1:])


def test_masks_follow_odd_sizes(tiny_mrn):
    network = tiny_mrn(rois={"nm": ROIS["nm"]}).train()
    (mask,) = network({"nm": [torch.rand(1, 2, 50, 112)]})["masks"]["nm"]
    assert mask.shape == (2, 2, 50, 112)


def test_an_roi_without_nuclei_has_no_masks(tiny_mrn, images):
    whole = SimpleNamespace(num_classes=1)
    network = tiny_mrn(rois={"nm": whole, "qsm1": ROIS["qsm1"]}).train()
    output = network(images)
    assert [(roi, len(masks)) for roi, masks in output["masks"].items()] == [("qsm1", 2)]
    assert list(network.res.dpt.outputs) == ["qsm1"]
    total(output).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []
    network = tiny_mrn(rois=dict.fromkeys(images, whole)).train()
    assert network.res.dpt is None
    assert set(network(images)) == {"logits", "patient"}


@pytest.mark.parametrize("target", [Classes(names=["HC", "PD", "MSA"]), Score()])
def test_the_target_decides_the_outputs(target, tiny_mrn, images):
    logits = tiny_mrn(target=target)(images)["logits"]
    assert logits.shape == (2, target.num_outputs)


@pytest.mark.parametrize("training", [True, False])
def test_a_batch_of_unequal_subjects_equals_each_alone(training, tiny_mrn, images, close):
    network = tiny_mrn().train(training)
    together = network(images)
    for index in range(2):
        alone = network(subject(images, index))
        close(together["logits"][index], alone["logits"][0])
        close(together["patient"][index], alone["patient"][0])
        for roi, masks in alone.get("masks", {}).items():
            close(together["masks"][roi][index], masks[0])


def test_inference_equals_training_without_the_pruned_tokens(tiny_mrn, images, close):
    network = tiny_mrn()
    trained, inferred = network.train()(images), network.eval()(images)
    close(inferred["logits"], trained["logits"])
    close(inferred["patient"], trained["patient"])
    assert set(inferred) == {"logits", "patient"}


def test_roi_tokens_stand_in_the_order_of_the_rois(tiny_mrn, images, close):
    network = tiny_mrn().eval()
    swapped = {roi: images[roi] for roi in reversed(images)}
    close(network(swapped)["patient"], network(images)["patient"], 0)
    changed = {**images, "qsm1": [1 - volume for volume in images["qsm1"]]}
    difference = (network(changed)["patient"] - network(images)["patient"]).abs()
    assert difference[:, :32].max() < 1e-5 < difference[:, 32:].max()


def test_masked_roi_is_blank_but_keeps_its_geometry(tiny_mrn, images, close):
    network = tiny_mrn(masked_rois=["nm"]).eval()
    plain = tiny_mrn().eval()
    plain.load_state_dict(network.state_dict())
    blank = {**images, "nm": [torch.zeros_like(volume) for volume in images["nm"]]}
    close(network(images)["patient"], plain(blank)["patient"], 0)
    first, second = network(images)["patient"][:, :32]
    assert not torch.allclose(first, second)  # subjects still differ in geometry


def test_patient_encoder_is_an_independent_copy_without_heads(tiny_mrn, images, close):
    network = tiny_mrn()
    teacher = network.patient_encoder()
    assert set(teacher.train()(images)) == {"patient"}
    close(teacher(images)["patient"], network.train()(images)["patient"])
    names = dict(network.named_parameters())
    assert all(name in names for name, _ in teacher.named_parameters())
    assert not any("dpt" in name or "classifier" in name for name, _ in teacher.named_parameters())
    with torch.no_grad():
        next(teacher.parameters()).add_(1)
    assert not torch.equal(next(teacher.parameters()), next(network.parameters()))


def test_copies_and_pickles(tiny_mrn, images, close):
    network = tiny_mrn().eval()
    expected = network(images)["logits"]
    for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        close(twin(images)["logits"], expected, 0)


def test_seed_decides_the_parameters(tiny_mrn):
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(tiny_mrn().state_dict())
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_dinov3_encoder_runs(tiny_mrn, tiny_encoder, images):
    encoder = tiny_encoder(name="vit_small_patch16_dinov3.lvd1689m")
    output = tiny_mrn(encoder=encoder).train()(images)
    assert output["masks"]["nm"][1].shape == (2, 2, 25, 56)
    total(output).backward()


def test_registers_can_pass_through(tiny_mrn, tiny_encoder, images):
    total(tiny_mrn(encoder=tiny_encoder(keep_registers=True)).train()(images)).backward()


def test_checkpointing_gives_the_same_gradients(tiny_mrn, tiny_encoder, images, close):
    networks = []
    for checkpointing in (False, True):
        torch.manual_seed(1)
        encoder = tiny_encoder(drop_path_rate=0.5)
        network = tiny_mrn(encoder=encoder, res={"checkpointing": checkpointing}).train()
        torch.manual_seed(2)  # the same dropped branches, also when recomputed
        total(network(images)).backward()
        networks.append(network)
    parts = (networks[1].res.encoder.vit, networks[1].res.ffa, networks[1].res.dpt)
    assert all(part.grad_checkpointing for part in parts)
    for one, other in zip(*(network.parameters() for network in networks), strict=True):
        close(one.grad, other.grad, 1e-6)


def test_bf16_is_close_to_fp32_and_returns_fp32(tiny_mrn, images):
    network = tiny_mrn().train()
    exact = network(images)
    network.precision = "bf16"
    rough = network(images)
    assert {rough["logits"].dtype, rough["masks"]["nm"][0].dtype} == {torch.float32}
    error = (rough["patient"] - exact["patient"]).norm() / exact["patient"].norm()
    assert 1e-5 < error < 3e-2
    total(rough).backward()
    assert all(p.grad.dtype == torch.float32 for p in network.parameters())


def test_fp32_is_kept_within_a_callers_autocast(tiny_mrn, images, close):
    network = tiny_mrn().eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = network(images)["patient"]
    close(inside, network(images)["patient"], 0)


def test_auto_precision_asks_the_hardware(tiny_mrn, images, close, monkeypatch):
    network = tiny_mrn(precision="auto").eval()
    outputs = {}
    for pays in (False, True):
        monkeypatch.setattr("mrn_components.networks.precision.bf16_pays", lambda _, p=pays: p)
        outputs[pays] = network(images)["patient"]
    network.precision = "fp32"
    close(network(images)["patient"], outputs[False], 0)
    network.precision = "bf16"
    close(network(images)["patient"], outputs[True], 0)


@pytest.mark.parametrize(
    ("name", "training", "inference"),
    [
        ("vit_base_patch14_reg4_dinov2.lvd142m", 174.4, 145.7),
        ("vit_small_patch14_reg4_dinov2.lvd142m", 51.6, 36.9),
    ],
)
def test_parameter_counts_in_millions(name, training, inference):
    rois = {f"roi{classes}": SimpleNamespace(num_classes=classes) for classes in (2, 5, 4, 3)}
    with torch.device("meta"):
        res = RES(encoder=SliceEncoder(name=name), ffa=FFA(), sfa=SFA(), dpt=DPTHead())
        network = MRN(rois=rois, res=res)

    def millions(module):
        return sum(p.numel() for p in module.parameters()) / 1e6

    width = network.patient_channels
    projector = (width * width + width + width * 128 + 128) / 1e6  # of MSupMoCoHandler
    without_dpt = millions(network) - millions(network.res.dpt)
    assert without_dpt == pytest.approx(inference, rel=0.002)
    if "base" in name:
        assert millions(network) + projector == pytest.approx(training, rel=0.0005)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rois": {}}, "at least one ROI"),
        ({"masked_rois": ["qsm9"]}, r"masked_rois \['qsm9'\] are none of the ROIs"),
        ({"precision": "fp16"}, "precision must be .*got 'fp16'"),
        ({"res": None}, "either res or encoder, got both or none"),
    ],
)
def test_constructor_errors_name_the_argument(arguments, message, tiny_encoder):
    with pytest.raises(ValueError, match=message):
        MRN(**{"rois": ROIS, "res": RES(encoder=tiny_encoder()), **arguments})


def test_forward_errors_name_the_images(tiny_mrn, images):
    network = tiny_mrn()
    with pytest.raises(ValueError, match=r"images lack the ROIs \['qsm1'\]"):
        network({"nm": images["nm"]})
    with pytest.raises(ValueError, match="same subjects for every ROI"):
        network({"nm": images["nm"], "qsm1": images["qsm1"][:1]})
    with pytest.raises(ValueError, match=r"\(1, D, H, W\), got \(2, 28, 28\)"):
        network({"nm": [torch.rand(2, 28, 28)], "qsm1": [torch.rand(1, 1, 14, 14)]})
