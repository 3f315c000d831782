"""Attention maps as pictures that lie over a slice."""

from collections.abc import Sequence

import numpy as np

from mrn_components.app.report.slices import encode

_COLOUR = (240, 228, 66)  # Okabe and Ito's yellow
_OPACITY = 0.7  # of the strongest cell
_EVEN = 1.5  # a map whose strongest cell has less times the mean is much the same everywhere
_LEAST = 2.0  # times the mean: weaker maps are not blown up to full colour


def attention_image(cells: Sequence[Sequence[float]]) -> str:
    """Return a picture of what cells (rows, columns) have above their mean, 1, as an address."""
    more = np.maximum(np.array(cells, float) - 1, 0)
    pixels = np.empty((*more.shape, 4), np.uint8)
    pixels[..., :3] = _COLOUR
    pixels[..., 3] = np.rint(255 * _OPACITY * more / max(more.max(), _LEAST - 1))
    return encode(pixels, "png")


def is_even(cells: Sequence[Sequence[float]]) -> bool:
    """Whether no cell (of rows and columns, whose mean is 1) has much more than another."""
    return max(map(max, cells)) < _EVEN
