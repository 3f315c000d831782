"""What a user typed, as a value of the type that is meant."""

import difflib
import math
import types
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from fire.parser import DefaultParseValue

_BOOLS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def parse_value(name: str, text: str, annotation: Any) -> Any:
    """Read what was typed for an argument by the type that its function declares.

    The type is bool, int, float, str, Path, a Literal, a Sequence of such, or a Mapping; or a union
    of them, with None or not. Text stays text where it may be text or a path, so that ``77_01``,
    ``1e5`` and ``a,b`` are names of folders. A list is ``a,b`` or ``"['a','b']"``.

    Raises:
        ValueError: naming the argument, what came and what is accepted.
    """
    union = get_origin(annotation) in (Union, types.UnionType)
    kinds = {get_origin(k) or k: k for k in (get_args(annotation) if union else (annotation,))}
    texts = {str, Path} & kinds.keys()
    if type(None) in kinds and text.lower() == "none" and not texts:
        return None
    if Sequence in kinds:
        return [parse_value(name, word, get_args(kinds[Sequence])[0]) for word in _words(text)]
    if texts or Literal in kinds:
        return text if texts else _parse_choice(name, text, get_args(kinds[Literal]))
    if bool in kinds:
        return parse_bool(name, text)
    if Mapping in kinds:
        return _parse_mapping(name, text)
    return parse_number(name, text, whole=float not in kinds)


def parse_bool(name: str, value: Any) -> bool:
    """Read true, yes, 1, false, no or 0, in any case; raise ValueError for another word."""
    word = str(value).lower()
    if word not in _BOOLS:
        raise ValueError(f"{name}: {value!r} is neither true nor false; type True or False.")
    return _BOOLS[word]


def parse_number(name: str, value: Any, whole: bool) -> int | float:
    """Read a number, of which ``1e3`` is a whole one; raise ValueError for another word."""
    wanted = "a whole number" if whole else "a number"
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or math.isnan(number) or (whole and not number.is_integer()):
        raise ValueError(f"{name}: {value!r} is not {wanted}; type {wanted}.")
    return int(number) if whole else number


def flags(values: Mapping[str, Any]) -> list[str]:
    """``--key value`` of each, as fire, MONAI and ``mrn`` read them; a word stays as it is."""
    words = []
    for key, value in values.items():
        plain = str(value)
        words += [f"--{key}", plain if DefaultParseValue(plain) == value else repr(value)]
    return words


def nearest(word: str, known: Iterable[str]) -> list[str]:
    """Up to three of the known words that are most like one in any case, the nearest first."""
    plain: dict[str, list[str]] = {}
    for one in sorted(known):
        plain.setdefault(one.casefold(), []).append(one)
    found = difflib.get_close_matches(word.casefold(), plain, n=3)
    return [one for key in found for one in plain[key]][:3]


def did_you_mean(words: Sequence[str]) -> str:
    """A question to end a message with; empty without words."""
    return f" Did you mean {' or '.join(words)}?" if words else ""


def _words(text: str) -> list[str]:
    """The words of ``a,b`` or of a Python list."""
    if text[:1] in ("[", "("):
        value = DefaultParseValue(text)
        if isinstance(value, list | tuple):
            return [str(word) for word in value]
        text = text[1:].rstrip("])")
    return [word.strip() for word in text.split(",")]


def _parse_choice(name: str, text: str, choices: Sequence[str]) -> str:
    if text not in choices:
        meant = did_you_mean(nearest(text, choices))
        raise ValueError(f"{name}: {text!r} is none of {', '.join(choices)}.{meant}")
    return text


def _parse_mapping(name: str, text: str) -> dict[str, Any]:
    value = DefaultParseValue(text)
    if not isinstance(value, dict):
        raise ValueError(f"{name}: {text!r} is no dict; type \"{{'key': value}}\".")
    return value
