import pytest
import torch

from mrn_components.training.augmentation import RandJitterBoxesd, augment_rois


def crops(shape=(6, 9, 12)):
    """An ROI whose image is its mask, so that both must move alike; edges are background."""
    mask = torch.zeros(1, *shape, dtype=torch.uint8)
    mask[:, 2:4, 3:6, 3:9] = 1
    return {"nm": mask.float(), "mask_nm": mask}


def test_jitter_moves_the_sides_of_the_box_by_at_most_the_voxels_it_has():
    jitter = RandJitterBoxesd(rois=["nm"], max_voxels=(1, 2, 2), prob=1.0).set_random_state(0)
    shapes = set()
    for _ in range(50):
        d = jitter(crops())
        assert torch.equal(d["nm"], d["mask_nm"].float())
        assert d["mask_nm"].dtype == torch.uint8
        assert int(d["mask_nm"].sum()) == 2 * 3 * 6  # no nucleus is cut where the margin allows it
        shapes.add(tuple(d["nm"].shape[1:]))
    depths, heights, widths = (set(sizes) for sizes in zip(*shapes, strict=True))
    assert min(depths) >= 4
    assert max(depths) <= 8
    assert min(heights) < 9 < max(heights)
    assert min(widths) < 12 < max(widths)


def test_what_lies_beyond_the_crop_repeats_its_edge_and_a_crop_never_vanishes():
    jitter = RandJitterBoxesd(rois=["nm"], max_voxels=(3, 3, 3), prob=1.0).set_random_state(0)
    for _ in range(50):
        d = jitter({"nm": torch.full((1, 1, 2, 2), 7.0), "mask_nm": torch.ones(1, 1, 2, 2)})
        assert d["nm"].shape == d["mask_nm"].shape
        assert (d["nm"] == 7).all()
        assert 1 <= int(d["mask_nm"].sum()) <= 4


def test_jitter_is_off_unless_asked_for_and_comes_first():
    assert not any(isinstance(t, RandJitterBoxesd) for t in augment_rois(rois=["nm"]).transforms)
    first = augment_rois(rois=["nm"], noise={"prob": 0.1}, jitter={"prob": 0.3}).transforms[0]
    assert isinstance(first, RandJitterBoxesd)
    assert first.prob == 0.3


@pytest.mark.parametrize("max_voxels", [2, [1, 2], [1, 2, -1]])
def test_jitter_needs_a_number_of_voxels_along_each_axis(max_voxels):
    with pytest.raises(ValueError, match=r"max_voxels must be \[slices, rows, columns\], got"):
        augment_rois(rois=["nm"], jitter={"max_voxels": max_voxels})
