"""A row without a network: a regression on a few numbers of each subject (``mrn baseline``)."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from mrn_components.app.baseline.features import (
    FeatureKind,
    Features,
    Measured,
    measure,
    roi_by_column,
)
from mrn_components.app.baseline.models import ModelKind, Recipe
from mrn_components.app.baseline.nested import fit_folds
from mrn_components.app.check import parts_of
from mrn_components.app.measuring import measure_each, raise_failed
from mrn_components.app.reproduce.cohorts import Data
from mrn_components.data import load_subjects
from mrn_components.data.folds import select_fold, split_folds
from mrn_components.data.identities import check_disjoint, identify_subjects
from mrn_components.data.layouts import Need, find_subjects
from mrn_components.data.predictions import PREDICTIONS, write_predictions
from mrn_components.data.target import HC_PD
from mrn_components.phantom import latent_values
from mrn_components.system.files import lock


@dataclass(frozen=True, kw_only=True)
class RegressionRun:
    """A regression that is fitted to what the networks of the other rows are trained on.

    It is called as a ``BundleRun`` is, in this process.
    """

    name: str  # what messages call it
    folder: Path
    data: Data
    features: FeatureKind | Literal["latent"]  # latent: what phantoms were made of
    model: ModelKind
    seed: int  # of the folds, whose first is left out
    num_folds: int
    cache_dir: Path  # remembers the hashes of the images

    @property
    def predictions(self) -> Path:
        """The table of the predicted subjects."""
        return self.folder / "test" / PREDICTIONS

    def state(self) -> Literal["start", "done"]:
        """What is to be done next, by the files that are there."""
        return "done" if self.predictions.is_file() else "start"

    def run(self, show: bool = False) -> None:  # noqa: ARG002  as a BundleRun
        """Fit, predict and write the table, if that is left to do."""
        with lock(self.folder):
            if self.state() == "done":
                return
            subjects = load_subjects(self.data.training, self.data.labels)
            folds = split_folds(subjects, self.num_folds, self.seed)
            training, test = select_fold(subjects, folds, 0, "training"), self.data.test_subjects()
            names = [subject["subject"] for subject in test]
            both = [[subject["subject"] for subject in training], names]
            identities = identify_subjects([*training, *test], self.cache_dir)
            check_disjoint(both, identities, self.data.test)
            table = _measured(self.features, self.data.training, self.data.test)
            recipe = Recipe(kind=self.model, target=HC_PD)
            (fitted,) = fit_folds(
                table, [*training, *test], {"seed": self.seed, "folds": [names]}, recipe
            )
            rows = [
                {
                    "subject": name,
                    "status": "ok",
                    "prob_pd": prob,
                    **HC_PD.decide({"prob_pd": prob}),
                }
                for name, prob in zip(fitted.subjects, fitted.values.tolist(), strict=True)
            ]
            write_predictions(self.predictions, rows, HC_PD)


@lru_cache(maxsize=8)
def _measured(features: FeatureKind | Literal["latent"], training: Path, test: Path) -> Features:
    """What is seen of the subjects of both data sets, which several rows and seeds share."""
    if features == "latent":
        values = latent_values(training) | latent_values(test)
        columns = next(iter(values.values()))
        return Features.of(values, {column: column.split("_")[0] for column in columns})
    images, rois, _ = parts_of(None)
    measured: dict[str, Measured] = {}
    for root in (training, test):
        found = find_subjects(root, images, need=Need(images="given", masks="some", labels="none"))
        numbers, errors = measure_each(
            found, images, lambda read: measure(features, read.volumes, images, rois)
        )
        raise_failed(errors, len(numbers), root)
        measured |= numbers
    return Features.of(measured, roi_by_column(features, images, rois))
