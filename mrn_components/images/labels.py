"""Bridge to ``images.image``, until all that names nm and qsm takes an ``Image``."""

from typing import Literal

import numpy as np

from mrn_components.images.image import CHALLENGE_IMAGES, SIDES  # noqa: F401

ImageName = Literal["nm", "qsm"]

LABELS = {name: dict(image.nuclei) for name, image in CHALLENGE_IMAGES.items()}


def unknown_values(values: np.ndarray, image: str) -> list[float]:
    """Return the values of a mask that are no id of the image, sorted."""
    return CHALLENGE_IMAGES[image].unknown_values(values)
