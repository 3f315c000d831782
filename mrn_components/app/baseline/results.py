"""What ``mrn baseline`` writes, in the files of ``mrn crossval``, with a model's coefficients."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mrn_components.app.baseline.features import Features
from mrn_components.app.baseline.models import Recipe, coefficients
from mrn_components.app.baseline.nested import Fitted
from mrn_components.app.out_of_fold import write_out_of_fold
from mrn_components.checks.groups import GroupTest
from mrn_components.data.target import Classes, Score, Target
from mrn_components.system.files import csv_text, write_text

_COEFFICIENTS = "coefficients.csv"
_NUM_NAMED = 3  # columns that a flag names
_NOTE = "Penalties and other settings were chosen inside each training part, by {loss}."


def write_results(
    output: Path,
    fitted: Sequence[Fitted],
    table: Features,
    labels: Mapping[str, float],
    *,
    recipe: Recipe,
    title: str,
    group_by: str | None = None,
    groups: Mapping[str, str] | None = None,
    told: GroupTest | None = None,
) -> str:
    """Write ``out_of_fold.csv``, ``crossval.json`` and ``coefficients.csv``; return the metrics.

    Args:
        output: folder of the files.
        fitted: the folds.
        table: what the models saw.
        labels: {subject: label}.
        recipe: of the models.
        title: of the model and what it sees.
        group_by: column that subjects are grouped by, such as site.
        groups: {subject: its value there}.
        told: whether it can be told from the table.
    """
    target = recipe.target
    (output / _COEFFICIENTS).unlink(missing_ok=True)  # of another model
    if recipe.kind == "logistic":
        rows = [row for fold in fitted for row in _coefficients(fold, table, target)]
        write_text(output / _COEFFICIENTS, csv_text(rows, floats=".10g"))
    loss = "squared error" if isinstance(target, Score) else "cross entropy"
    further: dict[str, Any] = {
        "model": title,
        "features": len(table.columns),
        "chosen": [{"fold": fold.fold, **_plain(fold.chosen)} for fold in fitted],
        "loss": loss,
        "note": _NOTE.format(loss=loss),
    }
    if told is not None:
        further |= {"group_test": {**asdict(told), "words": f"The {group_by} {told}."}}
    cells = [row for fold in fitted for row in _rows(fold, table, labels, target)]
    if groups:
        cells = [row | {str(group_by): groups[row["subject"]]} for row in cells]
    column = group_by if groups else None
    text = write_out_of_fold(output, cells, labels, target, further, group_by=column)
    return "\n".join([title, text, *([] if told is None else [further["group_test"]["words"]])])


def _rows(
    fold: Fitted, table: Features, labels: Mapping[str, float], target: Target
) -> Iterator[dict[str, Any]]:
    """Yield the cells of each subject of a fold."""
    for name, value in zip(fold.subjects, fold.values.tolist(), strict=True):
        values = value if isinstance(value, list) else [value]
        cells = dict(zip(target.columns, values, strict=True))
        row = {"subject": name, "fold": fold.fold, **cells, **target.decide(cells)}
        if missing := table.missing(name):
            row["flags"] = [_flag(missing, len(table.columns))]
        yield {**row, "label": target.shown(labels[name]), "value": value}


def _flag(missing: Sequence[str], count: int) -> str:
    named = ", ".join(missing[:_NUM_NAMED]) + ", ..." * (len(missing) > _NUM_NAMED)
    return f"{len(missing)} of {count} numbers are missing, the training's medians used: {named}"


def _coefficients(fold: Fitted, table: Features, target: Target) -> Iterator[dict[str, Any]]:
    """Yield a line a coefficient: it multiplies (the number or ``imputed`` - mean) / scale."""
    intercepts, found = coefficients(fold.model)
    imputed = fold.model["impute"].statistics_
    scaler = fold.model["scale"]
    names = [target.lead] if len(found) == 1 else target.columns
    # Of two classes scikit-learn's coefficients speak of the second.
    sign = -1.0 if isinstance(target, Classes) and target.is_binary and not target.number else 1.0
    for name, intercept, own in zip(names, intercepts, found, strict=True):
        head = {"fold": fold.fold, "of": name}
        empty = dict.fromkeys(("roi", "imputed", "mean", "scale"))
        yield {**head, "column": "intercept", **empty, "coefficient": sign * intercept}
        for place, column in enumerate(table.columns):
            yield {
                **head,
                "column": column,
                "roi": table.rois[place],
                "imputed": imputed[place],
                "mean": scaler.mean_[place],
                "scale": scaler.scale_[place],
                "coefficient": sign * own[place],
            }


def _plain(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings under their last names, in types of JSON."""
    plain = {key.rpartition("__")[2]: value for key, value in chosen.items()}
    return {key: np.asarray(value).tolist() for key, value in plain.items()}
