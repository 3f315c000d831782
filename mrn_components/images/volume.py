"""Volume: a NIfTI file, read once from its first byte to its last.

nibabel stops before the checksum at the end of a gzip file, so that flipped bits become wrong
voxels; it trusts the size that a header claims. Both are checked here before an array is made.
"""

import hashlib
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from nibabel.spatialimages import HeaderDataError
from nibabel.volumeutils import apply_read_scaling

from mrn_components.images.boxes import Box, label_boxes, nonzero_box, part_boxes
from mrn_components.images.finding import FaultyFileError, fault
from mrn_components.images.stream import advice, is_nifti, looks_like, read_content, reading

MAX_LENGTH = 1024  # voxels along an axis
MAX_VOXELS = 200_000_000
_SLACK_BYTES = 1 << 20  # a file may hold this much more than its header declares
_MAX_RATIO = 1032  # of deflate
_HEADER_BYTES = 544  # the longest header there is

Header = nibabel.Nifti1Header | nibabel.Nifti2Header

_silent = logging.Logger("nibabel's header checks", level=logging.CRITICAL)


@dataclass(frozen=True, kw_only=True, eq=False)
class Volume:
    """Voxels as a file stores them, and where they lie; what is computed from them is kept.

    The affine is the one that nibabel and MONAI read: the sform where its code is one of NIfTI's
    and not 0, else the qform with such a code, else the voxel sizes. Voxels from memory have an
    empty header and no hash.
    """

    path: Path  # of the file, or what stands for it in messages
    stored: np.ndarray  # (X, Y, Z) on the axes of the file, before the scaling of the header
    affine: np.ndarray  # (4, 4) from voxels to mm
    slope: float = 1.0  # voxels are factor * (slope * stored + inter)
    inter: float = 0.0
    header: Header = field(default_factory=nibabel.Nifti1Header)
    sha256: str = ""  # of the file's bytes
    factor: float = 1.0  # from the file's unit to that of the voxels
    reference_shift: float | None = None  # what was taken out of its values; None: not asked yet

    def __fspath__(self) -> str:
        """Return the path, so that a volume can stand wherever a file is named."""
        return str(self.path)

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along each axis."""
        return self.stored.shape

    @property
    def spacing_mm(self) -> np.ndarray:
        """Edges of a voxel in mm, along each axis."""
        return voxel_sizes(self.affine)

    @property
    def voxel_mm3(self) -> float:
        """Volume of a voxel in mm3."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    @cached_property
    def voxels(self) -> np.ndarray:
        """Voxels (X, Y, Z) in single precision, as MONAI's ``LoadImage`` gives them.

        They lie in memory as the file has them, since turning a whole volume takes long.
        """
        return self.values().astype(np.float32)

    @cached_property
    def ends(self) -> tuple[float, float]:
        """Lowest and highest voxel in single precision; NaN where one is no number."""
        if self.stored.dtype.kind in "iu":  # a line maps the ends to the ends
            ends = np.array([self.stored.min(), self.stored.max()])
            ends = apply_read_scaling(ends, *self._scale).astype(np.float32)
        else:
            ends = self.voxels
        return float(ends.min()), float(ends.max())

    @property
    def is_finite(self) -> bool:
        """Whether no voxel is NaN or infinite."""
        return math.isfinite(self.ends[0]) and math.isfinite(self.ends[1])

    @property
    def _scale(self) -> tuple[float, float]:
        return self.factor * self.slope, self.factor * self.inter

    @property
    def mask_values(self) -> np.ndarray:
        """Voxels (X, Y, Z) of a mask: as stored, if these are whole, else in single precision."""
        whole = self.stored.dtype.kind in "iu" and self._scale == (1.0, 0.0)
        return self.stored if whole else self.voxels

    @cached_property
    def ids(self) -> np.ndarray:
        """Voxels (X, Y, Z) of a mask as ids (uint8); other values are cut off."""
        return self.mask_values.astype(np.uint8, copy=False)

    @cached_property
    def labelled(self) -> tuple[slice, ...]:
        """The smallest part of a mask that holds all that is not 0, as an index."""
        return nonzero_box(self.mask_values)

    @cached_property
    def numbers(self) -> np.ndarray:
        """Values of a mask other than 0, each once, in rising order."""
        inside = self.mask_values[self.labelled]
        return np.unique(inside[inside != 0])

    @cached_property
    def places(self) -> dict[int, np.ndarray]:
        """Voxels (N, 3) of each id of a mask."""
        return {
            number: np.argwhere(self.ids[box] == number) + [axis.start for axis in box]
            for number, box in self.parts.items()
        }

    @cached_property
    def parts(self) -> dict[int, tuple[slice, ...]]:
        """The smallest part of a mask that holds each id, as an index."""
        return part_boxes(self.ids, self.labelled)

    @cached_property
    def boxes(self) -> dict[int, Box]:
        """Box of the largest component of each id of a mask."""
        return label_boxes(self.ids, self.parts)

    def values(self, where: Any = ...) -> np.ndarray:
        """Return voxels by an index into (X, Y, Z) as nibabel does: double, if they are scaled."""
        return apply_read_scaling(self.stored[where], *self._scale)

    @cached_property
    def voxel_hash(self) -> str:
        """Hash of the voxels, turned to right, anterior, superior, whatever axes the file has.

        It is that of the voxels in the file's own unit.
        """
        if self.factor != 1.0:
            return replace(self, factor=1.0).voxel_hash
        digest = hashlib.sha256(repr(self.canonical.shape).encode())
        stored = np.ascontiguousarray(self.canonical.stored)  # smaller than what is hashed
        digest.update(apply_read_scaling(stored, *self._scale).astype(np.float32).data)
        return digest.hexdigest()

    @cached_property
    def canonical(self) -> "Volume":
        """The same on the axes closest to right, anterior, superior: a view, nothing is copied."""
        orientation = io_orientation(self.affine)
        return replace(
            self,
            stored=apply_orientation(self.stored, orientation),
            affine=self.affine @ inv_ornt_aff(orientation, self.shape),
        )

    def with_voxels(self, stored: np.ndarray, path: Path) -> "Volume":
        """Return other voxels (X, Y, Z) in the same place, such as a mask of this image."""
        own = replace(self, path=path, stored=stored, slope=1.0, inter=0.0, sha256="")
        return replace(own, factor=1.0)


def read_header(path: str | Path) -> Header:
    """Read the header of a .nii or .nii.gz file alone; a FaultyFileError says what is wrong."""
    path = Path(path)
    with reading(path):
        return _parse(path, _first_bytes(path, read_content(path, lambda _: None)))


def read_volume(path: str | Path, *, factor: float = 1.0) -> Volume:
    """Read a .nii or .nii.gz file once from its first byte to its last.

    Axes of one voxel after the third are left out. The voxels are ``factor`` times the file's,
    1000 for a map in ppm that is wanted in ppb.

    Raises:
        FaultyFileError: for a file that is no NIfTI volume of a possible size, is cut, fails its
            checksum, or holds far more than its header declares.
    """
    path = Path(path)
    digest = hashlib.sha256()
    with reading(path):
        pieces = read_content(path, digest.update)
        content = bytearray(_first_bytes(path, pieces))
        header = _parse(path, bytes(content))
        declared = _declared_bytes(header)
        for piece in pieces:
            content += piece
            if len(content) > declared + _SLACK_BYTES:
                found = f"more than {len(content):,} bytes of content"
                raise fault("oversized", path, found, declared=declared)
        if len(content) < declared:
            found = f"content that ends after {len(content):,} bytes"
            raise fault("truncated", path, found, declared=declared)
    return replace(_volume(path, header, content, digest.hexdigest()), factor=factor)


def _first_bytes(path: Path, pieces: Iterator[bytes]) -> bytes:
    """Return the start of the content, long enough for any NIfTI header."""
    start = b""
    for piece in pieces:
        start += piece
        if len(start) >= _HEADER_BYTES:
            break
    if not is_nifti(start):
        found = looks_like(start) + (" in it" if path.name.lower().endswith(".gz") else "")
        raise fault("not-nifti", path, found, fix=advice(start, path))
    return start


def _parse(path: Path, start: bytes) -> Header:
    """Return the header, mended as nibabel mends it, if it describes one real volume."""
    kind, length = (
        (nibabel.Nifti1Header, 348) if start[344:345] == b"n" else (nibabel.Nifti2Header, 540)
    )
    header = kind(start[:length].ljust(length, b"\0"), check=False)
    _check_type(path, header)
    try:
        header.check_fix(logger=_silent, error_level=40)
        declared = _declared_bytes(header)
    except (HeaderDataError, ValueError, OverflowError) as cause:
        raise _contradiction(path, str(cause)) from cause
    if int(header["vox_offset"]) < header.single_vox_offset:
        raise _contradiction(path, f"its voxels begin at byte {int(header['vox_offset'])}")
    _check_shape(path, _shape(header))
    _check_place(path, header)
    size = path.stat().st_size
    if size * (_MAX_RATIO if path.name.lower().endswith(".gz") else 1) < declared:
        raise fault("truncated", path, f"a file of {size:,} bytes", declared=declared)
    return header


def _contradiction(path: Path, cause: str) -> FaultyFileError:
    found = f"a header that contradicts itself ({cause})"
    return fault("not-nifti", path, found, expected="a NIfTI header")


def _check_type(path: Path, header: Header) -> None:
    try:
        dtype = header.get_data_dtype()
    except KeyError:
        dtype = np.dtype("V")
    if dtype.itemsize == 0:
        found = f"voxels of the unknown type {int(header['datatype'])}"
        expected, fix = "a type that NIfTI defines", "Copy it anew, or export it again"
        raise fault("data-type", path, found, expected=expected, fix=fix)
    if dtype.kind not in "iuf":
        found = "colours (RGB)" if dtype.kind == "V" else f"voxels of the type {dtype}"
        raise fault("data-type", path, found)


def _check_shape(path: Path, shape: tuple[int, ...]) -> None:
    axes = " x ".join(map(str, shape))
    possible = all(1 <= length <= MAX_LENGTH for length in shape)
    if not possible or math.prod(shape) > MAX_VOXELS:
        found = f"a header that claims {axes} voxels"
        raise fault("header-size", path, found, longest=MAX_LENGTH, most=MAX_VOXELS)
    if len(shape) < 3 or math.prod(shape[3:]) != 1:
        raise fault("not-3d", path, f"an array of {axes or 'no'} voxels")


def _check_place(path: Path, header: Header) -> None:
    """Refuse an affine, or a qform beside it, that makes no space of the voxels."""
    try:
        header.get_qform(coded=True)
        affine = header.get_best_affine()
    except (HeaderDataError, ValueError) as cause:
        raise fault("singular", path, f"a qform that is no rotation ({cause})") from cause
    if not _is_regular(affine):
        found = f"an affine that maps the volume to no volume: {affine[:3].tolist()}"
        raise fault("singular", path, found)


def _is_regular(affine: np.ndarray) -> bool:
    """Whether the axes are finite and span a volume."""
    axes = affine[:3, :3]
    lengths = np.linalg.norm(axes, axis=0)
    if not np.isfinite(affine).all() or not 0 < lengths.min() <= lengths.max() < math.inf:
        return False
    return bool(abs(np.linalg.det(axes / lengths)) > 0.01)


def _shape(header: Header) -> tuple[int, ...]:
    num_axes = min(max(int(header["dim"][0]), 0), 7)
    return tuple(int(length) for length in header["dim"][1 : 1 + num_axes])


def _declared_bytes(header: Header) -> int:
    """Bytes that the content must have: up to the voxels, and the voxels."""
    return int(header["vox_offset"]) + math.prod(_shape(header)) * header.get_data_dtype().itemsize


def _volume(path: Path, header: Header, content: bytearray, sha256: str) -> Volume:
    try:
        slope, inter = header.get_slope_inter()
    except HeaderDataError as cause:
        found = f"scale factors that are no numbers ({cause})"
        raise fault("scaling", path, found) from cause
    shape, offset = _shape(header), int(header["vox_offset"])
    stored = np.frombuffer(content, header.get_data_dtype(), math.prod(shape), offset)
    return Volume(
        path=path,
        stored=stored.reshape(shape[:3], order="F"),
        affine=header.get_best_affine(),
        slope=1.0 if slope is None else slope,
        inter=0.0 if inter is None else inter,
        header=header,
        sha256=sha256,
    )
