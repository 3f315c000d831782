"""Shapes of one subject: head pose, nuclei and background tissues on a grid."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from mrn_components.phantom import numbers
from mrn_components.phantom.numbers import SPACING_MM, Grid, Nucleus, Triple

SIDES = {"right": 1, "left": -1}
TISSUE_ID = {name: number for number, name in enumerate(numbers.TISSUES)}
_POSTEROLATERAL = np.array([0.6, -0.8, 0.0])  # where nigral cells die first


def normal(rng: np.random.Generator, size: int | None = None) -> Any:
    """Standard normal draws (one float, or an array) clipped to +-2: no subject leaves the view."""
    return np.clip(rng.standard_normal(size), -2, 2)


@dataclass(frozen=True)
class Pose:
    """Map between voxels of the full grid and mm from the red nuclei's midpoint.

    In the head's own frame the axes run (right, anterior, superior).
    """

    anchor: np.ndarray
    matrix: np.ndarray  # head frame -> scanner frame

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Pose":
        """Draw where a head lies, how it is tilted and how large it is."""
        mean, sd = np.array(numbers.ANCHOR_VOXEL)
        tilt = Rotation.from_euler("xyz", normal(rng, 3) * numbers.TILT_DEGREES, degrees=True)
        stretch = 1 + numbers.STRETCH * normal(rng, 3)
        return cls(mean + sd * normal(rng, 3), tilt.as_matrix() * stretch)

    def voxel(self, points: np.ndarray) -> np.ndarray:
        """Full-grid voxel coordinates of head-frame ``points`` (..., 3) in mm."""
        return self.anchor + points @ self.matrix.T / SPACING_MM * (-1, 1, 1)

    def frame(
        self, start: np.ndarray, shape: tuple[int, ...]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Head-frame coordinates in mm of the box of ``shape`` voxels from voxel ``start``."""
        inverse = (np.linalg.inv(self.matrix) * SPACING_MM * (-1, 1, 1)).astype(np.float32)
        i, j, k = (
            (np.arange(first, first + length) - anchor).astype(np.float32)
            for first, length, anchor in zip(start, shape, self.anchor, strict=True)
        )
        right, anterior, superior = (
            (row[0] * i)[:, None, None] + (row[1] * j)[:, None] + row[2] * k for row in inverse
        )
        return right, anterior, superior


@dataclass(frozen=True)
class Region:
    """Voxels of one nucleus on one side, the innermost first."""

    voxels: np.ndarray  # (n, 3) indices into the full grid
    radius: np.ndarray  # (n,) distance from the middle, 1 at the surface
    local: np.ndarray  # (n, 3) mm from the centre, (lateral, anterior, superior)

    @property
    def posterolateral(self) -> np.ndarray:
        """(n,) mm towards the end of the nucleus that the disease reaches first."""
        return self.local @ _POSTEROLATERAL

    def index(self, grid: Grid) -> tuple[np.ndarray, ...]:
        """Index of the voxels in an array on ``grid``."""
        return tuple((self.voxels - grid.start).T)


@dataclass(frozen=True)
class Anatomy:
    """Where everything lies in one subject, whatever the view."""

    pose: Pose  # of the head
    nuclei: dict[tuple[str, str], Region]  # by (nucleus, side), of the QSM mask; without overlap
    nm_true: dict[str, Region]  # by side, of the neuromelanin in QSM space
    nm_seen: dict[str, Region]  # of the NM mask: after the NM-QSM shift, as a reader outlines it


def draw_anatomy(
    rng: np.random.Generator, *, nm_loss: dict[str, float], shift_mm: np.ndarray
) -> Anatomy:
    """Draw a subject's anatomy; ``nm_loss`` and ``shift_mm`` are those of its ``Traits``."""
    pose = Pose.draw(rng)
    size = normal(rng)
    nuclei: dict[tuple[str, str], Region] = {}
    taken = np.zeros((0, 3), int)
    for name, shape in numbers.SHAPES.items():
        for number, side in enumerate(SIDES):
            solid = _Solid.draw(rng, shape, side=side, size=size)
            nuclei[name, side] = solid.region(pose, volume=solid.volume[number], taken=taken)
            taken = np.concatenate([taken, nuclei[name, side].voxels])
    moved = Pose(pose.anchor + shift_mm / SPACING_MM, pose.matrix)
    nm_true, nm_seen = {}, {}
    reader = normal(rng)  # generous or sparing on both sides
    for number, side in enumerate(SIDES):
        solid = _Solid.draw(rng, numbers.NM_SHAPE, side=side, size=size)
        nm_true[side] = solid.region(pose, volume=solid.volume[number])
        outlined = solid.outlined(rng, reader=reader, loss=nm_loss[side])
        nm_seen[side] = outlined.region(moved, volume=outlined.volume[number])
    return Anatomy(pose, nuclei, nm_true, nm_seen)


@dataclass(frozen=True)
class _Solid:
    """One subject's instance of a nucleus shape on one side."""

    shape: Nucleus
    sign: int
    centre: np.ndarray
    waves: tuple[np.ndarray, np.ndarray]  # (3, 3) wave vectors in rad/mm, (3,) phases
    volume: np.ndarray  # (right, left) in mm3

    @classmethod
    def draw(cls, rng: np.random.Generator, shape: Nucleus, *, side: str, size: float) -> "_Solid":
        # Half of the published scatter of a centre is the pose of the head.
        centre = np.array(shape.centre) + 0.5 * np.array(shape.centre_sd) * normal(rng, 3)
        directions = rng.standard_normal((3, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        vectors = 2 * np.pi / shape.wavelength * directions
        volume = 1 + shape.volume_cv * (0.6 * size + 0.8 * normal(rng))
        phases = rng.uniform(0, 2 * np.pi, 3)
        return cls(shape, SIDES[side], centre, (vectors, phases), np.array(shape.volume) * volume)

    def outlined(self, rng: np.random.Generator, *, reader: float, loss: float) -> "_Solid":
        """Shape that a reader draws: displaced, of another size, with another surface."""
        share = 1 + numbers.READER_VOLUME_SD[0] * reader + numbers.READER_VOLUME_SD[1] * normal(rng)
        centre = self.centre + numbers.READER_SHIFT_MM * normal(rng, 3)
        waves = (self.waves[0], rng.uniform(0, 2 * np.pi, 3))
        return replace(self, centre=centre, waves=waves, volume=self.volume * share * (1 - loss))

    def region(self, pose: Pose, *, volume: float, taken: np.ndarray | None = None) -> Region:
        """Take the ``volume`` of free voxels nearest to the middle."""
        middle = pose.voxel(self.centre * (self.sign, 1, 1))
        reach = np.ceil((1.5 * max(self.shape.semi_axes) + 2) / np.array(SPACING_MM)).astype(int)
        start = np.round(middle).astype(int) - reach
        box = tuple(2 * reach + 1)
        right, anterior, superior = pose.frame(start, box)
        local = np.stack([right * self.sign, anterior, superior], -1)
        local -= self.centre.astype(np.float32)
        radius = self._radius(local)
        if taken is not None:
            inside = taken - start
            inside = inside[((inside >= 0) & (inside < box)).all(1)]
            radius[tuple(inside.T)] = np.inf
        count = round(volume / float(np.prod(SPACING_MM)))
        flat = radius.ravel()
        nearest = np.argpartition(flat, count)[:count]
        nearest = nearest[np.argsort(flat[nearest], kind="stable")]
        voxels = np.stack(np.unravel_index(nearest, box), 1) + start
        relative = flat[nearest] / flat[nearest[-1]]
        return Region(voxels, relative, local.reshape(-1, 3)[nearest])

    def _radius(self, local: np.ndarray) -> np.ndarray:
        """Distance from the middle of the bent, tapered, roughened ellipsoid: 1 at the surface."""
        first = np.array(self.shape.long_axis) / np.linalg.norm(self.shape.long_axis)
        second = np.array(self.shape.second_axis)
        second = second - first * (second @ first)
        second /= np.linalg.norm(second)
        axes = np.stack([first, second, np.cross(first, second)]).astype(np.float32)
        u, v, w = np.moveaxis(local @ axes.T, -1, 0) / np.reshape(
            np.array(self.shape.semi_axes, np.float32), (3, 1, 1, 1)
        )
        along = np.clip(u, -1.3, 1.3)
        bow = along**2 - 0.2  # zero mean over an ellipsoid: bending keeps the centre
        width = np.clip(1 + self.shape.taper * along, 0.25, None)
        v = (v - self.shape.bend[0] / self.shape.semi_axes[1] * bow) / width
        w = (w - self.shape.bend[1] / self.shape.semi_axes[2] * bow) / width
        vectors, phases = self.waves
        waves = sum(
            np.sin(local @ vector.astype(np.float32) + np.float32(phase))
            for vector, phase in zip(vectors, phases, strict=True)
        )
        return np.sqrt(u**2 + v**2 + w**2) * (1 + self.shape.roughness * waves)


def paint_tissues(pose: Pose, grid: Grid, rng: np.random.Generator) -> np.ndarray:
    """Background tissue ids (the order of ``TISSUES``) on ``grid``, uint8."""
    right, anterior, superior = pose.frame(np.array(grid.start), grid.shape)
    lateral = np.abs(right)

    def ball(centre: Triple, axes: Triple, box: tuple[slice, ...] = ()) -> np.ndarray:
        return (
            ((lateral[box] - centre[0]) / axes[0]) ** 2
            + ((anterior[box] - centre[1]) / axes[1]) ** 2
            + ((superior[box] - centre[2]) / axes[2]) ** 2
        )

    tissue = np.zeros(grid.shape, np.uint8)

    def paint(name: str, where: np.ndarray) -> None:
        tissue[where] = TISSUE_ID[name]

    def paint_balls(balls: Iterable[tuple[str, Triple, Triple]]) -> None:
        for name, centre, axes in balls:  # only a box that holds the tilted ball: thrice as fast
            reach = 1.15 * np.array([centre[0] + axes[0], *axes[1:]]) + 3
            middle = pose.voxel(np.array([0, *centre[1:]])) - grid.start
            first = np.maximum(np.floor(middle - reach / SPACING_MM).astype(int), 0)
            last = np.maximum(np.ceil(middle + reach / SPACING_MM).astype(int), 0)
            box = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
            tissue[box][ball(centre, axes, box) < 1] = TISSUE_ID[name]

    folds = waves(pose, grid, rng, wavelength_mm=(12, 22))  # of the cortex
    sulcus = np.abs(folds)
    cerebrum = ball((0, 0, 22), (67, 83, 58))
    cerebellum = ball((0, -42, -27), (50, 31, 24))
    neck = ((right / 52) ** 2 + ((anterior + 20) / 58) ** 2 < 1) & (superior < -10)
    paint("scalp", (ball((0, 0, 18), (79, 95, 76)) < 1) | neck)
    paint("skull", (ball((0, 0, 19), (74, 90, 70)) < 1) | (ball((0, -40, -27), (57, 38, 32)) < 1))
    paint("csf", (cerebrum < 1) | (cerebellum < 1))
    paint("grey", (cerebrum < 0.94) & ((sulcus > 0.15) | (cerebrum < 0.68)) & (lateral > 1.2))
    paint("white", (cerebrum < 0.80) & ((sulcus > 0.7) | (cerebrum < 0.60)) & (lateral > 2.5))
    paint_balls(numbers.BALLS["forebrain"])
    paint("grey", cerebellum + 0.04 * folds < 0.93)
    paint("white", cerebellum + 0.08 * folds < 0.5)
    paint_balls(numbers.BALLS["midbrain and hindbrain"])
    return tissue


def waves(
    pose: Pose, grid: Grid, rng: np.random.Generator, *, wavelength_mm: tuple[float, float]
) -> np.ndarray:
    """Smooth random field of unit SD on ``grid``: a sum of products of sines along the axes."""
    total = np.zeros(grid.shape, np.float32)
    for _ in range(4):
        sines = []
        for axis in range(3):
            wavelength, phase = rng.uniform(*wavelength_mm), rng.uniform(0, 2 * np.pi)
            voxels = grid.start[axis] + np.arange(grid.shape[axis]) - pose.anchor[axis]
            angle = 2 * np.pi * voxels * SPACING_MM[axis] / wavelength + phase
            sines.append(np.sin(angle).astype(np.float32))
        total += sines[0][:, None, None] * sines[1][:, None] * sines[2]
    return total * np.float32(2**0.5)  # four products of SD 1 / sqrt(8)
