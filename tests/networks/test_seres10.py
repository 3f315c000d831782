import pytest
import torch
from monai.networks.blocks import ChannelSELayer
from monai.networks.nets import resnet10

from mrn_components import SERes10


def built(**args):
    encoder = SERes10(**{"widths": (16, 16, 16, 24), **args})
    encoder.build({"nm": 2, "qsm1": 5})
    return encoder


def test_it_has_ten_layers_512_features_and_the_parameters_of_section_4_2():
    with torch.device("meta"):
        encoder = SERes10()
        encoder.build({"nm": 2, "qsm1": 5, "qsm2": 4, "qsm3": 2})
    assert encoder.channels == 512
    assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(14.5, rel=0.02)
    assert [stem[0].in_channels for stem in encoder.stems.values()] == [3, 6, 5, 3]
    layers = [m for m in encoder.trunk.modules() if isinstance(m, torch.nn.Conv3d)]
    assert sum(layer.kernel_size == (3, 3, 3) for layer in layers) + 2 == 10  # stem, classifier


def test_equals_monais_resnet10_where_squeeze_and_excitation_lets_all_through(close):
    encoder = SERes10(stem_stride=(1, 1, 1))
    encoder.build({"nm": 2})
    oracle = resnet10(spatial_dims=3, n_input_channels=3, feed_forward=False, bias_downsample=False)
    for name, layer in list(oracle.named_modules()):
        if isinstance(layer, torch.nn.BatchNorm3d):
            oracle.set_submodule(name, torch.nn.GroupNorm(8, layer.num_features))
    state = {}
    for name, value in encoder.state_dict().items():
        name = (
            name.removeprefix("trunk.").replace("stems.nm.0", "conv1").replace("stems.nm.1", "bn1")
        )
        if "bn2.1.fc" not in name:
            state[name.replace("bn2.0", "bn2")] = value
    oracle.load_state_dict(state)
    for stage in (encoder.trunk.layer1, encoder.trunk.layer4):
        assert stage[0].bn2[1].fc[0].out_features == stage[0].conv1.out_channels // 16
    for layer in encoder.trunk.modules():
        if isinstance(layer, ChannelSELayer):
            torch.nn.init.zeros_(layer.fc[2].weight)
            torch.nn.init.constant_(layer.fc[2].bias, 100.0)  # sigmoid: 1
    volume = torch.rand(3, 4, 20, 12)
    with torch.no_grad():
        close(encoder.eval()([volume], ["nm"])[0], oracle(volume[None]), 1e-4)


def test_rois_share_the_trunk_but_not_the_stem():
    encoder = SERes10(widths=(16, 16, 16, 24))
    encoder.build({"a": 2, "b": 2})
    encoder.eval()
    volume = torch.rand(3, 4, 40, 40)
    first, second, again = encoder([volume] * 3, ["a", "b", "a"])[0]
    assert torch.equal(first, again)
    assert not torch.allclose(first, second)


def test_no_normalisation_depends_on_other_crops_or_on_what_was_seen_before():
    encoder = built().train()
    volumes = [torch.rand(3, 4, 40, 40), torch.rand(3, 5, 32, 48), torch.rand(6, 4, 40, 40)]
    rois = ["nm", "nm", "qsm1"]
    assert not list(encoder.buffers())
    trained, _ = encoder(volumes, rois)
    evaluated, _ = encoder.eval()(volumes, rois)
    assert torch.equal(trained, evaluated)
    for index, (volume, roi) in enumerate(zip(volumes, rois, strict=True)):
        assert torch.equal(encoder([volume], [roi])[0][0], trained[index])


@pytest.mark.parametrize("shape", [(10, 28, 56), (10, 28, 28), (1, 1, 1)])
def test_small_crops_train_alone(shape):
    features, _ = built().train()([torch.rand(3, *shape)], ["nm"])
    features.sum().backward()
    assert features.isfinite().all()
    assert features.abs().sum() > 0


def test_weights_from_before_the_group_norm_are_refused():
    encoder = built()
    state = {"encoder.trunk.layer1.0.bn1.running_mean": torch.zeros(16)}
    network = torch.nn.ModuleDict({"encoder": encoder})
    with pytest.raises(ValueError, match="which normalised batches; train it again"):
        network.load_state_dict(network.state_dict() | state)


@pytest.mark.parametrize(
    "size", [{"stem_stride": [1, 1]}, {"widths": [16, 32, 64]}, {"widths": [16, 20, 24, 32]}]
)
def test_other_numbers_of_widths_and_strides_are_refused(size):
    with pytest.raises(ValueError, match=r"widths, multiples of 8, .*three numbers.*got \["):
        SERes10(**size)
