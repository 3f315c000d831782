"""Test-time augmentation."""

import pytest
import torch
from torch import nn

from mrn_components import DiagnosisOutputd, FoldEnsemble, TTAInferer


class LeftSide(nn.Module):
    """Scores the left half of the crops, all channels and ROIs."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.scale = scale

    def forward(self, images):
        halves = [
            torch.stack([crop[..., crop.shape[-1] // 2 :].mean() for crop in crops])
            for crops in images.values()
        ]
        score = self.scale * sum(halves)
        return {"logits": torch.stack([-score, score], -1), "patient": score[:, None]}


DRAW = torch.Generator().manual_seed(0)
IMAGES = {
    "nm": [torch.rand(1, 2, 4, 6, generator=DRAW), torch.rand(1, 3, 5, 4, generator=DRAW)],
    "qsm": [  # several channels
        torch.randn(3, 2, 4, 4, generator=DRAW),
        torch.randn(3, 1, 2, 6, generator=DRAW),
    ],
}
FLIPPED = {roi: [crop.flip(3) for crop in crops] for roi, crops in IMAGES.items()}


def prob(output):
    return output["logits"].softmax(-1)


def test_off_asks_once_and_changes_nothing():
    output = TTAInferer()(IMAGES, LeftSide())
    assert set(output) == {"logits", "patient"}
    assert torch.equal(output["logits"], LeftSide()(IMAGES)["logits"])


def test_mirror_averages_probabilities_of_both_views():
    output = TTAInferer(mirror=True)(IMAGES, LeftSide())
    views = [prob(LeftSide()(images)) for images in (IMAGES, FLIPPED)]
    assert (views[0] - views[1]).abs().max() > 0.01
    torch.testing.assert_close(prob(output), sum(views) / 2)
    torch.testing.assert_close(output["view_logits"].softmax(-1), torch.stack(views, 1))


def test_mirrored_subjects_get_the_same_probability():
    inferer = TTAInferer(mirror=True)
    one, other = inferer(IMAGES, LeftSide()), inferer(FLIPPED, LeftSide())
    torch.testing.assert_close(prob(one), prob(other))


@pytest.fixture
def ensemble():
    network = FoldEnsemble(network=LeftSide(), num_folds=3)
    for index, fold in enumerate(network.folds):
        fold.scale = 1.0 + index
    return network


def test_with_an_ensemble_folds_and_views_are_means_of_the_same_probabilities(ensemble):
    output = TTAInferer(mirror=True)(IMAGES, ensemble)
    every = torch.stack(
        [
            torch.stack([prob(fold(images)) for fold in ensemble.folds], 1)
            for images in (IMAGES, FLIPPED)
        ],
        1,
    )  # (B, views, folds, 2)
    adapted = DiagnosisOutputd()({"pred": output, "label": {}})
    torch.testing.assert_close(adapted["prob_pd"], every[..., 1].mean((1, 2)))
    torch.testing.assert_close(adapted["prob_pd_folds"], every[..., 1].mean(1))
    torch.testing.assert_close(adapted["prob_pd_views"], every[..., 1].mean(2))


def test_a_single_network_leaves_no_members():
    adapted = DiagnosisOutputd()({"pred": TTAInferer()(IMAGES, LeftSide()), "label": {}})
    assert set(adapted) == {"pred", "label", "prob_pd"}
