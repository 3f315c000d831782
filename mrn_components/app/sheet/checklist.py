"""Checklists of reports: where an item is answered, what the authors must say, what is missing."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mrn_components.app.sheet.facts import Fact, read_table, ways
from mrn_components.app.sheet.study import Study

CHECKLISTS = ("claim", "tripod")

State = Literal["answered", "for the authors", "missing"]


@dataclass(frozen=True)
class Item:
    """An item of a checklist and what the records say to it.

    Args:
        number: in the checklist.
        section: of the report that it belongs to.
        asks: what it asks for, in our words.
        state: answered where the records hold all of it; for the authors where a part of it is
            nothing that a program can know; missing where a record is.
        facts: what the records hold.
        authors: what the authors must say; "" for nothing.
        todo: what to do for the facts that no record holds.
    """

    number: str
    section: str
    asks: str
    state: State
    facts: Sequence[Fact]
    authors: str
    todo: Sequence[str]


@dataclass(frozen=True)
class Checklist:
    """A checklist that is filled."""

    title: str
    citation: str
    items: Sequence[Item]

    def count(self, state: State) -> int:
        """Count the items of a state."""
        return sum(item.state == state for item in self.items)


def fill_checklist(name: str, study: Study, facts: Mapping[str, Fact]) -> Checklist:
    """Fill a checklist, one of ``CHECKLISTS``, with the facts of a study."""
    table = read_table(f"{name}.yaml")
    items = [_fill(row, study, facts) for row in table["items"]]
    return Checklist(table["title"], table["citation"], items)


def _fill(row: Mapping[str, Any], study: Study, facts: Mapping[str, Fact]) -> Item:
    needed = row.get("facts", ())
    lacking = [name for name in needed if name not in facts]
    authors = "" if row.get("unless") in study.contents else row.get("authors", "")
    state: State = "missing" if lacking else "for the authors" if authors else "answered"
    return Item(
        number=row["number"],
        section=row["section"],
        asks=row["asks"],
        state=state,
        facts=[facts[name] for name in (*needed, *row.get("evidence", ())) if name in facts],
        authors=authors,
        todo=list(dict.fromkeys(_todo(lacking))),
    )


def _todo(lacking: Sequence[str]) -> Iterator[str]:
    known = ways()
    return (known[name] for name in lacking)
