"""The mean in place of a random number."""

from typing import Any

import numpy as np


class Mean:
    """Gives the mean of every distribution that phantoms draw from, as a generator of NumPy would.

    What is drawn is then the mean subject: its pose, shapes and signals, without noise.
    """

    def standard_normal(self, size: Any = None, dtype: Any = float) -> Any:
        """Return 0; of three directions, the axes."""
        if size == (3, 3):
            return np.eye(3, dtype=dtype)
        return 0.0 if size is None else np.zeros(size, dtype)

    def normal(self, loc: Any, _scale: float) -> Any:
        """Return the mean."""
        return np.array(loc, float)

    def uniform(self, low: float, high: float, size: Any = None) -> Any:
        """Return the middle."""
        middle = (low + high) / 2
        return middle if size is None else np.full(size, middle)

    def beta(self, a: float, b: float) -> float:
        """Return the mean."""
        return a / (a + b)

    def choice(self, values: Any) -> Any:
        """Return the first."""
        return values[0]
