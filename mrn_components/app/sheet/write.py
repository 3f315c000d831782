"""``sheet.md`` and ``sheet.json``, the filled checklists, and ``model_card.md``."""

import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mrn_components.app.sheet.card import front_matter, model_name
from mrn_components.app.sheet.checklist import CHECKLISTS, Checklist, fill_checklist
from mrn_components.app.sheet.facts import Fact, find_facts
from mrn_components.app.sheet.numbers import metrics_of
from mrn_components.app.sheet.shown import shown
from mrn_components.app.sheet.study import Study, find_study
from mrn_components.system.files import write_json, write_text
from mrn_components.system.texts import fill_template

_NOTE = (
    "Research use only. Filled from the records of programs; read each answer before you submit it."
)


def write_sheet(table: Path, evaluation: Path, bundle: Path | None = None) -> None:
    """Fill CLAIM 2024, TRIPOD+AI and a model card from the records of a study.

    Args:
        table: of the predictions.
        evaluation: folder with what ``mrn evaluate`` says of them; gets the files.
        bundle: folder of the run or bundle that predicted; None looks around the table.

    Raises:
        ValueError: for a damaged record, or a bundle with other weights than those that predicted.
    """
    study = find_study(table, evaluation, bundle)
    facts = find_facts(study)
    lists = {name: fill_checklist(name, study, facts) for name in CHECKLISTS}
    words = {"study": study, "facts": facts, "md": _md, "note": _NOTE}
    write_text(evaluation / "sheet.md", _fill("sheet.md.j2", lists=lists.values(), **words))
    write_json(evaluation / "sheet.json", _content(study, lists))
    card = write_card(study, facts, name=model_name(study), head=front_matter(study))
    write_text(evaluation / "model_card.md", card)


def write_card(
    study: Study,
    facts: Mapping[str, Fact],
    *,
    name: str,
    head: str = "",
    pack: Mapping[str, Any] | None = None,
) -> str:
    """Return a model card.

    Args:
        study: its records.
        facts: what these hold.
        name: of the run or bundle.
        head: front matter, of a card that stands alone.
        pack: what a packed bundle's card says besides, ``app.packing.card``.
    """
    metrics = {name: shown(metric, {}) for name, metric in metrics_of(study).items()}
    words = {"study": study, "facts": facts, "md": _md, "name": name, "head": head}
    return _fill("model_card.md.j2", metrics=metrics, pack=pack, **words)


def _fill(template: str, **words: Any) -> str:
    return fill_template(Path(__file__).with_name(template), **words)


def _content(study: Study, lists: dict[str, Checklist]) -> dict[str, Any]:
    """Return the content of ``sheet.json``."""
    items = {
        name: {
            "title": checklist.title,
            "citation": checklist.citation,
            "items": [
                {**asdict(item), "facts": [_plain(fact, study) for fact in item.facts]}
                for item in checklist.items
            ],
        }
        for name, checklist in lists.items()
    }
    return {"note": _NOTE, "records": dict(study.files), "checklists": items}


def _plain(fact: Fact, study: Study) -> dict[str, Any]:
    sources = [
        {"record": record, "file": study.files[record], "key": key} for record, key in fact.sources
    ]
    return {"label": fact.label, "text": fact.text, "sources": sources}


def _md(text: str) -> str:
    """Return a text for a cell of a table in Markdown: one line, and no markup of its own."""
    line = " ".join(str(text).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;")
    # Between letters an underscore is one, and stays: addresses have them.
    return re.sub(r"[\\`*|]|\](?=[(\[])|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", line)
