"""What a network predicts of a subject: a class, or a score."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class Target(Protocol):
    """What is predicted: it reads labels and says what a network must give."""

    @property
    def num_outputs(self) -> int:
        """Numbers that the network's head gives."""

    @property
    def accepted(self) -> str:
        """What a label may be, for messages."""

    def parse(self, value: Any) -> int | float:
        """Read a label from a cell of a table or a value of a datalist.

        Raises:
            ValueError: naming what came and what is accepted.
        """


@dataclass(frozen=True, kw_only=True)
class Classes:
    """One of some diagnoses.

    Args:
        names: of the classes, in the order of their numbers in tables.
        positive: the class that sensitivity and P(...) speak of.

    Raises:
        ValueError: for fewer than two names, equal names, or a positive class that is none of them.
    """

    names: Sequence[str] = ("HC", "PD")
    positive: str = "PD"

    def __post_init__(self) -> None:
        names = tuple(self.names)
        if len(names) < 2 or len({name.lower() for name in names}) < len(names):
            raise ValueError(f"target names must be two or more that differ, got {list(names)}.")
        if self.positive not in names:
            raise ValueError(
                f"target positive must be one of {list(names)}, got {self.positive!r}."
            )
        object.__setattr__(self, "names", names)

    @property
    def num_outputs(self) -> int:
        """A logit a class."""
        return len(self.names)

    @property
    def accepted(self) -> str:
        """What a label may be, for messages: its number, or its name."""
        numbers = [f"{number} ({name})" for number, name in enumerate(self.names)]
        return f"{', '.join(numbers[:-1])} or {numbers[-1]}"

    def parse(self, value: Any) -> int:
        """Read a label: the number of a class, or its name.

        Raises:
            ValueError: naming what came and what is accepted.
        """
        text = str(value).strip().lower()
        known = {str(number): number for number in range(len(self.names))}
        known |= {name.lower(): number for number, name in enumerate(self.names)}
        if isinstance(value, bool) or text not in known:
            raise ValueError(f"label must be {self.accepted}, got {value!r}.")
        return known[text]


@dataclass(frozen=True, kw_only=True)
class Score:
    """A number on a scale, such as a UPDRS sum.

    Args:
        name: of the score; its column in tables.
        unit: of it, for tables and pages.
        range: lowest and highest value.

    Raises:
        ValueError: for a range that is none.
    """

    name: str = "score"
    unit: str = ""
    range: Sequence[float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if len(self.range) != 2 or not self.range[0] < self.range[1]:
            raise ValueError(f"target range must be [low, high], got {list(self.range)}.")
        object.__setattr__(self, "range", tuple(map(float, self.range)))

    @property
    def num_outputs(self) -> int:
        """One number."""
        return 1

    @property
    def accepted(self) -> str:
        """What a label may be, for messages."""
        return f"a number from {self.range[0]:g} to {self.range[1]:g}"

    def parse(self, value: Any) -> float:
        """Read a score.

        Raises:
            ValueError: naming what came and what is accepted.
        """
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = float("nan")
        if not self.range[0] <= number <= self.range[1]:  # also refuses NaN
            raise ValueError(f"label must be {self.accepted}, got {value!r}.")
        return number
