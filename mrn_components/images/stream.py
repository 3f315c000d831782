"""Content of files, read once from the first byte to the last; gzip is decompressed and checked."""

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mrn_components.images.finding import fault

COPY = "Copy the file anew from where it came from, or export it again"

_CHUNK_BYTES = 1 << 18
_GZIP = b"\x1f\x8b"


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what zlib and the operating system say of a file into a finding."""
    try:
        yield
    except zlib.error as cause:
        raise fault(
            "damaged",
            path,
            found=f"a gzip stream that is damaged ({cause})",
            expected="a stream that fits its checksum",
            fix=COPY,
        ) from cause
    except EOFError as cause:
        raise fault(
            "truncated",
            path,
            found=f"a gzip stream that stops before its end, at byte {path.stat().st_size:,}",
            expected="a whole file",
            fix=COPY,
        ) from cause
    except FileNotFoundError as cause:
        raise fault(
            "missing-file",
            path,
            found="no such file",
            expected="a NIfTI file",
            fix="Add it, or take the subject out",
        ) from cause
    except IsADirectoryError as cause:
        raise fault(
            "not-nifti",
            path,
            found="a folder",
            expected="a NIfTI file",
            fix="If it holds DICOM files, c" + _CONVERT["a DICOM file"][1:],
        ) from cause
    except OSError as cause:
        raise fault(
            "unreadable",
            path,
            found=f"a file that cannot be read ({cause.strerror or cause})",
            expected="a readable file",
            fix="Mend its rights or its link",
        ) from cause


def read_content(path: Path, note: Callable[[bytes], object]) -> Iterator[bytes]:
    """Yield the content, decompressed where it is compressed; ``note`` sees the stored bytes."""
    with path.open("rb") as file:
        chunk = file.read(_CHUNK_BYTES)
        _check_name(path, chunk)
        inflate = _Inflater() if chunk.startswith(_GZIP) else None
        while chunk:
            note(chunk)
            if inflate is None:
                yield chunk
            else:
                yield from inflate(chunk)
            chunk = file.read(_CHUNK_BYTES)
        if inflate is not None and not inflate.at_end:
            raise EOFError


class _Inflater:
    """Decompress gzip piece by piece; zlib checks length and checksum at the end of a member."""

    def __init__(self) -> None:
        self.member = zlib.decompressobj(wbits=31)

    @property
    def at_end(self) -> bool:
        return self.member.eof

    def __call__(self, chunk: bytes) -> Iterator[bytes]:
        while chunk:
            if self.member.eof:
                chunk = chunk.lstrip(b"\0")  # padding, which gzip allows
                if not chunk:
                    return
                self.member = zlib.decompressobj(wbits=31)
            yield self.member.decompress(chunk, _CHUNK_BYTES)  # a piece, however much it swells to
            chunk = self.member.unused_data or self.member.unconsumed_tail


def _check_name(path: Path, start: bytes) -> None:
    """Refuse files whose name and first bytes contradict each other."""
    named_gzip, is_gzip = path.name.lower().endswith(".gz"), start.startswith(_GZIP)
    if named_gzip != is_gzip:
        inside = zlib.decompressobj(wbits=31).decompress(start, 544) if is_gzip else start
        wanted = "gzip (its name ends in .gz)" if named_gzip else "no gzip (its name lacks .gz)"
        raise fault(
            "not-nifti",
            path,
            found=looks_like(start) if is_nifti(inside) else looks_like(inside),
            expected=f"a NIfTI file, {wanted}",
            fix=f"Rename it to .nii{'.gz' * is_gzip}" if is_nifti(inside) else advice(inside),
        )


def is_nifti(start: bytes) -> bool:
    """Whether content begins as NIfTI-1 or NIfTI-2 does."""
    return start[344:347] in (b"n+1", b"ni1") or start[4:7] in (b"n+2", b"ni2")


def looks_like(start: bytes) -> str:
    """Return what the first bytes of a file or its content look like, for messages."""
    if not start:
        return "an empty file"
    if start.startswith(_GZIP):
        return "a gzip file"
    if is_nifti(start):
        return "an uncompressed NIfTI file"
    for name, (place, mark) in _MARKS.items():
        if start[place : place + len(mark)] == mark:
            return name
    text = start[:200].decode("ascii", errors="replace")
    if all(letter.isprintable() or letter.isspace() for letter in text):
        return f"text that starts with {text[:30]!r}"
    return f"a file that starts with the bytes {start[:4].hex(' ')}"


def advice(start: bytes) -> str:
    """Return what to do with a file that is no NIfTI, by the first bytes of its content."""
    return _CONVERT.get(looks_like(start), COPY)


# Of other formats: where in the content their mark stands, and how they become NIfTI.
_MARKS = {
    "a DICOM file": (128, b"DICM"),
    "a FreeSurfer volume (.mgz)": (0, b"\0\0\0\1"),
    "an NRRD file": (0, b"NRRD"),
    "a MetaImage (.mha)": (0, b"ObjectType"),
    "an HDF5 file, such as MINC": (0, b"\x89HDF"),
}
_CONVERT = {
    "a DICOM file": "Convert its whole folder to NIfTI: dcm2niix -z y -o OUTPUT FOLDER",
    "a FreeSurfer volume (.mgz)": "Convert it to NIfTI: mri_convert IMAGE.mgz IMAGE.nii.gz",
    "an NRRD file": "Convert it to NIfTI: open it in 3D Slicer and save it as .nii.gz",
    "a MetaImage (.mha)": "Convert it to NIfTI: open it in 3D Slicer and save it as .nii.gz",
    "an HDF5 file, such as MINC": "Convert it to NIfTI: mnc2nii IMAGE.mnc IMAGE.nii",
}
