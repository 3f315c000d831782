"""Boxes around nuclei, in the voxels of a file and in mm.

An oblique file's axes count as the nearest axes of the world.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import io_orientation
from scipy import ndimage


class Box(NamedTuple):
    """Voxels [start, stop) along the axes of a file; they may leave the volume."""

    start: np.ndarray
    stop: np.ndarray

    @property
    def inside(self) -> tuple[slice, ...]:
        """The part of the box that lies in the volume, as an index."""
        return tuple(slice(max(a, 0), max(b, 0)) for a, b in zip(*self, strict=True))

    def to_mm(self, affine: np.ndarray) -> "BoxMm":
        """The same box in the world of a file with this affine (4, 4)."""
        centre = affine @ [*(self.start + self.stop - 1) / 2, 1]
        half_size = np.empty(3)
        half_size[world_axes(affine)] = (self.stop - self.start) * voxel_sizes(affine) / 2
        return BoxMm(centre[:3], half_size)


class BoxMm(NamedTuple):
    """A box in the world of a file: mm to the right, anterior and superior."""

    centre: np.ndarray
    half_size: np.ndarray

    def to_voxels(self, affine: np.ndarray) -> Box:
        """The smallest box of whole voxels that holds this one, in a file with this affine."""
        centre = (np.linalg.inv(affine) @ [*self.centre, 1])[:3] + 0.5  # voxel 0 is [0, 1)
        half_size = self.half_size[world_axes(affine)] / voxel_sizes(affine)
        # A hundredth of a voxel is rounding: files stored otherwise must give the same box.
        start = np.floor(centre - half_size + 0.01).astype(int)
        return Box(start, np.ceil(centre + half_size - 0.01).astype(int))


def world_axes(affine: np.ndarray) -> np.ndarray:
    """The axis of the world (right, anterior, superior) nearest to each axis of a file."""
    return np.array(_world_axes(tuple(np.ravel(affine).tolist())))


@lru_cache  # an image's affine is asked again and again
def _world_axes(affine: tuple[float, ...]) -> tuple[int, ...]:
    return tuple(int(axis) for axis, _ in io_orientation(np.reshape(affine, (4, 4))))


def spacing_mm(affine: np.ndarray) -> tuple[float, float]:
    """Distance of the axial slices of a file with this affine, and its pixels' longer side."""
    sizes, is_slice = voxel_sizes(affine), world_axes(affine) == 2
    return float(sizes[is_slice][0]), float(sizes[~is_slice].max())


def enclosing_box(boxes: Sequence[Box], margin: Sequence[int]) -> Box:
    """The box around some boxes, larger by ``margin`` voxels on either side of each axis."""
    return Box(
        np.min([box.start for box in boxes], axis=0) - margin,
        np.max([box.stop for box in boxes], axis=0) + margin,
    )


def nonzero_box(ids: np.ndarray) -> tuple[slice, ...]:
    """Return the smallest part of a mask (X, Y, Z) that holds all that is not 0, as an index."""
    box = [slice(None)] * ids.ndim
    # First across the axis whose planes lie together in memory: then little is left to look at.
    for axis in np.argsort([-abs(step) for step in ids.strides]):
        others = tuple(other for other in range(ids.ndim) if other != axis)
        planes = np.flatnonzero(ids[tuple(box)].any(axis=others))
        box[axis] = slice(int(planes[0]), int(planes[-1]) + 1) if planes.size else slice(0, 0)
    return tuple(box)


def part_boxes(
    ids: np.ndarray, region: tuple[slice, ...] | None = None
) -> dict[int, tuple[slice, ...]]:
    """Return the smallest part of a mask (X, Y, Z) that holds each id, as an index.

    Args:
        ids: the mask.
        region: part of it that holds all ids, if ``nonzero_box`` was asked already.
    """
    region = nonzero_box(ids) if region is None else region
    inside = ids[region]
    found = enumerate(ndimage.find_objects(inside) if inside.size else (), start=1)
    return {
        number: tuple(
            slice(outer.start + axis.start, outer.start + axis.stop)
            for outer, axis in zip(region, box, strict=True)
        )
        for number, box in found
        if box is not None
    }


def label_boxes(
    ids: np.ndarray, parts: Mapping[int, tuple[slice, ...]] | None = None
) -> dict[int, Box]:
    """Return the box of the largest 26-connected component of every id in a mask (X, Y, Z).

    Args:
        ids: the mask.
        parts: where each id is, if ``part_boxes`` was asked already.
    """
    boxes = {}
    for number, part in (part_boxes(ids) if parts is None else parts).items():
        inside = ids[part] == number
        components, count = ndimage.label(inside, structure=np.ones((3, 3, 3)))
        largest = np.bincount(components.ravel(), minlength=count + 1)[1:].argmax()
        inner = ndimage.find_objects(components)[largest]
        offset = np.array([axis.start for axis in part])
        start, stop = np.array([(axis.start, axis.stop) for axis in inner]).T
        boxes[number] = Box(offset + start, offset + stop)
    return boxes
