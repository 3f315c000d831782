"""Slices of a subject's images with ROI boxes and contours of nuclei, as parts of a page.

Pixels are a picture at the resolution of the image; boxes and contours are paths over it, so that
they stay sharp on a phone and can be switched off. Radiological view, whatever the orientation of
the file: anterior on top, the patient's right on the left.

Shapes: X Y Z voxels of a volume, axes to the patient's right, anterior and superior.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import contourpy
import numpy as np
from PIL import Image

from mrn_components.app.report.pages import data_uri
from mrn_components.images.boxes import Box
from mrn_components.images.volume import Volume

_AREA_SHARES = (0.15, 0.5, 0.85)  # where the slices of an ROI lie in the area of its nuclei
_LONGEST_PX = 640  # of a picture: so pages of any matrix stay below 5 MB
_SMALL_PX = 220  # of one of many
_PLANES = {"coronal": (0, 2, 1), "sagittal": (1, 2, 0)}  # axes to the left, up and through

Span = tuple[float, float]


class Outline(NamedTuple):
    """A nucleus in a slice: its contours as an SVG path, in mm."""

    name: str
    path: str


class Frame(NamedTuple):
    """An ROI's box in a slice, in mm from the upper left corner."""

    name: str
    left: float
    top: float
    width: float
    height: float


class Picture(NamedTuple):
    """A slice, or a part of one."""

    uri: str  # of the pixels
    width: float  # in mm
    height: float  # in mm
    number: int  # of the slice, from 1 at the lowest
    num_slices: int  # of the volume
    outlines: list[Outline]  # of the nuclei
    frames: list[Frame]  # boxes of the ROIs
    ends: tuple[str, str] = ("R", "L")  # what lies at the left and at the right edge


def draw_slice(
    volume: Volume,
    mask: Volume | None,
    z: int,
    *,
    nuclei: Mapping[str, Sequence[int]],
    boxes: Mapping[str, Box],
    window: Span,
    region: tuple[slice, slice] = (slice(None), slice(None)),
    small: bool = False,
) -> Picture:
    """Draw one axial slice.

    Args:
        volume: the image.
        mask: its nuclei on the same grid, or None.
        z: slice.
        nuclei: label ids of each nucleus to outline.
        boxes: of ROIs, [start, stop) in voxels; those that z crosses are drawn.
        window: values that are black and white.
        region: of X and Y to show.
        small: whether it is one of many, of which a page can hold few pixels each.
    """
    pixels = radiological(volume.values((*region, z)))
    dx, dy = volume.spacing_mm[:2]
    # In mm from the upper left corner: right edge of the region is x = 0, anterior edge y = 0.
    right = region[0].indices(volume.shape[0])[1]
    front = region[1].indices(volume.shape[1])[1]
    frames = []
    for name, (start, stop) in boxes.items():
        if start[2] <= z < stop[2]:
            voxels = np.array([*((right, front) - stop[:2]), *(stop - start)[:2]])
            frames.append(Frame(name, *np.round(voxels * (dx, dy, dx, dy), 2).tolist()))
    outlines = []
    if mask is not None:
        ids = radiological(mask.ids[(*region, z)])
        for name, labels in nuclei.items():
            if path := _contour(np.isin(ids, labels), (dx, dy)):
                outlines.append(Outline(name, path))
    return Picture(
        uri=encode(grey(pixels, window), "webp", _SMALL_PX)
        if small
        else encode(grey(pixels, window), "png"),
        width=round(pixels.shape[1] * dx, 2),
        height=round(pixels.shape[0] * dy, 2),
        number=int(z) + 1,
        num_slices=volume.shape[2],
        outlines=outlines,
        frames=frames,
    )


def draw_planes(
    volume: Volume,
    mask: Volume | None,
    *,
    nuclei: Mapping[str, Sequence[int]],
    boxes: Mapping[str, Box],
    window: Span,
) -> dict[str, Picture]:
    """Draw the coronal and the sagittal plane with most of the nuclei, superior on top.

    A sagittal plane has anterior on the left. The arguments are those of ``draw_slice``.
    """
    pictures = {}
    for name, axes in _PLANES.items():
        turned = _turned(volume, axes)
        seen = None if mask is None else _turned(mask, axes)
        own = {roi: Box(*(corner[list(axes)] for corner in box)) for roi, box in boxes.items()}
        areas = np.zeros(turned.shape[2]) if seen is None else (seen.ids > 0).sum(axis=(0, 1))
        at = int(areas.argmax()) if areas.any() else turned.shape[2] // 2
        drawn = draw_slice(turned, seen, at, nuclei=nuclei, boxes=own, window=window)
        pictures[name] = drawn if name == "coronal" else drawn._replace(ends=("A", "P"))
    return pictures


def _turned(volume: Volume, axes: tuple[int, int, int]) -> Volume:
    """Return a volume with its axes in another order."""
    affine = volume.affine.copy()
    affine[:, :3] = volume.affine[:, list(axes)]
    return replace(volume, stored=volume.stored.transpose(axes), affine=affine)


def chosen_slices(
    mask: Volume | None, nuclei: Mapping[str, Sequence[int]], span: slice
) -> list[int]:
    """Choose slices of a span of Z: low, middle and high in some nuclei, if there are any."""
    areas = np.ones(span.stop - span.start)
    if mask is not None:
        labels = [label for ids in nuclei.values() for label in ids]
        areas_of_mask = np.isin(mask.ids[..., span], labels).sum(axis=(0, 1))
        areas = areas_of_mask if areas_of_mask.any() else areas
    shares = np.cumsum(areas) / areas.sum()
    return sorted({int(span.start + np.searchsorted(shares, share)) for share in _AREA_SHARES})


def canonical_box(
    start: Sequence[int], stop: Sequence[int], *, affine: np.ndarray, volume: Volume
) -> Box:
    """Turn a box [start, stop) in voxels of a file into voxels of its canonical volume.

    ``affine`` (4, 4) is that of the file, from voxels to mm.
    """
    to_volume = np.linalg.inv(volume.affine) @ affine
    edges = np.array([start, stop], dtype=float) - 0.5  # of voxels, whose centres are whole
    corners = edges @ to_volume[:3, :3].T + to_volume[:3, 3] + 0.5
    return Box(*np.rint(np.sort(corners, axis=0)).astype(int))


def radiological(plane: np.ndarray) -> np.ndarray:
    """Turn (X, Y) into rows and columns: anterior on top, the patient's right on the left."""
    return plane[::-1, ::-1].T


def percentile_window(voxels: np.ndarray, percentiles: Span = (0.5, 99.5)) -> Span:
    """Values that are black and white: two percentiles (0 to 100) of the finite voxels."""
    finite = voxels[np.isfinite(voxels)]
    if not finite.size:
        return 0.0, 1.0
    low, high = np.percentile(finite, percentiles)
    return float(low), float(high)


def grey(plane: np.ndarray, window: Span) -> np.ndarray:
    """Pixels (0 to 255) of a plane; what is not finite is black."""
    low, high = window
    scaled = (np.nan_to_num(plane, nan=low, posinf=low, neginf=low) - low) / max(high - low, 1e-9)
    return np.rint(np.clip(scaled, 0, 1) * 255).astype(np.uint8)


def encode(pixels: np.ndarray, kind: str, longest: int = _LONGEST_PX, **options: Any) -> str:
    """Grey (H, W) or coloured pixels (H, W, 3 or 4) as an address of a picture, png or webp.

    They are averaged where there are more of them along a side than the ``longest``.
    """
    file = io.BytesIO()
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    picture.thumbnail((longest, longest), Image.Resampling.BOX, reducing_gap=None)
    picture.save(file, kind, **options)
    return data_uri(file.getvalue(), kind)


def _contour(inside: np.ndarray, pixel_mm: Span) -> str:
    """The edge of a region (H, W) as an SVG path, in mm."""
    if not inside.any():
        return ""
    parts = []
    for line in contourpy.contour_generator(z=np.pad(inside, 1).astype(float)).lines(0.5):
        # Sample (0, 0) of the padded array lies half a pixel outside the picture.
        points = (np.asarray(line)[:-1] - 0.5) * pixel_mm
        parts.append("M" + "L".join(f"{x:.2f} {y:.2f}" for x, y in points) + "Z")
    return "".join(parts)
