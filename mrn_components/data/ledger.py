"""The leakage ledger: whom and what a network was trained on, kept inside its weight files.

A ledger holds salted hashes of what identifies the training subjects (ids, people, voxels of the
images), so that weights tell whether they have seen a given subject, and no list of subjects. It
is no encryption: who guesses an id can confirm it. It also says how large the voxels were.
"""

import hashlib
import logging
import secrets
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel
import numpy as np
from monai.utils import ensure_tuple

from mrn_components.data import DataLeakageError, Subject, identify_subjects
from mrn_components.data.crop_sizes import crop_sizes
from mrn_components.data.identities import Identities
from mrn_components.data.tables import files_of
from mrn_components.data.weight_records import CROP_SIZES, TRAINED_ON, append_record, read_record
from mrn_components.images.boxes import spacing_mm
from mrn_components.regions.roi import ROI
from mrn_components.system.files import existing_file

_logger = logging.getLogger(__name__)
_LIKE = 0.8  # slices of 0.8 times the thickness seen in training, or of 1 / 0.8, are like them
_VOXELS = {  # fields of a ledger: how they are told, and the share of the least that is like them
    "slices_mm": ("slices are {} mm apart", _LIKE),
    "pixels_mm": ("pixels are {} mm wide", 0.0),
}
Range = Sequence[float]  # least and greatest


class Ledger(NamedTuple):
    """What a weight file says of the subjects that it was trained on."""

    salt: str  # of the hashes
    hashes: frozenset[str]  # of all that identifies a subject
    slices_mm: Mapping[str, Range]  # {image: distances of its slices}
    pixels_mm: Mapping[str, Range]  # {image: longer sides of its pixels}


class TrainingLedger:
    """The subjects that a run trains on, as salted hashes; every run has a salt of its own.

    Args:
        subjects: the training subjects.
        identities: what ``identify_subjects`` returns for them.
        rois: what is cropped, so that the weights tell the size of their crops.
    """

    def __init__(
        self,
        *,
        subjects: Sequence[Subject],
        identities: Identities,
        rois: Mapping[str, ROI] | None = None,
    ) -> None:
        marks = (identities[subject["subject"]] for subject in subjects)
        self.marks = frozenset[str]().union(*marks)
        self.ledger = new_ledger(self.marks, *_ranges_of(subjects))
        self.crop_sizes = crop_sizes(rois or {})

    def differs_from(self, path: Path) -> bool:
        """Whether the weights at ``path`` were trained on other subjects, as far as they say."""
        earlier = read_ledger(path)
        return earlier is not None and _hash_marks(self.marks, earlier.salt) != earlier.hashes

    def resume(self, path: Path) -> None:
        """Take over the ledger of the weights at ``path``, which training goes on from."""
        if (earlier := read_ledger(path)) is not None:
            hashes = earlier.hashes | _hash_marks(self.marks, earlier.salt)
            self.ledger = self.ledger._replace(salt=earlier.salt, hashes=hashes)

    def append_to(self, path: Path) -> None:
        """Append the ledger to a file that ``torch.save`` wrote."""
        append_record(path, TRAINED_ON, describe_ledger(self.ledger))
        if self.crop_sizes:
            append_record(path, CROP_SIZES, self.crop_sizes)


def new_ledger(marks: frozenset[str], *ranges: Mapping[str, Range]) -> Ledger:
    """Make a ledger of marks with a salt of its own; without ranges it tells of no voxels."""
    salt = secrets.token_hex(16)
    return Ledger(salt, _hash_marks(marks, salt), *(ranges or ({}, {})))


def describe_ledger(ledger: Ledger) -> dict[str, Any]:
    """Return what ``make_ledger`` makes a ledger of."""
    salt, hashes, *ranges = ledger
    return {"salt": salt, "sha256": sorted(hashes), **dict(zip(_VOXELS, ranges, strict=True))}


def make_ledger(content: Mapping[str, Any]) -> Ledger:
    """Make a ledger of what ``describe_ledger`` returned; a ValueError says that it names none."""
    try:
        ranges = [
            {name: [float(least), float(most)] for name, (least, most) in numbers.items()}
            for numbers in (content.get(key, {}) for key in _VOXELS)  # since 2026-11-26
        ]
        return Ledger(str(content["salt"]), frozenset(map(str, content["sha256"])), *ranges)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(repr(error)) from error


def read_ledger(path: str | Path) -> Ledger | None:
    """Read the ledger of a weight file; None if it carries none."""
    record = read_record(path, TRAINED_ON)
    if record is None:
        return None
    try:
        return make_ledger(record)
    except ValueError as error:
        raise ValueError(
            f"{path}: what it says of its training subjects is damaged ({error}); copy the "
            "weights again, or train anew."
        ) from error


def read_ledgers(ckpt_paths: str | Path | Sequence[str | Path]) -> list[Ledger]:
    """Read the ledgers of one weight file or several; one without a ledger is warned of."""
    hint = "Train first, or name the weights by --ckpt_path FILE."
    ledgers = []
    for path in ensure_tuple(ckpt_paths):
        if ledger := read_ledger(existing_file(path=str(path), hint=hint)):
            ledgers.append(ledger)
        else:
            _logger.warning(
                "%s does not say whom it was trained on: make sure yourself that none of these "
                "subjects is among them before you call this an evaluation.",
                path,
            )
    return ledgers


def find_trained_on(
    subjects: Sequence[Subject], ledgers: Sequence[Ledger], cache_dir: str | Path | None = None
) -> set[str]:
    """Name the subjects whose id, person or voxels of an image are in any of some ledgers.

    The folder ``cache_dir`` remembers the hashes of images; a subject may lack some.
    """
    if not ledgers:
        return set()
    identities = identify_subjects(subjects, cache_dir)
    return {
        name
        for name, marks in identities.items()
        if any(_hash_marks(marks, ledger.salt) & ledger.hashes for ledger in ledgers)
    }


def unlike_voxels(
    spacings: Mapping[str, tuple[float, float]], ledgers: Sequence[Ledger]
) -> list[str]:
    """Say which images of a subject have slices or pixels unlike the training's.

    ``spacings`` has each image's ``spacing_mm``. Finer pixels are like them: crops are resampled.
    """
    texts = []
    for image, spacing in spacings.items():
        for (key, (words, least)), found in zip(_VOXELS.items(), spacing, strict=True):
            seen = [n for ledger in ledgers for n in getattr(ledger, key).get(image, ())]
            if seen and not least * min(seen) <= found <= max(seen) / _LIKE:
                trained = " to ".join(f"{n:.3g}" for n in sorted({min(seen), max(seen)}))
                texts.append(
                    f"{image}: its {words.format(f'{found:.3g}')}, those that the weights were "
                    f"trained on {trained} mm: the prediction may be wrong; resample the image"
                )
    return texts


def check_training_subjects(
    *,
    subjects: Sequence[Subject],
    ckpt_paths: str | Path | Sequence[str | Path],
    evaluation: bool,
    allow: bool = False,
    cache_dir: str | Path | None = None,
) -> set[str]:
    """Name the subjects that the weights were trained on, and refuse to evaluate on them.

    They are those whose id, person or voxels of an image are in a ledger.

    Args:
        subjects: what ``load_subjects`` returns.
        ckpt_paths: one weight file or several. One without a ledger is warned of.
        evaluation: whether metrics are wanted, which training subjects would make too good.
        allow: evaluate on training subjects nevertheless.
        cache_dir: folder that remembers the hashes of images.

    Raises:
        FileNotFoundError: if a weight file is missing.
        DataLeakageError: for an evaluation with training subjects in it, with their names.
    """
    found = find_trained_on(subjects, read_ledgers(ckpt_paths), cache_dir)
    if found and evaluation:
        message = (
            f"these weights were trained on {len(found)} of the {len(subjects)} subjects, by id, "
            f"person or the voxels of an image: {', '.join(sorted(found))}."
        )
        if not allow:
            raise DataLeakageError(
                f"{message} Take them out of the data set (their folders and their lines of the "
                "csv), or evaluate other weights. To see numbers that are too good, add "
                "--allow_training_subjects True."
            )
        _logger.warning("THESE METRICS ARE TOO GOOD: %s", message)
    return found


def _hash_marks(marks: frozenset[str], salt: str) -> frozenset[str]:
    return frozenset(hashlib.sha256(f"{salt} {mark}".encode()).hexdigest() for mark in marks)


def _ranges_of(subjects: Sequence[Subject]) -> Iterator[dict[str, Range]]:
    """Ranges of the slices' distances and of the pixels' longer sides, of each image, in mm."""
    found = defaultdict(list)
    for subject in subjects:
        for key, path in files_of(subject).items():
            if not key.startswith("mask_"):
                header: Any = nibabel.load(path)
                found[key].append(np.round(spacing_mm(header.affine), 4).tolist())
    for i in range(2):
        numbers = {key: [spacing[i] for spacing in spacings] for key, spacings in found.items()}
        yield {key: (min(each), max(each)) for key, each in numbers.items()}
