"""Reading of volumes: one answer for every file, whatever it holds."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tiny_cohort import AFFINE, make_mask, write_nifti

from mrn_components.images.boxes import nonzero_box
from mrn_components.images.image import CHALLENGE_IMAGES
from mrn_components.images.masks import check_mask
from mrn_components.images.volume import Volume, read_header, read_volume

OBLIQUE = np.array([[0, -0.9, 0.4, 7], [-0.5, 0.3, 0.8, -30], [-0.7, -0.4, -0.9, 12], [0, 0, 0, 1]])
QSM = CHALLENGE_IMAGES["qsm"]


def volume(array, affine=AFFINE, name="memory"):
    return Volume(path=Path(name), stored=array, affine=affine)


def write(path, image, **fields):
    """Write an image with some fields of its header changed."""
    content = bytearray(image.to_bytes())
    header = type(image.header)(bytes(content[: image.header.sizeof_hdr]), check=False)
    for name, value in fields.items():
        header[name] = value
    content[: len(header.binaryblock)] = header.binaryblock
    path.write_bytes(gzip.compress(bytes(content)) if path.suffix == ".gz" else bytes(content))
    return path


def image(shape=(5, 6, 7), dtype=np.int16, affine=AFFINE):
    voxels = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    found = nib.Nifti1Image(voxels, affine)
    found.set_qform(affine, 1)
    return found


def test_a_voxel_keeps_its_place_in_the_world():
    array = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    stored = volume(array.astype(np.int16), OBLIQUE)
    turned = stored.canonical
    assert turned.shape != array.shape  # its axes were swapped
    assert np.shares_memory(turned.stored, stored.stored)
    for voxel in np.ndindex(array.shape):
        place = OBLIQUE @ (*voxel, 1)
        x, y, z, _ = np.rint(np.linalg.solve(turned.affine, place)).astype(int)
        assert turned.voxels[x, y, z] == array[voxel]
    assert turned.voxel_mm3 == pytest.approx(abs(np.linalg.det(OBLIQUE[:3, :3])))
    assert nib.aff2axcodes(turned.affine) == ("R", "A", "S")
    assert turned.voxel_hash == stored.voxel_hash


def test_spacing_is_of_the_axes():
    found = volume(np.zeros((3, 3, 3)), np.array(OBLIQUE) @ np.diag([1, 2, 3, 1]))
    assert found.spacing_mm == pytest.approx(np.linalg.norm(OBLIQUE[:3, :3], axis=0) * [1, 2, 3])
    assert volume(np.zeros((3, 3, 3)), np.diag([-1, 2, 3, 1])).spacing_mm.tolist() == [1, 2, 3]


def test_masks_are_ids_whatever_type_they_are_stored_in(tmp_path):
    mask = make_mask("qsm")
    for dtype in (np.uint8, np.float32, np.float64, np.int32):
        read = read_volume(write_nifti(tmp_path / "m.nii.gz", mask.astype(dtype)))
        check_mask(read, QSM)
        assert read.ids.dtype == np.uint8
        np.testing.assert_array_equal(read.ids, mask)


def test_values_are_nibabels_in_any_part(tmp_path):
    source = image()
    path = write(tmp_path / "x.nii.gz", source, scl_slope=0.1, scl_inter=3)
    read, loaded = read_volume(path), np.asanyarray(nib.load(path).dataobj)
    assert read.values().dtype == loaded.dtype == np.float64
    box = np.s_[1:3, ::-1, 4]
    assert np.array_equal(read.values(box), loaded[box])
    assert np.array_equal(read.voxels, loaded.astype(np.float32))
    plain = read_volume(write(path, source))
    assert plain.values().dtype == np.int16
    assert plain.values(box).base is not None  # nothing was copied


def test_the_affine_is_nibabels_whatever_the_codes_say(tmp_path):
    moved = AFFINE.copy()
    moved[:3, 3] = 0.5  # less than what counts as a disagreement
    source = image()
    source.set_sform(moved, 1)
    for sform, qform, expected in (
        (1, 1, moved),
        (0, 1, AFFINE),
        (77, 1, AFFINE),  # no code of NIfTI's
        (-3, 2, AFFINE),
        (4, 99, moved),
    ):
        path = write(tmp_path / "x.nii.gz", source, sform_code=sform, qform_code=qform)
        assert np.allclose(read_volume(path).affine, expected)
        assert np.array_equal(read_volume(path).affine, nib.load(path).affine)


@pytest.mark.parametrize(
    ("fields", "id"),
    [
        ({"datatype": 37}, "data-type"),
        ({"datatype": 0}, "data-type"),
        ({"datatype": 128}, "data-type"),
        ({"datatype": 32}, "data-type"),
        ({"vox_offset": 0}, "not-nifti"),
        ({"vox_offset": np.nan}, "not-nifti"),
        ({"vox_offset": np.inf}, "not-nifti"),
        ({"vox_offset": -1e30}, "not-nifti"),
        ({"vox_offset": 368}, "truncated"),
        ({"dim": [3, 5, 0, 7, 1, 1, 1, 1]}, "header-size"),
        ({"dim": [3, 5, -6, 7, 1, 1, 1, 1]}, "header-size"),
        ({"dim": [2, 5, 6, 7, 1, 1, 1, 1]}, "not-3d"),
        ({"dim": [4, 5, 6, 7, 2, 1, 1, 1]}, "not-3d"),
        ({"scl_slope": 1, "scl_inter": np.nan}, "scaling"),
        ({"srow_x": [np.nan, 0, 0, 0]}, "singular"),
        ({"srow_z": [0, 0, 0, 0]}, "singular"),
        ({"quatern_b": 0.9, "quatern_c": 0.9}, "singular"),
        ({"sform_code": 0, "qform_code": 0, "pixdim": [1, np.nan, 1, 1, 0, 0, 0, 0]}, "singular"),
        ({"sform_code": 0, "pixdim": [1, np.inf, 1, 1, 0, 0, 0, 0]}, "singular"),
    ],
)
def test_what_a_header_must_not_say_is_named(tmp_path, fields, id):  # noqa: A002
    path = write(tmp_path / "x.nii.gz", image(), **fields)
    for read in (read_volume, read_header):
        if (read, id) not in {(read_header, "scaling"), (read_header, "truncated")}:
            with pytest.raises(ValueError, match=r"x\.nii\.gz: .*; expected ") as error:
                read(path)
            assert error.value.finding.id == id


@pytest.mark.parametrize(
    "fields",
    [
        {"scl_slope": np.nan},
        {"scl_slope": 0, "scl_inter": np.nan},
        {"bitpix": 3},
        {"sizeof_hdr": 7},
        {"pixdim": [0, 0.6667, 0.6667, 2, 0, 0, 0, 0]},  # qfac
        {"pixdim": [1, -0.6667, 0, np.nan, 0, 0, 0, 0]},
        {"intent_code": 4242},
        {"xyzt_units": 255},
        {"dim_info": 255, "slice_code": 99},
        {"dim": [5, 5, 6, 7, 1, 1, 1, 1]},
        {"cal_max": np.nan, "toffset": np.inf},
    ],
)
def test_what_no_voxel_depends_on_changes_nothing(tmp_path, fields):
    source = image()
    expected = read_volume(write(tmp_path / "sound.nii.gz", source))
    found = read_volume(write(tmp_path / "x.nii.gz", source, **fields))
    assert np.array_equal(found.voxels, expected.voxels)
    assert np.array_equal(found.affine, expected.affine)
    assert found.voxel_hash == expected.voxel_hash
    assert found.sha256 != expected.sha256


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_further_axes_of_one_voxel_change_nothing(tmp_path, suffix):
    found = {
        read_volume(write(tmp_path / f"{len(shape)}{suffix}", image(shape))).voxel_hash
        for shape in ((5, 6, 7), (5, 6, 7, 1), (5, 6, 7, 1, 1))
    }
    assert len(found) == 1


@pytest.mark.parametrize(
    ("name", "content", "found", "advice"),
    [
        ("x.mgz", b"\0\0\0\1\0\0\1\0" + bytes(400), "a FreeSurfer volume", "mri_convert"),
        ("x.nrrd", b"NRRD0004\ntype: short" + bytes(400), "an NRRD file", "3D Slicer"),
        ("IM0001.dcm", bytes(128) + b"DICM" + bytes(400), "a DICOM file", "dcm2niix"),
        ("x.mha", b"ObjectType = Image\n" + bytes(400), r"a MetaImage \(.mha\)", "3D Slicer"),
        ("x.npy", b"\x93NUMPY" + bytes(400), "a file that starts with the bytes 93 4e", "Copy"),
    ],
)
def test_other_formats_are_told_how_they_become_nifti(tmp_path, name, content, found, advice):
    for file, stored in (
        (name, content),
        (name, gzip.compress(content)),
        ("x.nii.gz", gzip.compress(content)),
        ("x.nii.gz", content),
        ("x.nii", content),
    ):
        path = tmp_path / file
        path.write_bytes(stored)
        for read in (read_volume, read_header):
            with pytest.raises(ValueError, match=rf"{found}.*; expected a NIfTI file.*{advice}"):
                read(path)


def test_a_folder_is_told_from_a_file(tmp_path):
    with pytest.raises(ValueError, match=r"a folder; expected a NIfTI file.*If it holds DICOM"):
        read_volume(tmp_path)


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
    with pytest.raises(ValueError, match=r"x\.nii\.gz: .*; expected .*\. Copy the file anew"):
        read_volume(path)


@pytest.mark.parametrize("value", [3, 0.5, -1])
def test_values_that_are_no_ids_are_refused(value):
    array = np.zeros((4, 4, 4), np.float32)
    array[1, 1, 1] = value
    with pytest.raises(ValueError, match=rf"the values {value}; expected 0 and the ids of nm"):
        check_mask(volume(array), CHALLENGE_IMAGES["nm"])


def test_another_grid_is_refused():
    def zeros(shape, affine):
        return volume(np.zeros(shape, np.uint8), affine).canonical

    first = zeros((5, 6, 7), AFFINE)
    check_mask(zeros((5, 6, 7), AFFINE + 1e-4), QSM, first)
    flipped = AFFINE @ np.diag([-1, 1, 1, 1])
    flipped[:3, 3] += AFFINE[:3, 0] * 4
    check_mask(zeros((5, 6, 7), flipped), QSM, first)  # the same voxels, stored the other way
    with pytest.raises(ValueError, match=r"the shape \(5, 7, 6\); expected that of .*\(5, 6, 7\)"):
        check_mask(zeros((5, 7, 6), AFFINE), QSM, first)
    moved = AFFINE.copy()
    moved[2, 3] = 0.5
    with pytest.raises(ValueError, match=r"corners up to 0\.50 mm from those of"):
        check_mask(zeros((5, 6, 7), moved), QSM, first)


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_box_of_what_is_not_zero(order):
    ids = np.zeros((5, 6, 7), np.uint8, order=order)
    assert ids[nonzero_box(ids)].size == 0
    ids[2, 1:4, 6] = 3
    assert nonzero_box(ids) == np.s_[2:3, 1:4, 6:7]
    assert nonzero_box(ids[::-1].transpose(2, 0, 1)) == np.s_[6:7, 2:3, 1:4]


@pytest.mark.parametrize("dtype", [">i2", "u1", "f4", "f8"])
@pytest.mark.parametrize(("slope", "inter"), [(1.0, 0.0), (0.1, 3.0), (-2.0, 0.5)])
def test_the_ends_are_those_of_the_voxels(dtype, slope, inter):
    stored = np.random.default_rng(0).uniform(0, 200, (5, 6, 7)).astype(dtype)
    found = Volume(path=Path("memory"), stored=stored, affine=AFFINE, slope=slope, inter=inter)
    assert found.ends == (found.voxels.min(), found.voxels.max())
    assert found.is_finite


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_bad_voxel_is_seen(bad):
    stored = np.ones((5, 6, 7), np.float32)
    stored[2, 3, 4] = bad
    assert not volume(stored).is_finite
    ints = Volume(path=Path("memory"), stored=np.ones((2, 2, 2), "i4"), affine=AFFINE, slope=1e39)
    assert not ints.is_finite  # beyond single precision


@pytest.mark.parametrize("order", ["C", "F"])
def test_what_is_kept_of_a_mask_is_what_it_holds(order):
    array = np.asarray(make_mask("qsm"), order=order)
    mask = volume(array)
    assert mask.numbers.tolist() == [n for n in np.unique(array).tolist() if n]
    for number in mask.numbers.tolist():
        voxels = np.argwhere(array == number)
        assert np.array_equal(mask.places[number], voxels)
        corners = [(axis.start, axis.stop - 1) for axis in mask.parts[number]]
        assert corners == list(zip(voxels.min(0), voxels.max(0), strict=True))
    assert mask.places.keys() == mask.parts.keys() == set(mask.numbers.tolist())
    nothing = volume(np.zeros((2, 3, 4), np.uint8))
    assert not nothing.numbers.size
    assert not nothing.places


@pytest.mark.parametrize("order", ["C", "F"])
def test_voxels_lie_in_memory_as_those_of_the_file(order):
    found = volume(np.asarray(np.ones((2, 3, 4), np.int16), order=order))
    assert found.voxels.flags[f"{order}_CONTIGUOUS"]
