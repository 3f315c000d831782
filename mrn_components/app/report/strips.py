"""Biomarkers of a subject beside what was published, as rows of a table with a small strip."""

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
    "nigrosome_fraction_{side}": "Share below 70 ppb (nigrosome-1 proxy)",
    "nm_volume_mm3_{side}": "Neuromelanin volume",
    "nm_contrast_ratio_{side}": "Neuromelanin contrast ratio",
}
_DIGITS = {"mm3": 0, "ppb": 0}  # others are shares and ratios
_MARGIN = 0.06  # of a strip, free on either side


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
    at: float | None  # the value in percent of the strip's width
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
    numbers = [value for value in found if value is not None]
    numbers += [end for marks in published for _, _, *ends in marks for end in ends]
    low, high = (min(numbers), max(numbers)) if numbers else (0.0, 0.0)
    width = (high - low) or 1.0

    def place(value: float) -> float:
        share = (value - low) / width if high > low else 0.5
        return round(100 * (_MARGIN + share * (1 - 2 * _MARGIN)), 2)

    digits = _DIGITS.get(biomarker.unit, 3)
    lanes = []
    for side, value, of_side in zip(SIDES, found, published, strict=True):
        marks = [_mark(group, ends, place, digits) for group, *ends in of_side]
        lanes.append(Lane(side, value, None if value is None else place(value), marks))
    asymmetry = "asymmetry_" + biomarker.pattern.replace("_{side}", "").format(nucleus=nucleus)
    return Row(
        name=_NAMES.get(biomarker.pattern, biomarker.pattern),
        unit=biomarker.unit,
        meaning=biomarker.meaning,
        digits=digits,
        lanes=lanes,
        asymmetry=values.get(asymmetry),
        published="; ".join(sorted({p.source for parts in first for p in parts if not p.subjects})),
    )


def _mark(group: str, ends: Sequence[float], place: Callable[[float], float], digits: int) -> Mark:
    """A mark of (mean, low, high)."""
    at, start, stop = map(place, ends)
    mean, low, high = (f"{end:.{digits}f}".replace("-", "−") for end in ends)
    name = "HC and PD together" if group == "both" else group.upper()
    text = f"{name} {mean}" + (f" ({low} to {high})" if low != high else "")
    return Mark(group, at, start, stop, text)
