"""Studies and series of DICOM files, by their headers."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mrn_components.data.case import SUFFIXES
from mrn_components.images.image import Image

_TAGS = [
    *("PatientID", "StudyInstanceUID", "StudyDate", "SeriesInstanceUID", "SeriesNumber"),
    *("SeriesDescription", "ProtocolName", "ImageType", "Modality", "RescaleType"),
    *("SOPInstanceUID", "NumberOfFrames"),
]
_PIXELS = ["PixelData", "FloatPixelData", "DoubleFloatPixelData"]
_MAX_NAMED = 5  # files in one message
# Words of ImageType that no image of the network has: what is made of others, and overviews.
_NO_IMAGES = {"LOCALIZER", "MIP", "MPR", "MINIP", "PROJECTION IMAGE", "SCREEN SAVE", "SCREENSHOT"}
_PHASES = {"P", "PHASE", "PHASE MAP", "R", "REAL", "I", "IMAGINARY"}
_MAGNITUDES = {"M", "M_FFE", "M_SE", "MAGNITUDE"}


@dataclass(kw_only=True)
class Series:
    """A series of a study, by its first file."""

    person: str  # PatientID
    study: str  # its UID
    date: str
    uid: str
    number: int
    description: str
    protocol: str
    types: tuple[str, ...]  # ImageType
    modality: str
    unit: str  # RescaleType
    scales: int  # how many pairs of slope and intercept its first file has
    files: list[Path] = field(default_factory=list)
    instances: dict[str, Path] = field(default_factory=dict)  # the first file of each, by its UID
    twins: list[tuple[Path, Path]] = field(default_factory=list)  # one UID, other voxels

    def __str__(self) -> str:
        return f"{self.number} {self.description or self.protocol!r}"

    @cached_property
    def words(self) -> str:
        """Description and protocol in lower case, with one space around each word."""
        words = re.findall("[a-z0-9]+", f"{self.description} {self.protocol}".lower())
        return f" {' '.join(words)} "

    def take(self, path: Path, instance: str) -> bool:
        """Take a file of the series; False for a copy of one that it has, which it does not need.

        Studies that were exported twice into one folder hold every file twice.
        """
        first = self.instances.setdefault(instance, path) if instance else path
        if first != path and _pixels(first) == _pixels(path):
            return False
        if first != path:
            self.twins.append((first, path))
        self.files.append(path)
        return True

    def suits(self, image: Image) -> bool:
        """Whether an image can be of this series, by what a scanner says of its type."""
        excluded = _NO_IMAGES | _PHASES
        if image.facts.magnitude is False:
            excluded = excluded | _MAGNITUDES  # what a map is made of, often under its name
        return self.modality == "MR" and not excluded & {word.upper() for word in self.types}


def is_dicom(root: Path) -> bool:
    """Whether a folder has DICOM files somewhere below."""
    return any(_has_mark(path) for path in _files(root) if not path.name.endswith(SUFFIXES))


def studies_of(root: Path) -> dict[str, list[Series]]:
    """Return the series of each study, by what becomes the subject's id.

    That is the patient's, with the date where a patient has several studies, and with a number
    where that is not enough.
    """
    series = sorted(series_of(root), key=lambda one: (one.person, one.date, one.study, one.number))
    studies = [list(members) for _, members in groupby(series, lambda one: one.study)]
    people = [study[0].person for study in studies]
    named: dict[str, list[Series]] = {}
    for study in studies:
        person, date = study[0].person or "unnamed", study[0].date
        name = re.sub("[^A-Za-z0-9.-]", "-", person).lstrip(".-") or "unnamed"
        name = f"{name}_{date}" if people.count(study[0].person) > 1 else name
        if name in named:
            name = f"{name}_{sum(other.startswith(name) for other in named) + 1}"
        named[name] = study
    return named


def series_of(root: Path) -> list[Series]:
    """Read the headers of all DICOM files of a folder."""
    pydicom = pydicom_module()
    found: dict[str, Series] = {}
    damaged, copies = [], []
    for path in filter(_has_mark, _files(root)):
        try:
            with pydicom.config.disable_value_validation():
                header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
                if "SeriesInstanceUID" in header and "StudyInstanceUID" in header:
                    one = _describe(header, path)
                    one = found.setdefault(one.uid, one)
                    if not one.take(path, str(header.get("SOPInstanceUID") or "")):
                        copies.append(str(path.relative_to(root)))
        except Exception:  # whatever a damaged file brings about
            damaged.append(str(path.relative_to(root)))
    for what, paths in (("cannot be read", damaged), ("are copies of others", copies)):
        if paths:
            more = ", ..." if len(paths) > _MAX_NAMED else ""
            names = ", ".join(paths[:_MAX_NAMED])
            tqdm.write(f"{len(paths)} DICOM files {what} and are left out: {names}{more}")
    return list(found.values())


def _describe(header: Any, path: Path) -> Series:
    scales = _scales(header, path)
    units = [str(scale.get("RescaleType") or "").strip().lower() for scale in scales]
    types, number = header.get("ImageType") or (), str(header.get("SeriesNumber") or 0).strip()
    return Series(
        person=str(header.get("PatientID") or "").strip(),
        study=str(header.StudyInstanceUID),
        date=str(header.get("StudyDate") or ""),
        uid=str(header.SeriesInstanceUID),
        number=int(number) if number.isdecimal() else 0,
        description=str(header.get("SeriesDescription") or "").strip(),
        protocol=str(header.get("ProtocolName") or "").strip(),
        types=(types,) if isinstance(types, str) else tuple(map(str, types)),
        modality=str(header.get("Modality") or ""),
        unit=next(filter(None, units), ""),
        scales=len(
            {(scale.get("RescaleSlope"), scale.get("RescaleIntercept")) for scale in scales}
        ),
    )


def _scales(header: Any, path: Path) -> list[Any]:
    """List what holds RescaleType and its kin: once for all frames of a file, or for each."""
    if "NumberOfFrames" not in header:
        return [header]
    groups = ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"]
    header = pydicom_module().dcmread(path, stop_before_pixels=True, specific_tags=groups)
    items = [one for name in groups for one in header.get(name) or ()]
    return [scale for one in items for scale in one.get("PixelValueTransformationSequence") or ()]


def _pixels(path: Path) -> list[Any]:
    header = pydicom_module().dcmread(path, specific_tags=_PIXELS)
    return [header.get(name) for name in _PIXELS]


def _files(root: Path) -> Iterator[Path]:
    for folder, names, files in os.walk(root):
        names[:] = sorted(name for name in names if not name.startswith("."))
        yield from (Path(folder, name) for name in sorted(files))


def _has_mark(path: Path) -> bool:
    """Whether a file begins as a DICOM file does."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def pydicom_module() -> Any:
    """Import pydicom, or say how it is installed."""
    try:
        import pydicom
    except ImportError as error:
        raise lacking_package("pydicom") from error
    return pydicom


def lacking_package(package: str) -> ValueError:
    """Return what to raise where a package of the extra is not installed."""
    return ValueError(f'DICOM needs {package}: pip install "mrn-components[dicom]".')
