"""What every biomarker column means, and what was published for it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mrn_components.images.image import CHALLENGE_IMAGES, SIDES, Image

NIGROSOME_BELOW_PPB = 70.0  # Kim 2018
REFERENCE_MM = (2.0, 6.0)  # nearest and farthest tissue of the NM reference from the SN
REFERENCE_CONE_DEGREES = 30.0  # about the anterolateral direction

_ORGANISERS = "PDCADxFoundation organisers"
_KIM = "Kim 2018, J Clin Neurol 14:90, 3 T (PMC5765262)"

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
        """Return the name of a column.

        Args:
            nucleus: one of ``nuclei``.
            side: right or left, where the pattern has sides.
        """
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
    """List the columns of ``biomarkers_of`` some images.

    Args:
        images: what a subject has.
    """
    return tuple(column for biomarker in biomarkers_of(images) for column in biomarker.columns)


def _susceptibility(image: Image, prefix: str) -> list[Biomarker]:
    nuclei, unit = tuple(image.nuclei), image.unit or image.facts.unit
    biomarkers = [
        _volume(image, prefix, nuclei),
        Biomarker(
            "mean",
            image.name,
            f"{image.name}_mean_{unit}_{{nucleus}}_{{side}}",
            nuclei,
            unit,
            "Mean susceptibility over the nucleus' voxels; rises with iron.",
            f"{_ORGANISERS}, dataset page",
        ),
        Biomarker(
            "p95",
            image.name,
            f"{image.name}_p95_{unit}_{{nucleus}}_{{side}}",
            nuclei,
            unit,
            "95th percentile of the susceptibility over the nucleus' voxels.",
        ),
    ]
    if "SN" in nuclei and unit == "ppb":
        biomarkers.append(
            Biomarker(
                "nigrosome",
                image.name,
                f"{prefix}nigrosome_fraction_{{side}}",
                ("SN",),
                "share, 0 to 1",
                f"Share of the voxels of the {image.title} mask's SN below "
                f"{NIGROSOME_BELOW_PPB:.0f} ppb, a proxy of nigrosome-1, which holds little iron.",
                _KIM,
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
    nuclei = tuple(image.nuclei)
    return [
        _volume(image, prefix, nuclei),
        Biomarker(
            "mean",
            image.name,
            f"{prefix}mean_{{nucleus}}_{{side}}",
            nuclei,
            image.unit or "arbitrary",
            f"Mean of {image.title} over the nucleus' voxels.",
        ),
    ]


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


# Mean volume in mm3 (right, left) over 300 subjects of both classes; mean susceptibility in ppb of
# (HC, PD), read off a chart, of the SN for each side.
_VOLUMES = {
    "CN": (3360, 2840),
    "PUT": (3670, 3520),
    "GP": (1850, 2100),
    "TH": (4600, 4610),
    "STN": (80, 90),
    "SN": (470, 460),
    "RN": (170, 170),
    "DN": (660, 650),
}
_CHI = {
    "CN": ((41, 40), (41, 40)),
    "PUT": ((50, 48), (50, 48)),
    "GP": ((121, 130), (121, 130)),
    "TH": ((-11, -8), (-11, -8)),
    "STN": ((100, 101), (100, 101)),
    "SN": ((132, 149), (133, 154)),
    "RN": ((112, 114), (112, 114)),
    "DN": ((107, 102), (107, 102)),
}


def _references() -> dict[str, tuple[Reference, ...]]:
    table: dict[str, tuple[Reference, ...]] = {}
    for nucleus in _VOLUMES:
        for index, side in enumerate(SIDES):
            mean = f"{_VOLUMES[nucleus][index]}"
            table[f"volume_mm3_{nucleus}_{side}"] = (
                Reference(mean, mean, f"{_ORGANISERS}' table: mean of HC and PD together, n = 300"),
            )
            healthy, disease = _CHI[nucleus][index]
            sides = "" if nucleus == "SN" else ", both sides"
            table[f"qsm_mean_ppb_{nucleus}_{side}"] = (
                Reference(
                    f"{healthy}",
                    f"{disease}",
                    f"{_ORGANISERS}' chart: means{sides}, n = 300, no SD published",
                ),
            )
    for side in SIDES:
        table[f"qsm_mean_ppb_SN_{side}"] += (Reference("98.4 (SD 11.7)", "125.8 (SD 16.3)", _KIM),)
        table[f"nigrosome_fraction_{side}"] = (
            Reference("0.107 (quartiles 0.060, 0.216)", "0 (quartiles 0, 0.0023)", _KIM),
        )
        table[f"nm_volume_mm3_{side}"] = (
            Reference(
                "322 (SD 25)",
                "",
                f"masks that the {_ORGANISERS} published of 5 healthy subjects, 10 sides",
            ),
            Reference(
                "96.0",
                "79.1",
                "doi:10.1186/s12883-020-01828-8: mean of both sides, 15 HC and 18 PD, drawn "
                "smaller than the challenge's masks",
            ),
        )
        table[f"nm_contrast_ratio_{side}"] = (
            Reference(
                "0.225",
                "",
                "two volunteers, 2D scans, SN with VTA against a drawn crus (KCL_Neuromelanin-MRI)",
            ),
        )
    return table


# {column: what was published, the challenge's own first}. Scanners, reconstructions and masks shift
# these values: they are means of groups and no limits of the normal.
REFERENCES = _references()


def describe_biomarkers(images: Mapping[str, Image] = CHALLENGE_IMAGES) -> str:
    """Explain every column and list what was published, as Markdown.

    Args:
        images: what a subject has.
    """
    titles = [image.title for image in images.values() if image.nuclei]
    alone = f"{' and '.join(titles)} are each" if len(titles) > 1 else "The image is"
    lines = [
        "# Biomarkers",
        "",
        "Measurements of the deep nuclei from the images and their masks, without a network. "
        "Research use only. A cell is empty where an image, a mask or the nucleus is missing. "
        f"{alone} measured in the own mask, on the own grid. Right and left are the patient's.",
        "",
        "| column | unit | meaning | source of the definition |",
        "|---|---|---|---|",
    ]
    for biomarker in biomarkers_of(images):
        nuclei = f" ({', '.join(biomarker.nuclei)})" if "{nucleus}" in biomarker.pattern else ""
        lines.append(
            f"| `{biomarker.pattern}`{nuclei} | {biomarker.unit} | {biomarker.meaning} | "
            f"{biomarker.source} |"
        )
    lines += [
        "",
        "## Published values",
        "",
        "Group means for orientation. Scanner, reconstruction and masks shift them; they are no "
        "limits of the normal, and groups overlap widely.",
        "",
        "| column | HC | PD | source |",
        "|---|---|---|---|",
    ]
    for column in columns_of(images):
        for reference in REFERENCES.get(column, ()):
            cells = (column, reference.healthy, reference.disease, reference.source)
            lines.append(f"| {' | '.join(cell or '-' for cell in cells)} |")
    return "\n".join(lines) + "\n"
