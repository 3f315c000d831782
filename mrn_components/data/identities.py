"""What tells that two subjects are one person (their folds must not differ)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mrn_components.data.tables import Subject, files_of, person_of
from mrn_components.images.finding import FaultyFileError
from mrn_components.images.volume import Volume, read_volume
from mrn_components.system.files import file_hash, remembered_hash
from mrn_components.system.logs import bar

Identities = Mapping[str, frozenset[str]]  # subject: {"id SUBJ_000", "image 9f86d0...", ...}


class DataLeakageError(ValueError):
    """Training and evaluation share a subject, or two scans of one person."""


def identify_subjects(
    subjects: Sequence[Subject], cache_dir: str | Path | None = None
) -> dict[str, frozenset[str]]:
    """Collect ``{subject: {"id SUBJ_000", "image 9f86d0...", ...}}``, the marks of each subject.

    Two subjects with a mark in common are one person. Marks are the subject's id, the person's name
    where the data set has it, and the hash of each image's voxels, which compressing anew, another
    integer type or another order of the axes leave as it is.

    Args:
        subjects: what ``load_subjects`` returns; volumes that were read may stand for paths.
        cache_dir: folder that remembers the hashes of unchanged files; None reads every image.
    """
    memo_dir = None if cache_dir is None else Path(cache_dir) / "digests"
    identities = {}
    for subject in bar(subjects, "Identities"):
        identities[subject["subject"]] = marks_of(subject, memo_dir)
    return identities


def marks_of(subject: Subject, memo_dir: Path | None = None) -> frozenset[str]:
    """Collect the marks of one subject; the folder ``memo_dir`` remembers the hashes of files."""
    ids = {f"id {subject['subject']}", f"id {person_of(subject)}"}
    keys = files_of(subject, masks=False)
    return frozenset(ids | {f"image {_voxel_hash(subject[key], memo_dir)}" for key in keys})


def check_disjoint(folds: Sequence[Sequence[str]], identities: Identities, path: Path) -> None:
    """Refuse folds, lists of subjects, that share a person, by a DataLeakageError that names them.

    It tells to delete the file ``path`` of the folds.
    """
    seen: dict[str, tuple[str, int]] = {}  # mark: first subject, its fold
    shared = []
    for number, members in enumerate(folds):
        for name in members:
            for mark in sorted(identities.get(name, ())):
                other, fold = seen.setdefault(mark, (name, number))
                if fold != number:
                    shared.append(f"  {other} (fold {fold}) and {name} (fold {number}): {mark}")
    if shared:
        raise DataLeakageError(
            f"{len(shared)} times two folds share a person, by name or by the voxels of an image:\n"
            + "\n".join(shared)
            + "\nGive both subjects one name in a third column of the csv (case_id,label,person)"
            + (f", and delete {path} to split again." if path.is_file() else ".")
        )


def _voxel_hash(source: Volume | str | Path, memo_dir: Path | None) -> str:
    if isinstance(source, Volume):
        return source.voxel_hash
    if memo_dir is None:
        return _read_and_hash(Path(source))
    return remembered_hash(Path(source), memo_dir, _read_and_hash, "turned voxels|")


def _read_and_hash(path: Path) -> str:
    try:
        return read_volume(path).voxel_hash
    except FaultyFileError:  # the transform that reads it says what is wrong with it
        return file_hash(path)
