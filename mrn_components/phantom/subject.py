"""One synthetic subject: its traits, its anatomy and its images."""

from dataclasses import dataclass

import numpy as np

from mrn_components.images.image import CHALLENGE_IMAGES
from mrn_components.phantom.anatomy import Region, brain_mask, draw_anatomy, paint_tissues
from mrn_components.phantom.numbers import GRIDS, SHAPES, Grid, View
from mrn_components.phantom.signal import render_nm, render_qsm, render_t1
from mrn_components.phantom.traits import draw_traits


@dataclass(frozen=True)
class Phantom:
    """A synthetic subject.

    Args:
        label: 0 healthy control (HC), 1 Parkinson's disease (PD).
        affine: (4, 4) voxel to world in mm, axes LAS.
        volumes: {"NM", "QSM": float32; "NM_mask", "QSM_mask": uint8}, each (X, Y, Z), and where it
            was asked for "T1". QSM in ppb, 0 outside the brain; NM and T1 in arbitrary units.
    """

    label: int
    affine: np.ndarray
    volumes: dict[str, np.ndarray]


def make_subject(
    index: int,
    *,
    seed: int = 1,
    effect: float = 1.0,
    view: View = "brain",
    label: int | None = None,
    t1: bool = False,
) -> Phantom:
    """Make one subject; the same (seed, index) always gives the same one.

    Anatomy and disease do not depend on the view, and ``effect`` changes nothing but the disease.

    Args:
        index: number of the subject, from 0.
        seed: of the cohort.
        effect: scale of every difference between PD and HC; 1 is the published size, 0 none.
        view: "brain" is the challenge's 300x300x70 grid, "midbrain" the part of it that holds the
            nuclei, on the same voxels.
        label: 0 or 1; by default ``draw_label(index, seed=seed)``.
        t1: make a T1-like image too; it changes none of the others.

    Raises:
        ValueError: for a negative index, seed or effect, or another view or label.
    """
    check_settings(seed=seed, effect=effect, view=view)
    if index < 0:
        raise ValueError(f"index must be >= 0, got {index}.")
    label = draw_label(index, seed=seed) if label is None else label
    if label not in (0, 1):
        raise ValueError(f"label must be 0 (HC) or 1 (PD), got {label!r}.")
    streams = np.random.SeedSequence([seed, index]).spawn(5)
    traits_rng, anatomy_rng, tissue_rng, image_rng, t1_rng = map(np.random.default_rng, streams)
    traits = draw_traits(traits_rng, effect=effect * label)
    anatomy = draw_anatomy(anatomy_rng, nm_loss=traits.nm_loss, shift_mm=traits.shift_mm)
    grid = GRIDS[view]
    tissue = paint_tissues(anatomy.pose, grid, tissue_rng)
    nm, qsm = CHALLENGE_IMAGES["nm"], CHALLENGE_IMAGES["qsm"]
    qsm_ids = [number for name in SHAPES for number in qsm.nuclei[name]]
    qsm_mask = _mask(grid, dict(zip(qsm_ids, anatomy.nuclei.values(), strict=True)))
    nm_mask = _mask(grid, dict(zip(nm.nuclei["SN"], anatomy.nm_seen.values(), strict=True)))
    brain = brain_mask(tissue) | (qsm_mask > 0)
    volumes = {
        nm.file: render_nm(anatomy, traits, tissue, grid=grid, rng=image_rng),
        qsm.file: render_qsm(anatomy, traits, tissue, brain=brain, grid=grid, rng=image_rng),
        str(nm.mask): nm_mask,
        str(qsm.mask): qsm_mask,
    }
    if t1:
        volumes["T1"] = render_t1(anatomy, tissue, grid=grid, rng=t1_rng)
    return Phantom(label, grid.affine, volumes)


def draw_label(index: int, *, seed: int = 1) -> int:
    """Class of a subject: each pair (2n, 2n + 1) holds one HC and one PD in random order."""
    first = int(np.random.default_rng([seed, index // 2, 1]).integers(2))
    return first ^ (index % 2)


def check_settings(*, seed: int, effect: float, view: str) -> None:
    """Refuse settings that no cohort can have.

    Raises:
        ValueError: naming the setting, what was expected and what came.
    """
    if seed < 0:
        raise ValueError(f"seed must be >= 0, got {seed}.")
    if not 0 <= effect < np.inf:
        raise ValueError(f"effect must be >= 0 (0 none, 1.0 published), got {effect}.")
    if view not in GRIDS:
        raise ValueError(f"view must be one of {sorted(GRIDS)}, got {view!r}.")


def _mask(grid: Grid, regions: dict[int, Region]) -> np.ndarray:
    mask = np.zeros(grid.shape, np.uint8)
    for number, region in regions.items():
        mask[region.index(grid)] = number
    return mask
