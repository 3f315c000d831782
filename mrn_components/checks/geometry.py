"""Where a file says its voxels are: orientation, and whether two files share a grid."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from nibabel.affines import obliquity, voxel_sizes

from mrn_components.images.finding import Finding, finding
from mrn_components.images.masks import MAX_SHIFT_MM, corner_shift_mm
from mrn_components.images.volume import Header, Volume

_MAX_FORMS_MM, _MAX_FORMS_DEGREES = 1.0, 1.0  # between sform and qform
_MAX_OBLIQUE_DEGREES = 15.0
_SPACING_MM = (0.1, 10.0)


def header_findings(path: Path, header: Header, *, strict: bool) -> Iterator[Finding]:
    """Check what a header says of the voxels' place; without any it is an error if ``strict``."""
    if header["dim"][0] > 3:  # readers squeeze axes of one voxel
        axes = " x ".join(str(length) for length in header["dim"][1 : header["dim"][0] + 1])
        yield finding("extra-axis", path, f"{axes} voxels")
    qform, sform = header.get_qform(coded=True)[0], header.get_sform(coded=True)[0]
    if qform is None and sform is None:
        found = "neither qform nor sform, so that left and right are a guess"
        yield finding("no-orientation", path, found, severity="error" if strict else "warning")
    else:
        if qform is not None and sform is not None:
            yield from _compare_forms(path, header, qform, sform)
        yield from _axes_findings(path, header.get_best_affine())


def pair_findings(first: Volume, second: Volume, title: str) -> Iterator[Finding]:
    """Report two images on different grids, which is allowed: each ROI has an image of its own."""
    shift_mm = corner_shift_mm(first.shape, first.affine, second.affine)
    if first.shape != second.shape or not shift_mm <= MAX_SHIFT_MM:
        away = f"corners up to {shift_mm:.2f} mm from those of {title} with {second.shape}"
        yield finding("grids-differ", first.path, f"{first.shape} voxels, {away}")


def _compare_forms(
    path: Path, header: Header, qform: np.ndarray, sform: np.ndarray
) -> Iterator[Finding]:
    shift_mm = corner_shift_mm(header["dim"][1:4], qform, sform)
    degrees = _angle_degrees(qform, sform)
    if shift_mm > _MAX_FORMS_MM or degrees > _MAX_FORMS_DEGREES:
        found = f"qform and sform {shift_mm:.1f} mm and {degrees:.1f} degrees apart"
        yield finding("forms-disagree", path, found, mm=_MAX_FORMS_MM, degrees=_MAX_FORMS_DEGREES)


def _axes_findings(path: Path, affine: np.ndarray) -> Iterator[Finding]:
    spacing = voxel_sizes(affine)
    low, high = _SPACING_MM
    if not (low <= spacing.min() and spacing.max() <= high):
        found = f"voxels of {' x '.join(f'{step:.4g}' for step in spacing)} mm"
        yield finding("spacing", path, found, low=low, high=high)
    degrees = math.degrees(obliquity(affine).max())
    if degrees > _MAX_OBLIQUE_DEGREES:
        found = f"slices tilted by {degrees:.0f} degrees"
        yield finding("oblique", path, found, degrees=_MAX_OBLIQUE_DEGREES)


def _angle_degrees(affine: np.ndarray, other: np.ndarray) -> float:
    """Angle of the rotation between two affines' axes."""
    first, second = (m[:3, :3] / np.linalg.norm(m[:3, :3], axis=0) for m in (affine, other))
    cosine = (np.trace(first.T @ second) - 1) / 2
    return math.degrees(math.acos(np.clip(cosine, -1, 1)))
