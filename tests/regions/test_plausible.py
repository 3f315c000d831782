"""What images show under their masks: phantoms of any effect pass, what no brain has does not."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mrn_components.images.finding import FaultyFileError
from mrn_components.images.image import CHALLENGE_IMAGES, Image
from mrn_components.images.overlap import overlap_findings
from mrn_components.images.volume import Volume
from mrn_components.phantom import make_subject
from mrn_components.regions.plausible import plausible_findings
from mrn_components.regions.reading import ReadVolumesd
from mrn_components.regions.reference import take_out_references
from mrn_components.regions.roi import ROI

KEYS = {"nm": "NM", "qsm": "QSM", "mask_nm": "NM_mask", "mask_qsm": "QSM_mask"}
QSM = CHALLENGE_IMAGES["qsm"]


def volumes_of(phantom):
    return {
        key: Volume(path=Path(name), stored=phantom.volumes[name], affine=phantom.affine)
        for key, name in KEYS.items()
    }


@pytest.fixture(scope="module")
def phantom():
    return volumes_of(make_subject(0, seed=3, view="midbrain"))


def judged(volumes, images=CHALLENGE_IMAGES):
    return [(f.id, f.severity) for f in plausible_findings(volumes, images)]


def changed(volumes, change, key="qsm"):
    return volumes | {key: replace(volumes[key], stored=change(volumes[key].stored))}


@pytest.mark.parametrize("effect", [0, 1, 4])
def test_phantoms_are_plausible(effect):
    for index in range(4):
        pair = make_subject(index, seed=11, effect=effect, view="midbrain")
        assert judged(volumes_of(pair)) == []


def test_any_factor_is_seen(phantom):
    """A factor of two is what reconstructions differ by."""
    for factor in (1e-3, 0.01, 0.1, 1 / 9, 0.1277, 0.2, 4, 2 * np.pi, 9, 10, 100):
        ((kind, severity),) = judged(changed(phantom, lambda a, f=factor: a * f))
        assert (kind, severity) == ("qsm-scale", "error"), factor
    for factor in (1 / 3, 3):
        ((kind, severity),) = judged(changed(phantom, lambda a, f=factor: a * f))
        assert (kind, severity) == ("qsm-scale", "warning"), factor
    for factor in (0.6, 1.6):
        assert judged(changed(phantom, lambda a, f=factor: a * f)) == []


def test_without_the_thalamus_the_whole_image_tells_the_same(phantom):
    some = replace(QSM, nuclei={name: QSM.nuclei[name] for name in ("STN", "SN", "RN")})
    mask = phantom["mask_qsm"].stored
    part = np.where(np.isin(mask, list(some.ids)), mask, 0)
    volumes = phantom | {"mask_qsm": replace(phantom["mask_qsm"], stored=part)}
    images = {"qsm": some}
    assert judged(volumes, images) == []
    assert judged(changed(volumes, lambda a: -a), images) == [("qsm-sign", "error")]
    assert judged(changed(volumes, lambda a: 9 * a), images) == [("qsm-scale", "error")]
    assert judged(changed(volumes, lambda a: a + 100), images) == [("qsm-reference", "warning")]


def test_a_map_of_a_unit_that_nobody_knows_is_not_judged(phantom):
    images = {"qsm": replace(QSM, unit="Hz")}
    assert judged(changed(phantom, lambda a: 0.1277 * a), images) == []


def test_other_quantities_and_empty_masks_are_not_judged(phantom):
    other = {"qsm": replace(QSM, quantity="r2star")}
    assert judged(changed(phantom, lambda a: -a), other) == []
    assert judged({"qsm": phantom["qsm"]}, CHALLENGE_IMAGES) == []
    empty = changed(phantom, np.zeros_like, "mask_qsm")
    assert judged(empty, {"qsm": QSM}) == []


def test_values_that_are_not_finite_do_not_count(phantom):
    def holes(voxels):
        bad = voxels.copy()
        bad[::2] = np.nan
        return bad

    assert judged(changed(changed(phantom, holes), holes, "nm")) == []


def test_the_sides_of_the_nigra_are_compared_in_the_world(phantom):
    """Whatever the grids are: each mask has its own affine."""
    turned = phantom | {key: phantom[key].canonical for key in ("nm", "mask_nm")}
    assert judged(turned) == []
    moved = phantom["mask_nm"].affine.copy()
    moved[1, 3] += 7
    away = phantom | {k: replace(phantom[k], affine=moved) for k in ("nm", "mask_nm")}
    assert ("nigra-shift", "warning") in judged(away)


@pytest.mark.parametrize("shift", [-90.0, 60.0, 100.0])
@pytest.mark.parametrize("reference", ["mean", "TH"])
def test_a_reference_takes_a_shift_out(phantom, shift, reference):
    images = CHALLENGE_IMAGES | {"qsm": replace(QSM, reference=reference)}
    whole, shifts = take_out_references(phantom, images)
    moved = changed(phantom, lambda a: np.where(a == 0, 0, a + np.float32(shift)))
    found, found_shifts = take_out_references(moved, images)
    np.testing.assert_allclose(found["qsm"].voxels, whole["qsm"].voxels, atol=1e-3)
    assert found_shifts["qsm"] - shifts["qsm"] == pytest.approx(shift, abs=1e-3)
    assert abs(shifts["qsm"]) < 30
    assert judged(found, images) == []
    again, same = take_out_references(found, images)
    assert again["qsm"] is found["qsm"]  # once
    assert same == found_shifts
    if reference == "TH":
        inside = np.isin(phantom["mask_qsm"].stored, QSM.nuclei["TH"])
        assert found["qsm"].voxels[inside].mean() == pytest.approx(-10, abs=0.01)


def test_without_a_reference_nothing_is_touched(phantom):
    volumes, shifts = take_out_references(phantom, CHALLENGE_IMAGES)
    assert shifts == {}
    assert all(volumes[key] is phantom[key] for key in phantom)


def test_a_reference_that_the_mask_lacks_is_named(phantom):
    images = {"qsm": replace(QSM, reference="TH")}
    mask = changed(phantom, lambda a: np.where(np.isin(a, QSM.nuclei["TH"]), 0, a), "mask_qsm")
    with pytest.raises(FaultyFileError, match=r"QSM_mask: no TH; .*--images#qsm#reference mean"):
        take_out_references(mask, images)
    with pytest.raises(FaultyFileError, match="no TH"):
        take_out_references({"qsm": phantom["qsm"]}, images)


@pytest.mark.parametrize("reference", ["SN", "median", "CSF"])
def test_an_unknown_reference_is_refused(reference):
    with pytest.raises(ValueError, match=r"reference must be one of \['TH', 'mean', 'none'\]"):
        replace(QSM, reference=reference)
    with pytest.raises(ValueError, match=r"reference must be one of \['none'\]"):
        Image(file="NM", reference="mean")


@pytest.mark.parametrize("bundle", ["mrn", "seres10", "segmentation"])
def test_the_bundles_say_what_reference_their_weights_know(bundle):
    folder = Path(__file__).parent.parent.parent / "bundles" / bundle
    metadata = json.loads((folder / "configs" / "metadata.json").read_text())
    said = [metadata["qsm_reference"], (folder / "docs" / "README.md").read_text()]
    for text in said:
        assert f"{QSM.facts.references['TH']:g} ppb" in text
        assert bundle == "segmentation" or "images#qsm#reference" in text


def test_a_network_sees_the_image_without_its_shift(phantom):
    image = replace(QSM, reference="TH")
    rois = {"dn": ROI(image=image, nuclei=["DN"])}
    moved = changed(phantom, lambda a: np.where(a == 0, 0, a + np.float32(100)))
    plain, shifted = (ReadVolumesd(rois=rois)(volumes)["qsm"] for volumes in (phantom, moved))
    np.testing.assert_allclose(plain.numpy(), shifted.numpy(), atol=1e-3)


def test_what_is_implausible_may_be_flagged(phantom):
    rois = {"dn": ROI(image=QSM, nuclei=["DN"])}
    flipped = changed(phantom, lambda a: -a)
    with pytest.raises(FaultyFileError, match=r"QSM: a mean of -\d+ ppb in GP, SN, RN"):
        ReadVolumesd(rois=rois, missing="fallback")(flipped)
    data = ReadVolumesd(rois=rois, missing="fallback", implausible="flag")(flipped)
    assert "a mean of -" in data["flags"][0]
    with pytest.raises(ValueError, match="implausible must be one of"):
        ReadVolumesd(rois=rois, implausible="ignore")


def box(shape, origin, spacing=1.0):
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = origin
    return Volume(path=Path("image"), stored=np.zeros(shape, np.uint8), affine=affine)


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        (box((60, 60, 60), (0, 0, 0)), []),
        (box((10, 10, 4), (20, 20, 20)), []),  # a slab within
        (box((400, 400, 400), (-50, -50, -50), 0.5), []),  # a field of view around
        (box((60, 60, 60), (50, 0, 0)), ["warning"]),
        (box((60, 60, 60), (61, 0, 0)), ["error"]),
        (box((5, 5, 5), (1000, 0, 0)), ["error"]),
    ],
)
def test_fields_of_view_overlap_or_not(second, expected):
    first = box((60, 60, 60), (0, 0, 0))
    for pair in ((first, second), (second, first)):
        assert [found.severity for found in overlap_findings(*pair, "QSM")] == expected
