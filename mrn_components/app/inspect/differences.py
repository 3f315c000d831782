"""What in a foreign bundle is not data, and what follows from it."""

import reprlib
from dataclasses import dataclass
from typing import Any, Literal

# Prediction refuses it; or prediction does not read it, but who trains from it would run it; or
# the installed one is used in its place.
Effect = Literal["refused", "not predicted with", "ours is used"]

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80


@dataclass(frozen=True)
class Difference:
    """Something in a bundle that differs from the installed one and is not data.

    Args:
        file: path in the bundle; "--" for an override from the command line.
        where: id in a config, else empty.
        what: what stands there, what stands in ours, or what is wrong with it.
        effect: what follows.
    """

    file: str
    where: str
    what: str
    effect: Effect = "refused"

    def __str__(self) -> str:
        parts = [part for part in (self.file, self.where, self.what) if part]
        return ": ".join(parts) + ("" if self.effect == "refused" else f" ({self.effect})")


def shown(value: Any) -> str:
    """Return a value in one short line, without characters that move a terminal's cursor."""
    return _short.repr(value)
