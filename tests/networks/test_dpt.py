import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate

from mrn_components import DPTHead
from mrn_components.networks.packing import VolumeGrid

WIDTHS = [8, 16, 32, 64]


def head(**args):
    module = DPTHead(**{"fusion_channels": 16, **args})
    module.build(64, 14, {"nm": 2, "qsm1": 5})
    return module


def copy_from_depth_anything(ours, neck):
    """Depth Anything's weights, which a shared norm is not part of, in our head."""
    ours.norm = nn.Identity()
    fusions = list(neck.fusion_stage.layers)[::-1]  # theirs run from the deepest
    for i, layer in enumerate(neck.reassemble_stage.layers):
        ours.projections[i].load_state_dict(layer.projection.state_dict())
        ours.resizes[i].load_state_dict(layer.resize.state_dict())
        ours.convs[i].load_state_dict(neck.convs[i].state_dict())
        mine, theirs = ours.fusions[i], fusions[i]
        mine.project.load_state_dict(theirs.projection.state_dict())
        units = [(mine.skip, theirs.residual_layer1), (mine.residual, theirs.residual_layer2)]
        for unit, reference in units:
            if unit is not None:  # the deepest level has nothing to add
                unit.conv1.load_state_dict(reference.convolution1.state_dict())
                unit.conv2.load_state_dict(reference.convolution2.state_dict())


@pytest.mark.parametrize("grid", [(16, 16), (7, 16), (15, 9)])
def test_fused_map_equals_depth_anything(grid, close):
    depth_anything = pytest.importorskip("transformers.models.depth_anything")
    config = depth_anything.DepthAnythingConfig(
        reassemble_hidden_size=64, neck_hidden_sizes=WIDTHS, fusion_hidden_size=16
    )
    neck = depth_anything.modeling_depth_anything.DepthAnythingNeck(config)
    ours = head()
    copy_from_depth_anything(ours, neck)
    levels = [torch.randn(2, 1 + grid[0] * grid[1], 64) for _ in range(4)]
    expected = neck(levels, *grid)[-1]
    got = ours.fuse(levels, VolumeGrid(2, *grid))
    assert got.shape == (2, 16, 4 * grid[0], 4 * grid[1])
    # Theirs doubles the last map once more; a 1 x 1 convolution commutes with that.
    close(interpolate(got, scale_factor=2, mode="bilinear", align_corners=True), expected)


def test_masks_have_the_size_of_the_slices_and_the_classes_of_the_roi():
    grids = [VolumeGrid(3, 4, 8), VolumeGrid(9, 2, 2)]
    levels = [torch.randn(sum(grid.total for grid in grids), 64) for _ in range(4)]
    masks = head()(levels, grids, [(50, 112), (28, 25)], ["nm", "qsm1"])
    assert [mask.shape for mask in masks] == [(2, 3, 50, 112), (5, 9, 28, 25)]


def test_chunks_and_padding_do_not_change_the_masks(close):
    grid, module = VolumeGrid(5, 2, 3), head()
    levels = [torch.randn(grid.total, 64) for _ in range(4)]
    (full,) = module(levels, [grid], [(28, 42)], ["qsm1"])
    module.chunk_size = 2
    (cropped,) = module(levels, [grid], [(25, 40)], ["qsm1"])
    close(cropped, full[..., 1:26, 1:41])


@pytest.mark.parametrize("bf16", [False, True])
def test_masks_are_resized_as_torch_does_in_float32(bf16, close):
    grid, module = VolumeGrid(2, 3, 4), head()
    levels = [torch.randn(grid.total, 64) for _ in range(4)]
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        maps = module.fuse([level.view(2, grid.per_slice, 64) for level in levels], grid)
        logits = module.outputs["nm"](module.head(maps)).float()
        (masks,) = module(levels, [grid], [(40, 50)], ["nm"])
    assert masks.dtype == torch.float32
    expected = interpolate(logits, (42, 56), mode="bilinear")[..., 1:41, 3:53]
    close(masks.transpose(0, 1), expected)


def test_widths_of_the_paper():
    module = DPTHead()
    with torch.device("meta"):
        module.build(768, 14, {"nm": 2})
    assert [conv.out_channels for conv in module.projections] == [96, 192, 384, 768]
    assert module.fusions[0].project.out_channels == 256


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match="features must be 'local' or 'global', got 'both'"):
        DPTHead(features="both")
    with pytest.raises(ValueError, match="project_channels must be 4 widths"):
        DPTHead(project_channels=[8, 16])
