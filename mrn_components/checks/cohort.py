"""Checks of a cohort: one image under two names, the balance of the classes, and confounds.

Confounds are baselines that see no voxel: what headers and tables, or the crops' outlines, tell of
the labels.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mrn_components.checks.subject import Examination
from mrn_components.images.boxes import Box
from mrn_components.images.finding import Finding, finding

Corners = Box | tuple[Sequence[int], Sequence[int]]

_MIN_CLASS = 5  # people of a class, for five folds (section 4.1.1)
_MIN_SHARE = 0.1  # of the rarer class
_MAX_AUC = 0.65
_NUM_FOLDS = 5
_Z = 1.64  # of 5 %, one-sided
_NUM_NAMED = 3


def duplicate_findings(
    examinations: Iterable[Examination], people: Mapping[str, str]
) -> Iterator[Finding]:
    """Find images that stand under several subjects, as deep examinations tell.

    The bytes of the files tell copies, the voxels also copies that were compressed, typed or turned
    anew. Scans of one person may share an image: ``people`` is {subject: person}.
    """
    examinations = list(examinations)
    reported: set[tuple[str, ...]] = set()
    for kind in ("file", "voxels"):
        owners: dict[tuple[str, str], list[str]] = defaultdict(list)
        for examination in examinations:
            for image, hashes in examination.hashes.items():
                owners[image, hashes[kind]].append(examination.subject)
        for (image, _), names in owners.items():
            several = len({people.get(name, name) for name in names}) > 1
            if several and (image, *names) not in reported:
                reported.add((image, *names))
                same = "bytes" if kind == "file" else "voxels"
                found = f"the same {same} of {image.upper()} in {', '.join(names)}"
                yield finding(f"duplicate-{kind}", "", found, subject=names[0])


def class_findings(
    people: Iterable[tuple[str, int]], names: Sequence[str] = ("HC", "PD")
) -> Iterator[Finding]:
    """Check that every class has enough people, given the person and class of each subject."""
    people = set(people)
    counts = [sum(label == wanted for _, label in people) for wanted in range(len(names))]
    first, *others, last = [f"{n} with {name}" for n, name in zip(counts, names, strict=True)]
    found = f"{', '.join([first.replace(' with', ' people with', 1), *others])} and {last}"
    if people and min(counts) < _MIN_CLASS:
        kind = "few-people" if min(counts) else "one-class"
        yield finding(kind, "", found, least=_MIN_CLASS)
    elif people and min(counts) < _MIN_SHARE * sum(counts):
        yield finding("imbalance", "", found, share=_MIN_SHARE)


@dataclass(frozen=True, kw_only=True)
class Confounds:
    """How well a regression that sees no voxel tells the label."""

    auc: float | None  # ROC AUC of a cross-validated logistic regression, where there is one
    fields: dict[str, float]  # those that tell most alone, with their AUC (0.5 to 1), best first
    reason: str  # why ``auc`` is None, or what it rests on

    def __str__(self) -> str:
        """Return the AUC and what it rests on."""
        return f"AUC {'undefined' if self.auc is None else f'{self.auc:.2f}'} ({self.reason})"


def confound_baseline(
    fields: Sequence[Mapping[str, float | str]], labels: Sequence[int]
) -> Confounds:
    """Fit a logistic regression to everything but the voxels.

    Args:
        fields: of each subject, {"nm spacing x": 0.667, "site": "A", ...}.
        labels: number of each one's class. Of more than two the AUC is the mean of each class
            against the rest.
    """
    truth = np.array(labels)
    counts = np.unique(truth, return_counts=True)[1]
    if len(counts) < 2 or min(counts) < _NUM_FOLDS:
        return Confounds(auc=None, fields={}, reason=f"fewer than {_NUM_FOLDS} of a class")
    vectorizer = DictVectorizer(sparse=False)
    table = vectorizer.fit_transform([dict(row) for row in fields])
    names = np.array(vectorizer.get_feature_names_out())
    varies = np.ptp(table, axis=0) > 0
    table, names = table[:, varies], names[varies]
    if not len(names):
        return Confounds(auc=0.5, fields={}, reason="all subjects are alike")
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    folds = StratifiedKFold(_NUM_FOLDS, shuffle=True, random_state=1)
    scores = cross_val_predict(model, table, truth, cv=folds, method="predict_proba")
    scores = scores[:, 1] if len(counts) == 2 else scores
    alone = [_alone(truth, column) for column in table.T]
    best = sorted(zip(alone, names, strict=True), key=lambda pair: (-pair[0], pair[1]))
    return Confounds(
        auc=float(roc_auc_score(truth, scores, multi_class="ovr")),
        fields={str(name): round(float(auc), 3) for auc, name in best[:_NUM_NAMED]},
        reason=f"{len(names)} fields that differ between subjects",
    )


def geometry_baseline(
    boxes: Sequence[Mapping[str, Corners]], labels: Sequence[int]
) -> Confounds | None:
    """Fit the same regression to the sizes and places of the crops alone; None without boxes.

    A network must beat it: one that does not may have seen no more than the outlines of masks.

    Args:
        boxes: of each subject, the voxels [start, stop) that each ROI crops. Subjects that lack an
            ROI which others have are left out.
        labels: number of each one's class.
    """
    rois = {roi for own in boxes for roi in own}
    whole = [index for index, own in enumerate(boxes) if own and own.keys() == rois]
    if not whole:
        return None
    fields = [geometry_fields(boxes[index]) for index in whole]
    found = confound_baseline(fields, [labels[index] for index in whole])
    left_out = len(boxes) - len(whole)
    return replace(found, reason=found.reason + f"; {left_out} left out" * bool(left_out))


def geometry_fields(boxes: Mapping[str, Corners]) -> dict[str, float]:
    """Return the size and the place of each ROI's crop along each axis, in voxels."""
    fields = {}
    for roi, (start, stop) in boxes.items():
        for axis, first, last in zip("xyz", start, stop, strict=True):
            fields[f"{roi} size {axis}"] = float(last - first)
            fields[f"{roi} place {axis}"] = (first + last) / 2
    return fields


def _alone(truth: np.ndarray, column: np.ndarray) -> float:
    """The AUC of a field for the class that it tells best, in either direction."""
    aucs = [roc_auc_score(truth == number, column) for number in np.unique(truth)[1:]]
    return max(max(auc, 1 - auc) for auc in aucs)


def confound_findings(confounds: Confounds, labels: Sequence[int]) -> Iterator[Finding]:
    """Warn where headers and tables tell the label better than chance explains."""
    if confounds.auc is None:
        return
    positives = int(min(np.unique(labels, return_counts=True)[1]))  # of the rarest class
    negatives = len(labels) - positives
    # Deviation of the AUC of scores that know nothing (Mann-Whitney).
    chance = math.sqrt((positives + negatives + 1) / (12 * positives * negatives))
    if confounds.auc > max(_MAX_AUC, 0.5 + _Z * chance):
        named = ", ".join(f"{name} ({auc:.2f} alone)" for name, auc in confounds.fields.items())
        found = f"an AUC of {confounds.auc:.2f} for the label by headers alone: {named}"
        yield finding("confound", "", found, auc=_MAX_AUC)
