"""Frozen encoders: what LoRA computes and trains, and what weight files hold of them."""

from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
from tiny import ROIS, TINY

from mrn_components import MRN, RES, AttentionPool, FoldEnsemble, LoRA, SliceEncoder, param_groups
from mrn_components.networks.lora import LoRALinear, merge_adapters

VOLUME = [torch.rand(3, 28, 42)]


@pytest.fixture
def file(tiny_encoder, tmp_path):
    """A file of weights as the hub's or a lab's own."""
    torch.save(tiny_encoder().vit.state_dict(), tmp_path / "encoder.pth")
    return str(tmp_path / "encoder.pth")


@pytest.fixture
def adapted(tiny_encoder):
    """A factory of encoders with adapters that have moved."""

    def make(**args):
        encoder = tiny_encoder(**{"lora": LoRA(rank=4, alpha=8), **args})
        for name, parameter in encoder.named_parameters():
            if "lora" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        return encoder

    return make


def network(encoder, **res):
    return MRN(rois=ROIS, res=RES(encoder=encoder, sfa=AttentionPool(), **res), dropout=0.0)


def test_a_layer_is_the_frozen_one_and_a_product_of_low_rank(close):
    plain = torch.nn.Linear(6, 9).double()
    layer = LoRALinear(plain, rank=2, scale=8 / 2)
    torch.nn.init.normal_(layer.lora_b)
    x = torch.randn(5, 6, dtype=torch.float64)
    expected = plain(x) + 4 * x @ layer.lora_a.T @ layer.lora_b.T
    close(layer(x), expected, 1e-12)
    close(layer.merged()(x), expected, 1e-12)


def test_it_starts_as_the_encoder_was_and_merges_into_a_plain_one(tiny_encoder, adapted, close):
    plain = tiny_encoder()
    encoder = tiny_encoder(lora=LoRA())
    encoder.vit.load_state_dict(plain.vit.state_dict(), strict=False)
    close(encoder(VOLUME)[0][0], plain(VOLUME)[0][0], 0)
    encoder, volume = adapted().double(), [each.double() for each in VOLUME]
    expected = encoder(volume)[0][0]
    merge_adapters(encoder)
    plain.double().load_state_dict(encoder.state_dict())
    close(plain(volume)[0][0], expected, 1e-12)
    assert (expected - tiny_encoder()(VOLUME)[0][0]).abs().max() > 0.01


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_adapters_alone_are_trained(adapted, images, checkpointing):
    net = network(adapted(drop_path_rate=0.1), checkpointing=checkpointing).train()
    groups = {"all": {"modules": ["res.encoder", "res.sfa", "res.slice_embedding", "classifier"]}}
    optimizer = torch.optim.AdamW(param_groups(network=net, groups=groups), lr=0.1)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net(images)["logits"].square().sum().backward()
    optimizer.step()
    moved = {name for name, value in net.state_dict().items() if not value.equal(before[name])}
    of_encoder = {name for name in moved if name.startswith("res.encoder.")}
    assert of_encoder == {name for name in before if "lora" in name}
    assert "res.sfa.query" in moved
    assert not [p for p in net.parameters() if p.grad is not None and not p.requires_grad]


def test_layers_are_a_choice(tiny_encoder):
    trained = {
        name.split(".")[-2]
        for name, p in tiny_encoder(lora=LoRA(layers=["proj"])).named_parameters()
        if p.requires_grad
    }
    assert trained == {"proj"}


def test_what_is_frozen_as_a_whole_is_not_trained_and_drops_no_branch(tiny_encoder, close):
    encoder = tiny_encoder(frozen=True, drop_path_rate=0.5).train()
    close(encoder(VOLUME)[0][0], encoder(VOLUME)[0][0], 0)
    assert not [name for name, p in encoder.named_parameters() if p.requires_grad]
    assert not encoder(VOLUME)[0][0].requires_grad


@pytest.mark.parametrize(("count", "trained"), [(1, 541_826), (2, 640_130)])
def test_few_parameters_of_vit_b_are_trained(count, trained):
    """Of one image, and of two; most are those of arXiv:2512.12887, which adapts the stem too."""
    with torch.device("meta"):
        encoder = SliceEncoder(lora=LoRA())
        res = RES(encoder=encoder, sfa=AttentionPool(), slice_embedding="none")
        rois = {str(i): SimpleNamespace(num_classes=1) for i in range(count)}
        net = MRN(rois=rois, res=res, hidden_channels=128)
    adapters = sum(p.numel() for p in encoder.parameters() if p.requires_grad)
    assert adapters == 12 * 8 * ((768 + 3 * 768) + (768 + 768))
    assert sum(p.numel() for p in net.parameters() if p.requires_grad) == trained
    assert trained <= 1_100_000
    assert 4 * trained <= 10e6  # bytes of model.pt


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"rank": 0}, "rank must be at least 1, got 0"),
        ({"layers": []}, r"layers must name some of \['qkv', 'proj'\], got \[\]"),
        ({"layers": "qkv"}, r"layers must name some of .*got 'qkv'"),
        ({"layers": ["qkv", "fc1"]}, r"got \['qkv', 'fc1'\]"),
    ],
)
def test_adaptations_that_are_none_are_refused(args, message):
    with pytest.raises(ValueError, match=message):
        LoRA(**args)


def test_an_attention_of_another_kind_is_refused(tiny_encoder):
    with pytest.raises(ValueError, match="no plain projection 'qkv' in the attention of Eva"):
        tiny_encoder(name="vit_small_patch16_dinov3_qkvb.lvd1689m", lora=LoRA())


# ---- what weight files hold


def test_random_weights_stay_in_the_file(adapted):
    """Nobody could make them again."""
    one, other = adapted(), adapted()
    assert {name for name, _ in one.named_parameters()} == one.state_dict().keys()
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(VOLUME)[0][0], other(VOLUME)[0][0])


def test_weights_found_elsewhere_are_named_by_their_hash(adapted, file):
    one, other = (network(adapted(weights=file)) for _ in range(2))
    state = one.state_dict()
    trained = {name for name, p in one.named_parameters() if p.requires_grad}
    assert state.keys() == trained | {"res.encoder.frozen_sha256"}
    assert state["res.encoder.frozen_sha256"].shape == (32,)
    other.load_state_dict(state)
    x = torch.rand(1, 1, 3, 28, 28)
    assert torch.equal(one(x, qsm1=x), other(x, qsm1=x))
    merge_adapters(other)
    plain = network(SliceEncoder(**TINY))
    plain.load_state_dict(other.state_dict())
    torch.testing.assert_close(one(x, qsm1=x), plain(x, qsm1=x), atol=1e-6, rtol=1e-6)


def test_another_encoder_is_refused(adapted, tiny_encoder, file, tmp_path):
    state = network(adapted(weights=file)).state_dict()
    changed = torch.load(file)
    changed["blocks.0.norm1.bias"][3] += 1e-6
    torch.save(changed, tmp_path / "other.pth")
    message = r"need the frozen encoder of SHA-256 [0-9a-f]{16}, and %s: .*--encoder_weights FILE"
    with pytest.raises(ValueError, match=message % "this one's is [0-9a-f]{16}"):
        network(adapted(weights=str(tmp_path / "other.pth"))).load_state_dict(state)
    with pytest.raises(ValueError, match=message % "none is named"):
        network(adapted()).load_state_dict(state)
    with pytest.raises(RuntimeError, match="frozen_sha256"):
        network(tiny_encoder()).load_state_dict(state)
    with pytest.raises(ValueError, match="leave --encoder_weights out"):
        network(adapted(weights=file)).load_state_dict(network(adapted()).state_dict())


@pytest.mark.parametrize("found", [True, False])
def test_copies_share_what_none_of_them_changes(adapted, file, found):
    encoder = adapted(**({"weights": file} if found else {}))
    ensemble = FoldEnsemble(network=network(encoder), num_folds=2)
    first, second = (fold.res.encoder for fold in ensemble.folds)
    for name, parameter in first.named_parameters():
        shared = second.get_parameter(name) is parameter
        assert shared == (found and "lora" not in name), name
    teacher = deepcopy(first).requires_grad_(False)
    assert teacher.state_dict().keys() == first.state_dict().keys()
    teacher.load_state_dict(first.state_dict())
    with torch.no_grad():
        teacher.vit.blocks[0].attn.qkv.lora_b += 1
    assert not torch.equal(teacher(VOLUME)[0][0], first(VOLUME)[0][0])
