"""Texts that are written by templates; pages of HTML are the business of the reports."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined


def fill_template(file: str | Path, **context: Any) -> str:
    """Return a jinja2 template with its values filled in; nothing is escaped."""
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    return environment.from_string(Path(file).read_text(encoding="utf-8")).render(context)
