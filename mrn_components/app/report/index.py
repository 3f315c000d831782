"""The page of all subjects: thumbnails, search, order and flags."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mrn_components
from mrn_components.app.report.pages import decision, write_page
from mrn_components.data.target import HC_PD, Target
from mrn_components.metrics import THRESHOLD

_HEIGHTS_PX = (28, 21, 35, 14, 42)  # of the dots, so that near ones do not hide each other
_MAX_BYTES = 4.5 * 1024**2  # of a page: beyond, later subjects have no thumbnails
_BYTES_PER_SUBJECT = 1000  # of markup, without flags and thumbnails


def write_index(path: Path, records: Sequence[Mapping[str, Any]], target: Target = HC_PD) -> None:
    """Write the page of all subjects.

    Args:
        path: of the page.
        records: of each subject ``prediction.json``, and "page" (address of its page, or None) and
            "thumbs", a list of {"name", "roi", "uri"}, as ``write_reports`` makes them.
        target: what is predicted.
    """
    rows = _within_size([_row(record, target) for record in records])
    scored = sorted((row for row in rows if row["value"] is not None), key=lambda row: row["value"])
    for index, row in enumerate(scored):
        row["height"] = _HEIGHTS_PX[index % len(_HEIGHTS_PX)]
    found = Counter(row["status"] for row in rows)
    counts = {"subjects": len(rows), "complete": found["ok"], "abstained": found["abstained"]}
    counts |= {"failed": found["failed"], "flagged": sum(bool(row["reasons"]) for row in rows)}
    write_page(
        path,
        "index.html.j2",
        version=mrn_components.__version__,
        rows=rows,
        without_thumbs=sum("thumbs_left_out" in row for row in rows),
        scored=scored,
        above=sum(row["value"] > THRESHOLD for row in scored),
        target=target,
        counts=counts,
        statuses=sorted(found),
    )


def _row(record: Mapping[str, Any], target: Target) -> dict[str, Any]:
    folds = record.get(f"{target.lead}_folds") or []
    agreement = record.get("fold_agreement")
    reasons = [record["error"]] if record.get("error") else []
    if record.get("trained_on") == 1:
        reasons.append("trained on this subject")
    return {
        "subject": record["subject"],
        "status": record["status"],
        "value": record.get(target.lead),
        "side": decision(record, target),
        "fold_std": record.get("fold_std"),
        "agreement": f"{round(agreement * len(folds))} of {len(folds)} agree"
        if folds and agreement is not None
        else "",
        "reasons": [*reasons, *(record.get("flags") or [])],
        "page": record.get("page"),
        "thumbs": list(record.get("thumbs", [])),
    }


def _within_size(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Take thumbnails away where the page would be too large to open on a phone."""
    text = sum(_BYTES_PER_SUBJECT + 2 * sum(map(len, row["reasons"])) for row in rows)
    room = _MAX_BYTES - text
    for row in rows:
        room -= sum(len(thumb["uri"] or "") for thumb in row["thumbs"])
        if room < 0 and row["thumbs"]:
            row |= {"thumbs": [], "thumbs_left_out": True}
    return rows
