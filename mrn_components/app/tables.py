"""Reading of ``predictions.csv``, and of labels in whatever table holds them."""

import csv
from collections.abc import Iterator
from pathlib import Path

from mrn_components.data import DataLeakageError, read_labels
from mrn_components.data.tables import find_labels

PREDICTIONS = "predictions.csv"

_NOT_TRAINED_ON = ("", "0", "0.0", "false")


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


def read_predictions(table: Path) -> dict[str, float]:
    """Read a table with the columns ``subject`` and ``prob_pd``: {subject: P(PD)}.

    Further columns are ignored, except ``trained_on`` and ``status``: subjects that failed or got
    no probability are left out.

    Args:
        table: csv with a header.

    Raises:
        DataLeakageError: if ``trained_on`` marks subjects that the model was trained on.
        ValueError: for a faulty table, with its line.
    """
    prob_pd: dict[str, float] = {}
    trained_on = []
    for where, row in _rows(table, "prob_pd"):
        if row.get("status", "ok") != "ok":
            continue
        prob_pd[row["subject"]] = _probability(row["prob_pd"], where)
        if row.get("trained_on", "").lower() not in _NOT_TRAINED_ON:
            trained_on.append(row["subject"])
    if trained_on:
        raise DataLeakageError(
            f"{table}: the model was trained on {len(trained_on)} of these subjects (column "
            f"trained_on), so its scores would be too good: {trained_on}. Evaluate it on others, "
            "or each fold's model on its validation subjects."
        )
    return prob_pd


def labels_file(labels: str | Path, predictions: Path) -> Path:
    """Find the file of the labels: ``predictions.csv`` in a folder, else a table or datalist.

    Args:
        labels: what the user named, as it is typed or relative to the predictions.
        predictions: file of the predictions.

    Raises:
        FileNotFoundError: if it is not there.
    """
    return predictions_file(labels) if Path(labels).is_dir() else find_labels(labels, predictions)


def read_any_labels(file: Path) -> dict[str, int]:
    """Read labels: the challenge's csv, a JSON datalist, or a table with a column ``label``.

    Args:
        file: the table or datalist.

    Returns:
        {subject: 0 healthy or 1 Parkinson's disease}.

    Raises:
        ValueError: for a faulty table or datalist, with the line or entry.
    """
    if not _has_header(file):
        return read_labels(file)
    labels = {}
    for where, row in _rows(file, "label"):
        if row["label"] not in ("0", "1"):
            raise ValueError(
                f"{where}: label must be 0 (healthy) or 1 (Parkinson's disease), got "
                f"{row['label']!r}."
            )
        labels[row["subject"]] = int(row["label"])
    return labels


def _has_header(file: Path) -> bool:
    if file.suffix == ".json":
        return False
    with file.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
        header = {cell.strip() for cell in next(csv.reader(lines), [])}
    return "subject" in header and bool(header & {"label", "prob_pd"})


def _rows(table: Path, needed: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (file and line, {column: cell}) of each row of a table with a header."""
    first: dict[str, int] = {}  # line of each subject, by lower-case id
    with table.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
        reader = csv.reader(lines)
        header = [cell.strip() for cell in next(reader, [])]
        lacking = [name for name in ("subject", needed) if name not in header]
        if lacking:
            raise ValueError(
                f"{table} line 1: expected a header with the columns subject and {needed}, "
                f"separated by commas; {lacking} are missing in {','.join(header)[:200]!r}."
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


def _probability(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 <= value <= 1:  # also refuses NaN
        raise ValueError(
            f"{where}: prob_pd must be a number from 0 to 1, got {text!r}; predict this subject "
            "again, or take the line out and evaluate with --partial True."
        )
    return value
