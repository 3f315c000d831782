"""How much the metrics of a cross-validation gain from more training subjects."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mrn_components.app.figures import write_learning_curve
from mrn_components.app.out_of_fold import CROSSVAL
from mrn_components.data.target import read_target
from mrn_components.system.files import csv_text, write_text

_NAME = "learning_curve"


def learn(
    crossval: Callable[..., Path],
    output: Path,
    percents: Sequence[float],
    overrides: Mapping[str, Any],
) -> Path:
    """Cross-validate with some percent of the training subjects each, and write the curve.

    Args:
        crossval: trains and scores every fold; takes its folder and config keys.
        output: folder of the folders, ``share025`` and so on, and of the curve.
        percents: above 0 and at most 100.
        overrides: config keys and their values.

    Returns:
        The folder.

    Raises:
        ValueError: for other percents.
    """
    if wrong := [percent for percent in percents if not 0 < percent <= 100]:
        raise ValueError(f"learning_curve must be percents above 0 and at most 100, got {wrong}.")
    overrides = {"cache_dir": str(output / "cache"), **overrides}
    rows = []
    for percent in sorted(set(percents)):
        print(f"{percent:g} % of the training subjects", flush=True)
        folder = crossval(
            output=output / f"share{percent:03g}", training_share=percent / 100, **overrides
        )
        if (folder / CROSSVAL).is_file():  # not if one fold alone was asked for
            rows.append(_row(folder, percent))
    if rows:
        write_text(output / f"{_NAME}.csv", csv_text(rows, list(rows[0]), floats=".6f"))
        write_learning_curve(output / _NAME, rows)
        print(f"The learning curve: {output / f'{_NAME}.csv'}")
    return output


def _row(folder: Path, percent: float) -> dict[str, Any]:
    """The metrics of all subjects out of fold."""
    found = json.loads((folder / CROSSVAL).read_text(encoding="utf-8"))
    folds = len(found["folds"])
    training = found["num_subjects"] * (folds - 1) / folds
    row: dict[str, Any] = {"percent": f"{percent:g}"}
    row["training_subjects"] = round(training * percent / 100)
    for name in read_target(folder).main_metrics:
        metric = found["overall"][name]
        row |= {name: metric["value"], f"{name}_low": metric["low"], f"{name}_high": metric["high"]}
    return row
