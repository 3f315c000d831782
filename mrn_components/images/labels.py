"""Nuclei label tables of the challenge masks.

Odd ids lie on the patient's right, even ids on the left. Source: the PDCADxFoundation label table.
"""

from typing import Literal

import numpy as np

ImageName = Literal["nm", "qsm"]

SIDES = ("right", "left")

# {image: {nucleus: (right id, left id)}}
LABELS: dict[str, dict[str, tuple[int, int]]] = {
    "nm": {"SN": (1, 2)},  # substantia nigra as neuromelanin shows it
    "qsm": {
        "CN": (1, 2),  # caudate nucleus
        "PUT": (3, 4),  # putamen
        "GP": (5, 6),  # globus pallidus
        "TH": (7, 8),  # thalamus
        "STN": (9, 10),  # subthalamic nucleus
        "SN": (11, 12),  # substantia nigra
        "RN": (13, 14),  # red nucleus
        "DN": (15, 16),  # dentate nucleus
    },
}


def unknown_values(values: np.ndarray, image: str) -> list[float]:
    """Values of a mask that are no label id of the image, sorted.

    Args:
        values: of any shape.
        image: image that the mask belongs to.
    """
    ids = [0, *(label for pair in LABELS[image].values() for label in pair)]
    nonzero = values[values != 0]  # few: sorting the whole volume takes long
    return np.setdiff1d(nonzero, ids).tolist()
