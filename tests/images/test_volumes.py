"""Reading of volumes: any orientation, and what is refused."""

import gzip

import nibabel as nib
import numpy as np
import pytest
from nibabel.spatialimages import SpatialImage
from tiny_cohort import AFFINE, make_mask, write_nifti

from mrn_components.images.volumes import check_same_grid, read_mask, read_volume

OBLIQUE = np.array([[0, -0.9, 0.4, 7], [-0.5, 0.3, 0.8, -30], [-0.7, -0.4, -0.9, 12], [0, 0, 0, 1]])


def test_a_voxel_keeps_its_place_in_the_world():
    array = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    volume = read_volume(nib.Nifti1Image(array.astype(np.int16), OBLIQUE))
    assert volume.array.shape != array.shape  # its axes were swapped
    for voxel in np.ndindex(array.shape):
        place = OBLIQUE @ (*voxel, 1)
        x, y, z, _ = np.rint(np.linalg.solve(volume.affine, place)).astype(int)
        assert volume.array[x, y, z] == array[voxel]
    assert volume.voxel_mm3 == pytest.approx(abs(np.linalg.det(OBLIQUE[:3, :3])))
    assert nib.aff2axcodes(volume.affine) == ("R", "A", "S")


def test_spacing_is_of_the_axes_in_ras():
    volume = read_volume(nib.Nifti1Image(np.zeros((3, 3, 3), np.uint8), np.diag([-1, 2, 3, 1])))
    assert volume.spacing_mm.tolist() == [1, 2, 3]


def test_masks_are_ids_whatever_type_they_are_stored_in(tmp_path):
    mask = make_mask("qsm")
    read = read_mask(write_nifti(tmp_path / "m.nii.gz", mask.astype(np.float32)), "qsm")
    assert read.array.dtype == np.uint8
    np.testing.assert_array_equal(read.array[::-1], mask)  # LAS to RAS


def test_what_is_no_volume_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no\.nii\.gz is not there"):
        read_volume(tmp_path / "no.nii.gz")
    four = write_nifti(tmp_path / "four.nii.gz", np.zeros((3, 3, 3, 2), np.uint8))
    with pytest.raises(ValueError, match=r"shape \(3, 3, 3, 2\), expected three axes"):
        read_volume(four)
    flat = SpatialImage(np.zeros((3, 3, 3), np.uint8), np.diag([1, 1, 0, 1]))
    with pytest.raises(ValueError, match="the image in memory has no valid affine"):
        read_volume(flat)


@pytest.mark.parametrize("damage", ["text", "cut", "cut inside", "flipped"])
def test_damaged_files_are_refused_in_one_message(tmp_path, damage):
    rng = np.random.default_rng(0)
    path = write_nifti(tmp_path / "x.nii.gz", rng.integers(0, 99, (20, 20, 20)).astype(np.int16))
    content = bytearray(path.read_bytes())
    if damage == "text":
        content = b"hello"
    elif damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "cut inside":  # a whole gzip file of half an image
        content = gzip.compress(gzip.decompress(content)[:4000])
    else:
        content[len(content) // 2] ^= 255
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.nii\.gz cannot be read as NIfTI .*anew"):
        read_volume(path)


@pytest.mark.parametrize("value", [3, 0.5, -1])
def test_values_that_are_no_label_ids_are_refused(value):
    array = np.zeros((4, 4, 4), np.float32)
    array[1, 1, 1] = value
    with pytest.raises(ValueError, match=rf"holds the values \[{value}.*label ids of nm masks"):
        read_mask(nib.Nifti1Image(array, AFFINE), "nm")


def test_another_grid_is_refused():
    def volume(shape, affine):
        return read_volume(nib.Nifti1Image(np.zeros(shape, np.uint8), affine))

    image = volume((5, 6, 7), AFFINE)
    check_same_grid(image, volume((5, 6, 7), AFFINE + 1e-4))
    flipped = AFFINE @ np.diag([-1, 1, 1, 1])
    flipped[:3, 3] += AFFINE[:3, 0] * 4
    check_same_grid(image, volume((5, 6, 7), flipped))  # the same voxels, stored the other way
    with pytest.raises(ValueError, match=r"has the shape \(5, 7, 6\), expected that of .*\(5, 6,"):
        check_same_grid(image, volume((5, 7, 6), AFFINE))
    moved = AFFINE.copy()
    moved[2, 3] = 0.5
    with pytest.raises(ValueError, match=r"lie up to 0\.50 mm from those of"):
        check_same_grid(image, volume((5, 6, 7), moved))
