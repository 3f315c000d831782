import json
import shutil

import nibabel
import numpy as np
import pytest
import SimpleITK
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from mrn_components.data import load_subjects, split_folds
from mrn_components.images.image import CHALLENGE_IMAGES, Image
from mrn_components.segmentation.dataset import DATASET, write_dataset


def turn(path, axes):
    volume = nibabel.load(path)
    ornt = ornt_transform(io_orientation(volume.affine), axcodes2ornt(axes))
    voxels = np.asanyarray(volume.as_reoriented(ornt).dataobj)
    turned = nibabel.Nifti1Image(voxels, volume.as_reoriented(ornt).affine)
    path.unlink()
    nibabel.save(turned, path)


@pytest.fixture
def dataset(cohort, tmp_path):
    """Four subjects, the second of another orientation, as nnU-Net's raw data set."""
    root = tmp_path / "cohort"
    names = [f"SUBJ_{number:03d}" for number in range(4)]
    for name in names:
        shutil.copytree(cohort / name, root / name)
    (root / "train_cases.csv").write_text("".join(f"{n},{i % 2}\n" for i, n in enumerate(names)))
    for file in ("NM.nii.gz", "NM_mask.nii.gz"):
        turn(root / "SUBJ_001" / file, "PIR")
    subjects = load_subjects(root)
    folds = split_folds(subjects, 2)
    write_dataset(subjects, folds, CHALLENGE_IMAGES["nm"], tmp_path / "raw")
    return root, tmp_path / "raw" / DATASET, folds


def test_nnunet_reads_every_orientation_alike(dataset, cohort):
    _, folder, _ = dataset
    for kind, file in (("imagesTr", "NM"), ("labelsTr", "NM_mask")):
        suffix = "_0000" if kind == "imagesTr" else ""
        read = SimpleITK.GetArrayFromImage(
            SimpleITK.ReadImage(folder / kind / f"SUBJ_001{suffix}.nii.gz")
        )
        original = np.asanyarray(nibabel.load(cohort / "SUBJ_001" / f"{file}.nii.gz").dataobj)
        np.testing.assert_array_equal(read, original.T)


def test_files_of_the_challenge_are_linked(dataset):
    root, folder, _ = dataset
    link = folder / "imagesTr" / "SUBJ_000_0000.nii.gz"
    assert link.is_symlink()
    assert link.resolve() == (root / "SUBJ_000" / "NM.nii.gz").resolve()
    assert not (folder / "imagesTr" / "SUBJ_001_0000.nii.gz").is_symlink()


def test_nnunet_is_told_the_labels_and_the_folds(dataset):
    _, folder, folds = dataset
    description = json.loads((folder / "dataset.json").read_text())
    assert description["labels"] == {"background": 0, "SN_right": 1, "SN_left": 2}
    splits = json.loads((folder / "splits_final.json").read_text())
    assert [sorted(split["val"]) for split in splits] == [sorted(fold) for fold in folds["folds"]]
    assert not set(splits[0]["train"]) & set(splits[0]["val"])


def test_a_faulty_mask_is_refused_by_name(dataset, tmp_path):
    root, _, folds = dataset
    path = root / "SUBJ_002" / "NM_mask.nii.gz"
    mask = nibabel.load(path)
    wrong = np.asanyarray(mask.dataobj).copy()
    wrong[wrong == 2] = 17
    nibabel.save(nibabel.Nifti1Image(wrong, mask.affine), path)
    with pytest.raises(ValueError, match=r"subject SUBJ_002: NM_mask\.nii\.gz: the values 17"):
        write_dataset(load_subjects(root), folds, CHALLENGE_IMAGES["nm"], tmp_path / "again")


def test_ids_with_a_gap_are_refused(tmp_path):
    image = Image(file="R2STAR", mask="R2STAR_mask", nuclei={"SN": (11, 12)})
    with pytest.raises(ValueError, match=r"'r2star' has the ids \[11, 12\], expected 1 to 2"):
        write_dataset([], {"folds": []}, image, tmp_path)


def test_only_an_image_with_a_window_is_normalised_as_quantitative(cohort, tmp_path):
    subjects = load_subjects(cohort)[:2]
    for name, scheme in (("nm", "NM"), ("qsm", "CT")):
        write_dataset(subjects, {"folds": []}, CHALLENGE_IMAGES[name], tmp_path / name)
        description = json.loads((tmp_path / name / DATASET / "dataset.json").read_text())
        assert description["channel_names"] == {"0": scheme}
