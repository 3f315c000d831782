import pytest
import torch
from monai.networks.nets import ViT
from safetensors.torch import save_file
from torch.nn.functional import interpolate

from mrn_components import VolumeViT

TINY = {
    "img_size": (4, 16, 16),
    "patch_size": (2, 8, 8),
    "hidden_size": 16,
    "mlp_dim": 32,
    "num_layers": 2,
    "num_heads": 2,
}


def monai_vit():
    """The network of M3D-CLIP's code: MONAI's, without a classification head."""
    vit = ViT(in_channels=1, proj_type="perceptron", classification=True, **TINY)
    torch.nn.init.normal_(vit.cls_token)
    del vit.classification_head
    return vit.eval()


def checkpoint(vit, prefix="vision_encoder."):
    """A state dict as M3D-CLIP's is laid out."""
    state = {f"{prefix}{name}": value for name, value in vit.state_dict().items()}
    state = {name: value for name, value in state.items() if "cross_attn" not in name}
    if prefix:
        state |= {"language_encoder.weight": torch.zeros(2), "logit_scale": torch.zeros(())}
    return state


@pytest.mark.parametrize("prefix", ["vision_encoder.", ""])
@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
def test_weight_file_gives_the_class_token_of_monais_network(tmp_path, prefix, suffix, close):
    vit, path = monai_vit(), tmp_path / f"weights{suffix}"
    state = checkpoint(vit, prefix)
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    encoder = VolumeViT(weights=str(path), **TINY).eval()
    volumes = [torch.rand(3, 4, 16, 16), torch.rand(6, 7, 20, 11)]
    resized = torch.stack(
        [interpolate(v[None, :1], (4, 16, 16), mode="trilinear")[0] for v in volumes]
    )
    close(encoder(volumes, ["nm", "qsm1"])[0], vit(resized)[0][:, 0])


def test_unused_cross_attention_of_older_files_is_left_out(tmp_path):
    state = checkpoint(monai_vit()) | {
        "vision_encoder.blocks.0.cross_attn.to_q.weight": torch.ones(1)
    }
    torch.save(state, tmp_path / "w.bin")
    VolumeViT(weights=str(tmp_path / "w.bin"), **TINY)


def test_the_size_is_that_of_m3d_clip():
    with torch.device("meta"):
        encoder = VolumeViT()
    assert encoder.channels == 768
    # 12 blocks of 7.08 M without qkv bias, 2048 positions and patches of 1024 voxels
    assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(87.39, rel=1e-3)
    assert encoder.vit.patch_embedding.position_embeddings.shape == (1, 2048, 768)


def test_masks_are_not_read():
    encoder = VolumeViT(**TINY).eval()
    volume = torch.rand(3, 4, 16, 16)
    other = torch.cat([volume[:1], torch.rand(2, 4, 16, 16)])
    first, second = encoder([volume, other], ["nm", "nm"])[0]
    assert torch.allclose(first, second, atol=1e-6)


def test_no_weights_has_two_spellings(close):
    states = []
    for weights in (None, "none"):
        torch.manual_seed(0)
        states.append(VolumeViT(weights=weights, **TINY).state_dict())
    close(states[0], states[1], 0)


def test_missing_weight_file_says_what_to_type():
    with pytest.raises(FileNotFoundError, match=r"nowhere.*M3D-CLIP.*--encoder_weights PATH"):
        VolumeViT(weights="nowhere.bin", **TINY)


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "w.bin").write_bytes(b"no checkpoint")
    with pytest.raises(RuntimeError, match="no checkpoint of tensors"):
        VolumeViT(weights=str(tmp_path / "w.bin"), **TINY)


def test_weights_of_another_size_are_refused(tmp_path):
    torch.save(checkpoint(monai_vit()), tmp_path / "w.bin")
    with pytest.raises(RuntimeError, match=r"do not fit VolumeViT.*--encoder_weights PATH"):
        VolumeViT(weights=str(tmp_path / "w.bin"), **{**TINY, "num_layers": 3})
