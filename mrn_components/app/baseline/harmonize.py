"""ComBat between sites, fitted inside a training part."""

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.impute import SimpleImputer

from mrn_components.app.baseline.features import Features
from mrn_components.data import Subject
from mrn_components.data.target import Classes, Target

LEAST = 3  # subjects that a site is known by


@dataclass(frozen=True, kw_only=True)
class Harmonizer:
    """Takes differences of mean and spread between sites out of a table, by ComBat.

    They are estimated on a training part alone, of two classes on its subjects without the disease:
    a site with more patients would lose a part of the disease otherwise. Nothing is said of a site
    of which the training part has fewer than three of these.

    Args:
        site_of: {subject: site}.
        target: what the labels are.
    """

    site_of: Mapping[str, str]
    target: Target

    def apply(
        self, table: Features, training: Sequence[Subject], held_out: Sequence[str]
    ) -> tuple[np.ndarray, list[Subject], list[str]]:
        """Return the harmonised table (subjects, columns), and which of both parts it is of.

        Rows of other subjects are NaN.

        Raises:
            RuntimeError: without combatlearn.
        """
        healthy = [s["subject"] for s in training if not self._is_patient(s)]
        counts = Counter(self.site_of[name] for name in healthy)
        known = {site for site, count in counts.items() if count >= LEAST}
        fitted_on = [name for name in healthy if self.site_of[name] in known]
        kept = [s for s in training if self.site_of[s["subject"]] in known]
        predicted = [name for name in held_out if self.site_of[name] in known]
        values = np.full(table.values.shape, np.nan)
        names = [*(s["subject"] for s in kept), *predicted]
        if len(known) > 1 and predicted:
            rows = [table.subjects.index(name) for name in names]
            values[rows] = self._combat(table, fitted_on, names)
        elif known and predicted:  # one site has nothing to be harmonised with
            rows = [table.subjects.index(name) for name in names]
            values[rows] = table.values[rows]
        return values, kept, predicted

    def _is_patient(self, subject: Subject) -> bool:
        target = self.target
        if not isinstance(target, Classes) or not target.is_binary:
            return False
        return subject["label"] == target.number

    def _combat(
        self, table: Features, fitted_on: Sequence[str], names: Sequence[str]
    ) -> np.ndarray:
        try:
            import pandas as pd
            from combatlearn import ComBat
        except ImportError as error:
            raise RuntimeError(
                '--harmonize needs combatlearn: pip install "mrn-components[harmonize]".'
            ) from error
        place = {name: number for number, name in enumerate(table.subjects)}
        own, fit = (table.values[[place[name] for name in some]] for some in (names, fitted_on))
        imputer = SimpleImputer(strategy="median", keep_empty_features=True).fit(fit)
        # What does not vary at a site has no spread to be compared.
        sites = np.array([self.site_of[name] for name in fitted_on])
        varies = np.all(
            [np.ptp(imputer.transform(fit[sites == s]), axis=0) > 0 for s in set(sites)], 0
        )
        model = ComBat(pd.Series(dict(self.site_of)), method="fortin")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # sites of unlike sizes
            model.fit(pd.DataFrame(imputer.transform(fit)[:, varies], index=list(fitted_on)))
        harmonised = own.copy()
        filled = pd.DataFrame(imputer.transform(own)[:, varies], index=list(names))
        harmonised[:, varies] = model.transform(filled).to_numpy()
        return np.where(np.isnan(own), np.nan, harmonised)
