import os
import pickle

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from tiny import TINY

from mrn_components import SliceEncoder

NAME = "vit_base_patch14_reg4_dinov2.lvd142m"
DINOV3 = "vit_small_patch16_dinov3.lvd1689m"


def timm_model(name=NAME):
    args = {key: value for key, value in TINY.items() if key != "drop_path_rate"}
    return timm.create_model(name, num_classes=0, dynamic_img_size=True, **args)


def official_layout(vit):
    """The state dict of a timm DINOv2 as the official checkpoints hold it.

    timm adds the position of the class token to the token itself; a half of each is taken here.
    """
    state = dict(vit.state_dict())
    cls_position = state["cls_token"] / 2
    state["register_tokens"] = state.pop("reg_token")
    state["mask_token"] = torch.zeros(1, vit.embed_dim)
    state["cls_token"] = cls_position
    state["pos_embed"] = torch.cat([cls_position, state["pos_embed"]], dim=1)
    return state


@pytest.mark.parametrize("shape", [(224, 224), (112, 224)])
@pytest.mark.parametrize("name", [NAME, DINOV3])
def test_equals_timm_on_the_normalised_three_channel_slice(shape, name, tiny_encoder, close):
    encoder, vit = tiny_encoder(name=name).double(), timm_model(name).double()
    if name == NAME:
        torch.nn.init.normal_(vit.pos_embed)
    encoder.vit.load_state_dict(vit.state_dict(), strict=True)
    if name == DINOV3:  # 224 is a multiple of 16 too
        assert encoder.patch_size == 16
    volume = torch.rand(2, *shape, dtype=torch.float64)
    mean, std = (
        torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    )
    tokens = vit.forward_features((volume[:, None].repeat(1, 3, 1, 1) - mean) / std)
    expected = torch.cat([tokens[:, :1], tokens[:, 5:]], dim=1).flatten(0, 1)
    (got,), (grid,) = encoder([volume])
    assert grid == (2, shape[0] // encoder.patch_size, shape[1] // encoder.patch_size, 1)
    close(got, expected, 1e-10)


def test_patch_convolution_has_the_gradient_of_the_three_channel_one(tiny_encoder, close):
    encoder, vit = tiny_encoder().double(), timm_model().double()
    encoder.vit.load_state_dict(vit.state_dict())
    volume = torch.rand(1, 28, 28, dtype=torch.float64)
    mean, std = (
        torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    )
    vit.forward_features((volume[:, None].repeat(1, 3, 1, 1) - mean) / std)[:, 0].sum().backward()
    encoder([volume])[0][0][0].sum().backward()
    for name, parameter in vit.patch_embed.named_parameters():
        close(encoder.vit.patch_embed.get_parameter(name).grad, parameter.grad, 1e-10)


def test_position_table_is_the_one_dinov2_was_trained_with(tiny_encoder):
    assert tiny_encoder().vit.patch_embed.grid_size == (37, 37)


def test_volumes_of_any_shape_equal_each_alone(tiny_encoder, close):
    encoder = tiny_encoder()
    shapes = [(2, 28, 28), (1, 30, 17), (3, 28, 28), (1, 14, 42)]
    volumes = [torch.rand(shape) for shape in shapes]
    (together,), grids = encoder(volumes)
    assert [grid[:3] for grid in grids] == [(2, 2, 2), (1, 3, 2), (3, 2, 2), (1, 1, 3)]
    close(together, torch.cat([encoder([volume])[0][0] for volume in volumes]))


def test_slices_are_padded_with_zeros_on_both_sides(tiny_encoder, close):
    encoder, inner = tiny_encoder(), torch.rand(1, 25, 14)
    padded = torch.zeros(1, 28, 14)
    padded[:, 1:26] = inner
    close(encoder([inner])[0][0], encoder([padded])[0][0])


def test_wanted_blocks_come_in_order_and_may_repeat(tiny_encoder, close):
    tokens, _ = tiny_encoder()([torch.rand(1, 14, 14)], blocks=[0, 0, 1])
    assert len(tokens) == 4
    close(tokens[0], tokens[1])
    close(tokens[2], tokens[3])
    assert not torch.equal(tokens[1], tokens[2])


def test_registers_can_be_kept(tiny_encoder):
    (tokens,), (grid,) = tiny_encoder(keep_registers=True)([torch.rand(2, 14, 28)])
    assert grid.prefix == 5
    assert tokens.shape == (2 * (5 + 2), 32)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_official_weight_file_gives_the_same_features(tmp_path, suffix, tiny_encoder, close):
    vit = timm_model()
    path = tmp_path / f"weights{suffix}"
    state = official_layout(vit)
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    encoder = tiny_encoder(weights=str(path))
    assert "state_dict" not in encoder.vit.pretrained_cfg
    reference = tiny_encoder()
    reference.vit.load_state_dict(vit.state_dict())
    volume = [torch.rand(2, 28, 42)]
    close(encoder(volume)[0][0], reference(volume)[0][0])


def test_no_weights_has_two_spellings(tiny_encoder, close):
    states = []
    for weights in (None, "none"):
        torch.manual_seed(0)
        states.append(tiny_encoder(weights=weights).state_dict())
    close(states[0], states[1], 0)


def test_missing_weight_file_says_what_to_type(tiny_encoder):
    with pytest.raises(FileNotFoundError, match=r"nowhere.*--encoder_weights PATH.*none"):
        tiny_encoder(weights="nowhere.pth")


def test_weights_without_registers_are_refused(tmp_path, tiny_encoder):
    state = official_layout(timm_model())
    del state["register_tokens"]
    torch.save(state, tmp_path / "dinov2_vitb14_pretrain.pth")
    with pytest.raises(RuntimeError, match=r"no register tokens.*reg4_pretrain\.pth"):
        tiny_encoder(weights=str(tmp_path / "dinov2_vitb14_pretrain.pth"))


def test_weights_of_another_size_are_refused(tmp_path, tiny_encoder):
    torch.save(official_layout(timm_model()), tmp_path / "w.pth")
    with pytest.raises(
        RuntimeError, match=r"(?s)could not be loaded into .*--encoder_weights PATH"
    ):
        tiny_encoder(weights=str(tmp_path / "w.pth"), depth=3)


class _Code:
    def __reduce__(self):
        return os.system, ("false",)


def test_weight_file_that_would_run_code_is_refused(tmp_path, tiny_encoder):
    (tmp_path / "w.pth").write_bytes(pickle.dumps(_Code(), protocol=2))
    with pytest.raises(RuntimeError, match="no checkpoint of tensors"):
        tiny_encoder(weights=str(tmp_path / "w.pth"))


@pytest.mark.parametrize(
    "source",
    [
        {"checkpoint_path": "FILE"},
        {"weights": "hub", "pretrained_cfg": {"file": "FILE"}},
        {"weights": "hub", "pretrained_cfg_overlay": {"file": "FILE"}},
        {"weights": "hub", "name": "local-dir:FILE"},
        {"name": "hf-hub:someone/model"},
    ],
    ids=lambda source: list(source)[-1] + str(len(source)),
)
def test_weights_that_timm_would_unpickle_are_refused(tmp_path, tiny_encoder, source):
    (tmp_path / "w.pth").write_bytes(pickle.dumps(_Code(), protocol=2))
    named = eval(repr(source).replace("FILE", str(tmp_path / "w.pth")))
    with pytest.raises(ValueError, match="from which timm reads files that can run code"):
        tiny_encoder(**named)
    assert "PWNED" not in os.environ


def test_unreachable_hub_says_what_to_type(monkeypatch):
    def offline(*args, **kwargs):
        raise ConnectionError("no network")

    monkeypatch.setattr("mrn_components.networks.slice_encoder.timm.create_model", offline)
    with pytest.raises(RuntimeError, match=r"'hub'.*no network.*--encoder_weights PATH"):
        SliceEncoder(weights="hub")


def test_models_without_registers_are_warned_about(tiny_encoder, caplog):
    tiny_encoder()
    assert not caplog.text
    tiny_encoder(name="vit_small_patch14_dinov2.lvd142m")
    assert "'vit_small_patch14_dinov2.lvd142m' has no registers" in caplog.text
