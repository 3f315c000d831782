"""Where the nuclei of a usual head lie, for subjects whose masks lack some.

Mean boxes of 200 phantoms, whose shapes were fitted to published label maps on the challenge's
grid; a test holds the two together. The phantom's own numbers (``phantom.numbers``) describe solids
that are then bent, tapered and cut: no formula gives the boxes that their masks have.
"""

from typing import NamedTuple


class UsualBox(NamedTuple):
    """The box around a nucleus, in mm along (lateral, anterior, superior).

    Args:
        centre: from the midpoint of the two red nuclei; lateral is positive on either side.
        half_size: from the centre to each face.
    """

    centre: tuple[float, float, float]
    half_size: tuple[float, float, float]


# {quantity: {nucleus: box}}. SD over subjects and sides: centres 0.3 (RN) to 1.9 mm (DN,
# vertically), half sizes 0.3 to 1.3 mm.
POPULATION: dict[str, dict[str, UsualBox]] = {
    "neuromelanin": {"SN": UsualBox((7.4, 1.8, -3.7), (5.3, 4.8, 5.2))},
    "susceptibility": {
        "CN": UsualBox((12.1, 20.2, 13.4), (7.1, 18.2, 15.0)),
        "PUT": UsualBox((22.5, 15.7, 9.5), (8.5, 18.0, 11.1)),
        "GP": UsualBox((17.3, 12.2, 7.2), (9.7, 10.6, 7.4)),
        "TH": UsualBox((10.7, -0.3, 12.0), (10.9, 15.2, 8.5)),
        "STN": UsualBox((9.7, 5.9, 2.2), (3.3, 2.9, 2.6)),
        "SN": UsualBox((8.7, 1.4, -3.5), (5.9, 6.6, 5.5)),
        "RN": UsualBox((4.7, 0.0, 0.0), (3.3, 3.3, 3.9)),
        "DN": UsualBox((12.3, -32.8, -25.2), (5.9, 10.1, 5.4)),
    },
}
USUAL_SPACING_MM = (2 / 3, 2 / 3, 2.0)  # of the challenge's images


def usual_box(quantity: str, nucleus: str) -> UsualBox | None:
    """Return the box of a nucleus in a usual head; None for a nucleus that no table knows.

    Args:
        quantity: of the image that shows the nucleus. Susceptibility shows the nuclei as they are,
            so that quantities without a table of their own take its.
        nucleus: its name.
    """
    tables = (POPULATION.get(quantity, {}), POPULATION["susceptibility"])
    return next((table[nucleus] for table in tables if nucleus in table), None)
