"""Biomarkers against hand-made subjects and phantoms of known truth."""

import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from tiny_cohort import AFFINE, SHAPE, make_mask, read_biomarkers

from mrn_components.biomarkers import (
    biomarkers_of,
    columns_of,
    describe_biomarkers,
    measure_nuclei,
    references,
    write_biomarkers,
)
from mrn_components.images.image import CHALLENGE_IMAGES, SIDES, Image
from mrn_components.images.volume import Volume
from mrn_components.phantom import make_subject
from mrn_components.phantom.numbers import SPACING_MM
from mrn_components.phantom.signal import draw_traits

KEYS = {"NM": "nm", "QSM": "qsm", "NM_mask": "mask_nm", "QSM_mask": "mask_qsm"}
COLUMNS = columns_of()
QSM = CHALLENGE_IMAGES["qsm"].nuclei
OBLIQUE = AFFINE.copy()
OBLIQUE[:3, :3] = Rotation.from_euler("xyz", [9, -7, 12], degrees=True).as_matrix() @ AFFINE[:3, :3]
OBLIQUE[:3, 3] = (5, -20, 3)


def volume(name, array, affine=AFFINE):
    return Volume(path=Path(name), stored=array, affine=affine)


def measure(arrays, affine=AFFINE, **replaced):
    """Measure arrays by the names of their files; None leaves one out."""
    volumes = {
        name: volume(name, arrays[name], affine) for name in KEYS if name in arrays
    } | replaced
    return measure_nuclei({KEYS[name]: v for name, v in volumes.items() if v is not None})


@pytest.fixture(scope="module")
def tiny():
    """Noise in the boxes of the tiny cohort."""
    rng = np.random.default_rng(4)
    return {
        "NM": rng.uniform(900, 1100, SHAPE).astype(np.float32) + 200 * (make_mask("nm") > 0),
        "QSM": rng.normal(90, 60, SHAPE).astype(np.float32),
        "NM_mask": make_mask("nm"),
        "QSM_mask": make_mask("qsm"),
    }


@pytest.fixture(scope="module")
def pairs():
    """Two phantoms, each without and with the disease: [(healthy, disease)]."""
    return [
        tuple(make_subject(index, seed=2, view="midbrain", label=label) for label in (0, 1))
        for index in range(2)
    ]


@pytest.mark.parametrize("affine", [AFFINE, OBLIQUE], ids=["LAS", "oblique"])
def test_every_nucleus_is_measured_in_its_own_voxels(tiny, affine):
    values = measure(tiny, affine)
    assert tuple(values) == COLUMNS
    voxel_mm3 = abs(np.linalg.det(affine[:3, :3]))
    for nucleus, ids in QSM.items():
        for side, label in zip(SIDES, ids, strict=True):
            chi = tiny["QSM"][tiny["QSM_mask"] == label].astype(float)
            expected = [len(chi) * voxel_mm3, chi.mean(), np.quantile(chi, 0.95)]
            names = [f"volume_mm3_{nucleus}", f"qsm_mean_ppb_{nucleus}", f"qsm_p95_ppb_{nucleus}"]
            assert [values[f"{name}_{side}"] for name in names] == pytest.approx(expected)
            if nucleus == "SN":
                assert values[f"nigrosome_fraction_{side}"] == np.mean(chi < 70)
    for side, label in zip(SIDES, (1, 2), strict=True):
        count = np.sum(tiny["NM_mask"] == label)
        assert values[f"nm_volume_mm3_{side}"] == pytest.approx(count * voxel_mm3)


def test_asymmetry_is_the_difference_over_the_mean_and_swaps_its_sign(tiny):
    mask = tiny["QSM_mask"].copy()
    right, left = QSM["DN"]
    mask[np.nonzero(mask == left)[0].min()][mask[np.nonzero(mask == left)[0].min()] == left] = 0
    values = measure({**tiny, "QSM_mask": mask})
    sizes = np.sum(mask == right), np.sum(mask == left)
    expected = (sizes[0] - sizes[1]) / np.mean(sizes)
    assert expected > 0
    assert values["asymmetry_volume_mm3_DN"] == pytest.approx(expected)
    swapped = mask.copy()
    swapped[mask == right], swapped[mask == left] = left, right
    values = measure({**tiny, "QSM_mask": swapped})
    assert values["asymmetry_volume_mm3_DN"] == pytest.approx(-expected)


def test_asymmetry_needs_two_positive_sides(tiny):
    qsm = np.where(tiny["QSM_mask"] == QSM["RN"][0], -5, tiny["QSM"]).astype(np.float32)
    values = measure({**tiny, "QSM": qsm})
    assert values["qsm_mean_ppb_RN_right"] == -5
    assert values["asymmetry_qsm_mean_ppb_RN"] is None
    assert values["asymmetry_volume_mm3_RN"] == 0


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SRA", "PIL", "AIR"])
def test_any_orientation_gives_the_same_numbers(tiny, axes):
    def turned(name):
        image = nib.Nifti1Image(tiny[name], OBLIQUE)
        wanted = nib.orientations.axcodes2ornt(axes)
        way = nib.orientations.ornt_transform(nib.io_orientation(OBLIQUE), wanted)
        image = image.as_reoriented(way)
        return volume(name, np.asarray(image.dataobj), image.affine)

    values = measure({}, **{name: turned(name) for name in KEYS})
    assert values == pytest.approx(measure(tiny, OBLIQUE), rel=1e-9)


def test_what_is_missing_is_none_and_changes_nothing_else(tiny):
    whole = measure(tiny)
    assert None not in whole.values()
    mask = np.where(tiny["QSM_mask"] == QSM["STN"][1], 0, tiny["QSM_mask"])
    values = measure({**tiny, "QSM_mask": mask})
    lost = {column for column in COLUMNS if "_STN_left" in column or column.endswith("_STN")}
    assert {column for column, value in values.items() if value is None} == lost
    same = [c for c in COLUMNS if c not in lost and not c.startswith("nm_con")]  # STN is tissue now
    assert [values[c] for c in same if "contrast" not in c] == [
        whole[c] for c in same if "contrast" not in c
    ]


def test_missing_images_and_masks_leave_the_other_image(tiny):
    whole = measure(tiny)
    of_nm = {column for column in COLUMNS if "nm_" in column}

    def lost(**absent):
        return {c for c, value in measure(tiny, **absent).items() if value is None}

    assert lost(NM=None, NM_mask=None) == of_nm
    assert lost(NM=None) == {c for c in of_nm if "contrast" in c}
    assert lost(QSM=None) == {c for c in COLUMNS if "qsm" in c or "nigrosome" in c}
    assert lost(QSM=None, QSM_mask=None) == set(COLUMNS) - of_nm
    assert lost(NM_mask=None, QSM_mask=None) == set(COLUMNS)
    alone = measure(tiny, NM=None, NM_mask=None)
    assert all(alone[column] == whole[column] for column in set(COLUMNS) - of_nm)


def test_voxels_that_are_not_finite_do_not_count(tiny):
    qsm = tiny["QSM"].copy()
    label = QSM["GP"][0]
    first = tuple(np.argwhere(tiny["QSM_mask"] == label)[0])
    qsm[first] = np.nan
    values = measure({**tiny, "QSM": qsm})
    assert values["qsm_mean_ppb_GP_right"] == pytest.approx(
        np.nanmean(qsm[tiny["QSM_mask"] == label])
    )
    qsm[tiny["QSM_mask"] == label] = np.inf
    values = measure({**tiny, "QSM": qsm})
    assert values["qsm_mean_ppb_GP_right"] is None
    assert values["volume_mm3_GP_right"] > 0


@pytest.fixture
def head():
    """NM of 1 mm voxels: crus 100, SN 112, everything elsewhere is wrong for a reference."""
    affine = np.diag([1.0, 1, 1, 1])  # RAS; the midline is x = 40
    x, y, z = np.indices((80, 60, 40))
    mask = np.zeros(x.shape, np.uint8)
    nm = np.full(x.shape, 300, np.float32)
    for label, sign in ((1, 1), (2, -1)):
        outward, forward = sign * (x - 40) - 10, y - 30
        nigra = (abs(outward) <= 3) & (abs(forward) <= 3) & (abs(z - 20) <= 2)
        nm[(outward > 3) & (forward > 3)] = 100
        nm[(outward > 3 + 6) | (forward > 3 + 6)] = 0  # cistern
        nm[nigra] = 112
        mask[nigra] = label
    return nm, mask, affine


def test_contrast_ratio_is_to_the_tissue_in_front_and_outward(head):
    nm, mask, affine = head
    values = measure({"NM": nm, "NM_mask": mask}, affine)
    assert values["nm_contrast_ratio_right"] == pytest.approx(0.12)
    assert values["nm_contrast_ratio_left"] == pytest.approx(0.12)
    scaled = measure({"NM": nm * 7, "NM_mask": mask}, affine)
    assert scaled["nm_contrast_ratio_left"] == pytest.approx(0.12)  # arbitrary units


def test_labelled_nuclei_of_the_other_grid_are_no_reference(head):
    nm, mask, affine = head
    nm = nm.copy()
    nm[54:64, 34:50, 14:21] = 500  # most of the right crus: a nucleus of the QSM mask
    grid = np.diag([-2.0, 2, 2, 1])
    grid[:3, 3] = (80, 0, 0)
    other = np.zeros((40, 30, 20), np.uint8)
    other[8:14, 16:26, 6:11] = QSM["STN"][0]  # x from 80 - 2 * 14 to 80 - 2 * 8
    without = measure({"NM": nm, "NM_mask": mask}, affine)
    assert without["nm_contrast_ratio_right"] < 0
    values = measure({"NM": nm, "NM_mask": mask}, affine, QSM_mask=volume("QSM_mask", other, grid))
    assert values["nm_contrast_ratio_right"] == pytest.approx(0.12)
    assert values["nm_contrast_ratio_left"] == pytest.approx(0.12)


def test_no_tissue_for_a_reference_is_no_contrast(head):
    nm, mask, affine = head
    box = np.s_[27:54, 27:34, 18:23]  # the SN fill the field of view
    values = measure({"NM": nm[box], "NM_mask": mask[box]}, affine)
    assert values["nm_contrast_ratio_right"] is None
    assert values["nm_volume_mm3_right"] == 7 * 7 * 5


def test_grids_of_their_own_give_the_same_numbers(tiny):
    whole = measure(tiny)
    start = np.array([0, 2, 0])
    affine = AFFINE.copy()
    affine[:3, 3] += AFFINE[:3, :3] @ start
    box = np.s_[:, 2:, :10]
    cropped = {name: volume(name, tiny[name][box], affine) for name in ("NM", "NM_mask")}
    assert measure(tiny, **cropped) == pytest.approx(whole)


def test_a_mask_on_another_grid_is_refused(tiny):
    wrong = volume("QSM_mask", tiny["QSM_mask"][:-1])
    with pytest.raises(ValueError, match=r"the shape \(23, 24, 12\); expected that of QSM"):
        measure(tiny, QSM_mask=wrong)


def test_a_mask_of_the_other_image_is_refused(tiny):
    with pytest.raises(ValueError, match=r"the values 3, .*expected 0 and the ids of nm masks"):
        measure(tiny, NM_mask=volume("NM_mask", tiny["QSM_mask"]))


def test_other_quantities_have_volumes_and_means_and_their_own_names(tiny):
    r2star = Image(file="R2STAR", mask="R2_mask", nuclei={"SN": (1, 2), "LC": (3, 4)}, unit="1/s")
    chi = Image(
        file="CHI", mask="CHI_mask", quantity="susceptibility", unit="ppm", nuclei={"SN": (11, 12)}
    )
    images = {**CHALLENGE_IMAGES, "r2star": r2star, "chi": chi}
    assert "volume_mm3_SN_left" in columns_of({"chi": chi})  # the only map has the plain names
    assert "chi_volume_mm3_SN_left" in columns_of(images)
    volumes = {key: volume(name, tiny[name]) for name, key in KEYS.items()}
    nigra = np.where(np.isin(tiny["QSM_mask"], QSM["SN"]), tiny["QSM_mask"], 0)
    volumes |= {
        "r2star": volume("R2STAR", tiny["QSM"]),
        "mask_r2star": volume("M", make_mask("nm")),
    }
    volumes |= {"chi": volume("CHI", tiny["QSM"] / 1000), "mask_chi": volume("N", nigra)}
    values = measure_nuclei(volumes, images)
    assert tuple(values) == columns_of(images)
    assert {name: values[name] for name in COLUMNS} == measure(tiny)
    assert values["r2star_mean_SN_right"] == tiny["QSM"][make_mask("nm") == 1].astype(float).mean()
    assert values["r2star_volume_mm3_SN_left"] == values["nm_volume_mm3_left"]
    assert values["r2star_mean_LC_left"] is None
    assert values["chi_mean_ppm_SN_left"] == pytest.approx(values["qsm_mean_ppb_SN_left"] / 1000)
    assert "`r2star_mean_{nucleus}_{side}` (SN, LC) | 1/s" in describe_biomarkers(images)
    assert columns_of({"whole": Image(file="R2STAR")}) == ()


def test_phantoms_are_measured_as_they_were_made(pairs):
    for index, pair in enumerate(pairs):
        for label, phantom in enumerate(pair):
            stream = np.random.SeedSequence([2, index]).spawn(4)[0]
            truth = draw_traits(np.random.default_rng(stream), effect=label)
            values = measure(phantom.volumes, phantom.affine)
            for name in ("CN", "PUT", "GP", "TH"):  # blur hardly reaches into these
                for side in SIDES:
                    # Each subject has a reference offset of SD 4 ppb.
                    expected = pytest.approx(truth.chi[name, side], abs=10)
                    assert values[f"qsm_mean_ppb_{name}_{side}"] == expected
            for number, side in enumerate(SIDES):
                voxels = np.sum(phantom.volumes["NM_mask"] == number + 1)
                volume = voxels * np.prod(SPACING_MM)
                assert values[f"nm_volume_mm3_{side}"] == pytest.approx(volume)
                share, found = truth.nigrosome[side], values[f"nigrosome_fraction_{side}"]
                assert 0.3 * share <= found <= share + 0.03  # blur brightens its rim


def test_disease_moves_phantoms_as_the_organisers_chart(pairs):
    change = {column: [] for column in COLUMNS}
    for pair in pairs:
        healthy, disease = (measure(phantom.volumes, phantom.affine) for phantom in pair)
        for column in COLUMNS:
            change[column].append(disease[column] - healthy[column])
    mean = {column: np.mean(values) for column, values in change.items()}
    for side in SIDES:
        assert 5 < mean[f"qsm_mean_ppb_SN_{side}"] < 35  # chart: 17 right, 21 left
        assert mean[f"nigrosome_fraction_{side}"] < -0.02
        assert -30 < mean[f"nm_volume_mm3_{side}"] < -4  # 5 %: 16
        assert -0.03 < mean[f"nm_contrast_ratio_{side}"] < -0.002
        assert abs(mean[f"qsm_mean_ppb_RN_{side}"]) < 5
        assert mean[f"volume_mm3_SN_{side}"] == 0


def test_every_column_is_explained():
    patterns = [biomarker.pattern for biomarker in biomarkers_of()]
    assert len(set(COLUMNS)) == len(COLUMNS)
    assert set(references()) <= set(COLUMNS)
    text = describe_biomarkers()
    assert all(f"`{pattern}`" in text for pattern in patterns)
    assert "Research use only" in text
    assert not re.search("diagnos", text, re.IGNORECASE)
    assert len({line.count(" | ") for line in text.splitlines() if line.startswith("| ")}) == 1


def test_published_values_are_the_sources():
    (chart, kim) = references()["qsm_mean_ppb_SN_left"]
    assert (chart.healthy, chart.disease) == ("133", "154")
    assert (kim.healthy, kim.disease) == ("98.4 (SD 11.7)", "125.8 (SD 16.3)")
    assert references()["volume_mm3_CN_right"][0].both == "3360"
    assert all(reference.source for found in references().values() for reference in found)


def test_tables_keep_what_was_measured(tmp_path, tiny):
    values = measure(tiny) | {"qsm_mean_ppb_GP_left": None}
    path = write_biomarkers(tmp_path, {"B": values, "A": dict.fromkeys(COLUMNS)}, {"C": "no\nmask"})
    lines = path.read_text().splitlines()
    assert lines[0].split(",") == ["subject", *COLUMNS, "error"]
    assert [line.split(",")[0] for line in lines[1:]] == ["A", "B", "C"]
    assert lines[3].endswith(",no mask")
    read = read_biomarkers(tmp_path)
    assert list(read) == ["A", "B"]
    assert read["B"].pop("qsm_mean_ppb_GP_left") is values.pop("qsm_mean_ppb_GP_left") is None
    assert read["B"] == pytest.approx(values, rel=1e-5)
    assert set(read["A"].values()) == {None}
    assert (tmp_path / "biomarkers.md").read_text() == describe_biomarkers()
