"""Phantoms whose NM was moved: where the search says that it belongs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mrn_components.images.alignment import Alignment
from mrn_components.images.registration import align
from mrn_components.images.volume import Volume
from mrn_components.phantom import make_subject
from mrn_components.phantom.signal import draw_traits


@pytest.fixture(scope="module")
def head():
    """NM and QSM of a phantom, at every second pixel, and the middle of QSM's SN in mm."""
    phantom = make_subject(0, seed=5, view="midbrain")
    every = phantom.affine @ np.diag([2, 2, 1, 1])
    nm, qsm = (
        Volume(path=Path(f"{name}.nii.gz"), stored=phantom.volumes[name][::2, ::2], affine=every)
        for name in ("NM", "QSM")
    )
    nigra = np.argwhere(np.isin(phantom.volumes["QSM_mask"], (11, 12))).mean(axis=0)
    return nm, qsm, (phantom.affine @ [*nigra, 1])[:3]


def movement(degrees, shift, about):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    matrix[:3, 3] = about - matrix[:3, :3] @ about + shift
    return matrix


def test_a_moved_image_is_brought_back(head):
    nm, qsm, nigra = head
    motion = movement((3, -3, 2.5), (3, 3, -2.6), nigra)  # 5 degrees, 5 mm
    found = align(replace(nm, affine=motion @ nm.affine), qsm, near=nigra)
    assert found.cost_after < 1.2 * found.cost_before < 0
    assert found.degrees == pytest.approx(5, abs=1)
    assert found.moved_mm(nigra) == pytest.approx(7, abs=1.5)
    # A phantom's NM lies up to 1.6 mm beside its QSM along each axis of the grid.
    rng = np.random.default_rng(np.random.SeedSequence([5, 0]).spawn(5)[0])
    shift = draw_traits(rng, effect=1.0).shift_mm * (-1, 1, 1)  # which no effect changes
    there = found.matrix @ motion @ [*(nigra + shift), 1]
    assert np.linalg.norm(there[:3] - nigra) < 0.7


def test_what_lies_right_hardly_moves_and_repeats_to_the_bit(head):
    _, qsm, nigra = head
    slab = replace(qsm, stored=qsm.stored[..., 12:24], affine=qsm.affine.copy())
    slab.affine[:3, 3] += qsm.affine[:3, 2] * 12
    first, again = (align(slab, qsm, near=nigra) for _ in range(2))
    assert first.moved_mm(nigra) < 0.5
    assert np.array_equal(first.matrix, again.matrix)
    assert first.cost_before == again.cost_before


def test_images_that_share_nothing_are_refused(head):
    nm, qsm, nigra = head
    far = replace(nm, affine=nm.affine + np.eye(4)[:, 3:] * 0)
    far.affine[:3, 3] += 900
    with pytest.raises(ValueError, match=r"NM.nii.gz and QSM.nii.gz cannot be aligned"):
        align(far, qsm, near=nigra)
    with pytest.raises(ValueError, match=r"nothing"):
        align(nm, qsm, near=nigra + 900)


def test_a_movement_is_told_as_over_a_head():
    turned = Alignment(
        matrix=movement((0, 0, 5), (0, 0, 0), np.ones(3)), cost_before=0, cost_after=0
    )
    assert turned.degrees == pytest.approx(5)
    assert turned.moved_mm(np.ones(3)) == pytest.approx(
        80 / 5**0.5 * 8**0.5 * np.sin(np.deg2rad(2.5))
    )
    shifted = Alignment(
        matrix=movement((0, 0, 0), (3, 4, 0), np.ones(3)), cost_before=0, cost_after=0
    )
    assert (shifted.degrees, shifted.moved_mm(np.zeros(3))) == (0, 5)
