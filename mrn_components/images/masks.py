"""Whether a mask fits: it lies on its image's grid, and its values are ids of nuclei."""

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import yaml

from mrn_components.images.finding import FaultyFileError, Finding, finding
from mrn_components.images.image import Image
from mrn_components.images.volume import Volume

MAX_SHIFT_MM = 0.1  # between the corners of an image and its mask
_MANY = 20  # values of a map that has no ids


def check_mask(mask: Volume, image: Image, volume: Volume | None = None) -> None:
    """Refuse, by a FaultyFileError, a mask with values that are no ids, or on another grid."""
    on_grid = () if volume is None else grid_findings(volume, mask)
    for found in (*on_grid, *value_findings(mask, image)):
        raise FaultyFileError(found)


def value_findings(mask: Volume, image: Image) -> Iterator[Finding]:
    """Check that a mask holds ids of its image's nuclei and nothing else."""
    wrong = image.unknown_values(mask.numbers)
    if wrong:
        fractional = any(value != round(value) for value in wrong if np.isfinite(value))
        kind = "fractional-labels" if fractional else "unknown-labels"
        found = f"the values {', '.join(f'{value:.6g}' for value in wrong[:5])}"
        ids = {number: nucleus for number, (nucleus, _) in image.ids.items()}
        fix = _probabilities(wrong) if fractional else _other_table(mask.numbers, image)
        yield finding(kind, mask.path, found, image=image.name, ids=ids, fix=fix)


def _probabilities(wrong: Sequence[float]) -> str | None:
    """What to do with a map of probabilities; None for other values."""
    if len(wrong) >= _MANY and min(wrong) >= 0 and max(wrong) <= 1:
        return "It is a map of probabilities: give each nucleus its id where its own is above 0.5"
    return None


def _other_table(numbers: np.ndarray, image: Image) -> str | None:
    """How to say that a mask has the ids of a known table; None if it has those of none."""
    found = set(numbers.tolist())
    tables = {
        name: [(n, *pair) for n, pair in table.items() if n in image.nuclei and {*pair} <= found]
        for name, table in _tables().items()
    }
    name, rows = max(tables.items(), key=lambda table: len(table[1]), default=("", []))
    if len(rows) < 2:
        return None
    lines = "; ".join(f"{image.name},{nucleus},{right},{left}" for nucleus, right, left in rows)
    lacking = [n for n in image.nuclei if n not in _tables()[name]]
    without = f", which has no {', '.join(lacking)}" if lacking else ""
    return (
        f"They look like ids of {name}{without}: say so by --nuclei FILE, a csv with the header "
        f"image,nucleus,right,left and the rows {lines}"
    )


@cache
def _tables() -> dict[str, dict[str, tuple[int, int]]]:
    return yaml.safe_load(Path(__file__).with_name("tables.yaml").read_text(encoding="utf-8"))


def grid_findings(image: Volume, mask: Volume) -> Iterator[Finding]:
    """Check that a mask lies on its image's grid: on another, its voxels mark other tissue."""
    if image.shape != mask.shape:
        expected = f"that of {image.path.name}, {image.shape}"
        fix = "Draw the mask on this image, or resample it with nearest neighbours"
        found = f"the shape {mask.shape}"
        yield finding("mask-grid", mask.path, found, expected=expected, fix=fix)
        return
    shift_mm = corner_shift_mm(image.shape, image.affine, mask.affine)
    if not shift_mm <= MAX_SHIFT_MM:
        found = f"corners up to {shift_mm:.2f} mm from those of {image.path.name}"
        yield finding("mask-grid", mask.path, found, mm=MAX_SHIFT_MM)


def corner_shift_mm(shape: Sequence[int], affine: np.ndarray, other: np.ndarray) -> float:
    """Return how far the corners of (X, Y, Z) voxels lie apart at most under two affines (4, 4)."""
    corners = np.array([[*corner, 1] for corner in np.ndindex(2, 2, 2)], dtype=float)
    corners[:, :3] *= shape
    return float(np.linalg.norm((corners @ (affine - other).T)[:, :3], axis=1).max())
