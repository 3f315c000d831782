"""The nuclei of a mask: which there are, and where they lie."""

from dataclasses import dataclass

import numpy as np
from nibabel.affines import apply_affine

from mrn_components.images.boxes import Box, enclosing_box
from mrn_components.images.image import Image
from mrn_components.images.volume import Volume
from mrn_components.regions.roi import ROI


@dataclass(frozen=True, kw_only=True)
class Nuclei:
    """The nuclei of a mask whose values are ids of an image's nuclei."""

    mask: Volume
    image: Image

    @property
    def boxes(self) -> dict[int, Box]:
        """Box of each id's largest component."""
        return self.mask.boxes

    @property
    def places(self) -> dict[int, np.ndarray]:
        """Voxels (N, 3) of each id."""
        return self.mask.places

    def has(self, nucleus: str) -> bool:
        """Whether the mask has a nucleus on both sides."""
        return all(number in self.places for number in self.image.nuclei.get(nucleus, (0,)))

    def where(self, *nuclei: str) -> np.ndarray:
        """Voxels (N, 3) of some nuclei, of both sides."""
        numbers = [number for name in nuclei for number in self.image.nuclei.get(name, ())]
        found = [self.places[number] for number in numbers if number in self.places]
        return np.concatenate([np.empty((0, 3), int), *found])

    def values(self, volume: Volume, *nuclei: str) -> np.ndarray:
        """Finite values of a volume on the mask's grid in some nuclei, of both sides."""
        values = volume.voxels[tuple(self.where(*nuclei).T)]
        return values[np.isfinite(values)]

    def centre_mm(self, *numbers: int) -> np.ndarray:
        """Mean position of some ids, which are there, in mm right, anterior, superior."""
        voxels = np.concatenate([self.places[number] for number in numbers])
        return apply_affine(self.mask.affine, voxels.mean(axis=0))

    def box(self, roi: ROI, margin: bool = True) -> Box | None:
        """The box that an ROI crops; None without any of its nuclei."""
        found = [self.boxes[number] for number in roi.ids if number in self.boxes]
        if not found:
            return None
        wide = roi.margin_voxels(self.mask.spacing_mm.tolist()) if margin else (0, 0, 0)
        return enclosing_box(found, wide)
