"""Reading JSON and YAML of someone else: plain data, of a size and depth that memory holds."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

CONFIGS = (".json", ".yaml", ".yml")
_MOST_BYTES = {".json": 2**20, ".yaml": 2**18, ".yml": 2**18}  # YAML is read slowly
_MOST_PARTS = 100_000  # aliases of YAML can make a page of text into more than memory holds
_MOST_LEVELS = 60


def read_plain(path: Path) -> dict[str, Any]:
    """Read a JSON or YAML file that may have been made to do harm.

    Raises:
        ValueError: saying what is wrong: no file, too large or deep, no mapping, a key that stands
            twice, a number that is none.
    """
    if not path.is_file():
        raise ValueError("is no regular file")
    suffix = path.suffix.lower()
    if path.stat().st_size > _MOST_BYTES[suffix]:
        raise ValueError(f"is larger than the {_MOST_BYTES[suffix]:,} bytes that are read")
    try:
        text = path.read_text(encoding="utf-8")
        if suffix == ".json":
            content = json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
        else:
            content = yaml.load(text, _Loader)
    except Exception as error:  # whatever a strange file brings about, too many levels included
        reason = " ".join(str(error).split())[:100]
        raise ValueError(f"cannot be read ({type(error).__name__}: {reason})") from error
    _check_size(_mapping(content))
    return dict(content)


def parse_mapping(text: str | bytes) -> dict[str, Any]:
    """Return the mapping that a text of JSON holds, as this package writes it.

    Raises:
        ValueError: saying what the text is instead.
    """
    try:
        return dict(_mapping(json.loads(text)))
    except RecursionError as error:
        raise ValueError("holds too many levels") from error


def items(node: Any) -> Iterator[tuple[Any, Any]]:
    """Return what is in a mapping or a list, with its keys or numbers."""
    if isinstance(node, Mapping):
        return iter(node.items())
    return enumerate(node) if isinstance(node, list | tuple) else iter(())


def differences(one: Any, other: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The ids at which two configs differ, and both values there; None for a missing one."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in sorted({*one, *other}):
            below = f"{path}#{key}" if path else str(key)
            yield from differences(one.get(key), other.get(key), below)
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, pair in enumerate(zip(one, other, strict=True)):
            yield from differences(*pair, f"{path}#{index}")
    elif one != other:
        yield path, one, other


class _Loader(yaml.SafeLoader):
    """Plain YAML, in which a key stands once and nothing is merged: merges can grow without end."""

    def fetch_flow_collection_start(self, token: Any) -> None:
        if self.flow_level > _MOST_LEVELS:  # which the scanner takes minutes for
            raise ValueError(f"more than {_MOST_LEVELS} levels")
        super().fetch_flow_collection_start(token)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        _once([(str(key.value), None) for key, _ in node.value])
        return super().construct_mapping(node, deep)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the pairs as a mapping; refuse a key that stands twice, of which one is never seen."""
    for key, count in Counter(key for key, _ in pairs).items():
        if count > 1 or key == "<<":
            raise ValueError(f"the key {key[:40]!r} stands twice, or merges another mapping")
    return dict(pairs)


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _mapping(content: Any) -> Mapping[str, Any]:
    if not isinstance(content, Mapping):
        raise ValueError(f"holds {type(content).__name__}, expected a mapping of names")
    return content


def _check_size(content: Any) -> None:
    level, count = [content], 0
    for _ in range(_MOST_LEVELS):
        count += sum(len(node) for node in level if isinstance(node, Mapping | list))
        if count > _MOST_PARTS:
            break
        level = [child for node in level for _, child in items(node)]
        if not level:
            return
    raise ValueError(f"has more than {_MOST_PARTS:,} parts or {_MOST_LEVELS} levels")
