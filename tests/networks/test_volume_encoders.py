"""MRN with an encoder of volumes in place of RES: the paper's baselines (section 4.2)."""

import pytest
import torch
from tiny import ROIS

from mrn_components import MRN, SERes10, VolumeViT

VIT = {"img_size": (4, 16, 16), "patch_size": (2, 8, 8), "hidden_size": 16, "mlp_dim": 32}
ENCODERS = {
    "seres10": lambda: SERes10(widths=(16, 16, 16, 24), stem_stride=(1, 1, 1)),
    "volume_vit": lambda: VolumeViT(**VIT, num_layers=2, num_heads=2),
}
both = pytest.mark.parametrize("encoder", ENCODERS)


def classifier(encoder="seres10", **args):
    return MRN(**{"rois": ROIS, "dropout": 0.0, **args}, encoder=ENCODERS[encoder]())


@pytest.fixture
def crops():
    """Two subjects of unequal geometry, image and mask channels."""
    shapes = {"nm": [(3, 28, 56), (2, 25, 56)], "qsm1": [(4, 56, 42), (1, 56, 56)]}
    return {
        roi: [torch.rand(1 + ROIS[roi].num_classes, *shape) for shape in shapes[roi]]
        for roi in ROIS
    }


def subject(images, index):
    return {roi: volumes[index : index + 1] for roi, volumes in images.items()}


@both
@pytest.mark.parametrize("subjects", [1, 2])
def test_trains_all_its_parameters_also_on_one_subject(encoder, subjects, crops):
    network = classifier(encoder).train()
    images = {roi: volumes[:subjects] for roi, volumes in crops.items()}
    output = network(images)
    assert set(output) == {"logits", "patient"}
    assert output["logits"].shape == (subjects, 2)
    assert output["patient"].shape == (subjects, network.patient_channels)
    sum(value.square().mean() for value in output.values()).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


@both
def test_a_batch_of_unequal_subjects_equals_each_alone(encoder, crops, close):
    network = classifier(encoder)
    network.train()(crops)  # statistics other than the initial ones
    network.eval()
    together = network(crops)
    for index in range(2):
        alone = network(subject(crops, index))
        close(together["logits"][index], alone["logits"][0])
        close(together["patient"][index], alone["patient"][0])


@both
def test_features_stand_in_the_order_of_the_rois(encoder, crops, close):
    network = classifier(encoder).eval()
    width = network.encoder.channels
    swapped = {roi: crops[roi] for roi in reversed(crops)}
    close(network(swapped)["patient"], network(crops)["patient"], 0)
    changed = {**crops, "qsm1": [1 - volume for volume in crops["qsm1"]]}
    difference = (network(changed)["patient"] - network(crops)["patient"]).abs()
    assert difference[:, :width].max() < 1e-5 < difference[:, width:].max()


def test_masked_roi_is_blank_in_all_channels(crops, close):
    network = classifier(masked_rois=["nm"]).eval()
    plain = classifier().eval()
    plain.load_state_dict(network.state_dict())
    blank = {**crops, "nm": [torch.zeros_like(volume) for volume in crops["nm"]]}
    close(network(crops)["patient"], plain(blank)["patient"], 0)


@both
def test_patient_encoder_is_an_independent_copy_without_head(encoder, crops, close):
    network = classifier(encoder).eval()
    teacher = network.patient_encoder()
    assert set(teacher(crops)) == {"patient"}
    close(teacher(crops)["patient"], network(crops)["patient"])
    names = dict(network.named_parameters())
    assert all(name in names for name, _ in teacher.named_parameters())
    assert not any("classifier" in name for name, _ in teacher.named_parameters())
    with torch.no_grad():
        next(teacher.parameters()).add_(1)
    assert not torch.equal(next(teacher.parameters()), next(network.parameters()))


def test_bf16_is_close_to_fp32_and_returns_fp32(crops):
    network = classifier("volume_vit").eval()
    exact = network(crops)["patient"]
    network.precision = "bf16"
    rough = network(crops)
    assert {value.dtype for value in rough.values()} == {torch.float32}
    assert 1e-5 < (rough["patient"] - exact).norm() / exact.norm() < 3e-2


def test_seres10_stays_in_fp32_on_cpus(crops, close):
    network = classifier("seres10").eval()
    exact = network(crops)["patient"]
    network.precision = "bf16"
    close(network(crops)["patient"], exact, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rois": {}}, "at least one ROI"),
        ({"masked_rois": ["qsm9"]}, r"masked_rois \['qsm9'\] are none of the ROIs"),
        ({"precision": "fp16"}, "precision must be .*got 'fp16'"),
    ],
)
def test_constructor_errors_name_the_argument(arguments, message):
    with pytest.raises(ValueError, match=message):
        classifier(**arguments)


def test_an_image_without_mask_channels_says_what_adds_them(crops):
    images = {**crops, "nm": [volume[:1] for volume in crops["nm"]]}
    with pytest.raises(ValueError, match=r"\(3, D, H, W\), got \(1, 3, 28, 56\). ROIMaskChannelsd"):
        classifier()(images)
