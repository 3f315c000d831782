"""What is known of the quantities that images show; one that has no row gets the general one."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """What a kind of image shows, whatever its file is called."""

    title: str  # how pages and messages call it
    bids: tuple[str, ...] = ()  # file names in BIDS, of either case; the first that matches decides
    not_bids: tuple[str, ...] = ()  # file names in BIDS that match and show something else
    # Units that files may have, in any one of them: {"ppb": 1, "ppm": 1000}.
    units: Mapping[str, float] = field(default_factory=dict)
    # As BIDS defines them, by suffix in lower case.
    bids_units: Mapping[str, str] = field(default_factory=dict)
    # Words of a DICOM series' description or protocol; the first that any series has decides.
    series: tuple[str, ...] = ()
    magnitude: bool | None = None  # no voxel is below 0; None: both occur, or nothing is known
    # Range of the 99th percentile of a brain's absolute values, in ``unit``; None: arbitrary units.
    strong: tuple[float, float] | None = None
    unit: str = ""
    usual: str = ""  # what brains have, in ``unit``
    mistaken: tuple[str, int] = ("", 1)  # another unit of files, and how many ``unit`` one of it is
    # What values may be relative to, and what it usually is in ``unit``: "mean" of the voxels that
    # are not 0, or a nucleus. Why: docs/decisions.md, Images and regions.
    references: Mapping[str, float] = field(default_factory=dict)


GENERAL = Quantity(title="image")

QUANTITIES = {
    "neuromelanin": Quantity(
        title="neuromelanin MRI",
        bids=("*neuromelanin*", "*[_-]NM*", "*_MTw*"),  # BIDS has no suffix for it
        not_bids=("*_Chimap.*",),
        series=("neuromelanin", "nm", "mtc", "mt"),
        magnitude=True,
    ),
    "susceptibility": Quantity(
        title="quantitative susceptibility map",
        bids=("*_Chimap.nii*",),
        series=("qsm", "chimap", "chi map", "susceptibility map"),
        # Parts of the susceptibility, by the names of separation programs.
        not_bids=("*paramag*", "*diamag*", "*-chi[dnp]*", "*-para_*", "*-dia_*"),
        units={"ppb": 1.0, "ppm": 1000.0},
        bids_units={"chimap": "ppm"},
        magnitude=False,
        strong=(2.0, 2000.0),
        unit="ppb",
        usual="about 200 in a brain",
        mistaken=("ppm", 1000),
        references={"mean": 0.0, "TH": -10.0, "CSF": 19.0},
    ),
}
