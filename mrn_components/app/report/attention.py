"""Attention maps as pictures that lie over a slice."""

from collections.abc import Sequence

import numpy as np

from mrn_components.app.report.slices import encode

_COLOUR = (240, 228, 66)  # Okabe and Ito's yellow
_OPACITY = 0.7  # of the strongest cell
_EVEN = 1.5  # times the mean: a map whose strongest cell has less tells nothing


def attention_image(cells: Sequence[Sequence[float]]) -> str:
    """Return a picture of cells (rows, columns) as an address: the stronger, the less clear."""
    shares = np.array(cells, float)
    pixels = np.empty((*shares.shape, 4), np.uint8)
    pixels[..., :3] = _COLOUR
    pixels[..., 3] = np.rint(255 * _OPACITY * shares / max(shares.max(), 1e-12))
    return encode(pixels, "png")


def is_even(cells: Sequence[Sequence[float]]) -> bool:
    """Whether no cell of (rows, columns) has much more than another."""
    shares = np.array(cells, float)
    return bool(shares.max() < _EVEN * shares.mean())
