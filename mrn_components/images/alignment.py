"""Where an image lies in the world of another one of the same head."""

from dataclasses import dataclass, replace

import numpy as np

from mrn_components.images.volume import Volume

_HEAD_MM = 80.0  # radius of the sphere over which a movement is averaged


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """Where an image lies in the world of another one."""

    matrix: np.ndarray  # (4, 4) from the world of its file, in mm, to that of the other image
    cost_before: float  # minus the mutual information (Mattes) of the two: less is better
    cost_after: float

    @property
    def degrees(self) -> float:
        """Return the angle by which it was turned."""
        cosine = (np.trace(self.matrix[:3, :3]) - 1) / 2
        return float(np.rad2deg(np.arccos(np.clip(cosine, -1, 1))))

    def moved_mm(self, middle: np.ndarray) -> float:
        """Return the root mean square movement of a head about a point (Jenkinson 1999)."""
        turn = self.matrix[:3, :3] - np.eye(3)
        shift = turn @ middle + self.matrix[:3, 3]
        return float(np.sqrt(_HEAD_MM**2 / 5 * np.sum(turn**2) + shift @ shift))

    def moved(self, volume: Volume) -> Volume:
        """Return the image, or its mask, where it lies in the other's world."""
        return replace(volume, affine=self.matrix @ volume.affine)
