"""Subjects of DICOM studies: which series shows what, and its conversion to NIfTI."""

import hashlib
import json
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mrn_components.data.case import Case
from mrn_components.data.series import Series, lacking_package, studies_of
from mrn_components.images.finding import FaultyFileError, fault
from mrn_components.images.image import Image
from mrn_components.system.files import flush_file, write_json
from mrn_components.system.plain_data import parse_mapping

Sources = dict[str, dict[str, list[Path]]]  # {subject: {image: its DICOM files}}

_TIMEOUT_S = 900
_SCRATCH = ".converting."
_OPTIONS = ("-g", "i", "-b", "y", "-ba", "y", "-z", "i", "-p", "n", "-w", "2")
# Of what dcm2niix writes beside a volume: how it was made, and nothing of whom, when or where.
_KEPT = (
    *("MagneticFieldStrength", "Manufacturer", "ManufacturersModelName"),
    *("RepetitionTime", "EchoTime", "ScanningSequence"),
)
# Of what dcm2niix says: that voxels or their places may be wrong, not times and protocols.
_SERIOUS = re.compile(
    "missing im|distance|spacing|duplic|orient|tilt|scal|intensit|stack|overlap|posit",
    re.IGNORECASE,
)


def dicom_cases(
    root: Path, images: Mapping[str, Image], chosen: Mapping[str, str], work: Path
) -> tuple[str, list[Case], Sources]:
    """Look for the studies of a folder, and convert the series that show some images.

    How these were chosen is printed.

    Args:
        root: folder of one or many studies, in any order.
        images: what a subject has.
        chosen: {image: number of its series, or glob of its description}, where the rules of the
            image's quantity do not tell it.
        work: folder of the converted files, which stay there and are used again.

    Returns:
        The layout, for the user; the cases; and the DICOM files that each image is of.
    """
    cases: list[Case] = []
    sources: Sources = {}
    tqdm.write(_rules(images, chosen))
    for subject, study in studies_of(root).items():
        case = Case(subject=subject, source=root, where=f"study {subject}")
        if study[0].person and subject != study[0].person:
            case.fields["person"] = study[0].person  # several studies of one person
        told, sources[subject] = [], {}
        for name, image in images.items():
            case.take(name, [], root / f"{image.file} series")
            fitting = _fitting(study, image, chosen.get(name))
            if len(fitting) == 1:
                _convert_into(case, image, fitting[0], work)
                sources[subject][name] = fitting[0].files
                told.append(f"{image.title} is series {fitting[0]}")
            elif fitting or name in chosen:
                found = f"{len(fitting)} series that could be {image.title}"
                found += f" among {_listed(fitting or study)}"
                case.add("which-series", root, found, option=_option(image))
                del case.places[name]  # it does not lack
            else:
                words = f"Choose its series with {_option(image)}: the study has {_listed(study)}"
                case.advice[name] = words
            if image.mask:
                case.take(image.mask_name, [], root / f"{image.mask}.nii.gz")
        tqdm.write(f"  {subject}: {'; '.join(told) or 'none'}; its series are {_listed(study)}")
        cases.append(case)
    return "DICOM", cases, sources


def _rules(images: Mapping[str, Image], chosen: Mapping[str, str]) -> str:
    """Say how series are chosen."""
    rules = []
    for name, image in images.items():
        words = ", ".join(image.facts.series) or image.file.lower()
        rule = (
            f"{_option(image)} {chosen[name]}" if name in chosen else f"the first word of {words}"
        )
        rules.append(f"{image.title} by {rule}")
    return f"DICOM, {'; '.join(rules)} in the description or protocol of MR series"


def _option(image: Image) -> str:
    """Return the option that chooses the series of an image."""
    return {"neuromelanin": "--nm_series", "susceptibility": "--qsm_series"}.get(
        image.quantity, "a JSON datalist"
    )


def _listed(series: Sequence[Series]) -> str:
    return ", ".join(map(str, series))


def _fitting(study: Sequence[Series], image: Image, chosen: str | None) -> list[Series]:
    """List the series that an image could be: those chosen, or those with the first word found."""
    if chosen is not None:
        return [
            one
            for one in study
            if one.modality == "MR"
            if chosen == str(one.number) or fnmatchcase(one.description.lower(), chosen.lower())
        ]
    suitable = [one for one in study if one.suits(image)]
    for word in image.facts.series or (image.file.lower(),):
        if found := [one for one in suitable if f" {word} " in one.words]:
            return found
    return []


def _convert_into(case: Case, image: Image, series: Series, work: Path) -> None:
    """Give a case the file that a series becomes, and what was said of its conversion."""
    try:
        for one, other in series.twins[:1]:
            found = f"series {series}, whose {len(series.files)} files are not all different: "
            found += f"{one.name} and {other.name} are one SOP instance with other voxels"
            raise fault("dicom-series", one.parent, found)
        if series.scales > 1:  # dcm2niix takes one for all, without a word
            found = f"series {series}, one file whose frames have {series.scales} scale factors"
            fix = "Export it as one file a slice, each with its own RescaleSlope"
            raise fault("dicom-series", series.files[0].parent, found, fix=fix)
        path, warnings = convert(series, image.file, work)
    except FaultyFileError as error:
        case.findings.append(replace(error.finding, subject=case.subject))
        del case.places[image.name]
        return
    case.take(image.name, [path], path)
    for text in warnings:
        case.add("dicom-warning", path, f"series {series}: {text}", "warning")
    if series.unit in image.facts.units:
        case.take_unit(image, series.unit)


def convert(series: Series, stem: str, work: Path) -> tuple[Path, list[str]]:
    """Convert a series by dcm2niix, whole or not at all, or find what was made of it before.

    The scale factors are those of the DICOM standard, not a vendor's private ones.

    Returns:
        The path of ``STEM.nii.gz``, in a folder of its own in ``work``, and dcm2niix's warnings.

    Raises:
        FaultyFileError: for a series that does not become one volume; says what dcm2niix said.
    """
    dcm2niix = dcm2niix_program()
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in series.files]
    key = hashlib.sha256(repr([series.uid, stem, _OPTIONS, sorted(stats)]).encode()).hexdigest()
    folder = work / key[:16]
    path = folder / f"{stem}.nii.gz"
    if not path.is_file():
        work.mkdir(parents=True, exist_ok=True)
        for old in work.glob(f"{_SCRATCH}*"):  # of a process that was killed
            if time.time() - old.stat().st_mtime > 2 * _TIMEOUT_S:
                shutil.rmtree(old, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=work) as scratch:
            inside, made = Path(scratch, "dicom"), Path(scratch, "made")
            inside.mkdir()
            made.mkdir()
            for number, file in enumerate(series.files):
                _link(file.absolute(), inside / f"{number:06}.dcm")
            command = [dcm2niix, *_OPTIONS, "-f", stem, "-o", str(made), str(inside)]
            warnings = _said(_run(command), scratch)
            _check_made(series, path.name, made, warnings)
            write_json(made / "warnings.json", list(filter(_SERIOUS.search, warnings)))
            _keep_facts(made / f"{stem}.json")
            flush_file(made / path.name)
            with suppress(FileExistsError, OSError):  # another process was faster
                made.rename(folder)
    return path, json.loads((folder / "warnings.json").read_text(encoding="utf-8"))


def _run(command: Sequence[str]) -> str:
    """Run a program, and return all that it printed."""
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    try:
        done = subprocess.run(command, timeout=_TIMEOUT_S, **options)
    except subprocess.TimeoutExpired:
        return f"Error: no end after {_TIMEOUT_S} s"
    return done.stdout.decode(errors="replace")


def _link(source: Path, target: Path) -> None:
    try:
        target.symlink_to(source)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)


def _said(text: str, scratch: str) -> list[str]:
    """Return the warnings and errors of dcm2niix, each once, without our folders."""
    lines = [line.strip().replace(scratch, "") for line in text.splitlines()]
    return [line for line in dict.fromkeys(lines) if line.startswith(("Warning", "Error"))]


def _check_made(series: Series, name: str, made: Path, said: Sequence[str]) -> None:
    """Refuse what dcm2niix made of a series unless it is one volume; leave that alone."""
    volumes = sorted(path.name for path in made.glob("*.nii.gz"))
    for path in made.iterdir():
        if path.name not in (name, name.replace(".nii.gz", ".json")):
            path.unlink()
    if volumes == [name]:
        return
    found = f"series {series}, {len(series.files)} files, of which dcm2niix makes "
    found += f"{len(volumes)} volumes ({', '.join(volumes)})" if volumes else "nothing"
    words = "; ".join(said)
    raise fault("dicom-series", series.files[0].parent, f"{found}{words and f': {words}'}")


def _keep_facts(path: Path) -> None:
    """Leave of a sidecar what pages tell of a scan; one that cannot be read costs no image."""
    try:
        told = parse_mapping(path.read_bytes())
    except (OSError, ValueError):
        told = {}
    write_json(path, {key: told[key] for key in _KEPT if key in told})


def dcm2niix_program() -> str:
    """Return the path of the wheel's dcm2niix, or say how it is installed."""
    try:
        import dcm2niix
    except ImportError as error:
        raise lacking_package("dcm2niix") from error
    return str(dcm2niix.bin)
