"""How a page is made: jinja2 with autoescape, one file, nothing fetched, nothing run but our own.

A content security policy in every page forbids whatever is not in the file. The one script, of the
index, is allowed by its hash, so that no text of a subject could run even if escaping failed.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import mrn_components
from mrn_components.app.report.faults import NUCLEUS_NAMES, faults_of, in_words
from mrn_components.data.predictions import calibrated
from mrn_components.data.target import Score, Target
from mrn_components.system.files import write_text

_NUM_SHOWN_HASH = 12  # characters


def write_page(path: Path, template: str, **context: Any) -> None:
    """Write a page that shows the context; every text in it is escaped."""
    write_text(path, environment().get_template(template).render(context))


def read_json(path: Path) -> Any:
    """The content of a file, None if it is not there; a ValueError names one that is no JSON."""
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}); predict this subject again.") from error


@cache
def environment() -> Environment:
    """The templates; a name that a template does not find is an error."""
    found = Environment(
        loader=PackageLoader("mrn_components.app.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {
        "fixed": _fixed,
        "signed": _signed,
        "short": short,
        "css_text": _css_text,
        "in_words": in_words,
    }
    found.globals |= {"asset": _asset, "at": at, "ends": ends, "script_hash": _script_hash}
    found.globals |= {"nucleus_names": NUCLEUS_NAMES, "faults_of": faults_of}
    found.globals["version"] = mrn_components.__version__
    return found


def decision(record: Mapping[str, Any], target: Target) -> str:
    """The class of a subject as style sheets call it: pd for the positive one, hc for others.

    None where no class is given, and of a score.
    """
    values: dict[str, Any] = {column: record.get(column) for column in target.columns}
    if isinstance(target, Score) or None in values.values() or record["status"] == "abstained":
        return "none"
    return "pd" if target.decide(values)["class"] in (target.positive, target.number) else "hc"


def shown_value(record: Mapping[str, Any], target: Target) -> float | None:
    """The value of ``target.lead`` that pages show: calibrated where there is a calibration."""
    value = record.get(target.lead)
    return value if value is None else record.get(calibrated(target.lead), value)


def shown_title(records: Iterable[Mapping[str, Any]], target: Target) -> str:
    """What pages call the value that they show of some subjects."""
    known = any(calibrated(target.lead) in record for record in records)
    return f"{target.title}, calibrated" if known else target.title


def ends(target: Target) -> tuple[str, str]:
    """What the low and the high end of the scale of ``target.lead`` stand for."""
    if isinstance(target, Score):
        return "lower", "higher"
    other = target.names[1 - target.number] if target.is_binary else "the others"
    return other, target.positive


def at(value: float, target: Target) -> float:
    """Where a value lies on the scale of ``target.lead``, in percent."""
    low, high = target.span
    return 100 * (value - low) / (high - low)


def data_uri(content: bytes, kind: str) -> str:
    """An image file, png, webp or svg+xml, as an address that holds it."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


@cache
def _asset(name: str) -> Markup:
    """A file of ours beside the templates, as it is."""
    return Markup((Path(__file__).parent / "templates" / name).read_text(encoding="utf-8"))


def _script_hash(name: str) -> str:
    """What a content security policy calls a script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(_asset(name).encode()).digest()).decode()


def _fixed(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def _signed(value: float | None, digits: int = 2) -> str:
    """A number with its sign; what rounds to zero has none."""
    if value is None:
        return "–"
    text = f"{value:+.{digits}f}"
    return text[1:] if not float(text) else text.replace("-", "−")


def _css_text(text: Any) -> Markup:
    """A text as part of a string in a style sheet: whatever is no letter or digit is escaped."""
    escaped = re.sub(r"[^A-Za-z0-9]", lambda found: f"\\{ord(found[0]):x} ", str(text))
    return Markup(escaped)


def short(text: Any) -> str:
    """The first characters of a hash; other texts as they are."""
    is_hash = re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", str(text))
    return f"{text[:_NUM_SHOWN_HASH]}…" if is_hash else str(text)
