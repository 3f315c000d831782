"""The cohorts that the rows of a table are trained and scored on."""

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


def synthetic_data(folder: Path, cohorts: Iterable[Cohort], effect: float) -> dict[Cohort, Data]:
    """Make phantoms in a folder to train and to score on; those that are there already stay."""
    data: dict[Cohort, Data] = {}
    for cohort in sorted(set(cohorts)):
        size = 0.0 if cohort == "null" else effect
        paths = {
            part: make_cohort(
                folder / f"{part}-effect{size:g}",
                subjects=_NUM_SUBJECTS[part],
                seed=seed,
                effect=size,
                view="midbrain",
            )
            for seed, part in enumerate(_NUM_SUBJECTS, start=1)
        }
        data[cohort] = _with_labels(cohort, folder, **paths)
    return data


def given_data(
    folder: Path, cohorts: Iterable[Cohort], training: Path, test: Path
) -> dict[Cohort, Data]:
    """Describe data sets of patients; of the controls, only shuffled labels can be made of them.

    The folder gets the shuffled labels.
    """
    return {
        cohort: _with_labels(cohort, folder, training, test)
        for cohort in sorted(set(cohorts) - {"null"})
    }


def _with_labels(cohort: Cohort, folder: Path, training: Path, test: Path) -> Data:
    if cohort != "shuffled":
        return Data(training=training, test=test)
    # Both are shuffled: a network trained on noise may still rank the largest difference there is.
    return Data(
        training=training,
        test=test,
        labels=_shuffle_labels(training, folder / "training-shuffled.csv"),
        test_labels=_shuffle_labels(test, folder / "test-shuffled.csv"),
    )


def _shuffle_labels(dataset: Path, table: Path) -> Path:
    """Write the labels of a data set in random order, the same at each call."""
    subjects = load_subjects(dataset)
    labels = [subject["label"] for subject in subjects]
    random.Random(1).shuffle(labels)
    rows = zip(subjects, labels, strict=True)
    write_text(table, "".join(f"{subject['subject']},{label}\n" for subject, label in rows))
    return table.absolute()
