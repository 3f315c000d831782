"""Contrast, noise and ghosts against images of known ones."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mrn_components.biomarkers.quality import measure_quality
from mrn_components.images.image import CHALLENGE_IMAGES
from mrn_components.images.volume import Volume

SHAPE = (120, 100, 8)
X, Y, _ = np.indices(SHAPE)
HEAD = ((X - 60) / 24) ** 2 + ((Y - 50) / 20) ** 2 < 1  # air on all sides, and beyond its ghosts
HOLE = ((X - 60) / 7) ** 2 + ((Y - 50) / 6) ** 2 < 1  # air inside, between the nuclei's sides
AFFINE = np.diag([0.7, 0.7, 2, 1.0])


def volume(name, array):
    return Volume(path=Path(name), stored=array, affine=AFFINE)


def measure(
    noise=20.0,
    images=CHALLENGE_IMAGES,
    *,
    ghost=0.0,
    axis=1,
    offset=300.0,
    scale=1.0,
    hole=None,
    seed=0,
):
    """A head of 1000 with a substantia nigra above it, and what is measured of it."""
    rng = np.random.default_rng(seed)
    nm = np.zeros(SHAPE, np.uint8)
    nm[44:52, 38:62, 1:7], nm[68:76, 38:62, 1:7] = 2, 1
    qsm = np.where(nm == 1, 11, np.where(nm == 2, 12, 0)).astype(np.uint8)
    signal = 1000.0 * HEAD + offset * (nm > 0) + 2.0 * X * HEAD  # a slope is no noise
    signal += ghost * np.roll(signal, SHAPE[axis] // 2, axis)
    if hole is not None:
        signal[HOLE] = hole
    signal = scale * np.abs(signal + rng.normal(0, noise, SHAPE))
    ppb = 100.0 * (qsm > 0) + rng.normal(0, noise, SHAPE)
    files = {"nm": signal, "mask_nm": nm, "qsm": ppb, "mask_qsm": qsm}
    return measure_quality({k: volume(k, a) for k, a in files.items()}, images)


@pytest.mark.parametrize("noise", [5.0, 20.0, 60.0])
def test_noise_is_the_one_that_was_added(noise):
    found = measure(noise)
    assert found["qsm"]["noise"] == pytest.approx(noise, rel=0.06)  # ppb
    assert found["nm"]["noise"] == pytest.approx(noise / 1120, rel=0.06)  # of 1000 and the slope
    assert found["qsm"]["contrast_to_noise"] == pytest.approx(100 / noise, rel=0.08)
    assert found["nm"]["contrast_to_noise"] == pytest.approx(300 / noise, rel=0.08)


def test_numbers_do_not_depend_on_the_scale_of_a_scanner():
    one, other = measure(), measure(scale=37.0)
    assert other["nm"] == pytest.approx(one["nm"])


def test_an_image_that_names_no_unit_has_that_of_its_quantity():
    plain = {"qsm": replace(CHALLENGE_IMAGES["qsm"], unit="")}
    assert measure(images=plain) == {"qsm": measure()["qsm"]}


@pytest.mark.parametrize("axis", [0, 1])
def test_ghosts_are_found_on_either_axis(axis):
    assert abs(measure()["nm"]["ghosts"]) < 0.002
    found = measure(ghost=0.05, axis=axis)["nm"]["ghosts"]
    assert found == pytest.approx(0.04, abs=0.015)  # 5 % of the head, next to rectified noise


@pytest.mark.parametrize("hole", [0.0, 250.0])
def test_holes_of_the_head_are_no_air_to_look_for_ghosts_in(hole):
    assert measure(hole=hole)["nm"]["ghosts"] == pytest.approx(measure()["nm"]["ghosts"], abs=0.002)


def test_what_cannot_be_measured_is_none():
    nothing = dict.fromkeys(("contrast_to_noise", "noise", "ghosts"))
    assert measure()["qsm"]["ghosts"] is None  # a map of ppb has no air
    files = {"nm": np.ones(SHAPE), "mask_nm": np.zeros(SHAPE, np.uint8)}
    volumes = {key: volume(key, array) for key, array in files.items()}
    assert measure_quality(volumes, CHALLENGE_IMAGES) == {"nm": nothing}
    assert measure_quality({"nm": volumes["nm"]}, CHALLENGE_IMAGES) == {}


def test_noise_that_no_voxel_shows_is_not_called_none():
    """Between sides that lie in every slice's corners no voxel is away from an edge."""
    ids = np.zeros((30, 30, 4), np.uint8)
    ids[10, 10:13], ids[12, 10:13] = 1, 2
    values = np.random.default_rng(0).normal(1000, 50, ids.shape)
    files = {"nm": volume("nm", values), "mask_nm": volume("mask", ids)}
    found = measure_quality(files, CHALLENGE_IMAGES)["nm"]
    assert (found["noise"], found["contrast_to_noise"]) == (None, None)
