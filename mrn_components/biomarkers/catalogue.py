"""What every biomarker column means, and what was published for it."""

from dataclasses import dataclass

from mrn_components.images.labels import LABELS, SIDES

NIGROSOME_BELOW_PPB = 70.0  # Kim 2018
REFERENCE_MM = (2.0, 6.0)  # nearest and farthest tissue of the NM reference from the SN
REFERENCE_CONE_DEGREES = 30.0  # about the anterolateral direction

_ORGANISERS = "PDCADxFoundation organisers"
_KIM = "Kim 2018, J Clin Neurol 14:90, 3 T (PMC5765262)"


@dataclass(frozen=True)
class Biomarker:
    """A family of columns.

    Args:
        pattern: name of the columns, with {nucleus} and {side} for what varies.
        nuclei: of the columns; empty where the pattern has no {nucleus}.
        unit: of the values.
        meaning: one sentence.
        source: of the definition.
    """

    pattern: str
    nuclei: tuple[str, ...]
    unit: str
    meaning: str
    source: str

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns, right before left."""
        sides = SIDES if "{side}" in self.pattern else ("",)
        return tuple(
            self.pattern.format(nucleus=nucleus, side=side)
            for nucleus in self.nuclei or ("",)
            for side in sides
        )


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


_ALL = tuple(LABELS["qsm"])

BIOMARKERS = (
    Biomarker(
        "volume_mm3_{nucleus}_{side}",
        _ALL,
        "mm3",
        "Volume of the nucleus in the QSM mask: its voxels times the volume of a voxel.",
        "arithmetic",
    ),
    Biomarker(
        "qsm_mean_ppb_{nucleus}_{side}",
        _ALL,
        "ppb",
        "Mean susceptibility over the nucleus' voxels; rises with iron.",
        f"{_ORGANISERS}, dataset page",
    ),
    Biomarker(
        "qsm_p95_ppb_{nucleus}_{side}",
        _ALL,
        "ppb",
        "95th percentile of the susceptibility over the nucleus' voxels.",
        "arithmetic",
    ),
    Biomarker(
        "nigrosome_fraction_{side}",
        (),
        "share, 0 to 1",
        f"Share of the voxels of the QSM mask's SN below {NIGROSOME_BELOW_PPB:.0f} ppb, a proxy of "
        "nigrosome-1, which holds little iron.",
        _KIM,
    ),
    Biomarker(
        "nm_volume_mm3_{side}",
        (),
        "mm3",
        "Volume of the hyperintense SN, as the NM mask draws it.",
        "arithmetic",
    ),
    Biomarker(
        "nm_contrast_ratio_{side}",
        (),
        "ratio",
        "(mean NM signal of the NM mask's SN - reference) / reference. The reference stands for "
        f"the crus cerebri: the median of the tissue {REFERENCE_MM[0]:g} to {REFERENCE_MM[1]:g} mm "
        f"from the SN of the same side, within {REFERENCE_CONE_DEGREES:g} degrees of the "
        "anterolateral direction, outside every labelled nucleus.",
        "formula: Wengler 2020, doi:10.1016/j.neuroimage.2019.116457; reference region: ours",
    ),
    Biomarker(
        "asymmetry_volume_mm3_{nucleus}",
        _ALL,
        "ratio, -2 to 2",
        "2 (right - left) / (right + left) of the volumes; positive where the right is larger.",
        "arithmetic",
    ),
    Biomarker(
        "asymmetry_qsm_mean_ppb_{nucleus}",
        tuple(nucleus for nucleus in _ALL if nucleus != "TH"),  # its mean lies about 0
        "ratio, -2 to 2",
        "The same of the mean susceptibilities; empty where one side is not positive.",
        "arithmetic",
    ),
    Biomarker(
        "asymmetry_nm_volume_mm3",
        (),
        "ratio, -2 to 2",
        "The same of the volumes of the hyperintense SN.",
        "arithmetic",
    ),
    Biomarker(
        "asymmetry_nm_contrast_ratio",
        (),
        "ratio, -2 to 2",
        "The same of the NM contrast ratios; empty where one side is not positive.",
        "arithmetic",
    ),
)

COLUMNS = tuple(column for biomarker in BIOMARKERS for column in biomarker.columns)

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
    for nucleus in _ALL:
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


def describe_biomarkers() -> str:
    """Explain every column and list what was published, as Markdown."""
    lines = [
        "# Biomarkers",
        "",
        "Measurements of the deep nuclei from the images and their masks, without a network. "
        "Research use only. A cell is empty where an image, a mask or the nucleus is missing. NM "
        "and QSM are each measured in their own mask, on their own grid. Right and left are the "
        "patient's.",
        "",
        "| column | unit | meaning | source of the definition |",
        "|---|---|---|---|",
    ]
    for biomarker in BIOMARKERS:
        nuclei = f" ({', '.join(biomarker.nuclei)})" if biomarker.nuclei else ""
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
    for column in COLUMNS:
        for reference in REFERENCES.get(column, ()):
            cells = (column, reference.healthy, reference.disease, reference.source)
            lines.append(f"| {' | '.join(cell or '-' for cell in cells)} |")
    return "\n".join(lines) + "\n"
