"""Scores of masks: laws, and the library that the organisers use."""

import numpy as np
import pytest
import torch
from medpy.metric import binary
from monai.metrics import compute_hausdorff_distance

from mrn_components.metrics.segmentation import score_masks

SPACING = (0.5, 0.75, 2.0)


@pytest.fixture
def truth():
    """Three labels: a box, a box that touches the border, and rough noise."""
    mask = np.zeros((30, 28, 16), np.uint8)
    mask[4:12, 5:13, 3:9] = 1
    mask[20:30, 6:14, 10:16] = 2
    noise = np.random.default_rng(0).random((8, 9, 6)) < 0.6
    mask[5:13, 16:25, 5:11][noise] = 3
    return mask


def score(predicted, truth, labels=(1, 2, 3), spacing=SPACING):
    return score_masks(predicted, truth, labels=labels, spacing_mm=spacing)


def test_a_mask_agrees_with_itself(truth):
    for label, found in score(truth, truth).items():
        volume = np.sum(truth == label) * 0.75
        assert found == {
            "dice": 1.0,
            "hausdorff_voxels": 0.0,
            "hausdorff95_mm": 0.0,
            "volume_mm3": volume,
            "true_volume_mm3": volume,
            "empty": "",
        }


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_shift_by_a_voxel_is_one_voxel_and_its_edge_in_mm(truth, axis):
    shifted = np.where(truth == 1, 0, truth)
    shifted[np.roll(truth == 1, 1, axis)] = 1
    found = score(shifted, truth)
    length = (8, 8, 6)[axis]
    assert found[1]["hausdorff_voxels"] == 1
    assert found[1]["hausdorff95_mm"] == pytest.approx(SPACING[axis])
    assert found[1]["dice"] == pytest.approx((length - 1) / length)
    assert found[2]["dice"] == 1


def test_spacing_scales_mm_and_volumes_and_no_voxels(truth):
    predicted = np.roll(truth, (1, 2, 1), (0, 1, 2))
    small, large = score(predicted, truth), score(predicted, truth, spacing=np.multiply(SPACING, 3))
    for label in small:
        assert large[label]["hausdorff95_mm"] == pytest.approx(3 * small[label]["hausdorff95_mm"])
        assert large[label]["volume_mm3"] == pytest.approx(27 * small[label]["volume_mm3"])
        assert large[label]["hausdorff_voxels"] == small[label]["hausdorff_voxels"]
        assert large[label]["dice"] == small[label]["dice"]


def test_distances_are_symmetric_and_volumes_swap(truth):
    predicted = np.roll(truth, (2, 0, 1), (0, 1, 2))
    there, back = score(predicted, truth), score(truth, predicted)
    for label in there:
        for name in ("dice", "hausdorff_voxels", "hausdorff95_mm"):
            assert there[label][name] == back[label][name]
        assert there[label]["volume_mm3"] == back[label]["true_volume_mm3"]


def test_empty_masks_are_named_and_not_dropped(truth):
    predicted = np.where(truth == 1, 0, truth)
    drawn = np.where(truth == 2, 0, truth)
    found = score(predicted, drawn, labels=(1, 2, 3, 4))
    assert [found[label]["empty"] for label in (1, 2, 3, 4)] == ["predicted", "truth", "", "both"]
    assert [found[label]["dice"] for label in (1, 2, 3, 4)] == [0, 0, 1, None]
    for label in (1, 2, 4):
        assert found[label]["hausdorff_voxels"] is None
        assert found[label]["hausdorff95_mm"] is None
    assert found[1]["volume_mm3"] == 0
    assert found[1]["true_volume_mm3"] > 0


@pytest.mark.parametrize("seed", range(4))
def test_dice_and_hausdorff_are_the_organisers(truth, seed):
    rng = np.random.default_rng(seed)
    predicted = np.roll(truth, rng.integers(-3, 4, 3), (0, 1, 2))
    predicted[rng.random(truth.shape) < 0.003] = 2  # stray voxels far away
    for label, found in score(predicted, truth).items():
        ours, theirs = predicted == label, truth == label
        assert found["dice"] == pytest.approx(binary.dc(ours, theirs))
        assert found["hausdorff_voxels"] == pytest.approx(binary.hd(ours, theirs))


def test_hd95_is_monais(truth):
    predicted = np.roll(truth, (1, -2, 1), (0, 1, 2))
    predicted[0, 0, 0] = 1
    pairs = [
        torch.from_numpy(np.stack([mask == label for label in (1, 2, 3)]))[None]
        for mask in (predicted, truth)
    ]
    expected = compute_hausdorff_distance(
        *pairs, include_background=True, percentile=95, spacing=SPACING
    )
    found = [each["hausdorff95_mm"] for each in score(predicted, truth).values()]
    assert found == pytest.approx(expected[0].tolist(), rel=1e-5)


def test_what_cannot_be_compared_is_refused(truth):
    with pytest.raises(ValueError, match=r"must have one shape .* got \(29, 28, 16\), \(30, 28"):
        score(truth[1:], truth)
    with pytest.raises(ValueError, match="and 2 edges"):
        score(truth, truth, spacing=(1, 1))
    with pytest.raises(ValueError, match=r"must hold integers, got float64 and uint8"):
        score(truth.astype(float), truth)
