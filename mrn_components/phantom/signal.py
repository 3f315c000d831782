"""What one subject's nuclei look like, and its images.

The images are QSM in ppb, neuromelanin (NM) and T1-like in arbitrary units.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import fft, ndimage
from scipy.interpolate import CubicSpline
from scipy.special import ndtri

from mrn_components.phantom import numbers
from mrn_components.phantom.anatomy import SIDES, Anatomy, Pose, Region, normal, waves
from mrn_components.phantom.numbers import SCANNERS, SPACING_MM, Grid, Scanner


@dataclass(frozen=True)
class Traits:
    """Signal of one subject's nuclei, by (nucleus, side) or by side of the SN."""

    chi: dict[tuple[str, str], float]  # ppb; of the SN before disease and outside nigrosome-1
    chi_rise: dict[str, float]  # mean rise of the SN by disease in ppb
    chi_gradient: dict[str, float]  # slope of the SN in ppb per SD of the posterolateral position
    nigrosome: dict[str, float]  # nigrosome-1's share of the SN; 0 when it is lost
    nm: dict[tuple[str, str], float]  # NM signal relative to the crus
    nm_contrast: float  # neuromelanin's contrast to the crus
    nm_depletion: dict[str, float]  # share of that contrast lost at the posterolateral end
    nm_loss: dict[str, float]  # share by which a reader outlines less of the neuromelanin
    shift_mm: np.ndarray  # (3,) NM against QSM along the grid's axes

    def seen(self) -> dict[str, float]:
        """What images show of the subject, by nucleus and side, were they free of noise and blur.

        Disease alone moves ``chi_rise``, ``nm_depletion`` and ``nm_loss``: an image shows them only
        within the mean, the contrast and the size that they change.
        """
        values = {f"qsm_{name}_{side}": value for (name, side), value in self.chi.items()}
        for side in SIDES:
            rest = 1 - self.nigrosome[side]
            mean = rest * (values[f"qsm_SN_{side}"] + self.chi_rise[side])
            values[f"qsm_SN_{side}"] = mean + self.nigrosome[side] * numbers.NIGROSOME_CHI_PPB
            values[f"qsm_gradient_{side}"] = self.chi_gradient[side]
            values[f"nigrosome_{side}"] = self.nigrosome[side]
            left = self.nm_contrast * (1 - self.nm_depletion[side])
            values[f"neuromelanin_{side}"] = left
        values |= {f"nm_{name}_{side}": value for (name, side), value in self.nm.items()}
        return values


def draw_traits(rng: np.random.Generator, *, effect: float) -> Traits:
    """Draw a subject's traits.

    The draws are the same in number and order whatever the effect, so that subjects of cohorts
    that differ in effect alone differ in their disease alone. ``effect`` scales the disease; it is
    0 for a healthy control.
    """
    severity = effect * 2 * rng.beta(*numbers.SEVERITY_BETA)
    excess = numbers.ASYMMETRY * rng.choice([-1, 1])  # either side may be the more affected one
    disease = {side: severity * (1 + sign * excess) for side, sign in SIDES.items()}
    healthy, patient = _nigra_chi()
    extra = {side: -sign * numbers.LEFT_EXTRA_PPB / 2 * effect for side, sign in SIDES.items()}
    chi, nm = _draw_nuclei(rng, effect=effect)
    depletion, depletion_sd = numbers.NM_DEPLETION
    return Traits(
        chi=chi,
        chi_rise={side: (patient - healthy) * disease[side] + extra[side] for side in SIDES},
        chi_gradient={side: numbers.SN_GRADIENT_PPB * normal(rng) for side in SIDES},
        nigrosome=_draw_nigrosome(rng, effect=effect),
        nm=nm,
        nm_contrast=numbers.NM_CONTRAST[0] + numbers.NM_CONTRAST[1] * normal(rng),
        nm_depletion={
            side: min(depletion * disease[side] + depletion_sd * normal(rng), 1.0) for side in SIDES
        },
        # Sizes tell what is published, and no more at a larger effect.
        nm_loss={side: numbers.NM_VOLUME_LOSS * disease[side] / max(effect, 1) for side in SIDES},
        shift_mm=numbers.SHIFT_MM * normal(rng, 3),
    )


def _draw_nuclei(
    rng: np.random.Generator, *, effect: float
) -> tuple[dict[tuple[str, str], float], dict[tuple[str, str], float]]:
    """QSM in ppb and relative NM signal of each (nucleus, side); of the SN the healthy ones."""
    common = normal(rng)  # iron rises with age in all nuclei together
    chi, nm = {}, {}
    for name, signal in numbers.SIGNALS.items():
        own, nm_own = normal(rng), normal(rng)
        mean = signal.chi[0] + (signal.chi[1] - signal.chi[0]) * effect
        if name == "SN":
            mean, _ = _nigra_chi()
        nm_mean = signal.nm[0] + (signal.nm[1] - signal.nm[0]) * effect
        for side in SIDES:
            spread = 0.3 * common + 0.85 * own + 0.43 * normal(rng)  # unit variance
            chi[name, side] = mean + signal.chi_sd * spread
            nm[name, side] = nm_mean + numbers.NM_SD * (0.9 * nm_own + 0.44 * normal(rng))
    return chi, nm


def _nigra_chi() -> list[float]:
    """Susceptibility of (HC, PD) in the SN outside nigrosome-1, which the table's means include."""
    means, probabilities = numbers.SIGNALS["SN"].chi, numbers.NIGROSOME_PRESENT
    shares = [numbers.NIGROSOME_SHARE[0] * probability for probability in probabilities]
    return [
        (mean - share * numbers.NIGROSOME_CHI_PPB) / (1 - share)
        for mean, share in zip(means, shares, strict=True)
    ]


def _draw_nigrosome(rng: np.random.Generator, *, effect: float) -> dict[str, float]:
    """Share of the SN that nigrosome-1 takes on each side; 0 when it is lost."""
    healthy, patient = numbers.NIGROSOME_PRESENT
    limit = ndtri(np.clip(healthy + (patient - healthy) * effect, 0, 1))
    mean, sd = numbers.NIGROSOME_SHARE
    agreement = numbers.NIGROSOME_AGREEMENT
    both = agreement**0.5 * rng.standard_normal()
    shares = {}
    for side in SIDES:
        latent = both + (1 - agreement) ** 0.5 * rng.standard_normal()
        share = max(mean + sd * normal(rng), 0.0)
        shares[side] = share if latent < limit else 0.0
    return shares


def render_qsm(
    anatomy: Anatomy,
    traits: Traits,
    tissue: np.ndarray,
    *,
    brain: np.ndarray,
    grid: Grid,
    rng: np.random.Generator,
    scanner: Scanner = SCANNERS[0],
) -> np.ndarray:
    """QSM in ppb, exactly 0 where ``brain`` is False."""
    chi = np.array([t["chi"] for t in numbers.TISSUES.values()], np.float32)[tissue]
    chi += numbers.TEXTURE_PPB * waves(anatomy.pose, grid, rng, wavelength_mm=(15, 60))
    _paint_veins(chi, anatomy.pose, grid, rng)
    for (name, side), region in anatomy.nuclei.items():
        around = numbers.TISSUES["stem" if name in ("RN", "SN", "STN") else "white"]["chi"]
        values = _susceptibility(name, side, traits, region)
        # Blur and inversion will take a share of the contrast: give it beforehand.
        chi[region.index(grid)] = around + (values - around) / numbers.SIGNALS[name].recovery
    chi[~brain] = 0
    noise = rng.standard_normal(grid.shape, dtype=np.float32)
    chi = _invert_dipole(_blur(chi, scanner.blur), noise, numbers.QSM_NOISE_PPB * scanner.noise)
    chi += numbers.OFFSET_PPB * normal(rng) + scanner.reference
    return np.where(brain, chi, np.float32(0))


def render_nm(
    anatomy: Anatomy,
    traits: Traits,
    tissue: np.ndarray,
    *,
    grid: Grid,
    rng: np.random.Generator,
    scanner: Scanner = SCANNERS[0],
) -> np.ndarray:
    """Neuromelanin-sensitive image in arbitrary units: not skull-stripped, Rician noise."""
    signal = np.array([t["nm"] for t in numbers.TISSUES.values()], np.float32)[tissue]
    for key, region in anatomy.nuclei.items():
        signal[region.index(grid)] = traits.nm[key]
    for side, region in anatomy.nm_true.items():
        depletion = traits.nm_depletion[side] / (1 + np.exp((0.5 - region.posterolateral) / 0.8))
        contrast = traits.nm_contrast * (1 - depletion) * scanner.neuromelanin
        signal[region.index(grid)] = 1 + contrast
    signal = _blur(signal, scanner.blur)
    shift_voxels = traits.shift_mm / SPACING_MM
    signal = ndimage.shift(signal, shift_voxels, order=1, mode="nearest")
    return _acquire(signal, grid, rng, scale=rng.uniform(600, 1100), noise=scanner.noise)


def render_t1(
    anatomy: Anatomy, tissue: np.ndarray, *, grid: Grid, rng: np.random.Generator
) -> np.ndarray:
    """T1-like image in arbitrary units: not skull-stripped, Rician noise."""
    signal = np.array([t["t1"] for t in numbers.TISSUES.values()], np.float32)[tissue]
    for (name, _), region in anatomy.nuclei.items():
        signal[region.index(grid)] = numbers.SIGNALS[name].t1
    return _acquire(_blur(signal), grid, rng, scale=rng.uniform(3000, 6000))


def _susceptibility(name: str, side: str, traits: Traits, region: Region) -> np.ndarray:
    """Susceptibility in ppb of each voxel of a nucleus."""
    values = np.full(len(region.radius), traits.chi[name, side])
    if name == "DN":  # a ribbon around a hilum
        ribbon = np.where(region.radius > 0.55, 1.2, 0.6)
        values *= ribbon / ribbon.mean()
    if name == "SN":
        position = region.posterolateral
        rise = 0.5 + 1 / (1 + np.exp(-position / 2))  # thrice as high behind as in front
        values += traits.chi_rise[side] * rise / rise.mean()
        values += traits.chi_gradient[side] * (position - position.mean()) / position.std()
        # Nigrosome-1 is a lens, a share of the SN in its posterolateral third.
        lens = (region.local - (1.2, -3.2, -0.8)) / (1.0, 2.0, 2.0)
        nearest = np.argsort(np.linalg.norm(lens, axis=1), kind="stable")
        count = round(traits.nigrosome[side] * len(nearest))
        values[nearest[:count]] = numbers.NIGROSOME_CHI_PPB
    return values


def _paint_veins(chi: np.ndarray, pose: Pose, grid: Grid, rng: np.random.Generator) -> None:
    """Draw the deep veins, each side jittered and with its own oxygenation."""
    for corners in numbers.VEINS.values():
        for sign in (1, -1):
            ends = rng.normal(corners * (sign, 1, 1), 1.0)  # mm
            value = rng.uniform(*numbers.VEIN_CHI_PPB)
            line = CubicSpline(range(len(ends)), ends)(np.linspace(0, len(ends) - 1, 300))
            points = np.round(pose.voxel(line) - grid.start).astype(int)
            for offset in ((0, 0, 0), (1, 0, 0), (0, 1, 0)):
                voxels = points + offset
                inside = ((voxels >= 0) & (voxels < grid.shape)).all(1)
                chi[tuple(voxels[inside].T)] = value


def _blur(image: np.ndarray, width: float = 1.0) -> np.ndarray:
    """Blur by the point spread; wide along z because slices are thick."""
    sd_voxels = width * np.array(numbers.BLUR_MM) / SPACING_MM
    return ndimage.gaussian_filter(image, sd_voxels, truncate=2.5)


def _invert_dipole(chi: np.ndarray, noise: np.ndarray, noise_ppb: float) -> np.ndarray:
    """Thresholded dipole inversion of a noisy field: streaks along the magic angle.

    With D = 1/3 - kz^2/k^2, the field D chi + noise divided by D cut off at +-t gives
    chi min(1, |D|/t) + noise / max(|D|, t) up to the noise's sign.
    """
    kernel = np.abs(_dipole(chi.shape))
    gain = 1 / np.maximum(kernel, numbers.DIPOLE_THRESHOLD)
    spectrum = fft.rfftn(chi) * np.minimum(1, kernel / numbers.DIPOLE_THRESHOLD)
    level = noise_ppb / np.sqrt(np.mean(gain**2))
    spectrum += level * gain * fft.rfftn(noise)
    return fft.irfftn(spectrum, chi.shape)


@lru_cache(maxsize=2)
def _dipole(shape: tuple[int, int, int]) -> np.ndarray:
    """Dipole kernel in k-space, the main field along z; the mean passes unchanged."""
    x, y = (np.fft.fftfreq(n, d) for n, d in zip(shape[:2], SPACING_MM[:2], strict=True))
    z = np.fft.fftfreq(shape[2], SPACING_MM[2])[: shape[2] // 2 + 1]
    square = x[:, None, None] ** 2 + y[:, None] ** 2 + z**2
    square[0, 0, 0] = 1
    kernel = 1 / 3 - z**2 / square
    kernel[0, 0, 0] = 1
    return kernel.astype(np.float32)


def _acquire(
    signal: np.ndarray,
    grid: Grid,
    rng: np.random.Generator,
    *,
    scale: float,
    noise: float = 1.0,
) -> np.ndarray:
    """Receive field and Rician noise; ``scale`` is white matter's value in arbitrary units."""
    tilt = rng.uniform(-1, 1, 3)
    field = np.float32(1)
    for axis, slope in enumerate(tilt):
        # Position in the full grid from -1 to 1: the field does not depend on the view.
        position = (grid.start[axis] + np.arange(grid.shape[axis])) / (150, 150, 35)[axis] - 1
        shape = [-1 if a == axis else 1 for a in range(3)]
        field = field * (1 + numbers.BIAS * slope * position).astype(np.float32).reshape(shape)
    real, other = rng.standard_normal((2, *signal.shape), dtype=np.float32) / np.float32(
        numbers.SNR / noise
    )
    return np.float32(scale) * np.sqrt((signal * field + real) ** 2 + other**2)
