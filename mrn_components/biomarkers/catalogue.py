"""What every biomarker column means, and what was published for it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import Template
from typing import Any, Literal

import yaml

from mrn_components.images.image import CHALLENGE_IMAGES, SIDES, Image
from mrn_components.regions.surroundings import REFERENCE_CONE_DEGREES, REFERENCE_MM

NIGROSOME_BELOW_PPB = 70.0  # Kim 2018

Kind = Literal["volume", "mean", "p95", "nigrosome", "contrast", "asymmetry"]


@dataclass(frozen=True)
class Biomarker:
    """A family of columns."""

    kind: Kind  # what is computed
    image: str  # key of the image
    pattern: str  # name of the columns, with {nucleus} and {side} for what varies
    nuclei: tuple[str, ...]  # that are measured
    unit: str  # of the values
    meaning: str  # one sentence
    source: str = "arithmetic"  # of the definition

    def column(self, nucleus: str, side: str = "") -> str:
        """Return the name of a column; a pattern without sides needs none."""
        return self.pattern.format(nucleus=nucleus, side=side)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns, right before left."""
        return tuple(column for nucleus in self.nuclei for column in self.columns_for(nucleus))

    def columns_for(self, nucleus: str) -> tuple[str, ...]:
        """Return the names of a nucleus' columns, right before left."""
        sides = SIDES if "{side}" in self.pattern else ("",)
        return tuple(self.column(nucleus, side) for side in sides)


@dataclass(frozen=True)
class Reference:
    """What a publication found for one column."""

    source: str  # the publication and what it rests on
    healthy: str = ""  # value of healthy controls as text, with its spread; "" if not published
    disease: str = ""  # the same of the PD group
    both: str = ""  # of both together, where they are not told apart
    subjects: int | None = None  # how few these are; None for a group


def biomarkers_of(images: Mapping[str, Image] = CHALLENGE_IMAGES) -> tuple[Biomarker, ...]:
    """List what is measured in some images: what makes sense for their quantity.

    Susceptibility comes first, then neuromelanin, then others; the sides are compared at the end.
    Images without nuclei have no biomarkers.
    """
    table = _read("families.yaml")
    measured: list[Biomarker] = []
    for quantity in table:
        for image in images.values():
            if quantity == (image.quantity if image.quantity in table else "other"):
                # The first map of susceptibility has the plain names, as the challenge's table.
                plain = quantity == "susceptibility" and not measured
                prefix = "" if plain else f"{image.name}_"
                measured += _families(image, table[quantity], prefix)
    compared = [one for family in measured for one in _asymmetry(family, images[family.image])]
    return (*measured, *compared)


def columns_of(images: Mapping[str, Image] = CHALLENGE_IMAGES) -> tuple[str, ...]:
    """List the columns of ``biomarkers_of`` some images."""
    return tuple(column for biomarker in biomarkers_of(images) for column in biomarker.columns)


def _families(image: Image, rows: Sequence[Mapping[str, Any]], prefix: str) -> Iterator[Biomarker]:
    """Yield what rows of the table of families say of an image, where they suit it."""
    unit = image.value_unit or "arbitrary"
    words = {"image": image.name, "title": image.title, "unit": unit, "prefix": prefix}
    words |= {"below_ppb": f"{NIGROSOME_BELOW_PPB:g}", "degrees": f"{REFERENCE_CONE_DEGREES:g}"}
    words |= {name: f"{mm:g}" for name, mm in zip(("near", "far"), REFERENCE_MM, strict=True)}
    for row in rows:
        nuclei = [nucleus for nucleus in row.get("only", image.nuclei) if nucleus in image.nuclei]
        nuclei = [nucleus for nucleus in nuclei if nucleus not in row.get("without", ())]
        if nuclei and row.get("in_unit", unit) == unit:
            texts = {key: Template(row[key]).substitute(words) for key in _TEXTS if key in row}
            yield Biomarker(kind=row["kind"], image=image.name, nuclei=tuple(nuclei), **texts)


_TEXTS = ("pattern", "unit", "meaning", "source")
_COMPARED = {
    "volume": "2 (right - left) / (right + left) of {name}; positive where the right is larger.",
    "mean": "The same of {name}; empty where one side is not positive.",
    "contrast": "The same of {name}; empty where one side is not positive.",
}


def _asymmetry(family: Biomarker, image: Image) -> list[Biomarker]:
    """The sides of a family of columns compared, if that makes sense."""
    if family.kind not in _COMPARED:
        return []
    name = family.pattern.replace("_{side}", "")
    # The mean susceptibility of the thalamus lies about 0.
    about_0 = ("TH",) if (image.quantity, family.kind) == ("susceptibility", "mean") else ()
    return [
        Biomarker(
            "asymmetry",
            family.image,
            f"asymmetry_{name}",
            tuple(nucleus for nucleus in family.nuclei if nucleus not in about_0),
            "ratio, -2 to 2",
            _COMPARED[family.kind].format(name=f"`{name}`"),
        )
    ]


@cache
def references() -> dict[str, tuple[Reference, ...]]:
    """Return {column: what was published for it, the challenge's own first}."""
    content = _read("references.yaml")
    return {
        column: tuple(Reference(**one) for one in found)
        for column, found in content.items()
        if column != "sources"  # which are named there for the others
    }


@cache
def _read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(Path(__file__).with_name(name).read_text("utf-8"))
    return content
