"""Tables of predictions: what a network's output becomes, written and read; and tables of labels.

The columns of ``predictions.csv``, those that there are, in this order:

- ``subject``; ``fold``, whose network predicts it; ``status``, "ok", "abstained" or "failed";
- the target's: ``prob_pd``, 0 to 1, of HC and PD; of more classes one each; or a score;
- ``class``: of two classes the number, 1 where the probability is above 0.5; of more the name;
- of an ensemble with a calibration ``prob_pd_calibrated``, what P(PD) is worth by subjects that
  the networks did not learn from; ``set``, the classes that the subject may have, "{HC}", "{HC;PD}"
  or "{}", at the level ``set_level``; of a score, such as ``updrs``, in the set's place the ends of
  an interval, ``updrs_low`` and ``updrs_high``;
- of an ensemble ``prob_pd_fold0``, ``prob_pd_fold1``, ...; ``fold_agreement``, the share of folds
  whose class is the ensemble's; ``fold_std``, the standard deviation of the folds' P(PD), of the
  positive class, or of the score;
- with test-time augmentation ``tta_std``, the same of the views;
- ``unlike_training``, 0 to 1: the share of subjects outside the training that lie nearer to the
  training's, in the network's representation;
- ``trained_on``, 1 for a subject that the weights, or the calibration, were fitted to, else 0;
- ``mask_source``; ``missing_rois``, the masked ROIs with ";" between them; ``flags``, with "; "
  between the texts; ``error``, why a subject failed;
- ``label`` where known, and after it what a cross-validation was grouped by, such as ``site``.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mrn_components.data.identities import DataLeakageError
from mrn_components.data.tables import find_labels, read_rows
from mrn_components.data.target import HC_PD, Score, Target, write_target
from mrn_components.system.files import csv_text, write_text

PREDICTIONS = "predictions.csv"
OUT_OF_FOLD = "out_of_fold.csv"  # of a cross-validation

_NOT_TRAINED_ON = ("", "0", "0.0", "false")
_SEPARATORS = {"missing_rois": ";", "flags": "; "}


def prediction(target: Target, output: Mapping[str, Any], index: int) -> dict[str, Any]:
    """Return what is predicted of a subject: columns and their cells, folds as lists.

    ``output`` is what ``DiagnosisOutputd`` makes of a batch, ``index`` the subject's place in it.
    """
    row: dict[str, Any] = {name: float(output[name][index]) for name in target.columns}
    check_finite(target, row.values())
    row |= target.decide(row)
    if f"{target.lead}_folds" in output:
        folds = {name: output[f"{name}_folds"][index] for name in target.columns}
        row |= {f"{name}_folds": values.tolist() for name, values in folds.items()}
        if "class" in row:
            by_fold = zip(*(row[f"{name}_folds"] for name in folds), strict=True)
            decisions = [target.decide(dict(zip(folds, values, strict=True))) for values in by_fold]
            agree = [decision["class"] == row["class"] for decision in decisions]
            row["fold_agreement"] = sum(agree) / len(agree)
        row["fold_std"] = float(folds[target.lead].std(correction=0))
    if f"{target.lead}_views" in output:
        row["tta_std"] = float(output[f"{target.lead}_views"][index].std(correction=0))
    return row


def check_finite(target: Target, values: Iterable[float]) -> None:
    """Refuse a prediction that is no number, by a ValueError with the likely cause."""
    if wrong := [value for value in values if not math.isfinite(value)]:
        raise ValueError(
            f"{target.title} is {wrong[0]}: the weights are damaged, or the network diverged while "
            "it was trained; look at the curves of its run, and use other weights."
        )


def write_predictions(
    path: Path, rows: Sequence[Mapping[str, Any]], target: Target, further: Sequence[str] = ()
) -> None:
    """Write a table of what ``prediction`` returns, and beside it what the target is.

    ``further`` are columns at its end, such as ``site``.
    """
    flat = [_flat(row, target) for row in rows]
    found = dict.fromkeys(key for row in flat for key in row)
    columns = ["subject", "fold", "status", *target.columns, "class"]
    columns += [*map(calibrated, target.columns), "set", *interval_columns(target), "set_level"]
    columns += [key for key in found if "_fold" in key and key.rpartition("_fold")[2].isdigit()]
    columns += ["fold_agreement", "fold_std", "tta_std", "unlike_training", "trained_on"]
    columns += ["mask_source"]
    columns += [*_SEPARATORS, "error", "label", *further]
    write_text(path, csv_text(flat, [key for key in columns if key in found]))
    write_target(path.parent, target)


def _flat(row: Mapping[str, Any], target: Target) -> dict[str, Any]:
    """Return a row with a cell for each fold, and lists as texts."""
    flat = dict(row)
    by_fold = zip(*(row.get(f"{name}_folds", ()) for name in target.columns), strict=True)
    for fold, values in enumerate(by_fold):
        columns = [f"{name}_fold{fold}" for name in target.columns]
        flat |= dict(zip(columns, values, strict=True))
    for key, separator in _SEPARATORS.items():
        if key in row:
            flat[key] = separator.join(row[key])
    if "set" in row:
        flat["set"] = f"{{{';'.join(row['set'])}}}"
    if "set_level" in row:
        flat["set_level"] = f"{row['set_level']:g}"
    if "mask_source" in row:
        alike, sources = set(row["mask_source"].values()), row["mask_source"].items()
        each = alike if len(alike) == 1 else [f"{image} {source}" for image, source in sources]
        flat["mask_source"] = ", ".join(each)
    return flat


def calibrated(column: str) -> str:
    """Name the column that stands beside a target's column where there is a calibration."""
    return f"{column}_calibrated"


def interval_columns(target: Target) -> tuple[str, str]:
    """Name the columns of the interval of a score."""
    return f"{target.lead}_low", f"{target.lead}_high"


def is_predicted(row: Mapping[str, Any]) -> bool:
    """Whether a row of a table has a prediction: not of a subject that failed or got none."""
    return row.get("status", "") in ("", "ok")


def read_calibrated(table: Path, target: Target) -> dict[str, Any]:
    """Read the calibrated probabilities that stand beside those of ``read_predictions``.

    Returns:
        As ``read_predictions``; empty where no predicted subject has any.

    Raises:
        ValueError: where some have one and others none, or for what is no probability.
    """
    columns = [calibrated(column) for column in target.columns]
    found, lacking = {}, []
    for where, row in read_rows(table, target.columns):
        if is_predicted(row):
            if not all(row.get(column) for column in columns):
                lacking.append(row["subject"])
                continue
            values = [read_number(row[column], column, target, where) for column in columns]
            found[row["subject"]] = values if len(values) > 1 else values[0]
    _require_all(table, columns[0], found, lacking)
    return found


def read_sets(table: Path, target: Target) -> tuple[dict[str, list[str]], float | None]:
    """Read the set of classes of each subject, and their level.

    Returns:
        {subject: [classes]} and the level; empty and None where no predicted subject has one.

    Raises:
        ValueError: for a set of other classes, sets at several levels, or of some subjects alone.
    """
    names = set(getattr(target, "names", ()))
    sets, levels, lacking = {}, set(), []
    for where, row in read_rows(table, target.columns):
        if is_predicted(row):
            if not (text := row.get("set", "")):
                lacking.append(row["subject"])
                continue
            members = [name for name in text.strip("{}").split(";") if name]
            if not names.issuperset(members) or text != f"{{{';'.join(members)}}}":
                raise ValueError(
                    f"{where}: set must be like {{HC}}, {{HC;PD}} or {{}}, got {text!r}."
                )
            sets[row["subject"]] = members
            levels.add(row.get("set_level", ""))
    _require_all(table, "set", sets, lacking)
    return sets, _read_level(table, levels)


def read_intervals(
    table: Path, target: Score
) -> tuple[dict[str, tuple[float, float]], float | None]:
    """Read the interval of each subject's score, and their level.

    Returns:
        {subject: (low, high)} and the level; empty and None where no predicted subject has one.

    Raises:
        ValueError: for ends that are no scores or in the wrong order, intervals at several levels,
            or of some subjects alone.
    """
    columns = interval_columns(target)
    intervals, levels, lacking = {}, set(), []
    for where, row in read_rows(table, target.columns):
        if is_predicted(row):
            if not all(row.get(column) for column in columns):
                lacking.append(row["subject"])
                continue
            low, high = (read_number(row[column], column, target, where) for column in columns)
            if low > high:
                raise ValueError(f"{where}: {columns[0]} must not be above {columns[1]}.")
            intervals[row["subject"]] = (low, high)
            levels.add(row.get("set_level", ""))
    _require_all(table, columns[0], intervals, lacking)
    return intervals, _read_level(table, levels)


def _read_level(table: Path, levels: Collection[str]) -> float | None:
    """Read the one level of a table's sets or intervals; None where there are none."""
    if not levels:
        return None
    try:
        (level,) = map(float, levels)
    except ValueError:
        level = math.nan
    if not 0 < level < 1:
        raise ValueError(
            f"{table}: set_level must be one number between 0 and 1 for all subjects, got "
            f"{sorted(levels)}; predict them anew."
        )
    return level


def _require_all(
    table: Path, column: str, found: Mapping[str, Any], lacking: Sequence[str]
) -> None:
    """Refuse a column that some of the predicted subjects have: what is said would be of these."""
    if found and lacking:
        raise ValueError(
            f"{table}: the column {column} is empty for {len(lacking)} predicted subjects, such as "
            f"{lacking[:5]}, and not for {len(found)}; predict all of them anew, by one ensemble."
        )


def predictions_file(path: str | Path) -> Path:
    """Find the table, or raise FileNotFoundError.

    It is ``path`` itself, or in it ``predictions.csv`` or a cross-validation's ``out_of_fold.csv``.
    """
    file = path = Path(path)
    if path.is_dir():
        there = [name for name in (PREDICTIONS, OUT_OF_FOLD) if (path / name).is_file()]
        file = path / (there or [PREDICTIONS])[0]
    if not file.is_file():
        raise FileNotFoundError(
            f"{file} is not there; `mrn predict INPUT OUTPUT` writes OUTPUT/{PREDICTIONS}."
        )
    return file


def read_predictions(table: Path, target: Target = HC_PD) -> dict[str, Any]:
    """Read what is predicted of each subject.

    Other columns than ``subject`` and the target's are ignored, except ``trained_on`` and
    ``status``: subjects that failed or got no prediction are left out.

    Returns:
        {subject: P(PD), or a score}; of more than two classes {subject: [the probabilities]}.

    Raises:
        DataLeakageError: if ``trained_on`` marks subjects that the model was trained on.
        ValueError: for a faulty table, with its line.
    """
    predicted: dict[str, Any] = {}
    trained_on = []
    for where, row in read_rows(table, target.columns):
        if not is_predicted(row):
            continue
        values = [read_number(row[column], column, target, where) for column in target.columns]
        predicted[row["subject"]] = values if len(values) > 1 else values[0]
        if row.get("trained_on", "").lower() not in _NOT_TRAINED_ON:
            trained_on.append(row["subject"])
    if trained_on:
        raise DataLeakageError(
            f"{table}: the model was trained on {len(trained_on)} of these subjects (column "
            f"trained_on), so its scores would be too good: {trained_on}. Evaluate it on others, "
            "or each fold's model on its validation subjects."
        )
    return predicted


def labels_file(labels: str | Path, predictions: Path) -> Path:
    """Find the labels that a user named: a file, or a folder's only csv or its predictions."""
    if not Path(labels).is_dir():
        return find_labels(labels, predictions)
    tables = sorted(Path(labels).glob("*.csv"))
    return tables[0] if len(tables) == 1 else predictions_file(labels)


def read_number(text: str, column: str, target: Target, where: str) -> float:
    """Read a cell of a target's column at a place ``where``, which messages name."""
    low, high = target.span
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:  # also refuses NaN
        raise ValueError(
            f"{where}: {column} must be a number from {low:g} to {high:g}, got {text!r}; predict "
            "this subject again, or take the line out and evaluate with --partial True."
        )
    return value
