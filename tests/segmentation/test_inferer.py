import logging

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from tiny_segmentation import make_plan

from mrn_components import NucleiRegionInferer

SPACING = (2.0, 0.6667, 0.6667)


def oracle(image):
    """Logits of a network that reads the label off the intensity."""
    return -((image - torch.arange(3).view(1, 3, 1, 1, 1)) ** 2).float() * 10


BOXES = {1: ((8, 28, 24), (11, 32, 28)), 2: ((8, 28, 32), (11, 32, 36))}


def labelled(shape=(20, 60, 60), boxes=BOXES):
    """An image of label ids, its own truth."""
    image = torch.zeros(1, 1, *shape)
    for label, (start, stop) in boxes.items():
        image[0, 0, start[0] : stop[0], start[1] : stop[1], start[2] : stop[2]] = label
    return image


def inferer(**arguments):
    return NucleiRegionInferer(plan=make_plan("nm"), **{"offset_mm": (0, 0, 0), **arguments})


class Counting:
    def __init__(self):
        self.voxels = 0

    def __call__(self, image):
        self.voxels += image.numel()
        return oracle(image)


def test_the_region_gives_what_the_whole_image_gives_for_less():
    image = labelled()
    limited, whole = Counting(), Counting()
    found = inferer(region_mm=(20, 20, 20))(image, limited)
    assert torch.equal(found, inferer(region_mm=None)(image, whole))
    assert torch.equal(found, image.to(torch.uint8))
    assert limited.voxels < whole.voxels / 2


@pytest.mark.parametrize(
    ("boxes", "reason"),
    [
        ({1: ((8, 28, 24), (11, 32, 28)), 2: ((8, 2, 2), (11, 6, 6))}, r"labels \[2\] are not in"),
        ({1: ((8, 28, 24), (11, 32, 28)), 2: ((8, 28, 32), (11, 32, 58))}, "touches the border"),
    ],
)
def test_the_whole_image_is_searched_where_the_region_fails(boxes, reason, caplog):
    image = labelled(boxes=boxes)
    with caplog.at_level(logging.INFO):
        found = inferer(region_mm=(20, 20, 20))(image, oracle)
    assert torch.equal(found, image.to(torch.uint8))
    assert reason.replace("\\", "").split(" ")[0] in caplog.text


def test_a_nucleus_at_the_images_own_border_is_no_fault(caplog):
    image = labelled(boxes={1: ((0, 28, 24), (3, 32, 28)), 2: ((8, 28, 32), (11, 32, 36))})
    with caplog.at_level(logging.INFO):
        found = inferer(region_mm=(60, 20, 20))(image, oracle)
    assert torch.equal(found, image.to(torch.uint8))
    assert not caplog.text


def test_the_region_may_be_centred_elsewhere():
    boxes = {1: ((3, 8, 8), (6, 12, 12)), 2: ((3, 8, 14), (6, 12, 18))}
    image, network = labelled(boxes=boxes), Counting()
    found = inferer(region_mm=None)(image, network, centre=(4, 10, 13), region_mm=(10, 10, 12))
    assert torch.equal(found, image.to(torch.uint8))
    assert network.voxels < image.numel()


def test_another_spacing_is_resampled_to_the_plans():
    # One label: blurred, the second would read as the first at its rim.
    fine = labelled(boxes={1: BOXES[1]}).repeat_interleave(2, dim=3).repeat_interleave(2, dim=4)
    affine = np.diag([SPACING[0], SPACING[1] / 2, SPACING[2] / 2, 1])
    seen = []

    def network(image):
        seen.append(image.shape)
        return oracle(image)

    found = inferer(region_mm=(20, 20, 20))(MetaTensor(fine, affine=affine), network)
    truth = fine.to(torch.uint8)
    overlap = 2 * ((found == truth) & (truth > 0)).sum() / ((found > 0).sum() + (truth > 0).sum())
    assert overlap > 0.85
    assert found.shape == fine.shape


def test_one_image_at_a_time():
    with pytest.raises(ValueError, match=r"takes one image .* set batch_size to 1"):
        inferer()(torch.zeros(2, 1, 8, 16, 16), oracle)


def test_numbers_that_are_not_finite_make_no_mask():
    with pytest.raises(ValueError, match="gives no finite numbers for this image; look for"):
        inferer()(labelled(), lambda image: oracle(image) / 0)
