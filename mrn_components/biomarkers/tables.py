"""``biomarkers.csv`` and the page that explains it."""

from collections.abc import Mapping
from pathlib import Path

from mrn_components.biomarkers.catalogue import biomarkers_of, columns_of, references
from mrn_components.images.image import CHALLENGE_IMAGES, Image
from mrn_components.system.files import csv_text, write_text
from mrn_components.system.texts import fill_template

BIOMARKERS = "biomarkers.csv"


def write_biomarkers(
    folder: str | Path,
    measured: Mapping[str, Mapping[str, float | None]],
    errors: Mapping[str, str] | None = None,
    images: Mapping[str, Image] = CHALLENGE_IMAGES,
) -> Path:
    """Write ``biomarkers.csv``, whose path is returned, and ``biomarkers.md``.

    By subject, ``measured`` has what ``measure_nuclei`` returns, and ``errors`` why one could not
    be measured, whose other cells are empty. The columns follow from the images.
    """
    errors = errors or {}
    rows = [
        {**measured.get(subject, {}), "subject": subject, "error": errors.get(subject)}
        for subject in sorted({*measured, *errors})
    ]
    path = Path(folder) / BIOMARKERS
    columns = ["subject", *columns_of(images), "error"]
    write_text(path, csv_text(rows, columns, floats=".6g"))
    write_text(path.with_suffix(".md"), describe_biomarkers(images))
    return path


def describe_biomarkers(images: Mapping[str, Image] = CHALLENGE_IMAGES) -> str:
    """Explain every column of some images and list what was published, as Markdown."""
    titles = [image.title for image in images.values() if image.nuclei]
    return fill_template(
        Path(__file__).with_name("page.md.j2"),
        alone=f"{' and '.join(titles)} are each" if len(titles) > 1 else "The image is",
        biomarkers=biomarkers_of(images),
        columns=columns_of(images),
        references=references(),
    )
