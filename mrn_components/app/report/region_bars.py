"""What each region added to a subject's prediction, as bars of a page beside the training's."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mrn_components.data.target import Score, Target

_LEAST = 0.0005  # of the scale: less is 0.000 on a page, and is called nothing


class Reach(NamedTuple):
    """Where eight of ten training subjects of a class lie, on a bar."""

    group: str  # the class, or "all" of a score
    style: str  # hc, pd or both: its colour
    low: float
    high: float
    left: float  # in percent of the bar's width
    width: float


class RegionBar(NamedTuple):
    """The Shapley value of one region, on a bar whose middle is 0."""

    name: str
    value: float
    style: str  # up or down
    left: float  # in percent of the bar's width
    width: float
    training: list[Reach]


def region_bars(explanation: Mapping[str, Any], target: Target) -> list[RegionBar]:
    """Lay out the Shapley values of ``explanation.json``; the longest reaches half of a bar."""
    shapley, spread = explanation["shapley"], explanation.get("spread", {})
    numbers = [abs(value) for value in shapley.values()]
    numbers += [abs(x) for groups in spread.values() for ends in groups.values() for x in ends]
    longest = max(numbers, default=0.0) or 1.0

    def place(low: float, high: float) -> tuple[float, float]:
        return round(50 + 50 * low / longest, 2), round(50 * (high - low) / longest, 2)

    bars = []
    for name, value in shapley.items():
        reaches = [
            Reach(group, _style(group, target), low, high, *place(low, high))
            for group, (low, _, high) in spread.get(name, {}).items()
        ]
        ends = place(min(value, 0), max(value, 0))
        bars.append(RegionBar(name, value, "up" if value > 0 else "down", *ends, reaches))
    return bars


def is_nothing(effects: Sequence[float], target: Target) -> bool:
    """Whether effects on the prediction are all too small to be shown."""
    low, high = target.span
    return max(map(abs, effects), default=0.0) < _LEAST * (high - low)


def _style(group: str, target: Target) -> str:
    if isinstance(target, Score) or group not in target.names:
        return "both"
    return "pd" if group == target.positive else "hc"
