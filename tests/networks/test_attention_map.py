"""Attention maps: a known attention, timm's own attention, and weights that are not the trained."""

import numpy as np
import pytest
import torch
from tiny import ROIS
from torch import nn

from mrn_components import MRN, FoldEnsemble, NucleusPool, SERes10, SliceEncoder
from mrn_components.networks.attention_map import AttentionWatch
from mrn_components.networks.attention_pool import AttentionPool
from mrn_components.networks.packing import VolumeGrid

SHARPNESS = (9.0, -4.0)  # of the two heads: how the class token's logits grow with a patch's mean
SLICES = (40.0, 10.0)  # the same of the ROI token and the slices


def maps_of(network, images):
    network.eval()
    with torch.no_grad(), AttentionWatch(network) as watch:
        network(images)
    return watch.maps()


@torch.no_grad()
def known(network):
    """Set weights so that each head's first feature is a patch's mean, and attention follows it."""
    vit, sfa = network.res.encoder.vit, network.res.sfa
    for parameter in network.parameters():
        parameter.zero_()
    conv = vit.patch_embed.proj
    conv.weight[0] = conv.weight[16] = conv.std / 3 / 14**2
    offset = (conv.weight / conv.std * conv.mean).sum((1, 2, 3))
    conv.bias.copy_(offset)  # an image of zeros is a token of zeros
    vit.norm = vit.norm_pre = nn.Identity()
    for block, growth in ((vit.blocks[-1], SHARPNESS), (sfa.blocks[-1], SLICES)):
        block.norm1 = block.attn.q_norm = block.attn.k_norm = nn.Identity()
        for head, factor in enumerate(growth):
            feature = 16 * head
            block.attn.qkv.bias[feature] = factor * 16**0.5  # of queries
            block.attn.qkv.weight[32 + feature, feature] = 1  # keys
            block.attn.qkv.weight[64 + feature, feature] = 1  # values
            block.attn.proj.weight[feature, feature] = 1
    vit.blocks[-1].ls1.gamma.fill_(1)


def softmax(logits):
    powers = np.exp(logits - np.max(logits))
    return powers / powers.sum()


def by_hand(crop):
    """The map of ``known`` weights, from the means of patches alone."""
    crop = crop[0].double().numpy()
    pads = [(-side % 14 // 2, -side % 14 - -side % 14 // 2) for side in crop.shape[1:]]
    padded = np.pad(crop, [(0, 0), *pads])
    depth, height, width = padded.shape
    means = padded.reshape(depth, height // 14, 14, width // 14, 14).mean((2, 4))
    patches, gathered = np.zeros_like(means), np.zeros((depth, 2))
    for z in range(depth):
        for head, factor in enumerate(SHARPNESS):
            everywhere = softmax(np.append(factor * means[z].ravel(), np.zeros(5)))  # prefix tokens
            patches[z] += everywhere[:-5].reshape(means[z].shape) / 2
            gathered[z, head] = (everywhere[:-5] * means[z].ravel()).sum()
        patches[z] /= patches[z].sum()
    # The class token keeps its zeros and gets what each head gathered; the ROI token is zeros.
    looks = [softmax(np.append(SLICES[h] * gathered[:, h], 0))[:-1] for h in range(2)]
    slices = sum(looks) / sum(map(np.sum, looks))
    pixels = np.kron(slices[:, None, None] * patches, np.ones((1, 14, 14))) / 14**2
    (top, _), (left, _) = pads
    return pixels[:, top : top + crop.shape[1], left : left + crop.shape[2]]


def test_the_map_of_a_known_attention_is_the_one_made_by_hand(tiny_mrn, tiny_encoder):
    network = tiny_mrn(encoder=tiny_encoder(depth=1), ffa=None, sfa=1, dpt=None)
    known(network)
    network.res.slice_embedding = None
    images = {  # sizes in another order than the crops', some with padding
        "nm": [torch.rand(1, 3, 28, 56), torch.rand(1, 2, 25, 31)],
        "qsm1": [torch.rand(1, 4, 56, 42), torch.rand(1, 1, 28, 56)],
    }
    images["nm"][0][0, 1, :14, 14:28] = 1
    images["nm"][0][0, 0] *= 0.2
    found = maps_of(network, images)
    for roi, crops in images.items():
        for crop, shares in zip(crops, found[roi], strict=True):
            np.testing.assert_allclose(shares.numpy(), by_hand(crop), rtol=0, atol=1e-6 / 14**2)
            assert float(shares.sum()) == pytest.approx(1, abs=1e-5) or crop.shape[-1] == 31
    # The bright patch is where it looks.
    bright = found["nm"][0]
    assert int(bright.flatten().argmax()) in range(28 * 56, 2 * 28 * 56)
    assert bright[1, :14, 14:28].sum() > 2 / bright.shape[0] / 8


class Seen:
    """What timm's attention has after its softmax, before dropout: the mean of the heads."""

    def __init__(self, attn):
        attn.fused_attn = False
        attn.attn_drop.register_forward_hook(self.keep)

    def keep(self, _part, inputs, _output):
        self.heads = inputs[0].mean(1)


@pytest.mark.parametrize("name", ["vit_small_patch14_reg4_dinov2", "vit_small_patch16_dinov3"])
def test_the_attention_is_timms_own(name, tiny_mrn):
    encoder = SliceEncoder(name=name, depth=2, embed_dim=32, num_heads=2, drop_path_rate=0.0)
    network = tiny_mrn(encoder=encoder, ffa=None, sfa=2, dpt=None).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.3)
    p, prefix = encoder.patch_size, encoder.vit.num_prefix_tokens
    crop = torch.rand(1, 3, 2 * p, 3 * p)
    with torch.no_grad():
        patches = Seen(encoder.vit.blocks[-1].attn)
        slices = encoder.vit.forward_features(crop[0][:, None])[:, 0]
        shares = patches.heads[:, 0, prefix:]
        shares = shares / shares.sum(1, keepdim=True)
        slices = network.res.slice_embedding(slices, [VolumeGrid(3, 0, 0)])
        x = torch.cat([network.res.sfa.roi_token, slices])[None]
        for block in network.res.sfa.blocks:
            looks = Seen(block.attn)
            x = x + block.ls1(block.attn(block.norm1(x)))
            x = x + block.ls2(block.mlp(block.norm2(x)))
        weights = looks.heads[0, 0, 1:]
    expected = (weights / weights.sum())[:, None] * shares
    found = maps_of(network, {"nm": [crop], "qsm1": [crop]})["qsm1"][0]
    sums = found.unflatten(1, (2, p)).unflatten(3, (3, p)).sum((2, 4)).flatten(1)
    torch.testing.assert_close(sums, expected, atol=1e-6, rtol=1e-5)
    assert shares.std(1).min() > 1e-3


def test_maps_are_those_of_what_pools_the_slices(tiny_mrn, images):
    """A learned query, the plain mean, and the nuclei's mask."""
    alone = tiny_mrn(ffa=None, sfa=None, dpt=None)
    plain = maps_of(alone, images)["nm"][0]
    torch.testing.assert_close(plain.sum((1, 2)), torch.full((3,), 1 / 3))
    alone.res.sfa = AttentionPool()
    alone.res.sfa.build(32, 2)
    torch.testing.assert_close(maps_of(alone, images)["nm"][0], plain)  # the query starts at zero
    with torch.no_grad():
        alone.res.sfa.query.normal_(0, 3)
        weights = alone.res.sfa.slice_attention(torch.eye(32), [5, 27])
        tokens = alone.res.sfa(torch.eye(32), [5, 27])  # so the weights themselves
    torch.testing.assert_close(tokens[1, 5:], weights[1])
    found = maps_of(alone, images)["nm"][0]
    assert (found.sum((1, 2)) - 1 / 3).abs().max() > 0.01
    torch.testing.assert_close(
        found / found.sum((1, 2), keepdim=True), plain / plain.sum((1, 2), keepdim=True)
    )
    pool = tiny_mrn(ffa=None, sfa=None, dpt=None, res={"nuclei_pool": NucleusPool(mode="instead")})
    crops = {roi: [torch.zeros(1 + k, 2, 28, 42)] for roi, k in (("nm", 2), ("qsm1", 5))}
    crops["nm"][0][2, 1, 14:, :14] = 1  # one patch of six, and a half of another
    crops["nm"][0][2, 0, :7, 14:28] = 1
    shares = maps_of(pool, crops)["nm"][0].unflatten(1, (2, 14)).unflatten(3, (3, 14)).sum((2, 4))
    expected = torch.zeros(2, 2, 3)
    expected[1, 1, 0], expected[0, 0, 1] = 2 / 3, 1 / 3
    torch.testing.assert_close(shares, expected)


def test_watching_changes_nothing_and_ends(tiny_mrn, images, close):
    network = tiny_mrn(dpt=None).eval()
    with torch.no_grad():
        expected = network(images)["logits"]
        with AttentionWatch(network) as watch:
            assert torch.equal(network(images)["logits"], expected)
            network({roi: [crop.flip(-1) for crop in crops] for roi, crops in images.items()})
        first = watch.maps()
        network({roi: [crop.flip(-1) for crop in crops] for roi, crops in images.items()})
    for again in (watch.maps(), maps_of(network, images)):
        for roi in ROIS:
            assert all(map(torch.equal, first[roi], again[roi]))
    assert not any(part._forward_hooks for part in network.modules())
    assert AttentionWatch(network).maps() == {}  # it was not asked
    network.precision = "bf16"
    close(maps_of(network, images)["nm"][0], first["nm"][0], 1e-5)
    ensemble = FoldEnsemble(network=network, num_folds=2)
    with torch.no_grad():
        for parameter in ensemble.folds[1].parameters():
            parameter.normal_(0, 0.3)
    each = [maps_of(fold, images)["nm"][1] for fold in ensemble.folds]
    close(maps_of(ensemble, images)["nm"][1], sum(each) / 2, 1e-7)
    assert (each[0] - each[1]).abs().max() > 1e-5


def test_networks_without_such_attention_have_no_map(tiny_mrn, tiny_encoder, images):
    class Mean(nn.Module):
        def forward(self, slices, depths):
            return torch.stack([volume.mean(0) for volume in slices.split(list(depths))])

    foreign = tiny_mrn(dpt=None)
    foreign.res.sfa = Mean()
    planes = tiny_mrn(encoder=tiny_encoder(attention="planes"), ffa=None, dpt=None)
    seres10 = MRN(rois=ROIS, encoder=SERes10())
    masked = {"nm": [torch.rand(3, 8, 28, 28)], "qsm1": [torch.rand(6, 8, 28, 28)]}
    for network, crops in ((foreign, images), (planes, images), (seres10, masked)):
        assert maps_of(network, crops) == {}


def test_the_map_is_of_what_was_learned(tiny_mrn, tiny_encoder):
    """Weights that are not the trained ones give another map (Adebayo et al. 2018)."""

    def make():
        return tiny_mrn(encoder=tiny_encoder(depth=1), ffa=None, sfa=1, dpt=None)

    def draw(count):
        """A bright square of class 1, a dark one of class 0, in any patch but of the last slice."""
        crops, labels = torch.rand(count, 1, 4, 42, 42) / 4 + 0.3, torch.arange(count) % 2
        for crop, label in zip(crops, labels.tolist(), strict=True):
            z, y, x = torch.randint(0, 3, (3,)).tolist()
            crop[0, z, 14 * y : 14 * y + 14, 14 * x : 14 * x + 14] += 0.8 * label - 0.4
        return {roi: list(crops) for roi in ROIS}, labels

    network = make()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(24):
        crops, labels = draw(8)
        loss = nn.functional.cross_entropy(network.train()(crops)["logits"], labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    crops, _ = draw(4)
    trained = torch.stack(maps_of(network, crops)["nm"])  # (4, D, H, W)
    kept = {name: tensor.clone() for name, tensor in network.state_dict().items()}

    def apart(prefix):
        """How far shares of slices, and of patches in slices, lie from the trained, on average."""
        network.load_state_dict(kept)
        new = {name: tensor for name, tensor in make().state_dict().items() if prefix in name}
        network.load_state_dict(new, strict=False)
        found = torch.stack(maps_of(network, crops)["nm"])
        slices = [each.sum((2, 3)) for each in (trained, found)]
        patches = [each / each.sum((2, 3), keepdim=True) for each in (trained, found)]
        of_slices = (slices[0] - slices[1]).abs().sum(1) / 2
        of_patches = (patches[0] - patches[1]).abs().sum((2, 3)) / 2
        return float(of_slices.mean()), float(of_patches.mean())

    assert apart("nothing of it") == pytest.approx((0, 0), abs=1e-6)
    slices, patches = apart("res.sfa")
    assert slices > 0.003
    assert patches == pytest.approx(0, abs=1e-6)  # these are the encoder's
    assert apart("res.encoder")[1] > 0.003
    assert min(apart("")) > 0.003
