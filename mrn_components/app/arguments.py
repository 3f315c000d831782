"""The arguments of a command line, read by the signature of the function that they are for."""

import inspect
import textwrap
from collections.abc import Callable, Sequence
from inspect import Parameter
from typing import Any

from fire.docstrings import parse as parse_docstring
from fire.parser import DefaultParseValue

from mrn_components.system.values import did_you_mean, nearest, parse_bool, parse_value

Bound = dict[str, Any]


def bind(verb: str, function: Callable[..., Any], words: Sequence[str]) -> Bound:
    """Read what is typed after a verb: arguments in their order, and options.

    An option is ``--name value`` or ``--name=value``, with ``-`` for ``_`` if you like. A switch
    may stand alone, ``--resume``, or be turned off, ``--noresume``. After ``--`` nothing is an
    option. Where the function takes any option they are keys of a config, whose values are read as
    Python literals.

    Args:
        verb: name of the command, for messages.
        function: what it calls.
        words: what is typed.

    Returns:
        The arguments of ``function`` by name.

    Raises:
        ValueError: in one line, for an option that the function does not have, a value of another
            type, an argument too many or too few.
    """
    parameters = inspect.signature(function).parameters
    named = {n: p for n, p in parameters.items() if p.kind is not Parameter.VAR_KEYWORD}
    bound: Bound = {}
    loose: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            loose, rest = [*loose, *rest], []
        elif not word.startswith("--"):
            loose.append(word)
        elif (option := _Option(word, named)).name in named:
            bound[option.name] = option.value(rest)
        elif len(named) < len(parameters):
            bound[option.name] = DefaultParseValue(option.text(rest, default="True"))
        else:
            raise ValueError(
                f"{word}: `mrn {verb}` has no such option; it has "
                f"{', '.join(f'--{name}' for name in named)}."
                + did_you_mean([f"--{name}" for name in nearest(option.name, named)])
            )
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


class _Option:
    """One word that begins with ``--``.

    Args:
        word: as typed.
        named: the parameters that it may name.
    """

    def __init__(self, word: str, named: dict[str, Parameter]) -> None:
        name, equals, text = word[2:].partition("=")
        self.word = f"--{name}"
        self.name = name.replace("-", "_")
        self._text = text if equals else None
        switch = self.name.removeprefix("no")
        if self.name not in named and switch in named and named[switch].annotation is bool:
            self.name, self._text = switch, "False"
        self._parameter = named.get(self.name)

    def text(self, rest: list[str], default: str | None) -> str:
        """What follows ``=``, else the next word, which leaves ``rest``, else the default.

        Raises:
            ValueError: if there is none of them.
        """
        if self._text is not None:
            return self._text
        if rest and not rest[0].startswith("--"):
            return rest.pop(0)
        if default is None:
            raise ValueError(f"{self.word} lacks its value: type {self.word} VALUE.")
        return default

    def value(self, rest: list[str]) -> Any:
        """The value by the parameter's type."""
        assert self._parameter is not None
        kind = self._parameter.annotation
        if kind is bool:
            return parse_bool(self.word, self.text(rest, default="True"))
        return parse_value(self.word, self.text(rest, default=None), kind)


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
        lines.append(
            textwrap.fill(
                told.get(name) or "", 96, initial_indent=" " * 6, subsequent_indent=" " * 6
            )
        )
    return "\n".join(lines).replace("``", "`")
