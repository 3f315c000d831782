"""Boxes in voxels and in mm."""

import nibabel
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from tiny_cohort import AXCODES

from mrn_components.images.boxes import Box, BoxMm, enclosing_box, label_boxes

AFFINE = np.diag([-0.5, 0.75, 2.0, 1.0])
AFFINE[:3, 3] = [10.0, -20.0, 5.0]


def in_mm(box):
    return np.concatenate(box)


def test_a_box_holds_the_whole_of_its_voxels_in_mm():
    box = Box(np.array([2, 4, 1]), np.array([6, 5, 4])).to_mm(AFFINE)
    assert box.centre == pytest.approx([10 - 0.5 * 3.5, -20 + 0.75 * 4, 5 + 2 * 2])
    assert box.half_size == pytest.approx([1.0, 0.375, 3.0])


@pytest.mark.parametrize("axcodes", AXCODES)
def test_mm_do_not_depend_on_how_the_file_is_stored(axcodes):
    volume = np.zeros((9, 8, 7), np.uint8)
    volume[2:6, 4:5, 1:4] = 3
    image = nibabel.Nifti1Image(volume, AFFINE)
    turned = image.as_reoriented(ornt_transform(io_orientation(AFFINE), axcodes2ornt(axcodes)))
    box = label_boxes(np.asarray(turned.dataobj))[3]
    expected = Box(np.array([2, 4, 1]), np.array([6, 5, 4])).to_mm(AFFINE)
    assert in_mm(box.to_mm(turned.affine)) == pytest.approx(in_mm(expected))
    assert in_mm(expected.to_voxels(turned.affine)).tolist() == in_mm(box).tolist()
    # A box between voxels takes the same ones in every file.
    shifted = expected.centre + [0.2, 0.3, -0.7]  # noqa: RUF005
    between = BoxMm(shifted, expected.half_size * 1.1)
    there = between.to_voxels(turned.affine).to_mm(turned.affine)
    assert in_mm(there) == pytest.approx(in_mm(between.to_voxels(AFFINE).to_mm(AFFINE)))


def test_an_oblique_box_keeps_its_centre_and_size():
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.2), -np.sin(0.2)], [np.sin(0.2), np.cos(0.2)]]
    box = Box(np.array([2, 4, 1]), np.array([6, 5, 4]))
    assert in_mm(box.to_mm(turn @ AFFINE).to_voxels(turn @ AFFINE)).tolist() == in_mm(box).tolist()


def test_the_enclosing_box_has_its_margin():
    boxes = [
        Box(np.array([2, 4, 1]), np.array([6, 5, 4])),
        Box(np.array([0, 4, 3]), np.array([1, 9, 5])),
    ]
    start, stop = enclosing_box(boxes, (1, 2, 0))
    assert (start.tolist(), stop.tolist()) == ([-1, 2, 1], [7, 11, 5])
