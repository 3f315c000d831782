"""Volumes as files hold them: voxels, affine and name, for what measures without a network."""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import SpatialImage

from mrn_components.images.labels import LABELS, ImageName
from mrn_components.images.masks import MAX_SHIFT_MM, corner_shift_mm

VolumeSource = str | Path | SpatialImage


@dataclass(frozen=True)
class Volume:
    """Voxels and where they lie, in the orientation closest to RAS+.

    Args:
        array: (X, Y, Z); x runs to the patient's right, y to the front, z upwards.
        affine: (4, 4) voxel to world in mm; may be oblique.
        name: file, or what stands for it in messages.
    """

    array: np.ndarray
    affine: np.ndarray
    name: str

    @property
    def spacing_mm(self) -> np.ndarray:
        """Edges of a voxel in mm."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    @property
    def voxel_mm3(self) -> float:
        """Volume of a voxel in mm3."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))


def read_volume(source: VolumeSource) -> Volume:
    """Read a 3D volume; axes are swapped and flipped to RAS+, nothing is resampled.

    Args:
        source: path of a NIfTI file, or a nibabel image such as ``Nifti1Image(array, affine)``.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a file that is no whole NIfTI file, a volume that is not 3D, or an affine
            that makes no space of the voxels.
    """
    if isinstance(source, SpatialImage):
        name = source.get_filename() or "the image in memory"
    else:
        name = str(source)
        if not Path(source).is_file():
            raise FileNotFoundError(f"{name} is not there.")
    try:
        image: Any = source if isinstance(source, SpatialImage) else nib.load(source)
        array, affine = np.asanyarray(image.dataobj), image.affine
    except (ImageFileError, OSError, EOFError, ValueError, zlib.error) as error:
        raise ValueError(
            f"{name} cannot be read as NIfTI ({' '.join(str(error).split())}); copy or convert the "
            "file anew."
        ) from error
    if array.ndim != 3:
        raise ValueError(
            f"{name} has the shape {array.shape}, expected three axes; save one 3D volume."
        )
    if affine is None or not np.isfinite(affine).all() or not np.linalg.det(affine[:3, :3]):
        raise ValueError(
            f"{name} has no valid affine, so that its voxels have no size in mm; set the header's "
            "sform or qform."
        )
    closest = nib.as_closest_canonical(SpatialImage(array, affine))
    return Volume(np.asanyarray(closest.dataobj), closest.affine, name)


def read_mask(source: VolumeSource, image: ImageName) -> Volume:
    """Read a mask of nuclei as label ids (uint8).

    Args:
        source: as of ``read_volume``.
        image: whose label table the mask follows.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: as of ``read_volume``, and for a value that is no label id of the image.
    """
    mask = read_volume(source)
    ids = [0, *(number for pair in LABELS[image].values() for number in pair)]
    wrong = np.setdiff1d(mask.array, ids)
    if wrong.size:
        raise ValueError(
            f"{mask.name} holds the values {wrong[:5].tolist()}, expected 0 and the label ids of "
            f"{image} masks, 1 to {max(ids)}; take the mask of {image}, resampled with nearest "
            "neighbours only."
        )
    return Volume(mask.array.astype(np.uint8), mask.affine, mask.name)


def check_same_grid(volume: Volume, mask: Volume) -> None:
    """Refuse a mask on another grid: its voxels would lie on other tissue.

    Args:
        volume: the image, or the mask that the other is compared with.
        mask: must have its shape, and corners within 0.1 mm.

    Raises:
        ValueError: naming both and how they differ.
    """
    if volume.array.shape != mask.array.shape:
        raise ValueError(
            f"{mask.name} has the shape {mask.array.shape}, expected that of {volume.name}, "
            f"{volume.array.shape} (axes as in RAS); masks are never resampled here, so bring it "
            "to this grid with nearest neighbours."
        )
    apart = corner_shift_mm(volume.array.shape, volume.affine, mask.affine)
    if apart > MAX_SHIFT_MM:
        raise ValueError(
            f"the corners of {mask.name} lie up to {apart:.2f} mm from those of {volume.name}, "
            f"expected at most {MAX_SHIFT_MM} mm; correct the affine, or draw the mask on this "
            "image."
        )
