"""ROI: which image is cropped around which nuclei, and how large the crop becomes (section 3.3)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from mrn_components.images.labels import LABELS, ImageName


@dataclass(frozen=True, kw_only=True)
class ROI:
    """A region of interest: one image cropped around a set of nuclei.

    Args:
        image: image the crop is taken from.
        nuclei: nuclei that span the crop, by the names in ``LABELS[image]``. Their order is the
            order of the classes: background is 0, ``nuclei[0]`` is 1, and so on; left and right
            share a class (section 3.4).
        margin_mm: tissue kept around the nuclei on every side, in mm. The paper is silent.
        size: longest in-plane side after resizing, in pixels. Paper: 224 (section 3.3).

    Raises:
        ValueError: for an image or a nucleus that has no label, a repeated nucleus, a negative
            margin or a size below 1.
    """

    image: ImageName
    nuclei: Sequence[str] = field()
    margin_mm: float = 4.0
    size: int = 224

    def __post_init__(self) -> None:
        if self.image not in LABELS:
            raise ValueError(f"image must be one of {sorted(LABELS)}, got {self.image!r}.")
        table = LABELS[self.image]
        if isinstance(self.nuclei, str) or not self.nuclei:
            raise ValueError(
                f"nuclei must be a non-empty list such as [SN], got {self.nuclei!r}; "
                f"{self.image} masks label {sorted(table)}."
            )
        unknown = [nucleus for nucleus in self.nuclei if nucleus not in table]
        if unknown:
            raise ValueError(
                f"nuclei {unknown} have no label in {self.image} masks, which label "
                f"{sorted(table)}; name one of these or take the other image."
            )
        if len(set(self.nuclei)) != len(self.nuclei):
            raise ValueError(f"nuclei must be distinct, got {list(self.nuclei)}.")
        if self.margin_mm < 0 or self.size < 1:
            raise ValueError(
                f"margin_mm must be >= 0 and size >= 1, got {self.margin_mm} and {self.size}."
            )
        object.__setattr__(self, "nuclei", tuple(self.nuclei))

    @property
    def num_classes(self) -> int:
        """Classes of the crop's mask: background and the nuclei."""
        return len(self.nuclei) + 1

    @property
    def label_ids(self) -> tuple[int, ...]:
        """Ids of the ROI's nuclei in the image's mask, right before left."""
        return tuple(i for nucleus in self.nuclei for i in LABELS[self.image][nucleus])

    def margin_voxels(self, spacing: Sequence[float]) -> tuple[int, ...]:
        """The margin in whole voxels along each axis, never less tissue than ``margin_mm``.

        Args:
            spacing: voxel size along each axis, in mm.
        """
        # 4 mm at a spacing written 0.66666 are 6 voxels, not 7: a hundredth of a voxel is rounding.
        return tuple(math.ceil(self.margin_mm / step - 0.01) for step in spacing)
