"""The subjects of a table's rows: phantoms, or data sets that are given."""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mrn_components.app.paper import Cohort
from mrn_components.data import Subject, load_subjects
from mrn_components.phantom import make_cohort
from mrn_components.system.files import write_text

Scale = Literal["small", "paper"]

_NUM_SUBJECTS = {"training": 96, "test": 80}  # synthetic ones, at the small scale


@dataclass(frozen=True, kw_only=True)
class Data:
    """The subjects of a row."""

    training: Path  # data set to train on
    test: Path  # data set to score on
    labels: Path | None = None  # csv of the labels to train with, where the data set's are others
    test_labels: Path | None = None  # the same to score with

    def test_subjects(self) -> list[Subject]:
        """The subjects to score on, with labels."""
        return load_subjects(self.test, self.test_labels)


def make_data(
    scale: Scale,
    folder: Path,
    cohorts: Iterable[Cohort],
    given: tuple[str | None, str | None],
    effect: float,
) -> dict[Cohort, Data]:
    """Make phantoms to train and to score on; at the scale "paper" take the data sets given.

    The ``folder`` gets the phantoms, of which those that are there stay, and shuffled labels. Of
    patients there is no cohort without an effect.
    """
    if scale == "small":
        return {cohort: _synthetic(cohort, folder, effect) for cohort in sorted(set(cohorts))}
    if scale != "paper":
        raise ValueError(f"scale must be 'small' or 'paper', got {scale!r}.")
    training, test = given
    if training is None or test is None:
        raise ValueError(
            "scale 'paper' trains on your data: name the subjects to train on by --dataset_dir DIR "
            "and those to score on by --test_dir DIR."
        )
    return {
        cohort: _with_labels(cohort, folder, Path(training), Path(test))
        for cohort in sorted(set(cohorts) - {"null"})
    }


def _synthetic(cohort: Cohort, folder: Path, effect: float) -> Data:
    size = 0.0 if cohort == "null" else effect
    training, test = (
        make_cohort(
            folder / f"{part}-effect{size:g}",
            subjects=subjects,
            seed=seed,
            effect=size,
            view="midbrain",
        )
        for seed, (part, subjects) in enumerate(_NUM_SUBJECTS.items(), start=1)
    )
    return _with_labels(cohort, folder, training, test)


def _with_labels(cohort: Cohort, folder: Path, training: Path, test: Path) -> Data:
    if cohort != "shuffled":
        return Data(training=training, test=test)
    # Both are shuffled: a network trained on noise may still rank the largest difference there is.
    tables = [(folder / f"{part}-shuffled.csv").absolute() for part in _NUM_SUBJECTS]
    for dataset, table in zip((training, test), tables, strict=True):
        subjects = load_subjects(dataset)
        labels = [subject["label"] for subject in subjects]
        random.Random(1).shuffle(labels)  # the same order at each call
        rows = zip(subjects, labels, strict=True)
        write_text(table, "".join(f"{subject['subject']},{label}\n" for subject, label in rows))
    return Data(training=training, test=test, labels=tables[0], test_labels=tables[1])
