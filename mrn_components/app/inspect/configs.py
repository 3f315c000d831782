"""Walking a config without running it.

Nothing here depends on where a part of a config stands, so that macros, overlays and references,
which move parts about, cannot make a checked config into another: a ``_target_`` must be spelt out
where it is used, and everything that may be moved is checked wherever it stands.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, ReferenceResolver

from mrn_components.app.inspect.expressions import expression_problem
from mrn_components.app.inspect.targets import argument_problem, is_allowed, needs_literals

_MOST_NODES = 100_000  # aliases of YAML can make a page of text into more than memory holds
_MOST_LEVELS = 60
_KEY = re.compile(r"\+?[\w:#]+")  # MONAI writes keys into expressions (relative ids)

Found = tuple[str, str]  # id in the config, what is wrong there


def config_problems(config: Any, files: Collection[Path] = ()) -> Iterator[Found]:
    """Walk a config, an overlay or a mapping of overrides.

    Args:
        config: as it was read, nothing resolved.
        files: the bundle's own configs, absolute, which a macro may name.
    """
    if (size := _size_problem(config)) is not None:
        yield "", size
    else:
        yield from _Walk(files).read(config, "")


def metadata_problems(metadata: Any) -> Iterator[Found]:
    """Walk metadata.json, which MONAI parses with the config although it is only text."""
    if (size := _size_problem(metadata)) is not None:
        yield "", size
    else:
        yield from _read_metadata(metadata, "")


def _read_metadata(node: Any, where: str) -> Iterator[Found]:
    if isinstance(node, str) and node.startswith(("$", "%")):
        yield where, f"{node!r}: metadata is text, not expressions or macros"
    if isinstance(node, Mapping) and "_target_" in node:
        yield where, f"_target_ {node['_target_']!r}: metadata is text and builds nothing"
    for key, value in _items(node):
        yield from _read_metadata(value, f"{where}#{key}".lstrip("#"))


class _Walk:
    def __init__(self, files: Collection[Path]) -> None:
        self.files = files

    def read(self, node: Any, where: str, merges: bool = False) -> Iterator[Found]:
        """Read what stands at ``where``; ``merges``: it joins what another file has there."""
        if isinstance(node, str):
            yield from self._read_text(node, where)
        for key, value in _items(node):
            inner = f"{where}#{key}".lstrip("#")
            if isinstance(node, Mapping):
                yield from self._read_key(node, key, inner, merges)
            yield from self.read(value, inner, str(key).startswith("+"))

    def _read_key(
        self, node: Mapping[Any, Any], key: Any, where: str, merges: bool
    ) -> Iterator[Found]:
        if not isinstance(key, int) and not (isinstance(key, str) and _KEY.fullmatch(key)):
            yield where, f"the key {key!r} must be of letters, digits and _"
            return
        *parents, name = ReferenceResolver.split_id(str(key).lstrip("+"))
        alone = merges or bool(parents)  # what it belongs to stands in another file
        value = node[key]
        if name == "_target_":
            mode = node.get("_mode_", "default")
            problem = _target_problem(value, whole=not alone and mode == "default")
        elif name == "_mode_":
            modes = ("default",) if alone or "_target_" not in node else ("default", "callable")
            problem = None if value in modes else f"_mode_ may only be {' or '.join(modes)}"
        elif name == "_debug_":
            problem = "_debug_ starts the debugger"
        else:
            problem = argument_problem(name, value)
        if problem is not None:
            yield where, f"{value!r}: {problem}"

    def _read_text(self, text: str, where: str) -> Iterator[Found]:
        if text.startswith("$"):
            problem = expression_problem(text)
            if problem is not None:
                yield where, f"{text!r}: {problem}"
        elif text.startswith("%"):
            file, _ = ConfigParser.split_path_id(text[1:])
            if file and Path(file).resolve() not in self.files:
                yield where, f"{text!r}: a macro may only name a config of this bundle"


def _target_problem(target: Any, whole: bool) -> str | None:
    if not isinstance(target, str) or target.startswith(("$", "@", "%")):
        return "a _target_ must be spelt out, as an import path"
    if not is_allowed(target):
        return "it is not among what a bundle may build"
    if needs_literals(target) and not whole:
        return "it may only be built as it stands, with its arguments beside it"
    return None


def _size_problem(config: Any) -> str | None:
    if not isinstance(config, Mapping | list):
        return f"it holds {type(config).__name__}, a config is a mapping of names"
    level, count = [config], 0
    for _ in range(_MOST_LEVELS):
        count += sum(len(node) for node in level if isinstance(node, Mapping | list))
        if count > _MOST_NODES:
            break
        level = [child for node in level for _, child in _items(node)]
        if not level:
            return None
    return f"it has more than {_MOST_NODES} parts or {_MOST_LEVELS} levels"


def _items(node: Any) -> list[tuple[Any, Any]]:
    if isinstance(node, Mapping):
        return list(node.items())
    return list(enumerate(node)) if isinstance(node, list | tuple) else []
