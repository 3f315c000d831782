"""Where a file says its voxels are: orientation, and whether two files share a grid."""

import math
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np

from mrn_components.images.finding import Finding, error, warning
from mrn_components.images.masks import MAX_SHIFT_MM, corner_shift_mm
from mrn_components.images.volume import Header, Volume

_MAX_FORMS_MM, _MAX_FORMS_DEGREES = 1.0, 1.0  # between sform and qform
_MAX_OBLIQUE_DEGREES = 15.0
_SPACING_MM = (0.1, 10.0)


def header_findings(path: Path, header: Header, *, strict: bool) -> Iterator[Finding]:
    """Check what a header says of the voxels' place.

    Args:
        path: of the file.
        header: as stored.
        strict: a file without orientation is an error; else a warning.
    """
    if header["dim"][0] > 3:  # readers squeeze axes of one voxel
        yield warning(
            "extra-axis",
            path,
            found=f"{' x '.join(str(n) for n in header['dim'][1 : header['dim'][0] + 1])} voxels",
            expected="three axes",
            fix="Nothing: it is read as one volume",
        )
    qform, sform = header.get_qform(coded=True)[0], header.get_sform(coded=True)[0]
    if qform is None and sform is None:
        yield (error if strict else warning)(
            "no-orientation",
            path,
            found="neither qform nor sform, so that left and right are a guess",
            expected="a qform or sform with a code above 0",
            fix="Convert the image again from DICOM",
        )
    else:
        if qform is not None and sform is not None:
            yield from _compare_forms(path, header, qform, sform)
        yield from _axes_findings(path, header.get_best_affine())


def pair_findings(first: Volume, second: Volume, title: str) -> Iterator[Finding]:
    """Report two images on different grids, which is allowed: each ROI has an image of its own.

    Args:
        first: an image.
        second: another image of the subject.
        title: how messages call the second.
    """
    shift_mm = corner_shift_mm(first.shape, first.affine, second.affine)
    if first.shape != second.shape or not shift_mm <= MAX_SHIFT_MM:
        yield warning(
            "grids-differ",
            first.path,
            found=f"{first.shape} voxels, corners up to {shift_mm:.2f} mm from those of "
            f"{title} with {second.shape}",
            expected="one grid for both images, as after registration",
            fix="Look whether both show the same head in the same place",
        )


def _compare_forms(
    path: Path, header: Header, qform: np.ndarray, sform: np.ndarray
) -> Iterator[Finding]:
    shift_mm = corner_shift_mm(header["dim"][1:4], qform, sform)
    degrees = _angle_degrees(qform, sform)
    if shift_mm > _MAX_FORMS_MM or degrees > _MAX_FORMS_DEGREES:
        yield error(
            "forms-disagree",
            path,
            found=f"qform and sform {shift_mm:.1f} mm and {degrees:.1f} degrees apart",
            expected=f"at most {_MAX_FORMS_MM} mm and {_MAX_FORMS_DEGREES} degree",
            fix="Find out which is right and write it into both (nibabel: image.set_qform(affine, "
            "1); image.set_sform(affine, 1))",
        )


def _axes_findings(path: Path, affine: np.ndarray) -> Iterator[Finding]:
    spacing = nibabel.affines.voxel_sizes(affine)
    low, high = _SPACING_MM
    if not (low <= spacing.min() and spacing.max() <= high):
        yield error(
            "spacing",
            path,
            found=f"voxels of {' x '.join(f'{step:.4g}' for step in spacing)} mm",
            expected=f"{low} to {high} mm",
            fix="Convert the image again with its unit in mm",
        )
    degrees = math.degrees(nibabel.affines.obliquity(affine).max())
    if degrees > _MAX_OBLIQUE_DEGREES:
        yield warning(
            "oblique",
            path,
            found=f"slices tilted by {degrees:.0f} degrees",
            expected=f"at most {_MAX_OBLIQUE_DEGREES:.0f}",
            fix="Look at the crops: they follow the slices, not the head's axes",
        )


def _angle_degrees(affine: np.ndarray, other: np.ndarray) -> float:
    """Angle of the rotation between two affines' axes."""
    first, second = (m[:3, :3] / np.linalg.norm(m[:3, :3], axis=0) for m in (affine, other))
    cosine = (np.trace(first.T @ second) - 1) / 2
    return math.degrees(math.acos(np.clip(cosine, -1, 1)))
