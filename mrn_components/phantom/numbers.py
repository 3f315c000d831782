"""Every number of the phantom, with its unit and source.

Positions are millimetres from the midpoint of the two red nuclei: (lateral, anterior, superior),
lateral positive away from the midline. Volumes and class means are the challenge organisers'
published table and charts (300 cases); centres come from published label maps on the same grid
(moved by up to 2 mm where bending moves the centroid); "inferred" numbers fit the literature;
"calibrated" ones were chosen so that a generated cohort reproduces the others.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

View = Literal["brain", "midbrain"]

SPACING_MM = (2 / 3, 2 / 3, 2.0)


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
    """Shape of a nucleus: an ellipsoid that is bent, tapered and roughened.

    Args:
        centre: mean position in mm.
        centre_sd: SD over subjects and sides in mm.
        long_axis: direction of the first semi-axis.
        second_axis: direction of the second; the third is perpendicular to both.
        semi_axes: in mm.
        bend: offset in mm of the tip (u = a) along the second and third axis.
        taper: how much wider (> 0) the cross-section is at the tip than at the centre.
        volume: (right, left) in mm3.
        volume_cv: its coefficient of variation.
        roughness: amplitude of the surface's waves as a share of the radius.
        wavelength: of these waves, in mm.
    """

    centre: tuple[float, float, float]
    centre_sd: tuple[float, float, float]
    long_axis: tuple[float, float, float]
    second_axis: tuple[float, float, float]
    semi_axes: tuple[float, float, float]
    bend: tuple[float, float]
    taper: float
    volume: tuple[float, float]
    volume_cv: float
    roughness: float = 0.03
    wavelength: float = 10.0


# Axes, bend, taper, roughness: calibrated. In the order of drawing: earlier ones keep their place.
SHAPES = {
    "RN": Nucleus(
        (4.9, 0.0, 0.0), (0.4, 0.3, 0.2), (0.18, 0.47, 0.86), (0.88, -0.47, 0.08),
        (3.9, 3.2, 2.7), (0.3, 0.8), -0.1, (170, 170), 0.19,
    ),
    "STN": Nucleus(
        (9.7, 5.9, 1.9), (0.5, 0.5, 0.5), (-0.80, 0.52, -0.30), (0.23, 0.73, 0.64),
        (3.6, 2.4, 1.8), (-0.4, 0.2), 0.0, (80, 90), 0.20,
    ),
    "SN": Nucleus(
        (8.7, 1.3, -3.7), (0.5, 0.8, 0.3), (0.41, 0.62, 0.67), (0.73, -0.66, 0.17),
        (7.1, 6.2, 2.0), (-0.2, 0.2), 0.0, (470, 460), 0.15,
    ),
    "GP": Nucleus(
        (18.7, 13.0, 6.5), (1.1, 1.0, 0.8), (-0.66, 0.75, 0.02), (0.27, 0.21, 0.94),
        (12.4, 6.9, 4.5), (-2.4, -1.2), 0.15, (1850, 2100), 0.11,
    ),
    "PUT": Nucleus(
        (24.3, 16.8, 9.4), (1.0, 1.4, 1.1), (-0.33, 0.93, -0.15), (0.08, -0.14, -0.99),
        (18.0, 9.5, 4.7), (3.1, 3.2), 0.18, (3670, 3520), 0.10,
    ),
    "CN": Nucleus(
        (13.3, 23.3, 18.5), (1.4, 2.0, 1.9), (-0.17, 0.78, -0.60), (-0.57, -0.58, -0.59),
        (20.2, 7.5, 3.7), (6.8, -4.4), 0.43, (3360, 2840), 0.12,
    ),
    "TH": Nucleus(
        (10.5, -1.4, 11.7), (0.7, 0.8, 0.7), (-0.43, 0.88, 0.17), (0.90, 0.44, 0.03),
        (15.3, 8.2, 7.1), (1.6, 3.0), 0.04, (4600, 4610), 0.08,
    ),
    "DN": Nucleus(
        (12.4, -32.9, -25.3), (1.2, 2.1, 2.4), (0.04, 0.98, 0.18), (0.77, 0.08, -0.64),
        (9.2, 5.4, 3.1), (-2.2, 2.3), -0.12, (660, 650), 0.12, 0.10, 5.0,
    ),
}  # fmt: skip

# The substantia nigra as neuromelanin shows it: more medial, smaller (volume: label maps, HC; with
# the readers' variation below, masks have an SD of 50 mm3).
NM_SHAPE = Nucleus(
    (7.5, 1.4, -3.5), (0.3, 0.4, 0.3), (0.78, -0.18, 0.60), (0.22, -0.81, -0.54),
    (6.6, 5.4, 2.1), (3.0, -0.8), -0.06, (322, 322), 0.10,
)  # fmt: skip


@dataclass(frozen=True)
class Signal:
    """Image values of a nucleus: what its mean over a cohort must be.

    Args:
        chi: QSM in ppb of (HC, PD).
        chi_sd: SD between subjects in ppb.
        nm: neuromelanin signal of (HC, PD), relative to the mean over the nuclei.
        t1: T1-like signal relative to white matter.
        recovery: share of the contrast to its surroundings that blur and dipole inversion leave.
    """

    chi: tuple[float, float]
    chi_sd: float
    nm: tuple[float, float]
    t1: float
    recovery: float


# chi and nm: organisers' charts; chi_sd: inferred from the literature; recovery: calibrated.
# nm of DN is greyed out by the organisers as unreliable: one value for both classes. SN shines
# through the neuromelanin painted over it, so that its own nm is the surrounding tissue's. t1:
# calibrated so that each nucleus stands out by twice the noise.
SIGNALS = {
    "CN": Signal((41, 40), 10, (0.994, 0.987), 0.74, 0.89),
    "PUT": Signal((50, 48), 15, (1.014, 1.012), 0.76, 0.91),
    "GP": Signal((121, 130), 24, (0.983, 0.978), 0.84, 0.87),
    "TH": Signal((-11, -8), 9, (0.995, 0.998), 0.78, 0.95),
    "STN": Signal((100, 101), 25, (1.008, 1.010), 0.80, 0.76),
    "SN": Signal((133, 151), 32, (0.990, 0.990), 0.80, 0.78),
    "RN": Signal((112, 114), 27, (0.993, 1.002), 0.80, 0.84),
    "DN": Signal((107, 102), 27, (0.975, 0.975), 0.84, 0.80),
}
SN_GRADIENT_PPB = 7.0  # SD of the SN's slope from front to back, HC and PD; inferred
NM_SD = 0.04  # between-subject SD of a nucleus' relative NM signal; calibrated

# Parkinson's disease at effect 1.0.
SEVERITY_BETA = (2.0, 2.0)  # severity = 2 x beta: mean 1, between 0 and 2
ASYMMETRY = 0.25  # the more affected side changes by 1.25, the other by 0.75
LEFT_EXTRA_PPB = 5.0  # left minus right rise of the SN; organisers' chart
NM_CONTRAST = (0.12, 0.03)  # mean and SD over the crus; calibrated, 2D scans 0.225
NM_VOLUME_LOSS = 0.05  # share of the outline; of the inferred 0.12, the rest is dim and outlined
NM_DEPLETION = (0.45, 0.25)  # posterolateral contrast: mean loss, SD also in HC; calibrated

# How readers' outlines of the neuromelanin vary, whatever the class; inferred.
READER_VOLUME_SD = (0.12, 0.03)  # share of the volume: of both sides together, of each
READER_SHIFT_MM = 0.4  # SD per axis

# Nigrosome-1, the dark lens in the healthy SN (Kim 2018, 3 T).
NIGROSOME_CHI_PPB = 55.0
NIGROSOME_SHARE = (0.107, 0.04)  # mean and SD of its share of the SN
NIGROSOME_PRESENT = (0.85, 0.15)  # probability per side in (HC, PD); inferred
NIGROSOME_AGREEMENT = 0.6  # correlation of the two sides; calibrated


@dataclass(frozen=True)
class Tissue:
    """Image values of a background tissue: QSM in ppb, NM and T1 relative to white matter."""

    chi: float
    nm: float
    t1: float


# chi: literature table; nm and t1: calibrated by eye.
TISSUES = {
    "air": Tissue(0, 0, 0),
    "scalp": Tissue(0, 1.10, 1.5),
    "skull": Tissue(0, 0.12, 0.15),
    "csf": Tissue(19, 0.60, 0.25),
    "grey": Tissue(20, 1.03, 0.70),
    "white": Tissue(-20, 0.98, 1.00),
    "stem": Tissue(-10, 1.00, 0.93),
}
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
