"""Where the nuclei of a usual head lie, for subjects whose masks lack some.

Mean boxes of 200 phantoms, whose shapes were fitted to published label maps on the challenge's
grid; a test holds the two together. The phantom's own numbers (``phantom.numbers``) describe solids
that are then bent, tapered and cut: no formula gives the boxes that their masks have.
"""

import numpy as np

from mrn_components.images.boxes import BoxMm

# {quantity: {nucleus: (centre, half size)}} in mm along (lateral, anterior, superior). Centres are
# from the midpoint of the two red nuclei, lateral is positive on either side. SD over subjects and
# sides: centres 0.3 (RN) to 1.9 mm (DN, vertically), half sizes 0.3 to 1.3 mm.
_BOXES = {
    "neuromelanin": {"SN": ((7.4, 1.8, -3.7), (5.3, 4.8, 5.2))},
    "susceptibility": {
        "CN": ((12.1, 20.2, 13.4), (7.1, 18.2, 15.0)),
        "PUT": ((22.5, 15.7, 9.5), (8.5, 18.0, 11.1)),
        "GP": ((17.3, 12.2, 7.2), (9.7, 10.6, 7.4)),
        "TH": ((10.7, -0.3, 12.0), (10.9, 15.2, 8.5)),
        "STN": ((9.7, 5.9, 2.2), (3.3, 2.9, 2.6)),
        "SN": ((8.7, 1.4, -3.5), (5.9, 6.6, 5.5)),
        "RN": ((4.7, 0.0, 0.0), (3.3, 3.3, 3.9)),
        "DN": ((12.3, -32.8, -25.2), (5.9, 10.1, 5.4)),
    },
}
USUAL_SPACING_MM = (2 / 3, 2 / 3, 2.0)  # of the challenge's images


def usual_box(quantity: str, nucleus: str, side: str = "right") -> BoxMm | None:
    """Return the box of a nucleus in a usual head about the origin; None for one that nobody knows.

    Susceptibility shows the nuclei as they are: quantities without a table of their own take its.
    """
    for table in (_BOXES.get(quantity, {}), _BOXES["susceptibility"]):
        if nucleus in table:
            (lateral, *others), half_size = table[nucleus]
            across = lateral if side == "right" else -lateral
            return BoxMm(np.array([across, *others]), np.array(half_size))
    return None
