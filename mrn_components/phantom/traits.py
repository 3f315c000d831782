"""What one subject's nuclei look like: the draws that differ between HC and PD, and the spread."""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from mrn_components.phantom import numbers
from mrn_components.phantom.anatomy import SIDES, normal


@dataclass(frozen=True)
class Traits:
    """Signal of one subject's nuclei.

    Args:
        chi: {(nucleus, side): susceptibility in ppb}; of the SN before disease and outside
            nigrosome-1.
        chi_rise: {side: mean rise of the SN by disease in ppb}.
        chi_gradient: {side: slope of the SN in ppb per SD of the posterolateral position}.
        nigrosome: {side: nigrosome-1's share of the SN; 0 when it is lost}.
        nm: {(nucleus, side): NM signal relative to the crus}.
        nm_contrast: neuromelanin's contrast to the crus.
        nm_depletion: {side: share of that contrast lost at the posterolateral end}.
        nm_loss: {side: share by which a reader outlines less of the neuromelanin}.
        shift_mm: (3,) NM against QSM along the grid's axes.
    """

    chi: dict[tuple[str, str], float]
    chi_rise: dict[str, float]
    chi_gradient: dict[str, float]
    nigrosome: dict[str, float]
    nm: dict[tuple[str, str], float]
    nm_contrast: float
    nm_depletion: dict[str, float]
    nm_loss: dict[str, float]
    shift_mm: np.ndarray


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
