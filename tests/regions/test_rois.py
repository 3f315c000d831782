import pytest

from mrn_components.regions.roi import ROI


def test_classes_are_background_and_nuclei():
    roi = ROI(image="qsm", nuclei=["STN", "SN", "RN"])
    assert roi.num_classes == 4
    assert roi.label_ids == (9, 10, 11, 12, 13, 14)


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
        ({"image": "t1", "nuclei": ["SN"]}, "image must be one of"),
        ({"image": "qsm", "nuclei": "SN"}, "non-empty list"),
        ({"image": "qsm", "nuclei": []}, "non-empty list"),
        ({"image": "nm", "nuclei": ["RN"]}, r"nuclei \['RN'\] have no label in nm masks"),
        ({"image": "nm", "nuclei": ["SN", "SN"]}, "must be distinct"),
        ({"image": "nm", "nuclei": ["SN"], "margin_mm": -1.0}, "margin_mm must be >= 0"),
        ({"image": "nm", "nuclei": ["SN"], "size": 0}, "size >= 1"),
    ],
)
def test_faulty_rois_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ROI(**arguments)
