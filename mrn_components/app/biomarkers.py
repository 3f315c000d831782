"""``mrn biomarkers``: measure the nuclei of every subject in a folder."""

from pathlib import Path

from mrn_components.biomarkers import biomarkers, write_biomarkers
from mrn_components.data import IMAGES, MASKS, Subject, load_subjects
from mrn_components.system.errors import FailedSubjectsError


def measure_subjects(
    input: str | Path,  # noqa: A002  `mrn biomarkers INPUT OUTPUT` reads as users write it
    output: str | Path,
) -> Path:
    """Measure each nucleus without a network: volume, iron, neuromelanin (research use only).

    Writes ``biomarkers.csv``, a row a subject, and ``biomarkers.md``, which explains its columns.

    A subject that cannot be measured is a row with its error, and the others go on. An image or a
    mask may be absent: its cells are empty.

    Args:
        input: folder of subjects in the challenge's layout, with masks; or a JSON datalist.
        output: folder of the results.

    Returns:
        The path of ``biomarkers.csv``.

    Raises:
        FileNotFoundError: if there are no subjects.
        ValueError: for a faulty datalist.
        FailedSubjectsError: at the end, if subjects failed; names them and the reasons.
    """
    measured, errors = {}, {}
    for subject in _subjects(Path(input)):
        name = subject["subject"]
        try:
            measured[name] = biomarkers(*_sources(subject))
        except (ValueError, OSError) as error:
            errors[name] = str(error)
    table = write_biomarkers(output, measured, errors)
    if errors:
        lines = "\n".join(f"  {subject}: {error}" for subject, error in errors.items())
        raise FailedSubjectsError(
            f"{len(errors)} of {len(errors) + len(measured)} subjects failed; the others are in "
            f"{table}.\n{lines}"
        )
    return table


def _subjects(root: Path) -> list[Subject]:
    """Subjects with whatever files they have, sorted."""
    if root.is_file() or not root.exists():
        return load_subjects(root, require_labels=False)
    subjects = []
    for folder in sorted(root.iterdir()):
        files = {key: folder / name for key, name in (IMAGES | MASKS).items()}
        found = {key: str(path) for key, path in files.items() if path.is_file()}
        if found and not folder.name.startswith("."):
            subjects.append({"subject": folder.name, **found})
    if not subjects:
        raise FileNotFoundError(
            f"{str(root)!r} has no subjects; expected {root}/SUBJECT/"
            f"{{{','.join((IMAGES | MASKS).values())}}}."
        )
    return subjects


def _sources(subject: Subject) -> list[str | None]:
    if not any(key in subject for key in MASKS):
        raise ValueError(
            f"{subject['subject']} has neither {' nor '.join(MASKS.values())}, in which to "
            "measure; draw them, or let a network segment them."
        )
    return [subject.get(key) for key in (*IMAGES, *MASKS)]
