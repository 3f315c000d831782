import nibabel
import numpy as np
import pytest
import torch
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from tiny_segmentation import make_segmentation_bundle

from mrn_components.app.mask_makers import NucleiSegmenter, find_near, save_mask
from mrn_components.images.image import CHALLENGE_IMAGES, Image
from mrn_components.images.volume import read_volume


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return str(make_segmentation_bundle(tmp_path_factory.mktemp("segmentation") / "bundle"))


def reoriented(source, target, axes):
    volume = nibabel.load(source)
    turned = volume.as_reoriented(ornt_transform(io_orientation(volume.affine), axcodes2ornt(axes)))
    nibabel.save(turned, target)
    return target


def in_las(mask, like, tmp_path):
    """A mask written on the grid of ``like``, seen in LAS."""
    save_mask(tmp_path / "mask.nii.gz", mask, read_volume(like))
    turned = reoriented(tmp_path / "mask.nii.gz", tmp_path / "las.nii.gz", "LAS")
    return np.asanyarray(nibabel.load(turned).dataobj)


@pytest.mark.parametrize("axes", ["LAS", "RAS", "PIR", "SAL"])
@pytest.mark.parametrize("image", ["nm", "qsm"])
def test_orientation_does_not_matter(axes, image, bundle, cohort, tmp_path):
    segment = NucleiSegmenter(bundle, image, device="cpu", precision="fp32")
    original = cohort / "SUBJ_003" / f"{image.upper()}.nii.gz"
    turned = reoriented(original, tmp_path / "turned.nii.gz", axes)
    expected, found = segment(read_volume(original)), segment(read_volume(turned))
    assert found.shape == nibabel.load(turned).shape
    assert len(np.unique(expected)) > 1
    np.testing.assert_array_equal(in_las(found, turned, tmp_path), expected)


def test_the_qsm_tells_where_the_nm_is_searched(bundle, cohort):
    segment = NucleiSegmenter(bundle, "nm", device="cpu", precision="fp32")
    seen = []
    segment.inferer = lambda image, _network, **where: (
        seen.append(where) or torch.zeros(image.shape, dtype=torch.uint8)
    )
    mask = read_volume(cohort / "SUBJ_003" / "QSM_mask.nii.gz")
    near = mask, CHALLENGE_IMAGES["qsm"].nuclei["SN"]
    segment(read_volume(cohort / "SUBJ_003" / "NM.nii.gz"), near=near)
    # Boxes of the SN, [7, 17) x [8, 11) x [3, 6) on the axes x y z of a file of the same grid.
    np.testing.assert_allclose(seen[0]["centre"], [4.5, 9.5, 12], atol=0.6)
    np.testing.assert_allclose(seen[0]["region_mm"], [36, 32, 36.67], atol=0.1)


def test_a_mask_takes_the_images_geometry_and_nothing_else(cohort, tmp_path):
    source = nibabel.load(cohort / "SUBJ_000" / "NM.nii.gz")
    source.header["descrip"] = b"a name"
    source.set_sform(source.affine, code=4)
    nibabel.save(source, tmp_path / "image.nii.gz")
    mask = np.zeros(source.shape, np.uint8)
    for name in ("one", "two"):
        save_mask(tmp_path / f"{name}.nii.gz", mask, read_volume(tmp_path / "image.nii.gz"))
    saved = nibabel.load(tmp_path / "one.nii.gz")
    np.testing.assert_array_equal(saved.affine, source.affine)
    assert (saved.header["sform_code"], saved.get_data_dtype()) == (4, np.uint8)
    assert saved.header["descrip"].tobytes().strip(b"\0") == b""
    assert (tmp_path / "one.nii.gz").read_bytes() == (tmp_path / "two.nii.gz").read_bytes()


def test_missing_weights_say_what_to_do(bundle):
    with pytest.raises(
        FileNotFoundError, match=r"no weights for nm .* every subject its mask of nm"
    ):
        NucleiSegmenter(bundle, "nm", ckpt_path="nowhere.pt")
    with pytest.raises(ValueError, match="has no 'precisoin'"):
        NucleiSegmenter(bundle, "nm", precisoin="fp32")


def test_the_mask_that_holds_all_nuclei_of_an_image_tells_where_to_look():
    nm, qsm = CHALLENGE_IMAGES["nm"], CHALLENGE_IMAGES["qsm"]
    r2star = Image(file="R2S", mask="R2S_mask", nuclei={"RN": (1, 2), "SN": (5, 6)})
    masks = {"nm": "n", "qsm": "q", "r2s": "r"}
    images = [qsm, r2star, nm]
    assert find_near(nm, images, {}) is None
    assert find_near(nm, images, masks) == ("q", [11, 12])
    assert find_near(nm, images, {"r2s": "r"}) == ("r", [5, 6])
    assert find_near(r2star, images, {"qsm": "q"}) == ("q", [13, 14, 11, 12])
    assert find_near(qsm, images, {"nm": "n", "r2s": "r"}) is None  # they show parts
