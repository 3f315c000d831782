"""Nested cross-validation: each fold is predicted by a model whose settings it had no part in."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from mrn_components.app.baseline.features import Features
from mrn_components.app.baseline.harmonize import Harmonizer
from mrn_components.app.baseline.models import Recipe, Split, fit, predict
from mrn_components.data import Subject
from mrn_components.data.folds import split_folds, without_group
from mrn_components.data.tables import GROUP
from mrn_components.data.target import Classes, Target

_MOST_INNER = 5  # folds inside a training part; fewer where a class has fewer people


class Fitted(NamedTuple):
    """The model of a fold."""

    fold: int  # from 0
    model: Pipeline
    chosen: dict[str, Any]  # its settings
    subjects: Sequence[str]  # that it predicts
    values: np.ndarray  # of them: what ``target.metrics`` takes


def fit_folds(
    table: Features,
    subjects: Sequence[Subject],
    folds: Mapping[str, Any],
    recipe: Recipe,
    harmonizer: Harmonizer | None = None,
) -> list[Fitted]:
    """Fit a model for each fold to the others, and predict the fold.

    Subjects that the table lacks are in no part, nor those that cannot be harmonised.

    Args:
        table: what a model sees.
        subjects: with labels, and persons where they are known.
        folds: what ``split_folds`` returns.
        recipe: the model.
        harmonizer: what takes the differences between sites out, fitted to the other folds too.

    Raises:
        ValueError: if there are too few subjects of a class to fit to.
    """
    places = {name: place for place, name in enumerate(table.subjects)}
    known = [subject for subject in subjects if subject["subject"] in places]
    label_of = {subject["subject"]: subject["label"] for subject in known}
    pipeline, grid = recipe.pipeline(table.rois, folds["seed"]), recipe.grid(table.rois)
    fitted = []
    for number, members in enumerate(folds["folds"]):
        own = [name for name in members if name in places]
        inside = [subject for subject in known if subject["subject"] not in {*members}]
        seen = table.values
        if harmonizer is not None:
            seen, inside, own = harmonizer.apply(table, inside, own)
            if not own:
                continue
        labels = np.array([label_of[subject["subject"]] for subject in inside])
        splits = inner_splits(inside, recipe.target, folds["seed"])
        for part in (np.arange(len(inside)), *(part for part, _ in splits)):
            _require_classes(labels[part], recipe, number)
        rows = seen[[places[subject["subject"]] for subject in inside]]
        model, chosen = fit(clone(pipeline), grid, rows, labels, splits)
        if own:  # which could all have failed
            values = predict(model, seen[[places[name] for name in own]], recipe.target)
            chosen = {**chosen, "inner_folds": len(splits)}
            fitted.append(Fitted(number, model, chosen, own, values))
    return fitted


def inner_splits(subjects: Sequence[Subject], target: Target, seed: int) -> list[Split]:
    """Split a training part as ``split_folds`` does, in up to five; none of too few people.

    Groups are kept apart where there are two or more.
    """
    if len({subject.get(GROUP) for subject in subjects}) < 2:
        subjects = [without_group(subject) for subject in subjects]
    places = {subject["subject"]: place for place, subject in enumerate(subjects)}
    for count in range(_MOST_INNER, 1, -1):
        try:
            parts = split_folds(subjects, count, seed, target=target)["folds"]
        except ValueError:  # some part would lack a class
            continue
        held_out = [np.array(sorted(places[name] for name in part)) for part in parts]
        return [(np.setdiff1d(np.arange(len(places)), part), part) for part in held_out]
    return []


def _require_classes(labels: np.ndarray, recipe: Recipe, fold: int) -> None:
    """Refuse a training part that a model cannot be fitted to."""
    if not isinstance(recipe.target, Classes):
        return
    counts, least = recipe.target.counts(labels), recipe.least_of_a_class
    fewest = int(np.argmin(counts))
    if counts[fewest] < least:
        raise ValueError(
            f"fold {fold} has {counts[fewest]} subjects with {recipe.target.names[fewest]} for a "
            f"{recipe.title} to be fitted to, expected {least} at least; use more subjects, fewer "
            "folds (--num_folds), or --model logistic."
        )
