"""What every biomarker column means, and what was published for it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import yaml

from mrn_components.images.image import CHALLENGE_IMAGES, SIDES, Image

NIGROSOME_BELOW_PPB = 70.0  # Kim 2018
REFERENCE_MM = (2.0, 6.0)  # nearest and farthest tissue of the NM reference from the SN
REFERENCE_CONE_DEGREES = 30.0  # about the anterolateral direction

Kind = Literal["volume", "mean", "p95", "nigrosome", "contrast", "asymmetry"]


@dataclass(frozen=True)
class Biomarker:
    """A family of columns.

    Args:
        kind: what is computed.
        image: key of the image.
        pattern: name of the columns, with {nucleus} and {side} for what varies.
        nuclei: that are measured.
        unit: of the values.
        meaning: one sentence.
        source: of the definition.
    """

    kind: Kind
    image: str
    pattern: str
    nuclei: tuple[str, ...]
    unit: str
    meaning: str
    source: str = "arithmetic"

    def column(self, nucleus: str, side: str = "") -> str:
        """Return the name of a column; a pattern without sides needs none."""
        return self.pattern.format(nucleus=nucleus, side=side)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns, right before left."""
        sides = SIDES if "{side}" in self.pattern else ("",)
        return tuple(self.column(nucleus, side) for nucleus in self.nuclei for side in sides)


@dataclass(frozen=True)
class Reference:
    """What a publication found for one column.

    Args:
        healthy: value of healthy controls as text with its spread; "" where none is published.
        disease: value of the PD group as text; "" where none is published.
        source: the publication and what it rests on.
    """

    healthy: str
    disease: str
    source: str


def biomarkers_of(images: Mapping[str, Image] = CHALLENGE_IMAGES) -> tuple[Biomarker, ...]:
    """List what is measured in some images: what makes sense for their quantity.

    Susceptibility comes first, then neuromelanin, then others; the sides are compared at the end.

    Args:
        images: what a subject has; those without nuclei have no biomarkers.
    """
    with_nuclei = [image for image in images.values() if image.nuclei]
    measured: list[Biomarker] = []
    for quantity, families in _FAMILIES.items():
        for image in with_nuclei:
            if image.quantity == quantity:
                # The first map of susceptibility has the plain names, as the challenge's table.
                plain = quantity == "susceptibility" and not measured
                measured += families(image, "" if plain else f"{image.name}_")
    for image in with_nuclei:
        if image.quantity not in _FAMILIES:
            measured += _general(image, f"{image.name}_")
    compared = [one for family in measured for one in _asymmetry(family, images[family.image])]
    return (*measured, *compared)


def columns_of(images: Mapping[str, Image] = CHALLENGE_IMAGES) -> tuple[str, ...]:
    """List the columns of ``biomarkers_of`` some images."""
    return tuple(column for biomarker in biomarkers_of(images) for column in biomarker.columns)


def _susceptibility(image: Image, prefix: str) -> list[Biomarker]:
    unit = image.unit or image.facts.unit
    biomarkers = [
        _volume(image, prefix, tuple(image.nuclei)),
        _of_nuclei(
            image,
            "mean",
            f"{image.name}_mean_{unit}",
            unit,
            "Mean susceptibility over the nucleus' voxels; rises with iron.",
            source="PDCADxFoundation organisers, dataset page",
        ),
        _of_nuclei(
            image,
            "p95",
            f"{image.name}_p95_{unit}",
            unit,
            "95th percentile of the susceptibility over the nucleus' voxels.",
        ),
    ]
    if "SN" in image.nuclei and unit == "ppb":
        biomarkers.append(
            Biomarker(
                "nigrosome",
                image.name,
                f"{prefix}nigrosome_fraction_{{side}}",
                ("SN",),
                "share, 0 to 1",
                f"Share of the voxels of the {image.title} mask's SN below "
                f"{NIGROSOME_BELOW_PPB:.0f} ppb, a proxy of nigrosome-1, which holds little iron.",
                "Kim 2018, J Clin Neurol 14:90, 3 T (PMC5765262)",
            )
        )
    return biomarkers


def _neuromelanin(image: Image, prefix: str) -> list[Biomarker]:
    others = tuple(nucleus for nucleus in image.nuclei if nucleus != "SN")
    biomarkers = [_volume(image, prefix, others)] if others else []
    if "SN" not in image.nuclei:
        return biomarkers
    title, (near, far) = image.title, REFERENCE_MM
    return [
        Biomarker(
            "volume",
            image.name,
            f"{prefix}volume_mm3_{{side}}",
            ("SN",),
            "mm3",
            f"Volume of the hyperintense SN, as the {title} mask draws it.",
        ),
        Biomarker(
            "contrast",
            image.name,
            f"{prefix}contrast_ratio_{{side}}",
            ("SN",),
            "ratio",
            f"(mean {title} signal of the {title} mask's SN - reference) / reference. The "
            f"reference stands for the crus cerebri: the median of the tissue {near:g} to {far:g} "
            f"mm from the SN of the same side, within {REFERENCE_CONE_DEGREES:g} degrees of the "
            "anterolateral direction, outside every labelled nucleus.",
            "formula: Wengler 2020, doi:10.1016/j.neuroimage.2019.116457; reference region: ours",
        ),
        *biomarkers,
    ]


def _general(image: Image, prefix: str) -> list[Biomarker]:
    meaning = f"Mean of {image.title} over the nucleus' voxels."
    mean = _of_nuclei(image, "mean", f"{prefix}mean", image.unit or "arbitrary", meaning)
    return [_volume(image, prefix, tuple(image.nuclei)), mean]


def _of_nuclei(
    image: Image, kind: Kind, name: str, unit: str, meaning: str, *, source: str = "arithmetic"
) -> Biomarker:
    pattern = f"{name}_{{nucleus}}_{{side}}"
    return Biomarker(kind, image.name, pattern, tuple(image.nuclei), unit, meaning, source)


def _volume(image: Image, prefix: str, nuclei: tuple[str, ...]) -> Biomarker:
    return Biomarker(
        "volume",
        image.name,
        f"{prefix}volume_mm3_{{nucleus}}_{{side}}",
        nuclei,
        "mm3",
        f"Volume of the nucleus in the {image.title} mask: its voxels times the volume of a voxel.",
    )


_FAMILIES = {"susceptibility": _susceptibility, "neuromelanin": _neuromelanin}
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
    path = Path(__file__).with_name("references.yaml")
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    del content["sources"]  # named there for the others
    return {column: tuple(Reference(**one) for one in found) for column, found in content.items()}
