"""Every number of the phantom, with its unit and source; the tables are in ``numbers.yaml``.

Positions are millimetres from the midpoint of the two red nuclei: (lateral, anterior, superior),
lateral positive away from the midline. Volumes and class means are the challenge organisers'
published table and charts (300 cases); centres come from published label maps on the same grid
(moved by up to 2 mm where bending moves the centroid); "inferred" numbers fit the literature;
"calibrated" ones were chosen so that a generated cohort reproduces the others.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import yaml

View = Literal["brain", "midbrain"]

Triple = tuple[float, float, float]

SPACING_MM = (2 / 3, 2 / 3, 2.0)
_TABLES = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Grid:
    """A box of the challenge's 300x300x70 LAS grid: ``shape`` voxels from voxel ``start``."""

    shape: tuple[int, int, int]
    start: tuple[int, int, int]

    @property
    def affine(self) -> np.ndarray:
        """Voxel to world (RAS+, mm); x runs to the patient's left, hence the minus."""
        scale = np.array(SPACING_MM) * (-1, 1, 1)
        affine = np.diag([*scale, 1.0])
        affine[:3, 3] = scale * self.start
        return affine


GRIDS: dict[View, Grid] = {
    "brain": Grid((300, 300, 70), (0, 0, 0)),
    "midbrain": Grid((132, 164, 46), (84, 64, 0)),  # every nucleus and >= 6 mm around it
}

# Pose of a head: voxel of the red nuclei's midpoint, rotation and stretch about it.
ANCHOR_VOXEL = ((150.0, 148.0, 24.6), (1.0, 1.2, 0.5))  # mean, SD; published label maps
TILT_DEGREES = (2.0, 1.2, 1.2)  # SD about the left-right, front-back and vertical axes; calibrated
STRETCH = 0.025  # SD; calibrated


@dataclass(frozen=True)
class Nucleus:
    """Shape of a nucleus: an ellipsoid that is bent, tapered and roughened."""

    centre: Triple  # mean position in mm
    centre_sd: Triple  # SD over subjects and sides in mm
    long_axis: Triple  # direction of the first semi-axis
    second_axis: Triple  # direction of the second; the third is perpendicular to both
    semi_axes: Triple  # in mm
    bend: tuple[float, float]  # offset in mm of the tip (u = a) along the second and third axis
    taper: float  # how much wider (> 0) the cross-section is at the tip than at the centre
    volume: tuple[float, float]  # (right, left) in mm3
    volume_cv: float  # its coefficient of variation
    roughness: float = 0.03  # amplitude of the surface's waves as a share of the radius
    wavelength: float = 10.0  # of these waves, in mm


SHAPES = {name: Nucleus(**shape) for name, shape in _TABLES["shapes"].items()}
NM_SHAPE = Nucleus(**_TABLES["nm_shape"])


@dataclass(frozen=True)
class Signal:
    """Image values of a nucleus: what its mean over a cohort must be."""

    chi: tuple[float, float]  # QSM in ppb of (HC, PD)
    chi_sd: float  # SD between subjects in ppb
    nm: tuple[float, float]  # neuromelanin signal of (HC, PD), relative to the mean over the nuclei
    t1: float  # T1-like signal relative to white matter
    recovery: float  # share of the contrast to its surroundings that blur and inversion leave


SIGNALS = {name: Signal(**signal) for name, signal in _TABLES["signals"].items()}
SN_GRADIENT_PPB = 7.0  # SD of the SN's slope from front to back, HC and PD; inferred
NM_SD = 0.04  # between-subject SD of a nucleus' relative NM signal; calibrated

# Parkinson's disease at effect 1.0.
SEVERITY_BETA = (2.0, 2.0)  # severity = 2 x beta: mean 1, between 0 and 2
ASYMMETRY = 0.25  # the more affected side changes by 1.25, the other by 0.75
LEFT_EXTRA_PPB = 5.0  # left minus right rise of the SN; organisers' chart
NM_CONTRAST = (0.12, 0.03)  # mean and SD over the crus; calibrated, 2D scans 0.225
NM_VOLUME_LOSS = 0.05  # share of the outline; of the inferred 0.12, the rest is dim and outlined
NM_DEPLETION = (0.45, 0.15)  # posterolateral contrast: mean loss, SD also in HC; calibrated

# How readers' outlines of the neuromelanin vary, whatever the class; inferred.
READER_VOLUME_SD = (0.12, 0.03)  # share of the volume: of both sides together, of each
READER_SHIFT_MM = 0.4  # SD per axis

# Nigrosome-1, the dark lens in the healthy SN (Kim 2018, 3 T).
NIGROSOME_CHI_PPB = 55.0
NIGROSOME_SHARE = (0.107, 0.04)  # mean and SD of its share of the SN
NIGROSOME_PRESENT = (0.85, 0.15)  # probability per side in (HC, PD); inferred
NIGROSOME_AGREEMENT = 0.6  # correlation of the two sides; calibrated


@dataclass(frozen=True)
class Scanner:
    """How a site's images differ from those of the first, and whom it examines."""

    name: str
    reference: float  # added to QSM, in ppb
    noise: float  # of both images, relative to the first
    blur: float  # width of the point spread, relative to the first
    neuromelanin: float  # its contrast, relative to the first
    share: float  # of PD


SCANNERS = [Scanner(**scanner) for scanner in _TABLES["scanners"]]

TISSUES: dict[str, dict[str, float]] = _TABLES["tissues"]  # {name: {"chi", "nm", "t1"}}
BALLS: dict[str, list[tuple[str, Triple, Triple]]] = _TABLES["balls"]
VEINS = {name: np.array(corners) for name, corners in _TABLES["veins"].items()}  # (n, 3) mm
VEIN_CHI_PPB = (150.0, 300.0)

# Acquisition.
BLUR_MM = (0.35, 0.35, 0.9)  # Gaussian SD of the point spread: thick slices
QSM_NOISE_PPB = 12.0  # SD per voxel
TEXTURE_PPB = 11.0  # SD of the slow variation in white matter
OFFSET_PPB = 4.0  # SD of the reference value
DIPOLE_THRESHOLD = 0.12  # truncation of the dipole inversion; calibrated to visible streaks
SNR = 30.0  # of white matter in NM and T1; two real NM scans 29-35
BIAS = 0.1  # largest change of the receive field from the middle to the border, along each axis
SHIFT_MM = 0.8  # NM against QSM, SD per axis; at most twice that: 2.8 mm in all
