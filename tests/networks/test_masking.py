"""Masked ROIs: what is hidden, and that mixing tokens equals running the masked network."""

from types import SimpleNamespace

import pytest
import torch
from tiny import ROIS

from mrn_components import FoldEnsemble
from mrn_components.networks.inferers import MaskedStatesInferer, masked_states
from mrn_components.networks.masking import MASK_MODES, mask_images

THREE = ROIS | {"qsm2": SimpleNamespace(num_classes=4)}


@pytest.fixture
def three(images):
    """Two subjects of three ROIs."""
    return images | {"qsm2": [torch.rand(1, 2, 28, 28), torch.rand(1, 3, 28, 42)]}


def decided(network, seed):
    """The network in inference, with scores that differ."""
    torch.manual_seed(seed)
    with torch.no_grad():
        network.classifier[-1].weight.normal_()
    return network.eval()


@pytest.mark.parametrize(
    ("mode", "precision"), [*((mode, "fp32") for mode in MASK_MODES), ("voxels", "bf16")]
)
def test_every_state_equals_the_network_that_masks_it(mode, precision, tiny_mrn, three, close):
    parts = {"rois": THREE, "dpt": None, "precision": precision}
    network = decided(tiny_mrn(**parts), 1)
    with torch.no_grad():
        output = MaskedStatesInferer(mask_mode=mode)(three, network)
        states = masked_states(list(THREE))
        assert output["state_logits"].shape == (2, len(states), 2) == (2, 8, 2)
        for index, masked in enumerate(states):
            alone = tiny_mrn(**parts, masked_rois=masked, mask_mode=mode).eval()
            alone.load_state_dict(network.state_dict())
            expected = alone(three)["logits"].softmax(-1)
            close(output["state_logits"][:, index].softmax(-1), expected, 1e-6)
        close(output["logits"].softmax(-1), network(three)["logits"].softmax(-1), 1e-6)
    spread = output["state_logits"].softmax(-1)[:, 1:, 1].std(1)
    assert spread.min() > 1e-3  # the states do differ


def test_states_of_an_ensemble_are_the_mean_of_its_folds(tiny_mrn, three, close):
    ensemble = FoldEnsemble(network=tiny_mrn(rois=THREE, dpt=None), num_folds=2)
    folds = [decided(fold, seed) for seed, fold in enumerate(ensemble.folds)]
    inferer = MaskedStatesInferer()
    with torch.no_grad():
        got = inferer(three, ensemble)["state_logits"].softmax(-1)
        each = [inferer(three, fold)["state_logits"].softmax(-1) for fold in folds]
    close(got, sum(each) / 2, 1e-6)
    assert (each[0] - each[1]).abs().max() > 1e-3


def test_states_stand_in_the_order_of_table_4():
    names = ["+".join(masked) for masked in masked_states(["nm", "q1", "q2", "q3"])]
    singles, pairs = "nm q1 q2 q3", "nm+q1 nm+q2 nm+q3 q1+q2 q1+q3 q2+q3"
    triples = "nm+q1+q2 nm+q1+q3 nm+q2+q3 q1+q2+q3"
    assert names == f" {singles} {pairs} {triples} nm+q1+q2+q3".split(" ")


@pytest.mark.parametrize("mode", MASK_MODES)
def test_masking_keeps_the_geometry_and_the_other_rois(mode, images):
    masked = mask_images(images, {"nm"}, mode)
    for one, other in zip(masked["nm"], images["nm"], strict=True):
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        assert torch.equal(one, other) == (mode == "token")
    assert masked["qsm1"] is images["qsm1"]


def test_the_modes_put_what_they_say():
    crop = torch.rand(3, 4, 6, 8)  # several channels
    crops = {"nm": [crop], "qsm1": [crop]}
    assert not mask_images(crops, ["nm"], "voxels")["nm"][0].any()
    mean = mask_images(crops, ["nm"], "mean")["nm"][0]
    torch.testing.assert_close(mean[:, 0, 0, 0], crop.flatten(1).mean(1))
    assert torch.equal(mean, mean[:, :1, :1, :1].expand_as(mean))
    noise = mask_images(crops, ["nm", "qsm1"], "noise")
    assert 0 <= noise["nm"][0].min() < 0.05
    assert 0.95 < noise["nm"][0].max() < 1
    assert torch.equal(noise["nm"][0], mask_images(crops, ["nm"], "noise")["nm"][0])
    assert not torch.equal(noise["nm"][0], noise["qsm1"][0])  # of each ROI
    other = mask_images({"nm": [crop.flip(-1)]}, ["nm"], "noise")["nm"][0]
    assert not torch.equal(noise["nm"][0], other)  # of each subject


def test_noise_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    mask_images({"nm": [torch.rand(0, 1, 1, 1)]}, ["nm"], "noise")
    assert torch.equal(torch.rand(1), expected)


def test_a_zero_token_tells_nothing(tiny_mrn, three, close):
    network = tiny_mrn(rois=THREE, dpt=None, masked_rois=list(THREE), mask_mode="token").eval()
    output = network(three)
    assert not output["patient"].any()
    close(*output["logits"])
    white = {roi: [torch.ones_like(crop) for crop in crops] for roi, crops in three.items()}
    close(network(white)["logits"], output["logits"], 0)  # one computation, repeated


def test_an_unknown_mode_is_refused(tiny_mrn):
    message = r"mask_mode must be one of voxels, noise, mean, token; got 'blur'\."
    with pytest.raises(ValueError, match=message):
        tiny_mrn(mask_mode="blur")
    with pytest.raises(ValueError, match="got 'reference', which only `mrn contributions` has"):
        tiny_mrn(mask_mode="reference")
    with pytest.raises(ValueError, match=message.replace("token", "token, reference")):
        MaskedStatesInferer(mask_mode="blur")
    with pytest.raises(ValueError, match="'reference' needs references of each network"):
        MaskedStatesInferer(mask_mode="reference")


def test_other_networks_are_refused(tiny_mrn, images):
    with pytest.raises(ValueError, match=r"Linear has no method `classify`; contributions of ROIs"):
        MaskedStatesInferer()(images, torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match=r"masks \['nm'\] already; leave masked_rois empty"):
        MaskedStatesInferer()(images, tiny_mrn(masked_rois=["nm"]))
