"""Tables of predictions: what a network's output becomes, written and read; and tables of labels.

The columns of ``predictions.csv``, those that there are, in this order:

- ``subject``; ``fold``, whose network predicts it; ``status``, "ok", "abstained" or "failed";
- the target's: ``prob_pd``, 0 to 1, of HC and PD; of more classes one each; or a score;
- ``class``: of two classes the number, 1 where the probability is above 0.5; of more the name;
- of an ensemble ``prob_pd_fold0``, ``prob_pd_fold1``, ...; ``fold_agreement``, the share of folds
  whose class is the ensemble's; ``fold_std``, the standard deviation of the folds' P(PD), of the
  positive class, or of the score;
- with test-time augmentation ``tta_std``, the same of the views;
- ``trained_on``, 1 for a training subject of the weights, else 0;
- ``mask_source``; ``missing_rois``, the masked ROIs with ";" between them; ``flags``, with "; "
  between the texts; ``error``, why a subject failed;
- ``label`` where known.
"""

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mrn_components.data.identities import DataLeakageError
from mrn_components.data.tables import find_labels, read_labels
from mrn_components.data.target import HC_PD, Target, write_target
from mrn_components.system.files import write_csv

PREDICTIONS = "predictions.csv"

_NOT_TRAINED_ON = ("", "0", "0.0", "false")
_SEPARATORS = {"missing_rois": ";", "flags": "; "}


def prediction(target: Target, output: Mapping[str, Any], index: int) -> dict[str, Any]:
    """Return what is predicted of a subject: columns and their cells, folds as lists.

    Args:
        target: what is predicted.
        output: what ``DiagnosisOutputd`` makes of a batch.
        index: of the subject in the batch.

    Raises:
        ValueError: if a number is not finite.
    """
    row: dict[str, Any] = {name: float(output[name][index]) for name in target.columns}
    check_finite(target, row.values())
    row |= target.decide(row)
    folds = {
        name: output[f"{name}_folds"][index] for name in target.columns if f"{name}_folds" in output
    }
    if folds:
        row |= {f"{name}_folds": prob.tolist() for name, prob in folds.items()}
        decisions = [
            target.decide(dict(zip(folds, values, strict=True)))
            for values in zip(*(prob.tolist() for prob in folds.values()), strict=True)
        ]
        if "class" in row:
            agree = [decision["class"] == row["class"] for decision in decisions]
            row["fold_agreement"] = sum(agree) / len(agree)
        row["fold_std"] = float(folds[target.lead].std(correction=0))
    if f"{target.lead}_views" in output:
        row["tta_std"] = float(output[f"{target.lead}_views"][index].std(correction=0))
    return row


def check_finite(target: Target, values: Iterable[float]) -> None:
    """Refuse a prediction that is no number.

    Raises:
        ValueError: naming the number and the likely cause.
    """
    if wrong := [value for value in values if not math.isfinite(value)]:
        raise ValueError(
            f"{target.title} is {wrong[0]}: the weights are damaged, or the network diverged while "
            "it was trained; look at the curves of its run, and use other weights."
        )


def write_predictions(path: Path, rows: Sequence[Mapping[str, Any]], target: Target) -> None:
    """Write a table of predictions, and beside it what the target is.

    Args:
        path: of the table.
        rows: what is known of each subject, as ``prediction`` and ``prediction.json`` hold it.
        target: what is predicted.
    """
    flat = [_flat(row, target) for row in rows]
    found = dict.fromkeys(key for row in flat for key in row)
    columns = ["subject", "fold", "status", *target.columns, "class"]
    columns += [key for key in found if "_fold" in key and key.rpartition("_fold")[2].isdigit()]
    columns += ["fold_agreement", "fold_std", "tta_std", "trained_on", "mask_source"]
    columns += [*_SEPARATORS, "error", "label"]
    write_csv(path, flat, [key for key in columns if key in found])
    write_target(path.parent, target)


def _flat(row: Mapping[str, Any], target: Target) -> dict[str, Any]:
    """Return a row with a cell for each fold, and lists as texts."""
    flat = dict(row)
    for fold, values in enumerate(
        zip(*(row.get(f"{n}_folds", ()) for n in target.columns), strict=True)
    ):
        flat |= {f"{name}_fold{fold}": x for name, x in zip(target.columns, values, strict=True)}
    for key, separator in _SEPARATORS.items():
        if key in row:
            flat[key] = separator.join(row[key])
    sources = row.get("mask_source", {})
    if len(set(sources.values())) == 1:
        flat["mask_source"] = next(iter(sources.values()))
    elif "mask_source" in row:
        flat["mask_source"] = ", ".join(f"{image} {source}" for image, source in sources.items())
    return flat


def predictions_file(path: str | Path) -> Path:
    """Find the table: ``path`` itself, or ``predictions.csv`` in it.

    Raises:
        FileNotFoundError: if it is not there.
    """
    path = Path(path)
    file = path / PREDICTIONS if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(
            f"{file} is not there; `mrn predict INPUT OUTPUT` writes OUTPUT/{PREDICTIONS}."
        )
    return file


def read_predictions(table: Path, target: Target = HC_PD) -> dict[str, Any]:
    """Read what is predicted of each subject.

    Other columns than ``subject`` and the target's are ignored, except ``trained_on`` and
    ``status``: subjects that failed or got no prediction are left out.

    Args:
        table: csv with a header.
        target: what is predicted.

    Returns:
        {subject: P(PD), or a score}; of more than two classes {subject: [the probabilities]}.

    Raises:
        DataLeakageError: if ``trained_on`` marks subjects that the model was trained on.
        ValueError: for a faulty table, with its line.
    """
    predicted: dict[str, Any] = {}
    trained_on = []
    for where, row in read_rows(table, target.columns):
        if row.get("status", "") not in ("", "ok"):
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
    """Find the file of the labels: ``predictions.csv`` in a folder, else a table or datalist.

    Args:
        labels: what the user named, as it is typed or relative to the predictions.
        predictions: file of the predictions.

    Raises:
        FileNotFoundError: if it is not there.
    """
    return predictions_file(labels) if Path(labels).is_dir() else find_labels(labels, predictions)


def read_any_labels(file: Path, target: Target = HC_PD) -> dict[str, float]:
    """Read labels: the challenge's csv, a JSON datalist, or a table with a column ``label``.

    Args:
        file: the table or datalist.
        target: what the labels are.

    Returns:
        {subject: number of its class, or its score}.

    Raises:
        ValueError: for a faulty table or datalist, with the line or entry.
    """
    if not _has_header(file):
        return read_labels(file, target)
    labels = {}
    for where, row in read_rows(file, ["label"]):
        try:
            labels[row["subject"]] = target.parse(row["label"])
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
    return labels


def _has_header(file: Path) -> bool:
    if file.suffix == ".json":
        return False
    with file.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
        header = {cell.strip() for cell in next(csv.reader(lines), [])}
    return "subject" in header


def read_rows(table: Path, needed: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (file and line, {column: cell}) of each row of a table with a header.

    Args:
        table: the csv.
        needed: columns that it must have beside ``subject``.

    Raises:
        ValueError: for a faulty table, with its line.
    """
    first: dict[str, int] = {}  # line of each subject, by lower-case id
    with table.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
        reader = csv.reader(lines)
        header = [cell.strip() for cell in next(reader, [])]
        lacking = [name for name in ("subject", *needed) if name not in header]
        if lacking:
            raise ValueError(
                f"{table} line 1: expected a header with the columns subject and "
                f"{', '.join(needed)}, separated by commas; {lacking} are missing in "
                f"{','.join(header)[:200]!r}."
            )
        for cells in reader:
            if not any(map(str.strip, cells)):
                continue
            where = f"{table} line {reader.line_num}"
            if len(cells) != len(header):
                raise ValueError(
                    f"{where}: expected {len(header)} cells, as in the header, got {len(cells)}: "
                    f"{','.join(cells)[:200]!r}."
                )
            row = dict(zip(header, map(str.strip, cells), strict=True))
            if not row["subject"]:
                raise ValueError(f"{where}: the subject is empty.")
            line = first.setdefault(row["subject"].lower(), reader.line_num)
            if line != reader.line_num:
                raise ValueError(
                    f"{where}: subject {row['subject']!r} stands already on line {line}; ids must "
                    "differ by more than case."
                )
            yield where, row
    if not first:
        raise ValueError(f"{table} has no subjects below its header.")


def read_number(text: str, column: str, target: Target, where: str) -> float:
    """Read a cell of a target's column.

    Raises:
        ValueError: naming the place ``where``, if it holds no number of the target's span.
    """
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
