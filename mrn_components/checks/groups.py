"""Whether the group of a subject, such as its site, can be told from numbers that a model sees."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, permutation_test_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

_NUM_FOLDS = 5
_NUM_SHUFFLES = 99
_SIGNIFICANCE = 0.05


@dataclass(frozen=True, kw_only=True)
class GroupTest:
    """How well a regression tells the group, and how well it tells shuffled groups."""

    accuracy: float | None  # balanced, of a cross-validated logistic regression
    shuffled: float | None  # mean over shuffled groups
    p: float | None  # share of shuffles, the groups themselves included, that are told as well
    reason: str  # why there is none, or what it rests on

    def __str__(self) -> str:
        """Return in words what was found."""
        if self.accuracy is None or self.p is None:
            return f"no test: {self.reason}"
        told = "can be told" if self.p <= _SIGNIFICANCE else "is not seen to be told"
        return (
            f"{told}: balanced accuracy {self.accuracy:.2f}, of shuffled groups "
            f"{self.shuffled:.2f} (p = {self.p:.2f}; {self.reason})"
        )


def tell_groups(
    values: np.ndarray, groups: Sequence[str], labels: Sequence[Any], people: Sequence[str]
) -> GroupTest:
    """Tell the groups of subjects from numbers by a cross-validated logistic regression.

    Groups are shuffled among subjects of one label, so that a disease that is more frequent at a
    site does not make the site look told. Of a person's scans the first counts.

    Args:
        values: (N, columns); NaN where a subject lacks one.
        groups: of each subject, such as its site.
        labels: of each subject: its class, or a part of the scores' range.
        people: who each subject is.
    """
    _, first = np.unique(list(people), return_index=True)
    first.sort()
    table, names, strata = values[first], np.array(groups)[first], np.array(labels)[first]
    known, counts = np.unique(names, return_counts=True)
    if len(known) < 2 or counts.min() < _NUM_FOLDS:
        reason = f"needs two groups of {_NUM_FOLDS} people at least"
        return GroupTest(accuracy=None, shuffled=None, p=None, reason=reason)
    model = make_pipeline(
        SimpleImputer(strategy="median", keep_empty_features=True),
        StandardScaler(),
        LogisticRegression(C=0.1, max_iter=1000),
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The groups parameter is ignored")  # they are strata here
        accuracy, shuffled, p = permutation_test_score(
            model,
            table,
            names,
            groups=strata,
            cv=StratifiedKFold(_NUM_FOLDS, shuffle=True, random_state=1),
            n_permutations=_NUM_SHUFFLES,
            scoring="balanced_accuracy",
            random_state=1,
        )
    return GroupTest(
        accuracy=float(accuracy),
        shuffled=float(shuffled.mean()),
        p=float(p),
        reason=f"{len(known)} groups, {len(names)} people, {_NUM_SHUFFLES} shuffles within labels",
    )
