"""NucleusPool against loops written with numpy, and in the network."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import ROIS

from mrn_components import FFA, MRN, RES, SFA, NucleusPool
from mrn_components.app.report.explanation import explain_subject
from mrn_components.networks.nucleus_pool import nuclei_shares, pool_patches
from mrn_components.networks.packing import VolumeGrid

P = 14  # side of a patch


def crop_of(classes, depth, height, width, seed=0):
    """A crop (1 + K, D, H, W): an image, and a one-hot mask of random nuclei."""
    rng = np.random.default_rng(seed)
    mask = rng.integers(0, classes, (depth, height, width))
    one_hot = np.eye(classes)[mask].transpose(3, 0, 1, 2)
    image = rng.random((1, depth, height, width))
    return torch.from_numpy(np.concatenate([image, one_hot])).float()


def shares_by_loop(crop, patch):
    """The share of nucleus pixels of each patch, counted one by one on the padded slices."""
    _, depth, height, width = crop.shape
    rows, columns = -(-height // patch), -(-width // patch)
    top, left = (rows * patch - height) // 2, (columns * patch - width) // 2
    counts = np.zeros((depth, rows, columns))
    for d in range(depth):
        for y in range(height):
            for x in range(width):
                inside = float(crop[2:, d, y, x].sum())
                counts[d, (y + top) // patch, (x + left) // patch] += inside
    return counts / patch**2


def pool_by_loop(tokens, grids, shares):
    """Weighted means, one patch after another."""
    tokens, at, pooled = tokens.double().numpy(), 0, []
    for grid, share in zip(grids, shares, strict=True):
        weights = share.double().numpy()
        weights = weights if weights.any() else np.ones_like(weights)
        total = np.zeros(tokens.shape[1])
        for d in range(grid.depth):
            at += grid.prefix
            for patch in range(grid.height * grid.width):
                total += weights[d, patch] * tokens[at]
                at += 1
        pooled.append(total / weights.sum())
    return torch.from_numpy(np.stack(pooled)).float()


@pytest.mark.parametrize(("height", "width"), [(28, 14), (25, 31), (3, 40)])
def test_shares_are_counted_pixels_of_padded_patches(height, width):
    crop = crop_of(3, 2, height, width)
    expected = shares_by_loop(crop, P).reshape(2, -1)
    np.testing.assert_allclose(nuclei_shares(crop, P).numpy(), expected, atol=1e-6)


def test_the_mean_is_that_of_a_loop_over_patches_with_and_without_nuclei(close):
    grids = [VolumeGrid(3, 2, 1), VolumeGrid(2, 1, 2, prefix=5), VolumeGrid(1, 2, 2)]
    tokens = torch.randn(sum(grid.total for grid in grids), 8)
    shares = [torch.rand(3, 2), torch.zeros(2, 2), torch.rand(1, 4)]
    close(pool_patches(tokens, grids, shares), pool_by_loop(tokens, grids, shares))


def test_one_covered_patch_is_the_pool_and_the_others_get_no_gradient(close):
    grid, share = VolumeGrid(2, 2, 2), torch.zeros(2, 4)
    share[1, 2] = 0.25
    tokens = torch.randn(grid.total, 8, requires_grad=True)
    pooled = pool_patches(tokens, [grid], [share])
    row = 1 * 5 + 1 + 2
    close(pooled[0], tokens[row], 0)
    pooled.sum().backward()
    moved = tokens.grad.abs().sum(1)
    assert moved.nonzero().flatten().tolist() == [row]


def test_the_order_of_slices_and_patches_and_the_size_of_the_shares_do_not_matter(close):
    grid = VolumeGrid(3, 2, 2)
    tokens, share = torch.randn(3, 5, 8), torch.rand(3, 4)
    slices, patches = torch.tensor([2, 0, 1]), torch.tensor([3, 1, 0, 2])
    moved = torch.cat([tokens[slices][:, :1], tokens[slices][:, 1 + patches]], 1)
    expected = pool_patches(tokens.flatten(0, 1), [grid], [share])
    shuffled = pool_patches(moved.flatten(0, 1), [grid], [0.1 * share[slices][:, patches]])
    close(shuffled, expected)


def test_the_token_has_the_scale_of_sfas(close):
    grid = VolumeGrid(2, 1, 2)
    token = NucleusPool()(7 * torch.randn(grid.total, 64) + 3, [grid], [torch.rand(2, 2)])
    close(token.mean(), torch.tensor(0.0))
    close(token.std(correction=0), torch.tensor(1.0), 1e-3)
    assert not list(NucleusPool().parameters())


def test_a_mode_that_is_none_is_refused():
    with pytest.raises(ValueError, match="mode must be 'beside' or 'instead', got 'before'"):
        NucleusPool(mode="before")


@pytest.fixture
def make_res(tiny_encoder):
    def make(mode, *, ffa=1, sfa=1, registers=False):
        res = RES(
            encoder=tiny_encoder(
                name="vit_small_patch14_reg4_dinov2.lvd142m", keep_registers=registers
            ),
            ffa=FFA(num_layers=ffa, layer_scale=1.0) if ffa else None,
            sfa=SFA(num_layers=sfa) if sfa else None,
            nuclei_pool=NucleusPool(mode=mode) if mode else None,
        )
        res.build({"nm": 3})
        return res.eval()

    return make


@torch.no_grad()
@pytest.mark.parametrize("ffa", [0, 1])
def test_beside_it_follows_sfas_token_and_instead_it_stands_alone(ffa, make_res, close):
    beside = make_res("beside", ffa=ffa)
    assert beside.channels == 64
    crops = [crop_of(3, 3, 28, 42), crop_of(3, 1, 30, 14, seed=1)]
    rois = ["nm", "nm"]
    both, _ = beside(crops, rois)
    alone, plain = (make_res(mode, ffa=ffa) for mode in ("instead", None))
    assert (alone.channels, plain.channels) == (32, 32)
    assert alone.sfa is None
    for res in (alone, plain):
        res.load_state_dict(beside.state_dict(), strict=False)
    close(both[:, :32], plain([crop[:1] for crop in crops], rois)[0])
    close(both[:, 32:], alone(crops, rois)[0])


@torch.no_grad()
@pytest.mark.parametrize("registers", [False, True])
def test_it_pools_what_the_fusion_gives(registers, make_res, close):
    res = make_res("instead", registers=registers)
    crop = crop_of(3, 2, 28, 30)
    levels, grids = res.encoder([crop[0]])
    tokens = res.ffa(res.slice_embedding(levels[-1], grids), grids)[2][-1]
    shares = [torch.from_numpy(shares_by_loop(crop, P)).flatten(1)]
    pooled = pool_by_loop(tokens, grids, shares)
    close(res([crop], ["nm"])[0], torch.nn.functional.layer_norm(pooled, [32]), 1e-4)


def network(make_res, mode, rois=ROIS, **parts):
    res = make_res(mode, **parts)
    return MRN(rois=rois, res=res, dropout=0.0)


def subjects():
    return {
        "nm": [crop_of(2, 3, 28, 56), crop_of(2, 2, 25, 56, 1)],
        "qsm1": [crop_of(5, 4, 56, 42, 2), crop_of(5, 1, 56, 56, 3)],
    }


@pytest.mark.parametrize("mode", ["beside", "instead"])
def test_the_network_takes_masks_trains_all_its_parts_and_exports(mode, make_res, close):
    made = network(make_res, mode)
    assert made.in_channels == {"nm": 3, "qsm1": 6}
    assert made.patient_channels == (128 if mode == "beside" else 64)
    crops = subjects()
    made.train()(crops)["logits"].square().sum().backward()
    assert [name for name, p in made.named_parameters() if p.grad is None] == []
    made.eval()
    with torch.no_grad():
        together = made(crops)["logits"]
        for index in range(2):
            alone = {roi: [volumes[index]] for roi, volumes in crops.items()}
            close(together[index], made(alone)["logits"][0])
        image, other = (alone[roi][0][None] for roi in ROIS)
        close(made(image, qsm1=other), made(alone)["logits"])
        close(torch.jit.script(made)(image, other), made(alone)["logits"])
        hidden = made(image)  # all channels are zeros: the mean of all patches
        blank = {**alone, "qsm1": [torch.zeros_like(alone["nm"][0][:1]).expand(6, -1, -1, -1)]}
        close(hidden, made(blank)["logits"])


@torch.no_grad()
@pytest.mark.parametrize("mode", ["beside", "instead"])
def test_regions_are_hidden_and_cells_covered_for_an_explanation(mode, make_res):
    made = network(make_res, mode).eval()
    crops = {roi: volumes[:1] for roi, volumes in subjects().items()}
    found = explain_subject(made, crops, num_cells=2)
    moved = found["prob_pd"] - found["baseline"]
    assert sum(found["shapley"].values()) == pytest.approx(moved, abs=1e-6)
    assert all(any(map(any, cells)) for cells in found["occlusion"].values())
    assert found["weighed_by_mask"] == (mode == "instead")


@torch.no_grad()
def test_a_region_without_nuclei_is_the_plain_mean(make_res, close):
    made = network(make_res, "instead", {"nm": SimpleNamespace(num_classes=1)}, ffa=0).eval()
    image = torch.rand(1, 2, 28, 28)
    crop = torch.cat([image, torch.ones_like(image)])
    levels, grids = made.res.encoder([crop[0]])
    tokens = made.res.slice_embedding(levels[-1], grids).view(2, 5, 32)[:, 1:]
    expected = torch.nn.functional.layer_norm(tokens.mean((0, 1)), [32])
    close(made({"nm": [crop]})["patient"][0], expected)


def test_a_crop_without_mask_channels_says_what_adds_them(make_res):
    crops = {roi: [crop[:1] for crop in of] for roi, of in subjects().items()}
    with pytest.raises(ValueError, match=r"\(3, D, H, W\), got \(1, 3, 28, 56\). ROIMaskChannelsd"):
        network(make_res, "beside")(crops)
