"""An atlas: what its folder must hold, and where its nuclei come to lie."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage
from tiny_cohort import write_nifti

from mrn_components.images.image import CHALLENGE_IMAGES, Image
from mrn_components.images.volume import Volume, read_volume
from mrn_components.segmentation import atlas as module
from mrn_components.segmentation.atlas import carry_nuclei, read_atlas

AFFINE = np.diag([-2.0, 2.0, 2.0, 1.0])
SHAPE = (48, 44, 36)
IMAGE = Image(file="QSM", mask="QSM_mask", nuclei={"SN": (3, 4), "GP": (7, 8)})
BALLS = {1: (-12, -4, -6), 2: (12, -4, -6), 5: (-18, 8, 6), 6: (18, 8, 6)}  # middles in mm
TABLE = "id,nucleus,side\n1,SN,left\n2,SN,right\n5,GP,left\n6,GP,right\n9,CN,both\n"


def draw(shift_mm=(0, 0, 0), stretch=1.0):
    """An image of a head with four balls in it, and their labels."""
    affine = AFFINE.copy()
    affine[:3, 3] = -(np.array(SHAPE) - 1) / 2 * np.diag(AFFINE)[:3]
    grid = np.moveaxis(np.indices(SHAPE), 0, -1) * np.diag(affine)[:3] + affine[:3, 3]
    points = (grid - shift_mm) / stretch
    labels = np.zeros(SHAPE, np.uint8)
    for number, middle in BALLS.items():
        labels[np.linalg.norm(points - middle, axis=-1) < 5.5] = number
    head = np.linalg.norm(points / (38, 36, 28), axis=-1) < 1
    image = 40.0 * head + 15 * np.sin(points[..., 1] / 7) * head + 80 * (labels > 0)
    return ndimage.gaussian_filter(image, 0.6).astype(np.float32), labels, affine


@pytest.fixture
def folder(tmp_path):
    image, labels, affine = draw()
    (tmp_path / "atlas").mkdir()
    write_nifti(tmp_path / "atlas" / "QSM.nii.gz", image, affine)
    write_nifti(tmp_path / "atlas" / "labels.nii.gz", labels, affine)
    (tmp_path / "atlas" / "nuclei.csv").write_text(TABLE)
    return tmp_path / "atlas"


@pytest.fixture
def without_ants(monkeypatch):
    monkeypatch.setattr(module, "_ants", lambda: None)


def ids(labels):
    """The ids of IMAGE in place of those of the atlas."""
    return np.array([0, 4, 3, 0, 0, 8, 7])[labels]


@pytest.mark.slow
def test_the_nuclei_come_to_lie_where_the_subject_has_them(folder, tmp_path):
    pytest.importorskip("ants")
    image, labels, affine = draw((3, -4, 2), 1.05)
    write_nifti(tmp_path / "QSM.nii.gz", image, affine)
    mask = read_atlas(folder, [IMAGE]).lay({"QSM": read_volume(tmp_path / "QSM.nii.gz")})
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) == {0, 3, 4, 7, 8}
    for number in (3, 4, 7, 8):
        both = 2 * np.sum((mask == number) & (ids(labels) == number))
        assert both / (np.sum(mask == number) + np.sum(ids(labels) == number)) > 0.8, number


def test_a_subject_without_its_images_is_named(folder, tmp_path, without_ants):
    atlas = read_atlas(folder, [IMAGE])
    with pytest.raises(ValueError, match="templates of QSM, and the subject has none of these"):
        atlas.lay({"T1": read_volume(folder / "QSM.nii.gz")})


def test_ids_are_those_of_the_image(folder, without_ants):
    atlas = read_atlas(folder, [CHALLENGE_IMAGES["nm"], IMAGE])
    np.testing.assert_array_equal(atlas.nuclei.ids, ids(draw()[1]))
    assert [path.name for path in atlas.files] == ["QSM.nii.gz", "labels.nii.gz", "nuclei.csv"]


def test_one_id_of_both_sides_is_parted_at_the_midline(folder, without_ants):
    _, labels, affine = draw()
    labels[labels == 2] = 1
    write_nifti(folder / "labels.nii.gz", labels, affine)
    (folder / "nuclei.csv").write_text("id,nucleus,side\n1,SN,both\n5,GP,left\n6,GP,right\n")
    np.testing.assert_array_equal(read_atlas(folder, [IMAGE]).nuclei.ids, ids(draw()[1]))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("id,name\n1,SN\n", "line 1: expected the header id,nucleus,side"),
        (
            "id,nucleus,side\n1,SN,up\n",
            "line 2: expected id,nucleus,right.left.both, got",
        ),
        ("id,nucleus,side\n1,VTA,left\n", "names none of the nuclei SN, GP"),
    ],
)
def test_a_faulty_table_is_named(folder, table, message, without_ants):
    (folder / "nuclei.csv").write_text(table)
    with pytest.raises(ValueError, match=message):
        read_atlas(folder, [IMAGE])


def test_an_id_that_no_voxel_has_is_named(folder, without_ants):
    (folder / "nuclei.csv").write_text(TABLE + "7,SN,both\n")
    with pytest.raises(ValueError, match=r"the id 7 \(SN, both\).*the ids there are 1, 2, 5, 6\."):
        read_atlas(folder, [IMAGE])


def test_a_template_of_another_quantity_is_refused(folder, without_ants):
    volume = draw()[0]
    write_nifti(folder / "QSM.nii.gz", np.abs(volume) + 1, draw()[2])
    image = replace(IMAGE, quantity="susceptibility")
    with pytest.raises(ValueError, match=r"QSM\.nii\.gz: negative values in 0% of its voxels"):
        read_atlas(folder, [image])
    write_nifti(folder / "QSM.nii.gz", (volume - volume.mean()) / 1000, draw()[2])
    assert set(read_atlas(folder, [image]).templates) == {"QSM"}


def test_what_a_folder_lacks_is_named(folder, without_ants):
    (folder / "QSM.nii.gz").unlink()
    (folder / "nuclei.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"no one of QSM, T1 and no nuclei\.csv; expected"):
        read_atlas(folder, [IMAGE])


def test_templates_on_another_grid_are_refused(folder, without_ants):
    write_nifti(folder / "labels.nii.gz", draw()[1][:-2], draw()[2])
    with pytest.raises(ValueError, match="labels"):
        read_atlas(folder, [IMAGE])


def test_the_extra_is_named(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "ants", None)
    with pytest.raises(ValueError, match=r'pip install "mrn-components\[atlas\]"'):
        read_atlas(folder, [IMAGE])


def test_nuclei_are_carried_to_a_grid_of_the_same_world(tmp_path):
    _, labels, affine = draw()
    mask = read_volume(write_nifti(tmp_path / "mask.nii.gz", ids(labels).astype(np.uint8), affine))
    finer = affine @ np.diag([-0.5, 0.5, 1, 1])  # turned, with half the voxels' edges
    finer[:3, 3] = affine[:3, 3] + affine[:3, :3] @ (SHAPE[0] - 1, 2, 3)
    onto = Volume(
        path=tmp_path / "NM.nii.gz", stored=np.zeros((96, 84, 33), np.int16), affine=finer
    )
    nm = CHALLENGE_IMAGES["nm"]
    carried = carry_nuclei(mask, IMAGE, onto, nm)
    assert carried.dtype == np.uint8
    assert set(np.unique(carried)) == {0, *nm.nuclei["SN"]}
    for old, new in zip((3, 4), nm.nuclei["SN"], strict=True):
        volume = np.sum(carried == new) / 4
        assert volume == pytest.approx(np.sum(mask.ids == old), rel=0.1)
        middle = affine[:3, :3] @ np.argwhere(mask.ids == old).mean(axis=0) + affine[:3, 3]
        there = finer[:3, :3] @ np.argwhere(carried == new).mean(axis=0) + finer[:3, 3]
        np.testing.assert_allclose(there, middle, atol=0.6)
