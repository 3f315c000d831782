import pytest

from mrn_components.images.image import CHALLENGE_IMAGES, Image
from mrn_components.regions.roi import ROI, images_of, volume_keys

R2STAR = Image(file="R2STAR")


def test_classes_are_background_and_nuclei():
    roi = ROI(image="qsm", nuclei=["STN", "SN", "RN"])
    assert roi.num_classes == 4
    assert roi.ids == (9, 10, 11, 12, 13, 14)


@pytest.mark.parametrize(
    ("margin_mm", "spacing", "expected"),
    [
        (4.0, (2.0, 0.6667, 0.66666), (2, 6, 6)),  # the challenge's grid, however it is rounded
        (4.1, (2.0, 0.6667, 0.6667), (3, 7, 7)),
        (0.0, (1.0, 1.0, 1.0), (0, 0, 0)),
    ],
)
def test_margin_in_voxels_is_never_less_tissue(margin_mm, spacing, expected):
    assert ROI(image="nm", nuclei=["SN"], margin_mm=margin_mm).margin_voxels(spacing) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image": "t1", "nuclei": ["SN"]}, '"@images#nm", or one of .*got .t1.'),
        ({"image": {"file": "T1"}, "nuclei": ["SN"]}, '"@images#nm"'),
        ({"image": "qsm", "nuclei": "SN"}, "a list such as"),
        ({"image": "qsm", "nuclei": None}, "a list such as"),
        ({"image": "nm", "nuclei": ["RN"]}, r"nuclei \['RN'\] are not in nm masks, .* \['SN'\]"),
        ({"image": R2STAR, "nuclei": ["RN"]}, r"are not in r2star masks.*\(\[\]\) for the whole"),
        ({"image": "nm", "nuclei": ["SN", "SN"]}, "must be distinct"),
        ({"image": "nm", "nuclei": ["SN"], "margin_mm": -1.0}, "margin_mm must be >= 0"),
        ({"image": "nm", "nuclei": ["SN"], "size": 0}, "size >= 1"),
        ({"image": "nm", "nuclei": ["SN"], "extent_mm": [30, 30]}, "three positive sides"),
        ({"image": "nm", "nuclei": ["SN"], "extent_mm": 30}, r"three positive sides.*got 30\."),
        ({"image": "nm", "nuclei": ["SN"], "extent_mm": [9, 9, float("nan")]}, "up to 300"),
        ({"image": "nm", "nuclei": ["SN"], "extent_mm": [9, 9, 1e6]}, "up to 300"),
        ({"image": R2STAR, "nuclei": [], "extent_mm": [9, 9, 9]}, "of a region with nuclei"),
    ],
)
def test_faulty_rois_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ROI(**arguments)


def test_a_name_means_the_challenges_image():
    assert ROI(image="nm", nuclei=["SN"]).image is CHALLENGE_IMAGES["nm"]


def test_an_roi_without_nuclei_is_a_whole_image_of_one_class():
    roi = ROI(image=R2STAR, nuclei=[])
    assert (roi.num_classes, roi.ids, roi.image.name) == (1, (), "r2star")


def test_only_what_the_rois_need_is_needed():
    rois = {
        "nm": ROI(image="nm", nuclei=[]),
        "qsm2": ROI(image="qsm", nuclei=["SN"]),
        "qsm3": ROI(image="qsm", nuclei=["DN"]),
    }
    assert list(images_of(rois)) == ["nm", "qsm"]
    assert volume_keys(rois) == ["nm", "qsm", "mask_qsm"]  # a whole image needs no mask
    del rois["nm"]
    assert volume_keys(rois) == ["qsm", "mask_qsm"]


def test_two_images_of_one_name_are_refused():
    other = Image(file="NM", mask="NM_mask", nuclei={"SN": (1, 2)}, window=(0, 1))
    rois = {"nm": ROI(image="nm", nuclei=["SN"]), "other": ROI(image=other, nuclei=["SN"])}
    with pytest.raises(ValueError, match=r"ROI 'other' has another image 'nm' .*@images#nm"):
        images_of(rois)
