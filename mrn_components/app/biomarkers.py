"""``mrn biomarkers``: measure the nuclei of every subject in a folder."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mrn_components.app.check import parts_of
from mrn_components.biomarkers import measure_nuclei, write_biomarkers
from mrn_components.data import Subject
from mrn_components.data.layouts import WORK, Need, filters_of, find_subjects
from mrn_components.data.nuclei import drawn_by
from mrn_components.data.tables import files_of
from mrn_components.images.finding import FaultyFileError, Finding
from mrn_components.images.image import Image, factor_of
from mrn_components.images.masks import check_mask
from mrn_components.images.volume import Volume
from mrn_components.regions.drawn import read_file
from mrn_components.regions.plausible import plausible_findings
from mrn_components.regions.reference import take_out_references
from mrn_components.system.errors import FailedSubjectsError


def measure_subjects(
    input: str | Path,  # noqa: A002  `mrn biomarkers INPUT OUTPUT` reads as users write it
    output: str | Path,
    *,
    masks: str | Path | None = None,
    bundle: str | None = None,
    nuclei: str | Path | None = None,
    nm_filter: str | None = None,
    qsm_filter: str | None = None,
    nm_series: str | None = None,
    qsm_series: str | None = None,
) -> Path:
    """Measure each nucleus without a network: volume, iron, neuromelanin (research use only).

    Writes ``biomarkers.csv``, a row a subject, and ``biomarkers.md``, which explains its columns.

    A subject that cannot be measured is a row with its error, and the others go on. An image or a
    mask may be absent: its cells are empty.

    Args:
        input: folder of subjects in the challenge's layout, one subject's folder, a JSON datalist
            or a BIDS directory.
        output: folder of the results.
        masks: folder of the masks, where they do not lie beside the images.
        bundle: measure the images of this bundle's regions instead of the challenge's two.
        nuclei: csv of the ids in the masks, ``image,nucleus,right,left``, if they are not usual.
        nm_filter: glob of the NM images' names in BIDS, e.g. "*acq-NM*"; with a slash, of paths.
        qsm_filter: the same of QSM, e.g. "derivatives/qsmxt*/*_Chimap*".
        nm_series: the NM series of DICOM studies, by number or glob of the description.
        qsm_series: the same of QSM.

    Returns:
        The path of ``biomarkers.csv``.

    Raises:
        ValueError: for a faulty datalist or table of nuclei, or if no subject has a mask.
        FailedSubjectsError: at the end, if subjects failed; names them and the reasons.
    """
    need = Need(images="given", masks="some", labels="none")
    images, _ = drawn_by(nuclei, parts_of(bundle)[0], {})
    found = find_subjects(
        input,
        images,
        need=need,
        masks=masks,
        filters=filters_of(images, nm_filter, qsm_filter),
        series=filters_of(images, nm_series, qsm_series),
        work=Path(output) / WORK,
    )
    found.require_some()
    found.refuse_output(output)
    measured, errors = {}, {}
    for subject in found.subjects:
        name = subject["subject"]
        try:
            if name in found.problems:
                raise ValueError(found.problems[name])
            measured[name] = measure_nuclei(_read(subject, images), images)
        except (ValueError, OSError) as error:
            errors[name] = str(error)
    table = write_biomarkers(output, measured, errors, images)
    if errors:
        lines = "\n".join(f"  {subject}: {error}" for subject, error in errors.items())
        raise FailedSubjectsError(
            f"{len(errors)} of {len(errors) + len(measured)} subjects failed; the others are in "
            f"{table}.\n{lines}"
        )
    return table


def _read(subject: Subject, images: Mapping[str, Image]) -> dict[str, Volume]:
    """Read a subject's volumes, refuse values that no brain has, and print what is doubtful."""
    volumes: dict[str, Volume] = {}
    findings: list[Finding] = []
    for key, path in files_of(subject).items():
        factor = factor_of(subject, key)
        volumes[key], noted = read_file(key, path, images, factor=factor)
        findings += noted
    for name, image in images.items():
        if image.mask_name in volumes:
            check_mask(volumes[image.mask_name], image, volumes.get(name))
    volumes, _ = take_out_references(volumes, images)
    for found in (*findings, *plausible_findings(volumes, images)):
        if found.severity == "error":
            raise FaultyFileError(found)
        print(replace(found, subject=subject["subject"]))
    return volumes
