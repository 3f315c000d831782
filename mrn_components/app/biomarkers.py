"""``mrn biomarkers``: measure the nuclei of every subject in a folder."""

from pathlib import Path

from mrn_components.app.check import parts_of
from mrn_components.app.measuring import measure_each, raise_failed
from mrn_components.biomarkers import measure_nuclei, write_biomarkers
from mrn_components.data.layouts import WORK, Need, filters_of, find_subjects
from mrn_components.data.nuclei import drawn_by


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
    measured, errors = measure_each(
        found, images, lambda read: measure_nuclei(read.volumes, images)
    )
    table = write_biomarkers(output, measured, errors, images)
    raise_failed(errors, len(measured), table)
    return table
