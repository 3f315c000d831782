"""The labels of subjects that were found: of a table, or of the datalist itself."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from mrn_components.data.case import Case
from mrn_components.data.tables import find_labels, parse_label, read_table
from mrn_components.data.target import Target
from mrn_components.images.finding import Finding, finding


def give_labels(
    cases: Sequence[Case],
    data: Path,
    labels: str | Path | None,
    need: Literal["all", "given", "none"],
    target: Target,
    *,
    alone: bool,
) -> list[Finding]:
    """Give each subject its label; note faults of the subjects with them, return the table's.

    Without a named table a datalist's own labels count, or the only csv in the folder ``data``. A
    single subject (``alone``) may take its line from the table of a whole cohort.
    """
    if need == "none" or (labels is None and data.is_file()):
        for case in cases:
            _give_own(case, need, target)
        return []
    tables = [find_labels(labels, data)] if labels else sorted(data.glob("*.csv"))
    if len(tables) != 1:
        names = ", ".join(path.name for path in tables) or "no csv"
        faulty = tables or need == "all"
        return [finding("labels-file", data, f"no labels: {names}")] if faulty else []
    rows, faults = read_table(tables[0], target)
    findings = [finding("labels-line", tables[0], text) for text in faults]
    for case in cases:
        case.fields.pop("label", None)
        row = dict(rows.get(case.subject) or rows.get(str(case.fields.get("person"))) or {})
        case.covariates |= row.pop("covariates", {})
        case.fields |= row
        if "label" not in case.fields:
            case.add("no-label", tables[0], "no label")
    known = {name for case in cases for name in (case.subject, case.fields.get("person"))}
    unknown = [] if alone else sorted(rows.keys() - known)
    return findings + [
        finding("no-folder", tables[0], f"subject {name!r} has no images in {str(data)!r}")
        for name in unknown
    ]


def _give_own(case: Case, need: str, target: Target) -> None:
    """Read the label of a datalist's entry, if it is needed."""
    label = case.fields.pop("label", None)
    if need == "none":
        return
    if label is not None:
        try:
            case.fields["label"] = parse_label(label, target, case.where)
        except ValueError as error:
            case.add("labels-line", case.source, str(error))
    elif need == "all":
        case.add("no-label", case.source, "no label")
