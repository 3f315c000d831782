"""The page of all subjects: thumbnails, search, order and flags."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mrn_components.app.records import flags_of
from mrn_components.app.report.faults import faults_of
from mrn_components.app.report.pages import decision, shown_title, shown_value, write_page
from mrn_components.app.report.scan import quality_spreads
from mrn_components.data.target import Target

_MAX_BYTES = 4.5 * 1024**2  # of a page: beyond, later subjects have no thumbnails
_BYTES_PER_SUBJECT = 1000  # of markup, without flags and thumbnails


def write_index(path: Path, records: Sequence[Mapping[str, Any]], target: Target) -> None:
    """Write the page of all subjects.

    A record is what ``prediction.json`` holds, and "page" (address of the subject's page, or None)
    and "thumbs", a list of {"name", "shown", "uri"}.
    """
    rows = _within_size([_row(record, target) for record in records])
    found = Counter(row["status"] for row in rows)
    counts = {"subjects": len(rows), "complete": found["ok"], "abstained": found["abstained"]}
    counts |= {"failed": found["failed"], "flagged": sum(map(bool, map(flags_of, records)))}
    write_page(
        path,
        "index.html.j2",
        rows=rows,
        without_thumbs=sum("thumbs_left_out" in row for row in rows),
        target=target,
        title_shown=shown_title(records, target),
        counts=counts,
        statuses=sorted(found),
        spreads=quality_spreads(records),
    )


def _row(record: Mapping[str, Any], target: Target) -> dict[str, Any]:
    flags = flags_of(record)
    return {
        **dict.fromkeys(("page", "fold_agreement", "fold_std", "set", "set_level")),
        "thumbs": [],
        **record,
        "value": shown_value(record, target),
        "folds": record.get(f"{target.lead}_folds"),
        "side": decision(record, target),
        "num_flags": len(faults_of(flags)),
        "reasons": [*([record["error"]] if record["error"] else []), *flags],
    }


def _within_size(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Take thumbnails away where the page would be too large to open on a phone."""
    room = _MAX_BYTES
    room -= sum(_BYTES_PER_SUBJECT + 2 * sum(map(len, row["reasons"])) for row in rows)
    for row in rows:
        room -= sum(len(thumb["uri"] or "") for thumb in row["thumbs"])
        if room < 0 and row["thumbs"]:
            row |= {"thumbs": [], "thumbs_left_out": True}
    return rows
