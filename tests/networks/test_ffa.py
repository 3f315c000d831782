import pytest
import torch

from mrn_components import FFA
from mrn_components.networks.packing import VolumeGrid, slice_tokens, unpack

GRIDS = [VolumeGrid(3, 2, 2), VolumeGrid(2, 1, 3)]


@pytest.fixture
def ffa():
    module = FFA(num_layers=2)
    module.build(32, 2)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module.double()


@pytest.fixture
def tokens():
    return torch.randn(sum(grid.total for grid in GRIDS), 32, dtype=torch.float64)


def test_one_slice_global_equals_local_attention(ffa, close):
    grid = VolumeGrid(1, 2, 3)
    x = torch.randn(grid.total, 32, dtype=torch.float64)
    for block in [*ffa.global_blocks, *ffa.local_blocks]:
        close(block(x, [(1, grid.total)]), block(x, [(grid.depth, grid.per_slice)]), 1e-12)
    expected = x
    for pair in zip(ffa.global_blocks, ffa.local_blocks, strict=True):
        for block in pair:
            expected = block(expected, [(1, grid.total)])
    close(ffa(x, [grid])[2][-1], expected, 1e-12)


def test_volumes_do_not_see_each_other(ffa, tokens, close):
    together = ffa(tokens, GRIDS)
    parts = tokens.split([grid.total for grid in GRIDS])
    alone = [ffa(part, [grid]) for part, grid in zip(parts, GRIDS, strict=True)]
    close(together[0], torch.cat([one[0] for one in alone]), 1e-12)
    for level in range(2):
        close(together[1][level], torch.cat([one[1][level] for one in alone]), 1e-12)
        close(together[2][level], torch.cat([one[2][level] for one in alone]), 1e-12)


def test_slices_see_each_other_through_global_attention_only(ffa, tokens):
    changed = tokens.clone()
    changed[: GRIDS[0].per_slice].neg_()  # slice 0 of volume 0
    difference = ffa(changed, GRIDS)[1][0] - ffa(tokens, GRIDS)[1][0]
    volume, other = unpack(difference, GRIDS)
    assert volume[1:].abs().amax(dim=(1, 2)).min() > 1e-6
    assert other.abs().max() == 0
    block = ffa.local_blocks[0]
    slices = [(grid.depth, grid.per_slice) for grid in GRIDS]
    assert (block(changed, slices) - block(tokens, slices))[GRIDS[0].per_slice :].abs().max() == 0


def test_permuting_slices_permutes_the_outputs(ffa, close):
    grid, order = VolumeGrid(4, 2, 2), [2, 0, 3, 1]
    x = torch.randn(4, 5, 32, dtype=torch.float64)
    slices, *_ = ffa(x.flatten(0, 1), [grid])
    permuted, *_ = ffa(x[order].flatten(0, 1), [grid])
    close(permuted, slices[order], 1e-12)


def test_slices_only_equals_the_whole_last_block(ffa, tokens, close):
    slices, globals_, locals_ = ffa(tokens, GRIDS)
    pruned, pruned_globals, pruned_locals = ffa(tokens, GRIDS, slices_only=True)
    close(pruned, slices, 1e-12)
    close(slices, slice_tokens(locals_[-1], GRIDS), 0)
    assert len(pruned_globals) == len(globals_) == 2
    assert len(pruned_locals) == 1


def test_at_least_one_layer():
    with pytest.raises(ValueError, match="num_layers must be >= 1, got 0"):
        FFA(num_layers=0)


def merged(volume):
    """Slices 2k and 2k + 1 averaged, an odd last one as it is."""
    pairs = [volume[i : i + 2] for i in range(0, len(volume), 2)]
    return torch.stack([sum(pair) / len(pair) for pair in pairs])


@pytest.fixture(params=[[0], [1], [0, 1]], ids=str)
def merging(request, ffa):
    """An FFA that merges slices before some layers, with the parameters of ``ffa``."""
    module = FFA(num_layers=2, merge_before=request.param)
    module.build(32, 2)
    module.double().load_state_dict(ffa.state_dict())
    return module


def test_merging_is_the_plain_ffa_on_merged_slices(merging, close):
    """Each level and slice token, by a loop over one volume of five slices."""
    grid = VolumeGrid(5, 2, 2)
    x = volume = torch.randn(5, grid.per_slice, 32, dtype=torch.float64)
    owners, levels = [0, 1, 2, 3, 4], []  # which of the merged slices each slice is in
    for layer in range(2):
        if layer in merging.merge_before:
            x, owners = merged(x), [owner // 2 for owner in owners]
        for blocks in (merging.global_blocks, merging.local_blocks):
            whole = blocks is merging.global_blocks
            shape = (1, x[..., 0].numel()) if whole else (len(x), grid.per_slice)
            x = blocks[layer](x.flatten(0, 1), [shape]).view_as(x)
            levels.append(x[owners].flatten(0, 1))
    slices, globals_, locals_ = merging(volume.flatten(0, 1), [grid])
    close([globals_[0], locals_[0], globals_[1], locals_[1]], levels, 1e-12)
    close(slices, x[owners][:, 0], 1e-12)


def test_merged_volumes_do_not_see_each_other(merging, tokens, close):
    together = merging(tokens, GRIDS)
    parts = tokens.split([grid.total for grid in GRIDS])
    alone = [merging(part, [grid]) for part, grid in zip(parts, GRIDS, strict=True)]
    close(together[0], torch.cat([one[0] for one in alone]), 1e-12)
    pruned, *_ = merging(tokens, GRIDS, slices_only=True)
    close(pruned, together[0], 1e-12)


@torch.no_grad()
def test_merging_on_tensors_is_the_same_and_torchscript_runs_it(merging, close):
    grid = VolumeGrid(3, 2, 2)
    x = torch.randn(2, 3, grid.per_slice, 32, dtype=torch.float64)
    _, _, levels = merging(x.flatten(0, 2), [grid, grid])
    close(torch.jit.script(merging.on_tensors())(x).flatten(0, 2), levels[-1], 1e-12)


def test_merging_equal_slices_changes_nothing(merging, ffa, close):
    """But for the slices' number, to which attention over equal slices is blind."""
    grid = VolumeGrid(4, 2, 2)
    x = torch.randn(1, grid.per_slice, 32, dtype=torch.float64).expand(4, -1, -1).flatten(0, 1)
    close(merging(x, [grid])[0], ffa(x, [grid])[0], 1e-12)


def test_merging_before_a_layer_there_is_not_is_refused():
    with pytest.raises(ValueError, match=r"merge_before must name layers of 0 to 1, got \[2\]"):
        FFA(num_layers=2, merge_before=[2])
