import json

import numpy as np
import pytest
from monai.bundle import ConfigParser
from monai.data.utils import pickle_hashing

from mrn_components.images.image import CHALLENGE_IMAGES, Image, select_image
from mrn_components.regions.roi import ROI

R2STAR = Image(file="R2star", mask="R2star_mask", nuclei={"SN": [1, 2], "LC": [3, 4]})


def test_names_follow_from_the_file():
    assert (R2STAR.name, R2STAR.mask_name, R2STAR.title) == ("r2star", "mask_r2star", "R2star")
    assert Image(file="R2star", name="r2").mask_name == "mask_r2"


def test_ids_tell_the_nucleus_and_its_side():
    assert R2STAR.ids == {
        1: ("SN", "right"),
        2: ("SN", "left"),
        3: ("LC", "right"),
        4: ("LC", "left"),
    }
    assert R2STAR.unknown_values(np.array([[0, 4, 9.5], [np.nan, -1, 4]]))[:2] == [-1, 9.5]


def test_an_unknown_quantity_has_the_general_facts():
    assert Image(file="R2star", quantity="relaxation").facts.title == "image"
    assert CHALLENGE_IMAGES["qsm"].facts.unit == "ppb"
    assert Image(file="R2star").bids_globs == ("*_R2star.nii*",)
    assert Image(file="Q", quantity="susceptibility").bids_globs == ("*_Chimap.nii*",)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"nuclei": {"SN": [1]}, "mask": "M"}, "two ids each"),
        ({"nuclei": {"SN": [1, 1]}, "mask": "M"}, "all distinct"),
        ({"nuclei": {"SN": [0, 1]}, "mask": "M"}, "from 1 to 255"),
        ({"nuclei": {"SN": [1, 2]}}, "no mask that holds them; add mask"),
        ({"window": [250, -100]}, "window must be"),
        ({"percentiles": [1]}, "percentiles must be"),
        ({"relative_window": [1.5, 0.7]}, "relative_window must be"),
        ({"window": [0, 1], "relative_window": [0.7, 1.5]}, "are two scales; leave one out"),
        ({"file": "../NM"}, "file must be"),
        ({"mask": "NM mask.nii.gz/"}, "mask must be"),
        (
            {"quantity": "susceptibility", "unit": "ppb", "file_unit": "Hz"},
            "file_unit must be ppb or",
        ),
        ({"file_unit": "ppm"}, "file_unit must be"),
        ({"name": "label"}, "'label', which datalists use"),
        ({"name": "mask_nm"}, "'mask_nm', which datalists use"),
    ],
)
def test_faulty_images_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Image(**{"file": "NM"} | arguments)


def test_keys_in_a_config_are_the_images_names():
    assert select_image({"r2star": R2STAR}, "r2star") is R2STAR
    with pytest.raises(ValueError, match=r"'r2' is an image of the name 'r2star'.*add name: r2"):
        select_image({"r2": R2STAR}, "r2")
    assert select_image(CHALLENGE_IMAGES, "qsm") is CHALLENGE_IMAGES["qsm"]
    with pytest.raises(ValueError, match=r"image must be one of \['nm', 'qsm'\], got 't1'"):
        select_image(CHALLENGE_IMAGES, "t1")


def test_a_cached_crop_finds_its_image_again():
    """The cache's key is a hash of the pickled ROIs, which two runs parse each for itself."""
    config = {
        "images": {
            "nm": {
                "_target_": "mrn_components.Image",
                "file": "NM",
                "mask": "NM_mask",
                "nuclei": {"SN": [1, 2]},
                "percentiles": [0.5, 99.5],
            }
        },
        "rois": {
            name: {"_target_": "mrn_components.ROI", "image": "@images#nm", "nuclei": nuclei}
            for name, nuclei in (("sn", ["SN"]), ("whole", []))
        },
    }
    parsed = [ConfigParser(json.loads(json.dumps(config))) for _ in range(2)]
    rois = [parser.get_parsed_content("rois") for parser in parsed]
    assert rois[0]["sn"].image is rois[0]["whole"].image
    assert pickle_hashing(rois[0]) == pickle_hashing(rois[1])
    other = {"sn": ROI(image=Image(file="NM", mask="NM_mask", nuclei={"SN": [2, 1]}), nuclei=[])}
    assert pickle_hashing(rois[0] | other) != pickle_hashing(rois[0])
