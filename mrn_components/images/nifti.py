"""NIfTI volumes whose checksum and size are right, which nibabel takes on trust.

nibabel stops before the checksum at the end of a gzip file, so that flipped bits become wrong
voxels; it trusts the size that a header claims. Both are checked here before an array is made.
"""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import nibabel
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from nibabel.spatialimages import HeaderDataError

from mrn_components.images.finding import FaultyFileError, error
from mrn_components.images.stream import COPY, is_nifti, looks_like, read_content, reading

MAX_LENGTH = 1024  # voxels along an axis
MAX_VOXELS = 200_000_000
_SLACK_BYTES = 1 << 20  # a file may hold this much more than its header declares
_MAX_RATIO = 1032  # of deflate

Header = nibabel.Nifti1Header | nibabel.Nifti2Header


@dataclass(frozen=True, kw_only=True)
class Volume:
    """A NIfTI file whose checksum and size are right.

    Args:
        path: of the file.
        header: as stored.
        voxels: (X, Y, Z) in single precision, scaled as the header says.
        sha256: hash of the file's bytes.
    """

    path: Path
    header: Header
    voxels: np.ndarray
    sha256: str

    @property
    def affine(self) -> np.ndarray:
        """(4, 4) from voxels to mm: the sform, or else the qform, as nibabel and MONAI read it."""
        return self.header.get_best_affine()


def read_header(path: Path) -> Header:
    """Read the header alone.

    Args:
        path: a .nii or .nii.gz file.

    Raises:
        FaultyFileError: for a file that is no NIfTI volume of a possible size, or too short.
    """
    with reading(path):
        pieces = read_content(path, lambda _: None)
        return _parse(path, _first_bytes(path, pieces))


def read_volume(path: Path) -> Volume:
    """Read a file once from its first byte to its last.

    Args:
        path: a .nii or .nii.gz file.

    Raises:
        FaultyFileError: for a file that is no NIfTI volume of a possible size, is cut, fails its
            checksum, or holds far more than its header declares.
    """
    digest = hashlib.sha256()
    with reading(path):
        pieces = read_content(path, digest.update)
        content = bytearray(_first_bytes(path, pieces))
        header = _parse(path, bytes(content))
        declared = _declared_bytes(header)
        for piece in pieces:
            content += piece
            if len(content) > declared + _SLACK_BYTES:
                raise FaultyFileError(
                    error(
                        "oversized",
                        path,
                        found=f"more than {len(content):,} bytes of content",
                        expected=f"{declared:,} bytes, as its header declares",
                        fix="Do not open it; " + COPY[0].lower() + COPY[1:],
                    )
                )
        if len(content) < declared:
            raise FaultyFileError(
                error(
                    "truncated",
                    path,
                    found=f"content that ends after {len(content):,} bytes",
                    expected=f"{declared:,} bytes, as its header declares",
                    fix=COPY,
                )
            )
    return Volume(
        path=path, header=header, voxels=_scaled(path, content, header), sha256=digest.hexdigest()
    )


def hash_voxels(voxels: np.ndarray, affine: np.ndarray) -> str:
    """Hash voxels, turned to the axes right, anterior, superior, whatever axes the file has.

    Args:
        voxels: (X, Y, Z) in single precision.
        affine: (4, 4) from voxels to mm.
    """
    turned = voxels
    if voxels.ndim == 3 and np.isfinite(affine).all() and np.linalg.det(affine[:3, :3]) != 0:
        turned = nibabel.apply_orientation(voxels, nibabel.io_orientation(affine))
    digest = hashlib.sha256(repr(turned.shape).encode())
    digest.update(turned.tobytes())
    return digest.hexdigest()


def _first_bytes(path: Path, pieces: Iterator[bytes]) -> bytes:
    """The start of the content, long enough for any NIfTI header."""
    start = b""
    while len(start) < 544:
        piece = next(pieces, None)
        if piece is None:
            break
        start += piece
    if not is_nifti(start):
        raise FaultyFileError(
            error(
                "not-nifti",
                path,
                found=looks_like(start) + (" in it" if path.name.lower().endswith(".gz") else ""),
                expected="a NIfTI file",
                fix=COPY,
            )
        )
    return start


def _parse(path: Path, start: bytes) -> Header:
    """The header, if it describes one real volume of a possible size."""
    kind, length = (
        (nibabel.Nifti1Header, 348) if start[344:345] == b"n" else (nibabel.Nifti2Header, 540)
    )
    try:
        header = kind(start[:length], check=False)
        header.get_data_dtype()
        _declared_bytes(header)
    except (HeaderDataError, ValueError, OverflowError) as cause:
        raise FaultyFileError(
            error(
                "not-nifti",
                path,
                found=f"a header that contradicts itself ({cause})",
                expected="a NIfTI header",
                fix=COPY,
            )
        ) from cause
    _check_shape(path, _shape(header))
    _check_type(path, header.get_data_dtype())
    declared, size = _declared_bytes(header), path.stat().st_size
    holds = size * (_MAX_RATIO if path.name.lower().endswith(".gz") else 1)
    if holds < declared:
        raise FaultyFileError(
            error(
                "truncated",
                path,
                found=f"a file of {size:,} bytes",
                expected=f"{declared:,} bytes of content, as its header declares",
                fix=COPY,
            )
        )
    return header


def _check_shape(path: Path, shape: tuple[int, ...]) -> None:
    axes = " x ".join(map(str, shape))
    possible = all(1 <= length <= MAX_LENGTH for length in shape)
    if not possible or math.prod(shape) > MAX_VOXELS:
        raise FaultyFileError(
            error(
                "header-size",
                path,
                found=f"a header that claims {axes} voxels",
                expected=f"1 to {MAX_LENGTH} voxels an axis and at most {MAX_VOXELS:,} in all",
                fix=COPY,
            )
        )
    if len(shape) < 3 or math.prod(shape[3:]) != 1:
        raise FaultyFileError(
            error(
                "not-3d",
                path,
                found=f"an array of {axes or 'no'} voxels",
                expected="one volume with three axes",
                fix="Save the volume you want alone: which echo or direction it is, is your choice",
            )
        )


def _check_type(path: Path, dtype: np.dtype) -> None:
    if dtype.kind not in "iuf":
        raise FaultyFileError(
            error(
                "data-type",
                path,
                found="colours (RGB)" if dtype.kind == "V" else f"voxels of the type {dtype}",
                expected="real numbers",
                fix="Save one real channel, such as the magnitude",
            )
        )


def _shape(header: Header) -> tuple[int, ...]:
    num_axes = min(max(int(header["dim"][0]), 0), 7)
    return tuple(int(length) for length in header["dim"][1 : 1 + num_axes])


def _declared_bytes(header: Header) -> int:
    """Bytes that the content must have: up to the voxels, and the voxels."""
    return int(header["vox_offset"]) + math.prod(_shape(header)) * header.get_data_dtype().itemsize


def _scaled(path: Path, content: bytearray, header: Header) -> np.ndarray:
    try:
        voxels = np.asarray(ArrayProxy(BytesIO(content), header), dtype="<f4")
    except HeaderDataError as cause:
        raise FaultyFileError(
            error(
                "scaling",
                path,
                found=f"scale factors that are no numbers ({cause})",
                expected="a finite scl_slope and scl_inter",
                fix=COPY,
            )
        ) from cause
    return voxels.reshape(voxels.shape[:3])
