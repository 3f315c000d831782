import pytest
import torch

from mrn_components.networks import recomputing


@pytest.fixture
def network(tiny_mrn, tiny_encoder):
    return tiny_mrn(encoder=tiny_encoder(drop_path_rate=0.5), res={"checkpointing": "auto"})


def gradients(network, images):
    """Gradients of a step with dropped branches; those that are recomputed are dropped again."""
    torch.manual_seed(2)
    output = network.train()(images)
    parts = [output["logits"], *(mask for masks in output["masks"].values() for mask in masks)]
    return torch.autograd.grad(sum(x.square().mean() for x in parts), list(network.parameters()))


@pytest.mark.parametrize(("free", "recomputes"), [(None, True), (10**5, True), (10**9, False)])
def test_activations_are_kept_where_there_is_memory(free, recomputes, network, images, monkeypatch):
    if free is not None:
        monkeypatch.setattr(recomputing, "free_bytes", lambda _: free)
    chosen = gradients(network, images)  # what the first batch is asked changes no random number
    res = network.res
    parts = (res.encoder.vit, res.ffa, res.dpt)
    assert {part.grad_checkpointing for part in parts} == {recomputes}
    res.budget = None
    torch.testing.assert_close(gradients(network, images), chosen, atol=1e-6, rtol=1e-6)


def test_a_crop_tells_what_a_batch_keeps(tiny_mrn, images):
    network = tiny_mrn().train()
    res, crop = network.res, images["qsm1"][0]
    one = recomputing.saved_bytes(res, lambda: res([crop], ["qsm1"]))
    whole = recomputing.saved_bytes(res, lambda: network(images))
    pixels = sum(volume.numel() for volumes in images.values() for volume in volumes)
    told = one / crop.numel() * pixels
    assert told == pytest.approx(whole, rel=0.3)  # in crops this small, registers are a third


def test_parameters_are_no_activations():
    layer = torch.nn.Linear(4, 8)
    x = torch.randn(3, 4)  # kept for the weight's gradient, as the result of exp is
    assert recomputing.saved_bytes(layer, lambda: layer(x).exp()) == 4 * (3 * 4 + 3 * 8)


def test_another_word_is_refused(tiny_mrn):
    with pytest.raises(ValueError, match="checkpointing must be true, false or 'auto', got 'no'"):
        tiny_mrn(res={"checkpointing": "no"})
