"""Whether two images show the same part of the world; grids may differ, and slabs may tilt."""

from collections.abc import Iterator

import numpy as np
from nibabel.affines import apply_affine

from mrn_components.images.finding import Finding, finding
from mrn_components.images.volume import Volume

_NUM_POINTS = 12  # along each axis of a volume
_MIN_SHARE = 0.3  # of the smaller field of view; a slab lies within the head with nearly all of it


def overlap_findings(first: Volume, second: Volume, title: str) -> Iterator[Finding]:
    """Check that the fields of view of two images overlap; ``title`` is the second's."""
    share = max(_share_inside(first, second), _share_inside(second, first))
    if share < _MIN_SHARE:
        part = f"{share:.0%}" if share else "no part"
        found = f"{part} of the field of view in that of {title}"
        severity = "warning" if share else "error"
        yield finding("apart", first.path, found, severity=severity, share=_MIN_SHARE)


def _share_inside(one: Volume, other: Volume) -> float:
    """Share of a volume that lies in another, by points that fill it evenly."""
    steps = (np.arange(_NUM_POINTS) + 0.5) / _NUM_POINTS
    points = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3)
    voxels = points * one.shape - 0.5  # the first voxel is [-0.5, 0.5)
    inside = apply_affine(np.linalg.inv(other.affine) @ one.affine, voxels)
    return float(((inside >= -0.5) & (inside < np.array(other.shape) - 0.5)).all(axis=1).mean())
