"""Whether images show under their masks what brains show: ``plausible.yaml`` has the ranges."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from mrn_components.images.finding import Finding, Severity, finding
from mrn_components.images.image import SIDES, Image
from mrn_components.images.overlap import overlap_findings
from mrn_components.images.volume import Volume
from mrn_components.regions.nuclei import Nuclei
from mrn_components.regions.surroundings import contrast_ratio

# Other units and slips, as how many ppb stand in the file for one.
_FACTORS = {
    "ppm": 1e-3,
    "Hz at 1.5 T": 0.0639,
    "Hz at 3 T": 0.1277,
    "radians for turns": 1 / (2 * np.pi),
    "Hz at 7 T": 0.298,
    "turns for radians": 2 * np.pi,
    "ppt": 1e3,
}
_BYTES = ((-128.0, 127.0), (0.0, 255.0))  # what is beyond was cut, or began anew
_NEAR = 1.25  # times a factor: nuclei differ between people


class _Seen(NamedTuple):
    """An image with its mask."""

    volume: Volume
    nuclei: Nuclei

    @property
    def image(self) -> Image:
        return self.nuclei.image


def plausible_findings(
    volumes: Mapping[str, Volume], images: Mapping[str, Image]
) -> Iterator[Finding]:
    """Judge what images show in the nuclei of their masks, and whether two show one place.

    Wherever masks are known, in every verb: given, segmented, or those of an atlas.

    Args:
        volumes: sound images and masks on their grids by their keys, such as qsm and mask_qsm.
        images: what a subject has.
    """
    there = [image for name, image in images.items() if name in volumes]
    for one, other in combinations(there, 2):
        yield from overlap_findings(volumes[one.name], volumes[other.name], other.title)
    masked = {n: i for n, i in images.items() if i.mask_name in volumes}
    nuclei = {n: Nuclei(mask=volumes[i.mask_name], image=i) for n, i in masked.items()}
    for name in masked:
        if name in volumes and nuclei[name].places:
            seen = _Seen(volumes[name], nuclei[name])
            yield from _extreme(seen)
            if seen.image.quantity == "susceptibility":
                yield from _susceptibility(seen)
            if seen.image.quantity == "neuromelanin":
                others = [other.mask for key, other in nuclei.items() if key != name]
                yield from _neuromelanin(seen, others)
    for pair in combinations(nuclei.values(), 2):
        yield from _nigra(*pair)


def _susceptibility(seen: _Seen) -> Iterator[Finding]:
    """Judge sign, unit, reference and spread by nuclei that are full of iron."""
    rows, unit = _table()["susceptibility"], seen.image.value_unit
    if unit != seen.image.facts.unit:
        return  # of a unit that nobody knows
    values = {name: seen.nuclei.values(seen.volume, name) for name in rows["iron"]}
    values = {name: inside for name, inside in values.items() if inside.size}
    calm, where = _calm(seen, rows["calm"])
    if not values or calm is None:
        return
    names = ", ".join(values)
    iron = float(np.mean([inside.mean(dtype=float) for inside in values.values()]))
    rise, shift = iron - calm, calm - rows["level"]["usual"]
    spread = float(max(inside.std(dtype=float) for inside in values.values()))
    above = f"a mean of {_short(iron)} {unit} in {names}, {_short(abs(rise))} {unit} "
    above += f"{'above' if rise >= 0 else 'below'} that of {where}"
    words: dict[str, Any] = {"image": seen.image.title, "name": seen.image.name}
    words |= {"unit": unit, "where": where}
    if spread > max(rows["spread"]["likely"][1], abs(rise)):
        found = f"values that spread by {spread:.0f} {unit} within {names}, {above}"
        yield finding("qsm-spread", seen.volume.path, found, most=rows["spread"]["likely"][1])
    elif rise < 0:
        yield finding("qsm-sign", seen.volume.path, above, **words)
    elif severity := _severity(rise, rows["rise"]):
        found = f"{above}, {rise / rows['rise']['usual']:.2g} times the usual{_cause(seen, rise)}"
        low, high = rows["rise"]["likely"]
        words |= {"low": low, "high": high, "severity": severity}
        yield finding("qsm-scale", seen.volume.path, found, **words)
    elif severity := _severity(calm, rows["level"]):
        found = f"{_short(calm)} {unit} in {where}, where {rows['level']['usual']} are usual"
        found += f": a shift of {shift:+.0f} {unit}"
        reference = rows["calm"] if seen.nuclei.where(rows["calm"]).size else "mean"
        most = rows["level"]["likely"][1] - rows["level"]["usual"]
        words |= {"most": most, "severity": severity, "reference": reference}
        yield finding("qsm-reference", seen.volume.path, found, **words)


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 10 else f"{value:.2g}"


def _calm(seen: _Seen, nucleus: str) -> tuple[float | None, str]:
    """Value of tissue that holds little iron, and its name."""
    values = seen.nuclei.values(seen.volume, nucleus)
    if values.size:
        return float(values.mean(dtype=float)), nucleus
    voxels = seen.volume.voxels
    values = voxels[np.isfinite(voxels) & (voxels != 0)]
    return (float(np.median(values)) if values.size else None), "the whole image"


def _cause(seen: _Seen, rise: float) -> str:
    """Say what makes values so much stronger or weaker than usual, if that can be told."""
    ratio = rise / _table()["susceptibility"]["rise"]["usual"]
    causes = [f"as in {unit}" for unit, f in _FACTORS.items() if 1 / _NEAR < ratio / f < _NEAR]
    whole = seen.volume.stored.dtype.kind in "iu" and (seen.volume.slope, seen.volume.inter) == (
        1,
        0,
    )
    if whole and ratio > 1:
        causes.append("integers without a scale factor, which may be lost")
    return f" ({'; '.join(causes)})" if causes else ""


def _neuromelanin(seen: _Seen, others: Sequence[Volume]) -> Iterator[Finding]:
    """Judge the contrast of the SN to what lies before and outward of it."""
    low, high = _table()["neuromelanin"]["contrast"]["likely"]
    volume, mask = seen.volume.canonical, seen.nuclei.mask.canonical
    turned = Nuclei(mask=mask, image=seen.image)
    pairs = zip(SIDES, seen.image.nuclei.get("SN", ()), strict=False)
    found = {
        side: contrast_ratio(
            volume, mask, turned.places[number], side=side, others=[o.canonical for o in others]
        )
        for side, number in pairs
        if number in turned.places
    }
    values = {side: value for side, value in found.items() if value is not None}
    if values and not low <= float(np.mean([*values.values()])) <= high:
        text = " and ".join(f"{value:.2f} on the {side}" for side, value in values.items())
        found_text = f"a contrast of the substantia nigra of {text}"
        words = {"low": low, "high": high, "image": seen.image.title}
        yield finding("nm-contrast", seen.volume.path, found_text, **words)


def _extreme(seen: _Seen) -> Iterator[Finding]:
    """Look for values that a type too small has cut."""
    most = _table()["any"]["extreme"]["likely"][1]
    rows = _table().get(seen.image.quantity, {})
    names = [n for n in rows.get("iron", seen.image.nuclei) if seen.nuclei.where(n).size]
    inside = seen.nuclei.values(seen.volume, *names)
    ends = seen.volume.ends
    if not inside.size or ends[0] == ends[1]:
        return
    if seen.image.quantity == "susceptibility" and ends in _BYTES:
        found = f"values from {ends[0]:g} to {ends[1]:g}, the ends of 8 bits"
        yield finding("clipped", seen.volume.path, found, expected="values that end elsewhere")
        return
    for end, value in zip(("lowest", "highest"), ends, strict=True):
        share = float((inside == value).mean())
        if share > most:
            found = f"{share:.0%} of the voxels of {', '.join(names)} at the {end} value, {value:g}"
            yield finding("clipped", seen.volume.path, found, most=most)


def _nigra(first: Nuclei, second: Nuclei) -> Iterator[Finding]:
    """Check that two images show the substantia nigra in one place (I14)."""
    if not (first.has("SN") and second.has("SN")):
        return
    ids, others = first.image.nuclei["SN"], second.image.nuclei["SN"]
    pairs = {"": (ids, others)} | {
        f"{side} ": ((one,), (other,)) for side, one, other in zip(SIDES, ids, others, strict=True)
    }
    for which, (one, other) in pairs.items():
        row = _table()["any"]["nigra_side_mm" if which else "nigra_mm"]
        mm = float(np.linalg.norm(first.centre_mm(*one) - second.centre_mm(*other)))
        most = row["likely"][1]
        if not mm <= most:
            found = f"the {which}substantia nigra {mm:.1f} mm from that in {second.mask.path.name}"
            titles = f"{first.image.title} and {second.image.title}"
            yield finding("nigra-shift", first.mask.path, found, mm=most, images=titles)
            return


def _severity(value: float, row: Mapping[str, Any]) -> Severity | None:
    """Whether a value is impossible, unlikely or neither."""
    ranges: dict[str, Severity] = {"possible": "error", "likely": "warning"}
    for key, severity in ranges.items():
        low, high = row[key]
        if not low <= value <= high:
            return severity
    return None


@cache
def _table() -> dict[str, Any]:
    return yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
