"""What is known of the quantities that images show; one that has no row gets the general one."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """What a kind of image shows, whatever its file is called.

    Args:
        title: how pages and messages call it.
        bids: file names in BIDS, upper and lower case alike; the first that matches decides.
        not_bids: file names in BIDS that match and show something else.
        magnitude: its voxels are no less than 0; None where both occur, or nothing is known.
        strong: range of the 99th percentile of the absolute values that a brain can have, in
            ``unit``; None where units are arbitrary.
        unit: the unit of ``strong``.
        usual: what brains have, in ``unit``.
        mistaken: a unit that it is often stored in, and how many ``unit`` one of that is.
        positive: nuclei whose mean is positive in every brain.
    """

    title: str
    bids: tuple[str, ...] = ()
    not_bids: tuple[str, ...] = ()
    magnitude: bool | None = None
    strong: tuple[float, float] | None = None
    unit: str = ""
    usual: str = ""
    mistaken: tuple[str, int] = ("", 1)
    positive: tuple[str, ...] = ()


GENERAL = Quantity(title="image")

QUANTITIES = {
    "neuromelanin": Quantity(
        title="neuromelanin MRI",
        bids=("*neuromelanin*", "*[_-]NM*", "*_MTw*"),  # BIDS has no suffix for it
        not_bids=("*_Chimap.*",),
        magnitude=True,
    ),
    "susceptibility": Quantity(
        title="quantitative susceptibility map",
        bids=("*_Chimap.nii*",),
        not_bids=("*desc-paramagnetic*", "*desc-diamagnetic*"),  # parts of the susceptibility
        magnitude=False,
        strong=(2.0, 2000.0),
        unit="ppb",
        usual="about 200 in a brain",
        mistaken=("ppm", 1000),
        positive=("GP", "SN", "RN"),  # full of iron
    ),
}
