"""How an image was made, and how good it is: what a page says beside the pictures."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from mrn_components.data.bids import read_sidecar
from mrn_components.images.volume import Volume

DATE = "Date"  # the fact that pages show only where it is asked for
MEASURES = {  # of ``measure_quality``: name, unit where the image has none, digits
    "contrast_to_noise": ("Contrast to noise", "", 1),
    "noise": ("Noise", "of the tissue", 3),
    "ghosts": ("Ghosts", "of the tissue", 3),
}


class QualityRange(NamedTuple):
    """A number of an image's quality in a cohort."""

    image: str
    measure: str
    unit: str
    digits: int
    values: list[tuple[float, str]]  # value and subject, from the lowest

    @property
    def middle(self) -> float:
        """The median."""
        return median(value for value, _ in self.values)


def scan_facts(volume: Volume) -> dict[str, str]:
    """Say how an image was made, by its header and the JSON files of BIDS.

    Sidecars are those that BIDS lets an image inherit, or one of the same name beside it.
    """
    size = " × ".join(f"{edge:.2f}" for edge in volume.canonical.spacing_mm)
    facts = {"Voxel": f"{size} mm", "Matrix": " × ".join(map(str, volume.canonical.shape))}
    told = read_sidecar(volume.path, _root(volume.path)) if volume.path.is_absolute() else {}
    field, echo, repeat = (
        told.get(key) for key in ("MagneticFieldStrength", "EchoTime", "RepetitionTime")
    )
    sequence = told.get("PulseSequenceType") or told.get("ScanningSequence")
    scanner = [told.get(key) for key in ("Manufacturer", "ManufacturersModelName")]
    day = told.get("AcquisitionDateTime") or told.get("AcquisitionDate")
    facts |= {
        DATE: str(day or "").partition("T")[0],
        "Field": f"{field:g} T" if isinstance(field, int | float) else "",
        "Scanner": " ".join(str(part) for part in scanner if part),
        "Sequence": str(sequence or ""),
        "TR, TE": ", ".join(
            f"{1000 * s:g} ms" for s in (repeat, echo) if isinstance(s, int | float)
        ),
    }
    return {name: text[:60] for name, text in facts.items() if text}


def quality_spreads(records: Iterable[Mapping[str, Any]]) -> list[QualityRange]:
    """Collect the numbers of all subjects, a ``QualityRange`` an image and measure."""
    found: dict[tuple[str, str], list[tuple[float, str]]] = {}
    for record in records:
        for image, own in record.get("quality", {}).items():
            for measure in MEASURES:
                if (value := own.get(measure)) is not None:
                    found.setdefault((image, measure), []).append((value, record["subject"]))
    return [
        QualityRange(image.upper(), *MEASURES[measure], sorted(values))
        for (image, measure), values in sorted(found.items())
        if len(values) > 1
    ]


def _root(path: Path) -> Path:
    """The BIDS directory that holds a file, else its folder."""
    folders = (folder for folder in path.parents if (folder / "dataset_description.json").is_file())
    return next(folders, path.parent)
