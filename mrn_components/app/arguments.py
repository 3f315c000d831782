"""The arguments of a command line, read by the signature of the function that they are for."""

import inspect
import textwrap
from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter
from typing import Any

from fire.docstrings import parse as parse_docstring
from fire.parser import DefaultParseValue

from mrn_components.system.values import did_you_mean, nearest, parse_value


def bind(verb: str, function: Callable[..., Any], words: Sequence[str]) -> dict[str, Any]:
    """Read the words after a verb: arguments in their order, and options; return all by name.

    An option is ``--name value`` or ``--name=value``, with ``-`` for ``_`` if you like. A switch
    may stand alone, ``--resume``, or be turned off, ``--noresume``. After ``--`` nothing is an
    option. Where the verb's function takes any option they are keys of a config, whose values are
    read as Python literals.

    Raises:
        ValueError: in one line, for an option that the function does not have, a value of another
            type, an argument too many or too few.
    """
    parameters = inspect.signature(function).parameters
    named = {n: p for n, p in parameters.items() if p.kind is not Parameter.VAR_KEYWORD}
    bound: dict[str, Any] = {}
    loose: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            loose, rest = [*loose, *rest], []
        elif not word.startswith("--"):
            loose.append(word)
        else:
            name, value = _option(word, named, rest)
            if name not in named and len(named) == len(parameters):
                raise ValueError(
                    f"{word}: `mrn {verb}` has no such option; it has "
                    f"{', '.join(f'--{known}' for known in named)}."
                    + did_you_mean([f"--{known}" for known in nearest(name, named)])
                )
            bound[name] = value
    places = [n for n, p in named.items() if p.kind is Parameter.POSITIONAL_OR_KEYWORD]
    free = [name for name in places if name not in bound]
    if len(loose) > len(free):
        raise ValueError(f"{loose[len(free)]!r} is one argument too many: {usage(verb, function)}")
    for name, word in zip(free, loose, strict=False):
        bound[name] = parse_value(name.upper(), word, named[name].annotation)
    missing = [n for n, p in named.items() if p.default is Parameter.empty and n not in bound]
    if missing:
        raise ValueError(f"{missing[0].upper()} is missing: {usage(verb, function)}")
    return bound


def _option(word: str, named: Mapping[str, Parameter], rest: list[str]) -> tuple[str, Any]:
    """The name of an option and its value, after ``=`` or in the next word, out of ``rest``."""
    typed, equals, text = word[2:].partition("=")
    name = typed.replace("-", "_")
    switch = name.removeprefix("no")
    if name not in named and switch in named and named[switch].annotation is bool:
        name, equals, text = switch, "=", "False"
    kind = named[name].annotation if name in named else None  # None for a key of a config
    if not equals and rest and not rest[0].startswith("--"):
        text = rest.pop(0)
    elif not equals and kind in (bool, None):
        text = "True"
    elif not equals:
        raise ValueError(f"--{typed} lacks its value: type --{typed} VALUE.")
    return name, parse_value(f"--{typed}", text, kind) if kind else DefaultParseValue(text)


def usage(verb: str, function: Callable[..., Any]) -> str:
    """One line: the verb and what must follow it."""
    words = [f"mrn {verb}"]
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is Parameter.POSITIONAL_OR_KEYWORD:
            words.append(name.upper())
        elif parameter.default is Parameter.empty and parameter.kind is Parameter.KEYWORD_ONLY:
            words.append(f"--{name} {name.upper()}")
    return " ".join([*words, "[--OPTION VALUE ...]"])


def help_text(verb: str, function: Callable[..., Any]) -> str:
    """The docstring of a function as help for its command, with the options' defaults."""
    doc = parse_docstring(inspect.getdoc(function) or "")
    told = {argument.name: argument.description for argument in doc.args or ()}
    lines = [usage(verb, function), "", doc.summary or "", ""]
    lines += [doc.description, ""] if doc.description else []
    for name, parameter in inspect.signature(function).parameters.items():
        default = parameter.default
        if parameter.kind is Parameter.VAR_KEYWORD:
            lines.append("  --KEY VALUE")
        elif default is Parameter.empty:
            lines.append(f"  {name.upper()}")
        else:
            lines.append(f"  --{name}" + f"  (default: {default})" * (default is not None))
        lines.append(textwrap.indent(textwrap.fill(told.get(name) or "", 90), " " * 6))
    return "\n".join(lines).replace("``", "`")
