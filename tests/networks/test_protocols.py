"""Parts written from the docstrings of the Protocols alone take the places of the package's own."""

import pytest
import torch
from tiny import ROIS
from torch import nn
from torch.nn.functional import interpolate

from mrn_components import FFA, MRN, RES, SFA, DPTHead, MRNLoss


class MeanFusion(nn.Module):
    """Adds to every token a projection of its volume's mean token."""

    num_layers = 1

    def build(self, channels, num_heads):  # noqa: ARG002
        self.project = nn.Linear(channels, channels)

    def set_grad_checkpointing(self, enable=True):
        pass

    def forward(self, tokens, grids, *, slices_only=False):  # noqa: ARG002
        volumes = tokens.split([grid.total for grid in grids])
        volumes = [volume + self.project(volume.mean(0)) for volume in volumes]
        slices = [
            volume.view(grid.depth, grid.per_slice, -1)[:, 0]
            for volume, grid in zip(volumes, grids, strict=True)
        ]
        fused = [torch.cat(volumes)]
        return torch.cat(slices), fused, fused

    def on_tensors(self):
        return TensorMeanFusion(self.project)


class TensorMeanFusion(nn.Module):
    def __init__(self, project):
        super().__init__()
        self.project = project

    def forward(self, tokens):
        return tokens + self.project(tokens.mean([1, 2], keepdim=True))


class MaxPool(nn.Module):
    """The largest of the projected slice tokens, feature by feature."""

    def build(self, channels, num_heads):  # noqa: ARG002
        self.project = nn.Linear(channels, channels)

    def forward(self, slices, depths):
        parts = self.project(slices).split(list(depths))
        return torch.stack([part.amax(0) for part in parts])

    def on_tensors(self):
        return TensorMaxPool(self.project)


class TensorMaxPool(nn.Module):
    def __init__(self, project):
        super().__init__()
        self.project = project

    def forward(self, slices):
        return self.project(slices).amax(1)


class LinearHead(nn.Module):
    """Logits of a patch from its tokens on all levels, enlarged to the padded slice and cropped."""

    features = "global"

    def build(self, channels, patch_size, num_classes):
        self.patch_size = patch_size
        self.outputs = nn.ModuleDict(
            {roi: nn.Linear(4 * channels, count) for roi, count in num_classes.items()}
        )

    def set_grad_checkpointing(self, enable=True):
        pass

    def forward(self, levels, grids, sizes, rois):
        masks = []
        tokens = torch.cat(list(levels), 1).split([grid.total for grid in grids])
        for volume, grid, size, roi in zip(tokens, grids, sizes, rois, strict=True):
            if roi not in self.outputs:
                masks.append(None)
                continue
            patches = volume.view(grid.depth, grid.per_slice, -1)[:, grid.prefix :]
            logits = self.outputs[roi](patches).permute(2, 0, 1)
            logits = logits.unflatten(2, (grid.height, grid.width))
            padded = [grid.height * self.patch_size, grid.width * self.patch_size]
            logits = interpolate(logits, padded)
            top, left = ((whole - side) // 2 for whole, side in zip(padded, size, strict=True))
            masks.append(logits[..., top : top + size[0], left : left + size[1]])
        return masks


class Moments(nn.Module):
    """Projected means of the channels of a crop."""

    channels = 8

    def build(self, num_classes):
        self.project = nn.ModuleDict(
            {roi: nn.Linear(1 + count, self.channels) for roi, count in num_classes.items()}
        )

    def forward(self, volumes, rois):
        pairs = zip(volumes, rois, strict=True)
        return torch.stack([self.project[roi](crop.mean([1, 2, 3])) for crop, roi in pairs]), None

    def on_tensors(self, rois):
        return TensorMoments([self.project[roi] for roi in rois])


class TensorMoments(nn.Module):
    def __init__(self, projects):
        super().__init__()
        self.projects = nn.ModuleList(projects)

    def forward(self, volumes: list[torch.Tensor]):
        features: list[torch.Tensor] = []
        for i, project in enumerate(self.projects):
            features.append(project(volumes[i].mean([2, 3, 4])))
        return features


def network_with(part, encoder):
    """An MRN with one part of the user's own."""
    if part == "encoder":
        return MRN(rois=ROIS, encoder=Moments(), dropout=0.0)
    parts = {"ffa": FFA(num_layers=1), "sfa": SFA(num_layers=1), "dpt": DPTHead(fusion_channels=16)}
    own = {"ffa": MeanFusion, "sfa": MaxPool, "dpt": LinearHead}
    res = RES(encoder=encoder, **parts | {part: own[part]()}, checkpointing=True)
    return MRN(rois=ROIS, res=res, dropout=0.0)


@pytest.mark.parametrize("part", ["ffa", "sfa", "dpt", "encoder"])
def test_a_part_of_ones_own_trains_predicts_and_exports(part, tiny_encoder, images, close):
    network = network_with(part, tiny_encoder()).train()
    target = {"label": torch.tensor([0, 1])}
    target["masks"] = {
        roi: [torch.randint(ROIS[roi].num_classes, crop.shape[1:]) for crop in crops]
        for roi, crops in images.items()
    }
    channels = network.in_channels
    crops = {
        roi: [crop.expand(channels[roi], -1, -1, -1) for crop in crops]
        for roi, crops in images.items()
    }
    before = {name: value.clone() for name, value in network.named_parameters()}
    output = network(crops)
    assert ("masks" in output) == (part != "encoder")
    MRNLoss()(output, target).backward()
    torch.optim.SGD(network.parameters(), lr=1.0).step()
    assert not [name for name, value in network.named_parameters() if value.equal(before[name])]

    network.eval()
    with torch.no_grad():
        alone = {roi: crops[roi][:1] for roi in crops}
        close(network(crops)["logits"][:1], network(alone)["logits"])
        image, other = (alone[roi][0][None] for roi in ROIS)
        close(network(image, qsm1=other), network(alone)["logits"])
        close(torch.jit.script(network)(image, other), network(alone)["logits"])
