"""Cheap checks of a file before anything is computed from it."""

import gzip
import hashlib
import io
import zlib
from pathlib import Path

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

_MAX_SIDE = 1024  # voxels
_MAX_VOXELS = 200_000_000
_SLACK = 1 << 20  # bytes that a file may hold beyond its voxels, for header extensions
_HEADERS = {348: nibabel.Nifti1Header, 540: nibabel.Nifti2Header}  # by their length


def check_file(path: Path, name: str, *, is_mask: bool = False) -> str:
    """Check that a file is one whole 3D volume, and an image shows something.

    The file is read once, to its end: a decoder stops before the check sum of a gzip stream, so
    that flipped bits pass unnoticed. What needs the masks, such as non-finite voxels in an ROI, is
    checked when the ROIs are cropped.

    Args:
        path: NIfTI file, compressed or not.
        name: how messages call it.
        is_mask: a mask may be empty.

    Returns:
        The SHA-256 of the file.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: for a damaged file, another format or shape, or an image of nothing.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{name} is not there; add it, or correct its path.")
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    compressed = content[:2] == b"\x1f\x8b"
    if path.name.endswith(".gz") and not compressed:
        raise ValueError(
            f"{name} is no gzip file though its name ends in .gz; compress it, or name it .nii."
        )
    header = _header(content, name, compressed)
    size = _check_shape(header, name)
    volume = _decompress(content, size + _SLACK, name) if compressed else content
    if len(volume) < size:
        raise ValueError(
            f"{name} is truncated: its header promises {size} bytes, found {len(volume)}; copy it "
            "again."
        )
    if not is_mask:
        _check_voxels(header, volume, name)
    return digest


def _header(content: bytes, name: str, compressed: bool) -> nibabel.Nifti1Header:
    start = content
    if compressed:
        try:
            start = zlib.decompressobj(wbits=31).decompress(content, 1024)
        except zlib.error as error:
            raise ValueError(f"{name} is damaged ({error}); copy it again.") from error
    for order in ("little", "big"):
        length = int.from_bytes(start[:4], order)
        if length in _HEADERS and len(start) >= length:
            try:
                return _HEADERS[length](start[:length], check=True)
            except (HeaderDataError, ImageFileError) as error:
                raise ValueError(f"{name} has a faulty NIfTI header: {error}.") from error
    raise ValueError(
        f"{name} is no NIfTI image: it starts with {start[:8]!r}; convert it (e.g. dcm2niix), or "
        "copy it again if it was cut off."
    )


def _check_shape(header: nibabel.Nifti1Header, name: str) -> int:
    """Check what the header promises; the bytes of the file up to the end of the voxels."""
    shape = header.get_data_shape()
    if len(shape) < 3 or any(side != 1 for side in shape[3:]):
        raise ValueError(
            f"{name} has the shape {tuple(shape)}, expected one 3D volume; extract the one that is "
            "meant."
        )
    voxels = int(np.prod(shape, dtype=object))
    if max(shape) > _MAX_SIDE or not 0 < voxels <= _MAX_VOXELS:
        raise ValueError(
            f"{name} has the shape {tuple(shape)}, expected at most {_MAX_SIDE} voxels a side and "
            f"{_MAX_VOXELS} in all; is it the right file?"
        )
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf":
        raise ValueError(f"{name} has voxels of the type {dtype}, expected one number each.")
    return int(header.get_data_offset()) + voxels * dtype.itemsize


def _decompress(content: bytes, limit: int, name: str) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as stream:
            volume = stream.read(limit + 1)
            if len(volume) > limit:
                raise ValueError(
                    f"{name} holds more than the {limit} bytes that its header promises; write it "
                    "anew."
                )
            stream.read()  # to the check sum
    except EOFError as error:
        raise ValueError(
            f"{name} is truncated: its gzip stream ends early; copy it again."
        ) from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{name} is damaged ({error}); copy it again.") from error
    return volume


def _check_voxels(header: nibabel.Nifti1Header, content: bytes, name: str) -> None:
    offset = int(header.get_data_offset())
    count = int(np.prod(header.get_data_shape()))
    voxels = np.frombuffer(content, header.get_data_dtype(), count=count, offset=offset)
    finite = voxels if voxels.dtype.kind != "f" else voxels[np.isfinite(voxels)]
    if finite.size == 0:
        raise ValueError(f"{name} holds no finite voxel (all NaN or infinite); write it anew.")
    if finite.min() == finite.max():
        raise ValueError(
            f"{name} shows nothing: every voxel is {finite[0]:g}; is it the right file?"
        )
