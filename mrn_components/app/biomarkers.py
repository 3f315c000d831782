"""``mrn biomarkers``: measure the nuclei of every subject in a folder."""

from pathlib import Path

from mrn_components.biomarkers import biomarkers, write_biomarkers
from mrn_components.data.layouts import Need, find_subjects

_FILES = ("nm", "qsm", "mask_nm", "mask_qsm")


def measure_subjects(
    input_dir: str | Path, output_dir: str | Path, *, masks: str | Path | None = None
) -> tuple[Path, dict[str, str]]:
    """Write ``biomarkers.csv``, a row a subject, and ``biomarkers.md``, which explains its columns.

    A subject that cannot be measured is a row with its error, and the others go on. An image or a
    mask may be absent: its cells are empty.

    Args:
        input_dir: folder of subjects in the challenge's layout, one subject's folder, a JSON
            datalist or a BIDS directory.
        output_dir: folder of the results.
        masks: folder of the masks, where they do not lie beside the images.

    Returns:
        The path of ``biomarkers.csv``, and {subject: error} of those that failed.

    Raises:
        FileNotFoundError: if there are no subjects.
        ValueError: for a faulty datalist, or if no subject has a mask.
    """
    need = Need(images="given", masks="some", labels="none")
    found = find_subjects(input_dir, need=need, masks=masks)
    found.require_some()
    found.refuse_output(output_dir)
    measured, errors, problems = {}, {}, found.problems
    for subject in found.subjects:
        name = subject["subject"]
        if name in problems:
            errors[name] = problems[name]
            continue
        try:
            measured[name] = biomarkers(*(subject.get(key) for key in _FILES))
        except (ValueError, OSError) as error:
            errors[name] = str(error)
    return write_biomarkers(output_dir, measured, errors), errors
