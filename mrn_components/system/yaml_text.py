"""Other values in a YAML text, whose lines and comments stay."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import yaml

_COMMENT = re.compile(r"[ \t,\]}]*#[ \t]*")  # what may stand between a value and its comment
_LONGEST = 60  # of an old value in a comment


class _Edit(NamedTuple):
    """What comes between two places of a text."""

    start: int
    end: int
    text: str


def edited_yaml(text: str, content: Mapping[str, Any]) -> str:
    """Return a YAML text with other content: values that are equal keep their lines.

    All comments stay, but those of keys that go. The comment of a value that changed says what it
    was, because that is what it comments.

    Args:
        text: a mapping in block style, without anchors and tags; of others no comments are kept.
        content: what the result holds: plain data.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    edits = _mapping_edits(text, root, yaml.safe_load(text), content)
    edited = text
    for start, end, new in sorted(edits, reverse=True):
        edited = edited[:start] + new + edited[end:]
    with suppress(yaml.YAMLError):
        if _plain(yaml.safe_load(edited)) == _plain(content):
            return edited
    return yaml.safe_dump(dict(content), sort_keys=False, width=100)  # a text of another style


def _mapping_edits(text: str, node: Any, old: Any, new: Mapping[str, Any]) -> Iterator[_Edit]:
    """Yield what makes one mapping in block style of another."""
    for key, value in node.value:
        name = yaml.safe_load(key.value) if key.style is None else key.value
        if name not in new:
            yield _Edit(_line_start(text, key.start_mark.index), _line_end(text, _end(value)), "")
        elif _plain(old[name]) != _plain(new[name]):
            after_key = text.index(":", key.end_mark.index) + 1
            yield from _value_edits(text, value, old[name], new[name], after_key)
    own = {name: value for name, value in new.items() if name not in old}
    if own:
        indent = " " * node.value[0][0].start_mark.column
        at = _line_end(text, _end(node))
        lines = "".join(f"{indent}{_flow(name)}: {_flow(value)}\n" for name, value in own.items())
        yield _Edit(at, at, lines if text[at - 1 : at] == "\n" else f"\n{lines}")


def _value_edits(text: str, node: Any, old: Any, new: Any, place: int) -> Iterator[_Edit]:
    """Yield what makes one value another; ``place`` is where a value may stand in one line."""
    in_block = isinstance(node, yaml.CollectionNode) and not node.flow_style
    if in_block and isinstance(old, dict) and isinstance(new, Mapping) and old.keys() & new.keys():
        yield from _mapping_edits(text, node, old, new)
        return
    if in_block and isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for child, one, other in zip(node.value, old, new, strict=True):
            if _plain(one) != _plain(other):
                yield from _value_edits(text, child, one, other, child.start_mark.index)
        return
    start, end = node.start_mark.index, _end(node)
    if in_block and place < start:  # below its key, whose own comment stays
        yield _Edit(place, place, f" {_flow(new)}")
        yield _Edit(text.index("\n", place), end, "")
        return
    yield _Edit(start, end, _flow(new))
    if comment := _COMMENT.match(text, end):
        was = _flow(old)
        note = f"was {was}: " if len(was) <= _LONGEST else "of the value before: "
        yield _Edit(comment.end(), comment.end(), note)


def _end(node: Any) -> int:
    """Return the place after a node, whose own mark is after the comments if it is a block."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    return int(node.end_mark.index)


def _line_start(text: str, place: int) -> int:
    return text.rfind("\n", 0, place) + 1


def _line_end(text: str, place: int) -> int:
    """Return the place after a line's end."""
    found = text.find("\n", place)
    return len(text) if found < 0 else found + 1


def _flow(value: Any) -> str:
    """Return a value in one line."""
    text = yaml.safe_dump(
        value, default_flow_style=True, sort_keys=False, width=float("inf"), allow_unicode=True
    )
    return str(text.removesuffix("...\n").strip())


def _plain(value: Any) -> str:
    """Return a value as JSON has it, in which 1 is not 1.0 and not true."""
    return json.dumps(value, sort_keys=True)
