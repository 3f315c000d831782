"""Content of files, read once from the first byte to the last; gzip is decompressed and checked."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from mrn_components.images.finding import fault

try:
    from isal import isal_zlib as zlib  # reads gzip at twice the speed, and checks it as zlib does
except ImportError:  # on a machine for which it is not built
    import zlib  # type: ignore[no-redef]

_Damaged: Any = zlib.error  # the types of isal take it for an object
_CHUNK_BYTES = 1 << 18
_GZIP = b"\x1f\x8b"


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what zlib and the operating system say of a file into a finding."""
    try:
        yield
    except _Damaged as cause:
        raise fault("damaged", path, f"a gzip stream that is damaged ({cause})") from cause
    except EOFError as cause:
        found = f"a gzip stream that stops before its end, at byte {path.stat().st_size:,}"
        raise fault("truncated", path, found, expected="a whole file") from cause
    except FileNotFoundError as cause:
        raise fault("missing-file", path, "no such file") from cause
    except IsADirectoryError as cause:
        fix = "If it holds DICOM files, c" + _DICOM[1:]
        raise fault("not-nifti", path, "a folder", fix=fix) from cause
    except OSError as cause:
        found = f"a file that cannot be read ({cause.strerror or cause})"
        raise fault("unreadable", path, found) from cause


def read_content(path: Path, note: Callable[[bytes], object]) -> Iterator[bytes]:
    """Yield the content, decompressed where it is compressed; ``note`` sees the stored bytes."""
    with path.open("rb") as file:
        chunks = _chunks(file, note)
        first = next(chunks, b"")
        _check_name(path, first)
        chunks = chain([first], chunks)
        yield from _inflate(chunks) if first.startswith(_GZIP) else chunks


def _chunks(file: BinaryIO, note: Callable[[bytes], object]) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK_BYTES):
        note(chunk)
        yield chunk


def _inflate(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Decompress gzip piece by piece; zlib checks length and checksum at the end of a member."""
    member = zlib.decompressobj(wbits=31)
    for chunk in chunks:
        rest = chunk
        while rest:
            if member.eof:
                rest = rest.lstrip(b"\0")  # padding, which gzip allows
                if not rest:
                    break
                member = zlib.decompressobj(wbits=31)
            yield member.decompress(rest, _CHUNK_BYTES)  # a piece, however much it swells to
            rest = member.unused_data or member.unconsumed_tail
    if not member.eof:
        raise EOFError


def _check_name(path: Path, start: bytes) -> None:
    """Refuse files whose name and first bytes contradict each other."""
    named_gzip, is_gzip = path.name.lower().endswith(".gz"), start.startswith(_GZIP)
    if named_gzip == is_gzip:
        return
    inside = zlib.decompressobj(wbits=31).decompress(start, 544) if is_gzip else start
    wanted = "gzip (its name ends in .gz)" if named_gzip else "no gzip (its name lacks .gz)"
    expected = f"a NIfTI file, {wanted}"
    if is_nifti(inside):
        fix = f"Rename it to .nii{'.gz' * is_gzip}"
        raise fault("not-nifti", path, looks_like(start), expected=expected, fix=fix)
    raise fault("not-nifti", path, looks_like(inside), expected=expected, fix=advice(inside, path))


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
    for name, (place, mark, _) in _FORMATS.items():
        if start[place : place + len(mark)] == mark:
            return name
    text = start[:200].decode("ascii", errors="replace")
    if all(letter.isprintable() or letter.isspace() for letter in text):
        return f"text that starts with {text[:30]!r}"
    return f"a file that starts with the bytes {start[:4].hex(' ')}"


def advice(start: bytes, path: Path) -> str | None:
    """Return how a file becomes NIfTI, by the first bytes of its content; None if nobody knows."""
    text = _FORMATS.get(looks_like(start), (0, b"", None))[2]
    return text and text.replace("NAME", path.name).replace("STEM", path.name.split(".")[0])


# Other formats: where in the content their mark stands, and how they become NIfTI.
_CONVERT = "Convert it to NIfTI: "
_SLICER = _CONVERT + (
    "open it in 3D Slicer and save it as .nii.gz, or type "
    """python -c "import SimpleITK as s; s.WriteImage(s.ReadImage('NAME'), 'STEM.nii.gz')\""""
)
_FREESURFER = _CONVERT + (
    "mri_convert NAME STEM.nii.gz, or type "
    """python -c "import nibabel as n; n.save(n.load('NAME'), 'STEM.nii.gz')\""""
)
_DICOM = (
    "Convert its whole folder to NIfTI: dcm2niix -z y -o OUTPUT FOLDER, or name a folder of DICOM "
    'studies alone as the data (pip install "mrn-components[dicom]")'
)
_FORMATS = {
    "a DICOM file": (128, b"DICM", _DICOM),
    "a FreeSurfer volume (.mgz)": (0, b"\0\0\0\1", _FREESURFER),
    "an NRRD file": (0, b"NRRD", _SLICER),
    "a MetaImage (.mha)": (0, b"ObjectType", _SLICER),
    "an HDF5 file, such as MINC": (0, b"\x89HDF", _CONVERT + "mnc2nii IMAGE.mnc IMAGE.nii"),
}
