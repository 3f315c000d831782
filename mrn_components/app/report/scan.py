"""How an image was made, and how good it is: what a page says beside the pictures."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from mrn_components.data.bids import read_sidecar
from mrn_components.images.volume import Volume

DATE = "Date"  # the fact that pages show only where it is asked for
_MOST = 1e6  # seconds or tesla: more, and what is no number, is a fault of the file


class Measure(NamedTuple):
    """A number of ``measure_quality`` as pages show it."""

    name: str
    unit: str  # of images of arbitrary units; "" for none
    digits: int  # behind the decimal point


MEASURES = {
    "contrast_to_noise": Measure("Contrast to noise", "", 1),
    "noise": Measure("Noise", "of the tissue", 3),
    "ghosts": Measure("Ghosts", "of the tissue", 3),
}


class QualityRange(NamedTuple):
    """A number of an image's quality in a cohort; its unit is the image's."""

    image: str
    measure: Measure
    values: list[tuple[float, str]]  # value and subject, from the lowest

    @property
    def middle(self) -> float:
        """The median."""
        return median(value for value, _ in self.values)


def scan_facts(volume: Volume) -> dict[str, str]:
    """Say how an image was made, by its header and the JSON files of BIDS.

    Sidecars are those that BIDS lets an image inherit, or one of the same name beside it. Of a
    value that is a list, such as the times of several echoes, all are told.

    Returns:
        {what: text}, at most 60 characters each: sizes in mm, the field in T, times in ms.
    """
    size = " × ".join(f"{edge:.2f}" for edge in volume.canonical.spacing_mm)
    path = volume.path.absolute()  # no link is followed: sidecars lie where the name lies
    told = read_sidecar(path, _root(path))
    field = _numbers(told.get("MagneticFieldStrength"))
    times = [_numbers(told.get(key), 1000) for key in ("RepetitionTime", "EchoTime")]
    scanner = [_words(told.get(key)) for key in ("Manufacturer", "ManufacturersModelName")]
    day = _words(told.get("AcquisitionDateTime")) or _words(told.get("AcquisitionDate"))
    facts = {
        "Voxel": f"{size} mm",
        "Matrix": " × ".join(map(str, volume.canonical.shape)),
        DATE: day.partition("T")[0],
        "Field": f"{field} T" if field else "",
        "Scanner": " ".join(filter(None, scanner)),
        "Sequence": _words(told.get("PulseSequenceType")) or _words(told.get("ScanningSequence")),
        "TR, TE": f"{times[0] or '–'}, {times[1] or '–'} ms" if any(times) else "",
    }
    return {name: text[:60] for name, text in facts.items() if text}


def quality_spreads(records: Iterable[Mapping[str, Any]]) -> list[QualityRange]:
    """Collect the numbers of all subjects, a ``QualityRange`` an image and measure."""
    found: dict[tuple[str, str], list[tuple[float, str]]] = {}
    for record in records:
        for image, own in record["quality"].items():
            for measure in MEASURES:
                if (value := own.get(measure)) is not None:
                    found.setdefault((image, measure), []).append((value, record["subject"]))
    return [
        QualityRange(image.upper(), MEASURES[measure], sorted(values))
        for (image, measure), values in sorted(found.items())
        if len(values) > 1
    ]


def _root(path: Path) -> Path:
    """The BIDS directory that holds a file, else its folder."""
    folders = (folder for folder in path.parents if (folder / "dataset_description.json").is_file())
    return next(folders, path.parent)


def _numbers(value: Any, factor: float = 1.0) -> str:
    """Return the number of a sidecar, or those of a list; "" where there is none of a scan."""
    numbers = (n for n in _each(value) if isinstance(n, int | float) and not isinstance(n, bool))
    return " / ".join(f"{factor * number:g}" for number in numbers if 0 < number < _MOST)


def _words(value: Any) -> str:
    """Return the words of a sidecar, or those of a list; "" where there are none."""
    return ", ".join(each.strip() for each in _each(value) if isinstance(each, str))


def _each(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
