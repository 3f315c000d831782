"""``mrn components``: what a config may name, and how it is written there."""

import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

import mrn_components
from mrn_components.app.installed import installed_bundles
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
    doc = inspect.getdoc(part) or ""
    head, *told = re.split(r"^(Args|Attributes|Returns|Raises):\n", doc, flags=re.MULTILINE)
    sections = dict(zip(told[::2], told[1::2], strict=True))
    meaning = _entries(sections.get("Args", ""))
    lines = [head.rstrip(), ""]
    for name, parameter in inspect.signature(part).parameters.items():
        kind = parameter.annotation
        plain = re.sub(r"\b[\w.]+\.(?=\w)", "", inspect.formatannotation(kind))
        words = "" if kind is inspect.Parameter.empty else f": {plain}"
        needed = parameter.default is inspect.Parameter.empty
        starred = str(parameter).partition(name)[0] + name
        lines.append(f"  {starred}{words}" + ("" if needed else f" = {parameter.default!r}"))
        lines += _filled(meaning.get(starred, ""))
    if "Returns" in sections:
        lines += ["", "  returns", *_filled(sections["Returns"])]
    if "Raises" in sections:
        lines.append("")
    for name, words in _entries(sections.get("Raises", "")).items():
        lines += [f"  raises {name}", *_filled(words)]
    return re.sub("\n{3,}", "\n\n", "\n".join(lines)).replace("``", "`").rstrip()


def _entries(section: str) -> dict[str, str]:
    """What a section of a docstring says of each name."""
    told = re.split(r"^    (\*{0,2}\w+): ", section, flags=re.MULTILINE)
    return dict(zip(told[1::2], told[2::2], strict=True))


def _filled(text: str) -> list[str]:
    """The words of a text in lines of equal indentation."""
    return textwrap.wrap(
        " ".join(text.split()), 96, initial_indent=" " * 6, subsequent_indent=" " * 6
    )


def _examples(target: str) -> Iterator[tuple[str, str]]:
    """Yield where the bundles' configs name a component, and what they write."""
    for name in _CONFIGS:
        for bundle in installed_bundles():
            file = bundle / "configs" / f"{name}.yaml"
            if file.is_file():
                for key, found in _uses(read_plain(file), target):
                    where = f"{bundle.name}/configs/{file.name}"
                    shown = [found] if key is None else {key: found}
                    yield where, yaml.safe_dump(shown, sort_keys=False, width=90).rstrip()


def _uses(node: Any, target: str) -> Iterator[tuple[Any, Any]]:
    """Yield the mappings of a config that build a component, and their keys; None in a list."""
    for key, value in items(node):
        if isinstance(value, Mapping) and value.get("_target_") == target:
            yield key if isinstance(key, str) else None, value
        yield from _uses(value, target)


def _by_signature(name: str, part: Any) -> str:
    """Write a component with the arguments that it cannot do without."""
    parameters = inspect.signature(part).parameters.items()
    needed = [key for key, one in parameters if one.default is inspect.Parameter.empty]
    return "\n".join([f"_target_: mrn_components.{name}", *(f"{key}: ..." for key in needed)])
