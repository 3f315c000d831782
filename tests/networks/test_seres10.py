import pytest
import torch
from monai.networks.blocks import ChannelSELayer
from monai.networks.nets import resnet10

from mrn_components import SERes10
from mrn_components.networks.seres10 import _stack_centred


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
    oracle = resnet10(
        spatial_dims=3, n_input_channels=3, feed_forward=False, bias_downsample=False
    ).eval()
    state = {}
    for name, value in encoder.state_dict().items():
        if name.startswith("statistics.nm."):
            name = name.removeprefix("statistics.nm.").replace("-", ".")
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


def test_an_roi_is_evaluated_with_its_own_running_statistics():
    """In training the trunk normalises a ROI's batch; another ROI's must leave no trace."""
    alone, among = built().train(), built().train()
    among.load_state_dict(alone.state_dict())
    nm = [torch.rand(3, 4, 40, 40) for _ in range(4)]
    other = [5 * torch.rand(6, 4, 40, 40) for _ in range(4)]
    for _ in range(3):
        alone(nm, ["nm"] * 4)
        among([*nm, *other], ["nm"] * 4 + ["qsm1"] * 4)
    expected, _ = alone.eval()(nm, ["nm"] * 4)
    assert torch.equal(among.eval()(nm, ["nm"] * 4)[0], expected)
    tensors = among.on_tensors(["qsm1", "nm"]).eval()([torch.stack(other), torch.stack(nm)])
    torch.testing.assert_close(tensors[1], expected)


def test_weights_with_one_set_of_statistics_are_refused():
    network = torch.nn.ModuleDict({"encoder": built()})
    state = {k: v for k, v in network.state_dict().items() if ".statistics." not in k}
    with pytest.raises(ValueError, match="a mixture of the ROIs; train it again"):
        network.load_state_dict(state)


def test_training_crops_share_a_box_with_zeros_around():
    small, large = torch.ones(2, 1, 2, 3), torch.ones(2, 4, 2, 4)
    stacked = _stack_centred([small, large])
    assert stacked.shape == (2, 2, 4, 2, 4)
    assert torch.equal(stacked[1], large)
    expected = torch.zeros(2, 4, 2, 4)
    expected[:, 1:2, :, 0:3] = 1
    assert torch.equal(stacked[0], expected)


def test_training_normalises_the_crops_of_an_roi_jointly():
    encoder = built().train()
    a, b = (torch.rand(3, 4, 40, 40) for _ in range(2))
    alone = encoder([a], ["nm"])[0][0]
    together = encoder([a, b], ["nm", "nm"])[0][0]
    assert not torch.allclose(alone, together)


@pytest.mark.parametrize("shape", [(10, 28, 56), (10, 28, 28)])
def test_small_crops_train_alone_with_a_stem_that_keeps_their_size(shape):
    features, _ = built(stem_stride=[1, 1, 1]).train()([torch.rand(3, *shape)], ["nm"])
    assert features.isfinite().all()
    assert features.abs().sum() > 0


def test_a_crop_too_small_to_train_alone_says_what_to_type():
    encoder = built().train()
    volume = torch.rand(3, 10, 28, 28)
    with pytest.raises(ValueError, match=r"10, 28, 28\) crop of ROI 'nm'.*--image_size.*\[1,1,1\]"):
        encoder([volume], ["nm"])
    encoder([volume] * 2, ["nm"] * 2)
    encoder.eval()([volume], ["nm"])


def test_paper_sized_crops_never_shrink_to_one_voxel():
    encoder = SERes10()
    encoder._check_size(torch.empty(1, 3, 10, 1, 224), "nm")


@pytest.mark.parametrize("size", [{"stem_stride": [1, 1]}, {"widths": [16, 32, 64]}])
def test_other_numbers_of_widths_and_strides_are_refused(size):
    with pytest.raises(ValueError, match=r"four widths and three numbers of stem_stride.*got \["):
        SERes10(**size)
