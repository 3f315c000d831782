"""Facts that the records hold, each with the place where it stands."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from mrn_components.app.sheet import model, numbers, subjects
from mrn_components.app.sheet.shown import shown
from mrn_components.app.sheet.study import Derived, Study

# How the facts of facts.yaml are computed that more than one key says together.
DERIVED: dict[str, Callable[[Study], Derived]] = {
    function.__name__: function
    for function in (
        subjects.evaluated,
        subjects.flow,
        subjects.unseen,
        subjects.cross_validated,
        subjects.partitions,
        subjects.disjoint,
        subjects.inputs,
        subjects.gaps,
        subjects.mask_sources,
        subjects.explained,
        subjects.unlike,
        model.images,
        model.network,
        model.imbalance,
        model.selection,
        model.ensemble,
        model.output,
        model.updating,
        numbers.performance,
        numbers.measures,
        numbers.figures,
        numbers.intervals,
        numbers.errors,
        numbers.by_group,
        numbers.by_cluster,
        numbers.by_people,
    )
}


@dataclass(frozen=True)
class Fact:
    """A fact in words.

    Args:
        label: what it is of.
        text: what the records say.
        sources: (record, key in it) of each place that says it.
    """

    label: str
    text: str
    sources: Sequence[tuple[str, str]]


def find_facts(study: Study) -> dict[str, Fact]:
    """Return the facts of ``facts.yaml`` that the records of a study hold."""
    found = {}
    for name, row in read_table("facts.yaml")["facts"].items():
        text, sources = _direct(study, row["from"]) if "from" in row else DERIVED[name](study)
        if text:
            found[name] = Fact(row["label"], text, tuple(sources))
    return found


def ways() -> dict[str, str]:
    """Return what to do for each fact that no record holds."""
    table = read_table("facts.yaml")
    return {name: table["ways"][row["way"]] for name, row in table["facts"].items()}


@cache
def read_table(name: str) -> dict[str, Any]:
    """Read a table that lies beside this module."""
    content: dict[str, Any] = yaml.safe_load(Path(__file__).with_name(name).read_text("utf-8"))
    return content


def _direct(study: Study, places: Sequence[str]) -> tuple[str, list[tuple[str, str]]]:
    """Return the first of some places that holds anything, in words."""
    for place in places:
        record, _, key = place.partition(":")
        value = study.value(record, key)
        content: Mapping[str, Any] = study.contents.get(record, {})
        if value is not None and (text := shown(value, content)):
            return text, [(record, key)]
    return "", []
