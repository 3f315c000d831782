"""Masks as people draw and save them."""

import gzip
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from tiny_cohort import AFFINE, make_mask

from mrn_components.data.nuclei import drawn_by, nuclei_settings, read_nuclei
from mrn_components.images.finding import FaultyFileError
from mrn_components.images.image import CHALLENGE_IMAGES
from mrn_components.images.volume import Volume
from mrn_components.phantom import make_subject
from mrn_components.regions.drawn import mend_mask, read_file
from mrn_components.regions.roi import ROI

NM, QSM = CHALLENGE_IMAGES["nm"], CHALLENGE_IMAGES["qsm"]


@pytest.fixture(scope="module")
def phantoms():
    return [make_subject(index, seed=7, view="midbrain", label=index % 2) for index in range(6)]


def volume(stored, affine=AFFINE, **fields):
    return Volume(path=Path("mask.nii.gz"), stored=stored, affine=affine, **fields)


def mended(stored, image, affine=AFFINE):
    mask, findings = mend_mask(volume(stored, affine), image)
    return mask.ids, [finding.id for finding in findings]


def test_a_mask_as_it_should_be_is_the_same_object(phantoms):
    for phantom in phantoms:
        for image in (NM, QSM):
            given = volume(phantom.volumes[image.mask], phantom.affine)
            assert mend_mask(given, image) == (given, [])


def test_one_label_becomes_the_two_that_were_drawn(phantoms):
    """Of every nucleus, and on any axes; the sides of a tilted head too."""
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", [20, 10, 10], degrees=True).as_matrix()
    for phantom in phantoms:
        for image in (NM, QSM):
            truth = phantom.volumes[image.mask]
            for kept in (0, 1):
                ids = {number: pair[kept] for pair in image.nuclei.values() for number in pair}
                drawn = np.vectorize(lambda i, ids=ids: ids.get(i, 0), otypes="B")(truth)
                for affine in (phantom.affine, turn @ phantom.affine):
                    found, kinds = mended(drawn, image, affine)
                    assert_sides(found, truth, image)
                    assert kinds == ["one-label"] * len(image.nuclei)
            turned = nibabel.Nifti1Image(drawn, phantom.affine).as_reoriented(
                [[2, 1], [0, -1], [1, -1]]
            )
            expected = nibabel.Nifti1Image(truth, phantom.affine).as_reoriented(
                [[2, 1], [0, -1], [1, -1]]
            )
            found, _ = mended(np.asarray(turned.dataobj), image, turned.affine)
            assert_sides(found, np.asarray(expected.dataobj), image)


def assert_sides(found, truth, image):
    """Every voxel on its side; of the thalamus, whose sides touch, nearly every one."""
    thalamus = np.isin(truth, image.nuclei.get("TH", ()))
    assert np.array_equal(found[~thalamus], truth[~thalamus])
    assert not thalamus.any() or (found == truth)[thalamus].mean() > 0.98


@pytest.mark.parametrize("degrees", [-90, -80, -65, -50, 50, 65, 80, 90])
def test_a_head_on_its_side_is_split_rightly_or_not_at_all(phantoms, degrees):
    """What is left whole lacks its other side, which is told wherever masks are read."""
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("y", degrees, degrees=True).as_matrix()
    for phantom in phantoms:
        for image in (NM, QSM):
            truth = phantom.volumes[image.mask]
            drawn = truth.copy()
            for right, left in image.nuclei.values():
                drawn[truth == left] = right
            found, kinds = mended(drawn, image, turn @ phantom.affine)
            split = 0
            for right, left in image.nuclei.values():
                inside = np.isin(truth, (right, left))
                whole = (found[inside] == right).all()
                assert whole or (found == truth)[inside].mean() > 0.98
                split += not whole
            assert kinds == ["one-label"] * split


@pytest.mark.parametrize("value", [1, 2, 255, 11])
def test_a_mask_of_one_nucleus_may_have_any_one_value(phantoms, value):
    truth = phantoms[0].volumes[NM.mask]
    found, kinds = mended(np.where(truth, value, 0).astype(np.int16), NM, phantoms[0].affine)
    assert np.array_equal(found, truth)
    assert kinds == ["one-label"]


def test_sides_that_touch_are_cut_in_the_middle(phantoms):
    truth = phantoms[0].volumes[NM.mask]
    drawn = (truth > 0).astype(np.uint8)
    low, high = (int(end) for end in np.argwhere(drawn)[[0, -1], 0])
    z = int(np.argwhere(drawn)[:, 2].mean())
    y = int(np.argwhere(drawn)[:, 1].mean())
    drawn[low : high + 1, y, z] = 1  # a bridge
    found, kinds = mended(drawn, NM, phantoms[0].affine)
    assert kinds == ["one-label"]
    away = np.abs(np.arange(len(drawn)) - (low + high) / 2) > 4
    assert np.array_equal(found[away][truth[away] > 0], truth[away][truth[away] > 0])


@pytest.mark.parametrize("side", [1, 2])
def test_one_side_alone_is_left_as_it_is(phantoms, side):
    """Also where it came apart into two pieces, in front and behind."""
    for phantom in phantoms:
        alone = np.where(phantom.volumes[NM.mask] == side, side, 0).astype(np.uint8)
        assert mended(alone, NM, phantom.affine)[1] == []
        apart = alone.copy()
        apart[:, int(np.argwhere(alone)[:, 1].mean())] = 0
        assert mended(apart, NM, phantom.affine)[1] == []
        assert mended(np.where(alone, 255, 0), NM, phantom.affine)[1] == []


@pytest.mark.parametrize(("dtype", "slope"), [("u1", 2 / 255), ("u1", 0.0079), ("i2", 3e-4)])
def test_integers_with_a_scale_factor_are_rounded(tmp_path, dtype, slope):
    """As nibabel saves ``get_fdata()`` under the header of an integer file."""
    truth = make_mask("nm")
    image = nibabel.Nifti1Image(np.rint(truth / slope).astype(dtype), AFFINE)
    image.header.set_slope_inter(slope, 0)
    path = tmp_path / "mask.nii.gz"
    path.write_bytes(gzip.compress(image.to_bytes()))
    mask, findings = read_file("mask_nm", path, CHALLENGE_IMAGES)
    assert np.array_equal(mask.mask_values, truth)
    assert mask.mask_values.dtype == np.uint8
    assert findings == []


def test_what_a_scale_factor_does_not_explain_is_left(phantoms):
    stored = np.rint(make_mask("nm") * 0.7 / 0.01).astype(np.uint8)
    mask, _ = mend_mask(volume(stored, slope=0.01), NM)
    assert mask.slope == 0.01
    mask, _ = mend_mask(volume(make_mask("nm"), slope=1.5), NM)
    assert mask.slope == 1.5


def test_another_table_becomes_ours(phantoms):
    truth = phantoms[0].volumes[QSM.mask]
    table = {"SN": (1000, 1001), "RN": 300, "DN": [14, 15]}
    drawn = np.zeros(truth.shape, np.int16)
    for nucleus, ids in table.items():
        for ours, theirs in zip(QSM.nuclei[nucleus], np.broadcast_to(ids, 2), strict=True):
            drawn[truth == ours] = theirs
    drawn[0, 0, 0] = 13  # an id that is ours, and not in the table
    image = replace(QSM, drawn_as=table)
    found, kinds = mended(drawn, image, phantoms[0].affine)
    wanted = [number for nucleus in table for number in QSM.nuclei[nucleus]]
    assert np.array_equal(found, np.where(np.isin(truth, wanted), truth, 0))
    assert kinds == []  # the table says that one id is of both sides
    assert read_file("mask_qsm", volume(drawn), {"qsm": image})[0].stored is drawn  # was read


def test_two_ids_on_both_sides_are_of_another_table(phantoms):
    for phantom in phantoms:
        truth = phantom.volumes[NM.mask]
        y = np.argwhere(truth)[:, 1].mean()
        drawn = np.where(truth > 0, np.where(np.arange(truth.shape[1])[:, None] > y, 1, 2), 0)
        with pytest.raises(FaultyFileError, match=r"labels 1 and 2 of SN in the middle.*--nuclei"):
            mend_mask(volume(drawn.astype(np.uint8), phantom.affine), NM)


def test_a_table_is_read_from_a_csv(tmp_path):
    path = tmp_path / "nuclei.csv"
    path.write_text("\ufeffimage,nucleus,right,left\nqsm,SN,1000,1001\n\nnm, SN, 5, 5\n")
    table = read_nuclei(path, CHALLENGE_IMAGES)
    assert table == {"qsm": {"SN": [1000, 1001]}, "nm": {"SN": [5, 5]}}
    rois = {"nm": ROI(image="nm", nuclei=["SN"])}
    images, drawn_rois = drawn_by(path, CHALLENGE_IMAGES, rois)
    assert images["nm"].drawn_as == {"SN": (5, 5)}
    assert drawn_rois["nm"].image == images["nm"]
    assert nuclei_settings(path, CHALLENGE_IMAGES)["images#qsm#drawn_as"] == {"SN": [1000, 1001]}
    assert drawn_by(None, CHALLENGE_IMAGES, rois) == (CHALLENGE_IMAGES, rois)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nucleus,right\nSN,1\n", "line 1: expected the header image,nucleus,right,left"),
        ("image,nucleus,right,left\nqsm,SN,1\n", "line 2: expected an image, a nucleus and two"),
        ("image,nucleus,right,left\nqsm,SN,1,-2\n", "line 2: expected an image"),
        ("image,nucleus,right,left\nqsm,SN,1,2\nqsm,SN,3,4\n", "line 3: qsm,SN stands already"),
        ("image,nucleus,right,left\n", "no nuclei below its header"),
        ("image,nucleus,right,left\nt1,SN,1,2\n", "line 2: the image 't1' is none of"),
        ("image,nucleus,right,left\n\nnm,RN,1,2\n", r"line 3: the nucleus 'RN' of nm is none of"),
        ("image,nucleus,right,left\nqsm,SN,1,2\nqsm,RN,2,3\n", "line 3: the id 2 is SN's already"),
        ("image,nucleus,right,left\nqsm,SN,0,2\n", r"line 2: ids must be 1 or more.* got \[0, 2\]"),
    ],
)
def test_faulty_tables_are_refused(tmp_path, text, message):
    path = tmp_path / "nuclei.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        drawn_by(path, CHALLENGE_IMAGES, {})


def test_a_table_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"--nuclei .* is no file"):
        read_nuclei(tmp_path / "nuclei.csv", CHALLENGE_IMAGES)
