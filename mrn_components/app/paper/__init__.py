"""The paper's tables and tables of our own as data: rows of overrides, the paper's numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

METRICS = ("accuracy", "roc_auc", "f1_macro")  # order of the paper's columns
TABLES: tuple[int | str, ...] = (*range(1, 10), "losses", "peers", "future")  # then our own

# Two negative controls: shuffled labels, and a cohort without any effect of the disease.
Cohort = Literal["true", "shuffled", "null"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of a table, and how it is made."""

    name: str  # first column
    bundle: str  # name of the bundle that is trained
    configs: Sequence[str] = ()  # overlays of the bundle
    overrides: Mapping[str, Any] = field(default_factory=dict)  # of the config, that make this row
    small: Mapping[str, Any] = field(default_factory=dict)  # further, for the small scale's network
    cohort: Cohort = "true"
    # In place of a training: features and model of ``mrn baseline``, or features "latent", what
    # phantoms were made of.
    regression: Mapping[str, Any] | None = None
    scale: Literal["small", "paper"] | None = None  # the only one that has the row; None has both
    note: str = ""  # what the table says of it
    ensemble: bool = False  # train all folds, average them and their mirrored views
    masked_rois: Sequence[str] | None = None  # while evaluating; None where nothing is masked
    # The paper's accuracy, ROC AUC and macro F1 in percent; None where it gives none.
    paper: Sequence[float | None] = (None, None, None)
    ours: bool = True  # whether we can train it; False for other teams' solutions


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of the paper, or of what the paper leaves open."""

    name: int | str  # 1 to 9, or a word
    title: str  # the paper's caption, or our own
    paper_setting: str  # data that the paper's numbers rest on, or that there are none
    paper_subjects: int  # how many subjects the paper evaluated
    reference: str  # name of the row that the others are compared with
    cost: bool = False  # show what each row costs
    rows: tuple[Row, ...]  # in the paper's order; controls last

    def selected(self, names: Sequence[str] | None) -> tuple[Row, ...]:
        """The rows of these names and the reference, all for None; a ValueError refuses others."""
        if names is None:
            return self.rows
        known = [row.name for row in self.rows]
        unknown = sorted(set(names) - set(known))
        if unknown:
            raise ValueError(f"table {self.name} has no rows {unknown}; it has {known}.")
        return tuple(row for row in self.rows if row.name in {*names, self.reference})


def load_table(name: int | str) -> Table:
    """Read one of ``TABLES``, 1 to 9 as a number or as typed; a ValueError refuses others."""
    name = int(name) if str(name).isdigit() else name
    if name not in TABLES:
        words = [table for table in TABLES if isinstance(table, str)]
        raise ValueError(f"table must be 1 to 9 or {', '.join(words)}, got {name!r}.")
    path = Path(__file__).parent / f"table{name}.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    bundle = content.pop("bundle")
    rows = tuple(
        Row(name=name, **{"bundle": bundle, **row}) for name, row in content.pop("rows").items()
    )
    return Table(name=name, rows=rows, **content)
