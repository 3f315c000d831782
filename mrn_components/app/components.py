"""``mrn components``: what a config may name, and how it is written there."""

import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

import mrn_components
from mrn_components.app.init import installed_bundles
from mrn_components.system.plain_data import items, read_plain
from mrn_components.system.values import did_you_mean, nearest

_CONFIGS = ("train", "inference", "small", "light", "frozen", "strong", "ensemble")  # of examples


def components(name: str | None = None) -> str:
    """List every name that a config may use as ``_target_: mrn_components.NAME``, or explain one.

    Args:
        name: of a component, to see its arguments, and how a config of the bundles writes it.

    Raises:
        ValueError: for a name that is none, with those that are most like it.
    """
    names = mrn_components.__all__
    if name is None:
        width = max(map(len, names))
        docs = {one: getattr(mrn_components, one).__doc__ for one in names}  # a test holds them
        lines = [f"{one:{width}}  {doc.splitlines()[0]}" for one, doc in docs.items()]
        return "\n".join([*lines, "", "mrn components NAME: its arguments, and an example in YAML"])
    name = name.removeprefix("mrn_components.")
    if name not in names:
        meant = did_you_mean(nearest(name, names)) or " `mrn components` lists them."
        raise ValueError(f"mrn_components has no component {name!r}.{meant}")
    part = getattr(mrn_components, name)
    head = f"mrn_components.{name}, in {part.__module__.replace('.', '/')}.py"
    where, example = next(_examples(f"mrn_components.{name}"), ("", _by_signature(name, part)))
    told = f"In a config, as in {where}:" if where else "In a config:"
    return "\n".join([head, "", _explained(part), "", told, "", textwrap.indent(example, "  ")])


def _explained(part: Any) -> str:
    """The docstring of a component, its arguments with their types and defaults."""
    head, _, rest = (inspect.getdoc(part) or "").partition("\n\nArgs:\n")
    told = re.split(
        r"^    (\w+): ", re.split(r"^\S", rest, flags=re.MULTILINE)[0], flags=re.MULTILINE
    )
    meaning = dict(zip(told[1::2], told[2::2], strict=True))
    lines = [head, ""]
    for name, parameter in inspect.signature(part).parameters.items():
        kind = parameter.annotation
        plain = re.sub(r"\b[\w.]+\.(?=\w)", "", inspect.formatannotation(kind))
        words = "" if kind is inspect.Parameter.empty else f": {plain}"
        needed = parameter.default is inspect.Parameter.empty
        lines.append(f"  {name}{words}" + ("" if needed else f" = {parameter.default!r}"))
        lines.append(textwrap.indent(textwrap.fill(meaning.get(name, ""), 90), " " * 6))
    return "\n".join(lines).replace("``", "`").rstrip()


def _examples(target: str) -> Iterator[tuple[str, str]]:
    """Yield where the bundles' configs name a component, and what they write."""
    for name in _CONFIGS:
        for bundle in installed_bundles():
            file = bundle / "configs" / f"{name}.yaml"
            if file.is_file():
                for key, found in _uses(read_plain(file), target):
                    where = f"{bundle.name}/configs/{file.name}"
                    yield where, yaml.safe_dump({key: found}, sort_keys=False, width=90).rstrip()


def _uses(node: Any, target: str) -> Iterator[tuple[Any, Any]]:
    """Yield the mappings of a config that build a component, and their keys."""
    for key, value in items(node):
        if isinstance(value, Mapping) and value.get("_target_") == target:
            yield key if isinstance(key, str) else "-", value
        yield from _uses(value, target)


def _by_signature(name: str, part: Any) -> str:
    """Write a component with the arguments that it cannot do without."""
    parameters = inspect.signature(part).parameters.items()
    needed = [key for key, one in parameters if one.default is inspect.Parameter.empty]
    return "\n".join([f"_target_: mrn_components.{name}", *(f"{key}: ..." for key in needed)])
