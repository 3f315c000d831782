"""Image: what a subject has of one modality, and all that is known of it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mrn_components.images.quantities import GENERAL, QUANTITIES, Quantity

SIDES = ("right", "left")
FACTOR = "factor_"  # and an image's name: key in data and datalists; see ``factor_of``

_STEM = re.compile(r"[A-Za-z0-9][\w.-]*")
_OTHER_KEYS = re.compile("subject|person|label|group|image|pred|(mask|factor)_.*")  # of datalists


@dataclass(frozen=True, kw_only=True)
class Image:
    """A modality: its files, its unit, and the nuclei that its masks hold.

    What holds for all images of a quantity stands in ``images.quantities``. A config names its
    images once and refers to them (``@images#nm``).

    Args:
        file: stem of the file in a subject's folder: NM for ``SUBJECT/NM.nii.gz``.
        name: key in data and datalists; "" takes ``file`` in lower case.
        mask: stem of the file of its mask; None for an image without one, whose regions are whole.
        nuclei: ids in the mask, ``{"SN": [1, 2]}``: of the patient's right, then left side.
        drawn_as: ids in the files of the mask, where these are of another table: ``{"SN": [12,
            13]}``, or one id of both sides, ``{"SN": 5}``. They become those of ``nuclei`` when the
            mask is read, and all else background.
        quantity: what it shows: neuromelanin, susceptibility, or any other word, which has the
            general checks, scaling and measurements.
        unit: of its voxels, for columns and messages; "" for arbitrary units.
        file_unit: of the voxels in its files, where that is another than ``unit``: ppm become ppb
            when they are read. "" for the same. ``Units`` of a JSON file in BIDS, and a factor in a
            datalist, come first.
        reference: what is taken out of the values of a susceptibility, which is known up to a
            constant: "none"; "mean", so that the voxels that are not 0 have the usual mean; or a
            nucleus with little iron, such as TH, so that it has its usual mean.
        window: values that become 0 and 1 for the network, black and white on pages; None takes
            each volume's own ``percentiles``.
        percentiles: lower and upper percentile of a volume, without a window.
        relative_window: for the network alone, instead of ``percentiles``: values that become 0 and
            1, in units of the median of the tissue around the nuclei of a region. It makes
            arbitrary units comparable, whatever the field of view.
        bids: globs of its file names in BIDS; none takes those of the quantity.

    Raises:
        ValueError: for a name or stem that cannot be one, nuclei without a mask or with ids that
            are no two distinct numbers from 1 to 255, another table of nuclei that it does not
            have, a reference that is none, a window or percentiles that are no range, or two
            windows.
    """

    file: str
    name: str = ""
    mask: str | None = None
    nuclei: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    drawn_as: Mapping[str, Any] = field(default_factory=dict)  # {nucleus: (int, int) or int}
    quantity: str = ""
    unit: str = ""
    file_unit: str = ""
    reference: str = "none"
    window: tuple[float, float] | None = None
    percentiles: tuple[float, float] = (0.5, 99.5)
    relative_window: tuple[float, float] | None = None
    bids: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        set_(self, "name", self.name or self.file.lower())
        self._check_names()
        self._check_nuclei()
        if self.window is not None and self.relative_window is not None:
            raise ValueError(
                f"image {self.name!r}: window and relative_window are two scales; leave one out."
            )
        for key in ("window", "percentiles", "relative_window"):
            span = getattr(self, key)
            if span is not None and not (len(span) == 2 and span[0] < span[1]):
                raise ValueError(
                    f"image {self.name!r}: {key} must be [low, high] with low < high, got {span}."
                )
            set_(self, key, None if span is None else tuple(float(value) for value in span))
        set_(self, "nuclei", {nucleus: tuple(pair) for nucleus, pair in self.nuclei.items()})
        set_(self, "drawn_as", self._checked_table())
        self._check_file_unit()
        self._check_reference()
        set_(self, "bids", tuple(self.bids))

    def _check_names(self) -> None:
        for key, stem in (("file", self.file), ("mask", self.mask), ("name", self.name)):
            if stem is not None and not _STEM.fullmatch(stem):
                raise ValueError(
                    f"image {self.name!r}: {key} must be a word of letters, digits and _.- as in a "
                    f"file's name, got {stem!r}."
                )
        if _OTHER_KEYS.fullmatch(self.name):
            raise ValueError(
                f"an image cannot have the name {self.name!r}, which datalists use for other "
                "things; add name: NAME."
            )

    def _check_nuclei(self) -> None:
        ids = [number for pair in self.nuclei.values() for number in pair]
        pairs = all(len(pair) == len(SIDES) for pair in self.nuclei.values())
        known = all(isinstance(i, int) and 1 <= i <= 255 for i in ids)
        if not pairs or not known or len(set(ids)) < len(ids):
            raise ValueError(
                f"image {self.name!r}: nuclei must have two ids each, [right, left], all distinct "
                f"and from 1 to 255, got {dict(self.nuclei)}."
            )
        if self.nuclei and self.mask is None:
            raise ValueError(
                f"image {self.name!r} names nuclei {list(self.nuclei)} and no mask that holds "
                "them; add mask: STEM, the name of its file without .nii.gz."
            )

    def _checked_table(self) -> dict[str, tuple[int, int]]:
        """Return the table of the files, with two ids each."""
        table = {}
        for nucleus, ids in self.drawn_as.items():
            pair = (ids, ids) if isinstance(ids, int) else tuple(ids)
            if len(pair) != 2 or not all(isinstance(i, int) and i >= 1 for i in pair):
                raise ValueError(
                    f"image {self.name!r}: drawn_as must have [right, left], or one id of both "
                    f"sides, for each nucleus, all >= 1, got {nucleus}: {ids!r}."
                )
            table[nucleus] = pair
        numbers = [number for pair in table.values() for number in set(pair)]
        unknown = [nucleus for nucleus in table if nucleus not in self.nuclei]
        if unknown or len(set(numbers)) < len(numbers):
            raise ValueError(
                f"image {self.name!r}: drawn_as must give some of {list(self.nuclei)} ids that no "
                f"other has, got {unknown or dict(table)}."
            )
        return table

    def _check_file_unit(self) -> None:
        if self.file_unit:
            try:
                self.factor_from(self.file_unit)
            except ValueError as units:
                raise ValueError(
                    f"image {self.name!r}: file_unit must be {units}, got {self.file_unit!r}."
                ) from None

    def _check_reference(self) -> None:
        known = {name for name in self.facts.references if name == "mean" or name in self.nuclei}
        if self.reference not in {"none", *known}:
            raise ValueError(
                f"image {self.name!r}: reference must be one of {sorted({'none', *known})}, got "
                f"{self.reference!r}."
            )

    @property
    def mask_name(self) -> str:
        """Return the key of its mask in data and datalists."""
        return f"mask_{self.name}"

    def factor_from(self, unit: str) -> float:
        """Return what one of a file's unit is in the image's; a ValueError refuses unknown ones."""
        known, own = self.facts.units, self.value_unit
        if unit == own:
            return 1.0
        if not {unit, own} <= known.keys():
            units = known if own in known else [own or "no unit"]
            raise ValueError(f"{' or '.join(units)}")
        return known[unit] / known[own]

    @property
    def title(self) -> str:
        """Return how messages and pages call it: the stem of its file."""
        return self.file

    @property
    def facts(self) -> Quantity:
        """Return what is known of its quantity."""
        return QUANTITIES.get(self.quantity, GENERAL)

    @property
    def value_unit(self) -> str:
        """Return the unit of its voxels, its own or its quantity's; "" for arbitrary units."""
        return self.unit or self.facts.unit

    @property
    def bids_globs(self) -> tuple[str, ...]:
        """Return globs of its file names in BIDS, of which the first that matches decides."""
        return self.bids or self.facts.bids or (f"*_{self.file}.nii*",)

    @property
    def ids(self) -> dict[int, tuple[str, str]]:
        """Return {id in the mask: (nucleus, side)}."""
        return {
            number: (nucleus, side)
            for nucleus, pair in self.nuclei.items()
            for side, number in zip(SIDES, pair, strict=True)
        }

    def unknown_values(self, values: np.ndarray) -> list[float]:
        """Return the values of a mask, of any shape, that are neither 0 nor an id, sorted."""
        nonzero = values[values != 0]  # few: sorting the whole volume takes long
        return np.setdiff1d(nonzero, list(self.ids)).tolist()


def factor_of(data: Mapping[Any, Any], key: str) -> float:
    """Return what a subject's voxels in the file of a key are multiplied by, for their unit."""
    return float(data.get(f"{FACTOR}{key}", 1.0))


def select_image(images: Mapping[str, Image], name: str) -> Image:
    """Return one of a config's images by its name.

    Raises:
        ValueError: for a name that none has, or an image whose key in the config is not its name.
    """
    for key, image in images.items():
        if key != image.name:
            raise ValueError(
                f"images: {key!r} is an image of the name {image.name!r}, which data and datalists "
                f"use; call it {image.name!r} in the config, or add name: {key}."
            )
    if name not in images:
        raise ValueError(f"image must be one of {sorted(images)}, got {name!r}.")
    return images[name]


# The challenge's images (PDCADxFoundation label table), for what runs without a bundle.
CHALLENGE_IMAGES = {
    "nm": Image(
        file="NM",
        mask="NM_mask",
        quantity="neuromelanin",
        relative_window=(0.7, 1.5),
        nuclei={"SN": (1, 2)},  # substantia nigra as neuromelanin shows it
    ),
    "qsm": Image(
        file="QSM",
        mask="QSM_mask",
        quantity="susceptibility",
        unit="ppb",
        window=(-100.0, 250.0),
        nuclei={
            "CN": (1, 2),  # caudate nucleus
            "PUT": (3, 4),  # putamen
            "GP": (5, 6),  # globus pallidus
            "TH": (7, 8),  # thalamus
            "STN": (9, 10),  # subthalamic nucleus
            "SN": (11, 12),  # substantia nigra
            "RN": (13, 14),  # red nucleus
            "DN": (15, 16),  # dentate nucleus
        },
    ),
}
