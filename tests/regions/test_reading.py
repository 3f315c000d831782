"""From files to tensors, and what is refused on the way."""

import gzip
import logging
import re

import nibabel
import numpy as np
import pytest
import torch
from monai.transforms import LoadImaged
from tiny_cohort import AFFINE, make_subject, write_nifti

import mrn_components
from mrn_components.data import load_subjects
from mrn_components.data.dataset import ROIDataset
from mrn_components.images.volume import read_volume
from mrn_components.regions.reading import LoadVolumed, ReadVolumesd
from mrn_components.regions.roi import ROI

KEYS = ["nm", "qsm", "mask_nm", "mask_qsm"]
MIDBRAIN = {"nm": ROI(image="nm", nuclei=["SN"]), "rn": ROI(image="qsm", nuclei=["RN"])}


@pytest.fixture
def subject_dir(tmp_path):
    make_subject(tmp_path / "SUBJ_000", label=1, seed=0)
    return tmp_path


def read(folder, rois):
    """Read the only subject of a data set."""
    (subject,) = load_subjects(folder, require_labels=False, check_headers=False)
    return ROIDataset(data=[subject], transform=[ReadVolumesd(rois=rois)])[0]


def volumes(folder):
    """The volumes of a subject, to be changed in memory."""
    files = {"nm": "NM", "qsm": "QSM", "mask_nm": "NM_mask", "mask_qsm": "QSM_mask"}
    return {key: read_volume(folder / f"SUBJ_000/{name}.nii.gz") for key, name in files.items()}


def assert_same(ours, monais):
    assert torch.equal(ours.as_tensor(), monais.as_tensor())
    assert ours.dtype == monais.dtype
    assert torch.equal(ours.affine, monais.affine)
    for key in ("filename_or_obj", "original_affine", "spatial_shape", "space"):
        assert np.array_equal(ours.meta[key], monais.meta[key])


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("dtype", [">i2", "u1", "f4", "f8"])
@pytest.mark.parametrize("slope", [1, 0.1])
def test_the_tensor_is_monais(tmp_path, kind, dtype, slope):
    voxels = np.random.default_rng(0).normal(0, 50, (5, 6, 7)).astype(dtype)
    image = kind(voxels, AFFINE)
    image.header.set_slope_inter(slope, 3 if slope < 1 else 0)
    path = tmp_path / "image.nii.gz"
    path.write_bytes(gzip.compress(image.to_bytes()))
    d = {"image": str(path)}
    for channel in (True, False):
        monais = LoadImaged("image", ensure_channel_first=channel)(d)["image"]
        for source in (str(path), path, read_volume(path)):
            ours = LoadVolumed("image", ensure_channel_first=channel)({"image": source})["image"]
            assert_same(ours, monais)
            assert ours.stride() == monais.stride()  # sums over voxels depend on their order


def test_a_subject_is_read_as_monai_reads_it(subject_dir, rois):
    (subject,) = load_subjects(subject_dir, require_labels=False)
    monais = LoadImaged(KEYS, ensure_channel_first=True)(subject)
    for source in (subject, subject | volumes(subject_dir)):
        ours = ReadVolumesd(rois=rois)(source)
        assert set(ours) == {"subject", *KEYS}
        for key in KEYS:
            assert_same(ours[key], monais[key])


def test_a_subject_that_monai_read_is_taken_too(subject_dir, rois):
    """As in runs from before this package read volumes."""
    (subject,) = load_subjects(subject_dir, require_labels=False)
    for source in (subject, subject | volumes(subject_dir)):  # a volume is a path, too
        monais = LoadImaged(KEYS, ensure_channel_first=True)(source)
        ours = mrn_components.CheckVolumesd(rois=rois)(monais)
        for key in KEYS:
            assert torch.equal(ours[key].as_tensor(), monais[key].as_tensor())
            assert torch.equal(ours[key].affine, monais[key].affine)


def test_changing_a_tensor_changes_no_volume(subject_dir):
    given = volumes(subject_dir)
    ReadVolumesd(rois=MIDBRAIN)(given)["nm"].zero_()
    assert given["nm"].voxels.any()


def test_axes_of_one_voxel_are_left_out(tmp_path):
    for shape in ((5, 6, 7, 1), (5, 6, 7, 1, 1)):
        path = write_nifti(tmp_path / "image.nii", np.ones(shape, np.uint8))
        tensor = LoadVolumed("image", ensure_channel_first=True)({"image": path})["image"]
        assert tensor.shape == (1, 5, 6, 7)


def test_what_no_roi_needs_is_not_read(subject_dir, rois):
    (subject_dir / "SUBJ_000" / "QSM_mask.nii.gz").write_bytes(b"")
    assert read(subject_dir, {"nm": rois["nm"]})["mask_nm"].any()


def _shift(affine, mm):
    moved = affine.copy()
    moved[0, 3] += mm
    return moved


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (
            "NM",
            lambda a: (np.stack([a, a, a], -1), AFFINE),
            "24 x 24 x 12 x 3 voxels; expected one volume",
        ),
        (
            "NM_mask",
            lambda a: (a[1:], AFFINE),
            r"shape \(23, 24, 12\); expected that of .*\(24, 24, 12\)",
        ),
        ("NM_mask", lambda a: (a, _shift(AFFINE, 0.5)), "0.50 mm from those of .*NM.nii.gz"),
        ("NM_mask", lambda a: (a * 0.99, AFFINE), r"values 0.99.* expected 0 and the ids of nm"),
        ("QSM_mask", lambda a: (a + np.uint8(2), AFFINE), r"values 17.*ids of qsm masks"),
        ("NM_mask", lambda a: (np.where(a, np.nan, 0), AFFINE), r"values nan"),
    ],
)
def test_faulty_volumes_are_refused_by_subject_and_file(subject_dir, rois, file, change, message):
    path = subject_dir / "SUBJ_000" / f"{file}.nii.gz"
    write_nifti(path, *change(np.asarray(nibabel.load(path).dataobj)))
    with pytest.raises(RuntimeError, match="(?s)subject SUBJ_000: .*" + message):
        read(subject_dir, rois)


def test_a_tiny_shift_between_image_and_mask_is_allowed(subject_dir, rois):
    path = subject_dir / "SUBJ_000" / "NM_mask.nii.gz"
    write_nifti(path, np.asarray(nibabel.load(path).dataobj), _shift(AFFINE, 0.05))
    read(subject_dir, rois)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_voxels_are_refused_inside_an_roi_and_zeroed_outside(
    subject_dir, rois, caplog, value
):
    path = subject_dir / "SUBJ_000" / "QSM.nii.gz"
    array = np.asarray(nibabel.load(path).dataobj).copy()
    array[0, 0, 11] = value
    write_nifti(path, array)
    wanted = {"nm": rois["nm"], "qsm3": rois["qsm3"]}
    with caplog.at_level(logging.WARNING):
        d = read(subject_dir, wanted)
    assert "QSM.nii.gz has 1 non-finite voxels outside the ROIs" in caplog.text
    assert int((d["qsm"] == 0).sum()) == 1
    assert torch.allclose(d["qsm"].affine, d["mask_qsm"].affine)

    array[15, 4, 2] = value  # in the dentate nucleus
    write_nifti(path, array)
    with pytest.raises(
        Exception, match=re.escape("1 non-finite voxels (NaN or infinite) in ROI 'qsm3'")
    ):
        read(subject_dir, wanted)


def test_without_a_fallback_an_absent_volume_is_named(subject_dir):
    d = volumes(subject_dir)
    del d["nm"], d["mask_qsm"]
    with pytest.raises(ValueError, match=r"lacks nm and mask_qsm; .*--missing_nuclei fallback"):
        ReadVolumesd(rois=MIDBRAIN)(d)


def test_non_finite_voxels_outside_the_rois_are_flagged_in_a_fallback(subject_dir):
    d = volumes(subject_dir)
    d["qsm"].voxels[0, 0, 11] = np.nan
    d = ReadVolumesd(rois={"rn": MIDBRAIN["rn"]}, missing="fallback")(d)
    assert "1 voxels of QSM outside the ROIs are not finite, taken as 0" in d["flags"]
