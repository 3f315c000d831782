"""Biomarkers of a subject beside what was published, as rows of a table with a small strip."""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from mrn_components.biomarkers import Biomarker, Reference, biomarkers_of, references
from mrn_components.images.image import SIDES, Image

_NUMBER = r"-?\d+(?:\.\d+)?"
_NAMES = {
    "volume_mm3_{nucleus}_{side}": "Volume",
    "qsm_mean_ppb_{nucleus}_{side}": "Mean susceptibility",
    "qsm_p95_ppb_{nucleus}_{side}": "95th percentile of susceptibility",
    "nigrosome_fraction_{side}": "Below 70 ppb (nigrosome-1 proxy)",
    "nm_volume_mm3_{side}": "Neuromelanin volume",
    "nm_contrast_ratio_{side}": "Neuromelanin contrast",
}
_DIGITS = {"mm3": 0, "ppb": 0}  # others are shares and ratios
_AROUND = 0.75  # of the published values' range, shown on either side of it
_AROUND_ONE = 0.35  # of a single published value
_STEPS = (1, 2, 2.5, 5, 10)  # between ticks, times a power of ten
_MOST_STEPS = 4  # in a strip


class Mark(NamedTuple):
    """A group's published value on a strip, in percent of its width."""

    group: str  # hc, pd, or both together
    at: float  # the mean or median
    low: float  # one standard deviation or quartile below; ``at`` where none is published
    high: float  # the same, above
    text: str  # the same in numbers, for readers


class Lane(NamedTuple):
    """One side of the subject on a strip."""

    side: str  # right or left, the patient's
    value: float | None  # of the subject; None where it could not be measured
    at: float | None  # the value in percent of the strip's width, at its end where it lies beyond
    beyond: str  # "low" or "high" where the value lies beyond the strip, else ""
    marks: list[Mark]  # what was published for this side


class Row(NamedTuple):
    """A biomarker of one nucleus, both sides."""

    name: str  # for readers
    unit: str
    meaning: str  # one sentence
    digits: int  # behind the decimal point
    lanes: list[Lane]  # right and left
    asymmetry: float | None  # of the sides, -2 to 2; None where it is not defined
    published: str  # what the marks rest on
    ticks: list[tuple[float, str]]  # of the axis: percent of the strip's width, and the number

    @property
    def in_numbers(self) -> list[str]:
        """What the marks show, a line a side; one line where both sides have the same."""
        texts = {lane.side: " · ".join(mark.text for mark in lane.marks) for lane in self.lanes}
        if len(set(texts.values())) == 1:
            return [text for text in texts.values() if text][:1]
        return [f"{side}: {text or 'nothing published'}" for side, text in texts.items()]


def biomarker_rows(
    values: Mapping[str, float | None], images: Mapping[str, Image]
) -> dict[str, list[Row]]:
    """Lay out what ``measure_nuclei`` returns, or a part: {nucleus: rows}, the SN first."""
    rows: dict[str, list[Row]] = {"SN": []}
    for biomarker in biomarkers_of(images):
        if "{side}" in biomarker.pattern:
            for nucleus in biomarker.nuclei:
                rows.setdefault(nucleus, []).append(_row(biomarker, nucleus, values))
    return rows


def published_values(reference: Reference) -> Iterator[tuple[str, float, float, float]]:
    """Read (group, mean, low, high) of a reference's texts, such as 98.4 (SD 11.7).

    There is none where a few subjects are no group.
    """
    if reference.subjects is not None:
        return
    texts = {"hc": reference.healthy, "pd": reference.disease, "both": reference.both}
    for group, text in texts.items():
        found = re.match(rf"{_NUMBER}", text)
        if found is None:
            continue
        mean = low = high = float(found.group())
        if spread := re.search(rf"SD ({_NUMBER})", text):
            low, high = mean - float(spread[1]), mean + float(spread[1])
        if quartiles := re.search(rf"quartiles ({_NUMBER}), ({_NUMBER})", text):
            low, high = float(quartiles[1]), float(quartiles[2])
        yield group, mean, low, high


def _row(biomarker: Biomarker, nucleus: str, values: Mapping[str, float | None]) -> Row:
    columns = [biomarker.column(nucleus, side) for side in SIDES]
    # The first of a column's references is the challenge's own, or the only one.
    first = [references().get(column, ())[:1] for column in columns]
    published = [[mark for part in parts for mark in published_values(part)] for parts in first]
    found = [values.get(column) for column in columns]
    digits = _DIGITS.get(biomarker.unit, 3)
    axis = _Axis([end for marks in published for _, _, *ends in marks for end in ends])
    lanes = []
    for side, value, of_side in zip(SIDES, found, published, strict=True):
        marks = [_mark(group, ends, axis.place, digits) for group, *ends in of_side]
        at = None if value is None else min(max(axis.place(value), 0.0), 100.0)
        lanes.append(Lane(side, value, at, axis.beyond(value), marks))
    asymmetry = "asymmetry_" + biomarker.pattern.replace("_{side}", "").format(nucleus=nucleus)
    return Row(
        name=_NAMES.get(biomarker.pattern, biomarker.pattern),
        unit=biomarker.unit,
        meaning=biomarker.meaning,
        digits=digits,
        lanes=lanes,
        asymmetry=values.get(asymmetry),
        published="; ".join(sorted({p.source for parts in first for p in parts if not p.subjects})),
        ticks=axis.ticks,
    )


class _Axis:
    """A strip's range, by what was published alone, so that every subject has the same."""

    def __init__(self, published: Sequence[float]) -> None:
        low, high = (min(published), max(published)) if published else (0.0, 1.0)
        around = max(_AROUND * (high - low), _AROUND_ONE * max(abs(low), abs(high)))
        least = min(0.0, low) if low >= 0 else -math.inf  # volumes and shares have no less
        step = _step((high - low + 2 * around) / _MOST_STEPS)
        self.low = max(math.floor((low - around) / step) * step, least)
        self.high = math.ceil((high + around) / step) * step
        count = round((self.high - self.low) / step)
        numbers = [self.low + step * number for number in range(count + 1)]
        self.ticks = [(self.place(n), f"{round(n, 10):g}".replace("-", "−")) for n in numbers]

    def place(self, value: float) -> float:
        """Where a value lies, in percent of the width."""
        return round(100 * (value - self.low) / (self.high - self.low), 2)

    def beyond(self, value: float | None) -> str:
        """Say which end of the strip a value lies beyond."""
        if value is None or self.low <= value <= self.high:
            return ""
        return "low" if value < self.low else "high"


def _step(least: float) -> float:
    """Return the first round number from some value on."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * step for step in _STEPS if power * step >= least * (1 - 1e-9))


def _mark(group: str, ends: Sequence[float], place: Callable[[float], float], digits: int) -> Mark:
    """A mark of (mean, low, high)."""
    at, start, stop = map(place, ends)
    mean, low, high = (f"{end:.{digits}f}".replace("-", "−") for end in ends)
    name = "HC and PD together" if group == "both" else group.upper()
    text = f"{name} {mean}" + (f" ({low} to {high})" if low != high else "")
    return Mark(group, at, start, stop, text)
