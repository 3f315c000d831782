"""ROI: which image is cropped around which nuclei, and how large the crop becomes (section 3.3)."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from mrn_components.images.image import CHALLENGE_IMAGES, Image

_HEAD_MM = 300  # no region is larger


@dataclass(frozen=True, kw_only=True)
class ROI:
    """A region of interest: one image cropped around a set of nuclei, or the whole image.

    Args:
        image: image the crop is taken from; ``"@images#nm"`` in a config. The word nm or qsm means
            the challenge's image, as in configs that have no ``images``.
        nuclei: nuclei that span the crop, of those that the image's mask holds. Their order is the
            order of the classes: background is 0, ``nuclei[0]`` is 1, and so on; left and right
            share a class (section 3.4). None at all takes the whole image, which needs no mask.
        margin_mm: tissue kept around the nuclei on every side, in mm. The paper is silent.
        extent_mm: instead of the margin, the sides of a field of fixed size about the middle of the
            nuclei, in mm, from right to left, front to back and below to above; its size then says
            nothing of the subject. None fits the nuclei.
        size: longest in-plane side after resizing, in pixels. Paper: 224 (section 3.3).

    Raises:
        ValueError: for something else than an image, a nucleus that its mask does not hold, a
            repeated nucleus, a negative margin, an extent that is none, or a size below 1.
    """

    image: Image
    nuclei: Sequence[str]
    margin_mm: float = 4.0
    extent_mm: Sequence[float] | None = None
    size: int = 224

    def __post_init__(self) -> None:
        image = CHALLENGE_IMAGES.get(self.image) if isinstance(self.image, str) else self.image
        if not isinstance(image, Image):
            raise ValueError(
                f'ROI image must be one of the config\'s images, written "@images#nm", or '
                f"one of {sorted(CHALLENGE_IMAGES)}, got {self.image!r}."
            )
        object.__setattr__(self, "image", image)
        self._check_nuclei()
        if self.margin_mm < 0 or self.size < 1:
            raise ValueError(
                f"margin_mm must be >= 0 and size >= 1, got {self.margin_mm} and {self.size}."
            )
        object.__setattr__(self, "nuclei", tuple(self.nuclei))
        if self.extent_mm is not None:
            listed = isinstance(self.extent_mm, Sequence) and not isinstance(self.extent_mm, str)
            sides = tuple(map(float, self.extent_mm)) if listed else ()
            if len(sides) != 3 or not all(0 < s <= _HEAD_MM for s in sides) or not self.nuclei:
                raise ValueError(
                    "extent_mm must be three positive sides in mm, [right-left, front-back, "
                    f"below-above], up to {_HEAD_MM}, of a region with nuclei, got "
                    f"{self.extent_mm!r}."
                )
            object.__setattr__(self, "extent_mm", sides)

    def _check_nuclei(self) -> None:
        known = list(self.image.nuclei)
        if isinstance(self.nuclei, str) or not isinstance(self.nuclei, Sequence):
            raise ValueError(
                f"nuclei must be a list such as [SN], got {self.nuclei!r}; {self.image.name} "
                f"masks hold {known}."
            )
        unknown = [nucleus for nucleus in self.nuclei if nucleus not in known]
        if unknown:
            raise ValueError(
                f"nuclei {unknown} are not in {self.image.name} masks, which hold {known}; name "
                "some of these, none ([]) for the whole image, or take another image."
            )
        if len(set(self.nuclei)) != len(self.nuclei):
            raise ValueError(f"nuclei must be distinct, got {list(self.nuclei)}.")

    @property
    def num_classes(self) -> int:
        """Return the number of classes of the crop's mask: background and the nuclei."""
        return len(self.nuclei) + 1

    @property
    def ids(self) -> tuple[int, ...]:
        """Return the ids of the ROI's nuclei in the image's mask, right before left."""
        return tuple(number for nucleus in self.nuclei for number in self.image.nuclei[nucleus])

    def margin_voxels(self, spacing: Sequence[float]) -> tuple[int, ...]:
        """Return the margin in voxels of some mm along each axis, never less than ``margin_mm``."""
        # 4 mm at a spacing written 0.66666 are 6 voxels, not 7: a hundredth of a voxel is rounding.
        return tuple(math.ceil(self.margin_mm / step - 0.01) for step in spacing)


def images_of(rois: Mapping[str, ROI]) -> dict[str, Image]:
    """Return the images of some ROIs by name, in the ROIs' order; refuse two images of one name."""
    images: dict[str, Image] = {}
    for name, roi in rois.items():
        if images.setdefault(roi.image.name, roi.image) != roi.image:
            raise ValueError(
                f"ROI {name!r} has another image {roi.image.name!r} than the ROIs before it; "
                f'write "@images#{roi.image.name}" in each.'
            )
    return images


def volume_keys(rois: Mapping[str, ROI]) -> list[str]:
    """Return the keys of the volumes that ROIs need: images, and masks whose nuclei are used."""
    images = images_of(rois)
    masked = {roi.image.name for roi in rois.values() if roi.nuclei}
    masked |= {name for name, image in images.items() if image.reference in image.nuclei}
    return [*images, *(image.mask_name for name, image in images.items() if name in masked)]


def crop_keys(rois: Collection[str]) -> list[str]:
    """Return the keys of the crops in data: the names of the ROIs, then those of their masks."""
    return [*rois, *(f"mask_{name}" for name in rois)]
