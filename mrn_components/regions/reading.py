"""From files to tensors: the volumes that the regions need, read once and checked."""

import logging
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImaged, Transform

from mrn_components.images.finding import FaultyFileError, Finding
from mrn_components.images.image import FACTOR, Image, factor_of
from mrn_components.images.masks import check_mask
from mrn_components.images.volume import Volume
from mrn_components.regions.drawn import mend_mask, read_file
from mrn_components.regions.placement import Missing, ROIPlacer
from mrn_components.regions.plausible import plausible_findings
from mrn_components.regions.reference import take_out_references
from mrn_components.regions.roi import ROI, images_of, volume_keys

Implausible = Literal["error", "flag"]

_logger = logging.getLogger(__name__)


class ReadVolumesd(Transform):
    """Read the images and masks that the regions need, and refuse what would give wrong crops.

    Each key becomes a tensor (1, X, Y, Z) in single precision with its affine, as MONAI's
    ``LoadImaged`` gives it, in the reference and the ids of its ``Image``; keys of images
    that no region needs go. Non-finite voxels outside every region, which QSM often has around the
    brain, become 0.

    What the images show in the nuclei is judged (``regions.plausible``): what means nothing is
    refused, such as a QSM of the opposite sign, and what a person must look at is logged.

    Args:
        rois: the regions of interest by name.
        missing: "fallback" lets images and masks be absent, as ``ROICropd`` does, and adds to the
            data's ``flags`` what is logged.
        implausible: what becomes of values in the nuclei that no brain has, and of images that do
            not overlap: "error" refuses them, "flag" goes on with them and logs it.

    Raises:
        FaultyFileError: for a file that is no whole NIfTI volume, a mask on another grid than its
            image (corners more than 0.1 mm apart), mask values that are no ids, and, with "error",
            values in the nuclei that no brain has and images that do not overlap.
        ValueError: for an image that is absent, or a non-finite voxel in a region.
    """

    def __init__(
        self,
        *,
        rois: Mapping[str, ROI],
        missing: Missing = "error",
        implausible: Implausible = "error",
    ) -> None:
        if implausible not in get_args(Implausible):
            options = list(get_args(Implausible))
            raise ValueError(f"implausible must be one of {options}, got {implausible!r}.")
        self.implausible = implausible
        self.rois = dict(rois)
        self.images = images_of(rois)
        self.placer = ROIPlacer(rois=rois, missing=missing)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Read and check paths, volumes that were read already, or MONAI's tensors (1, X, Y, Z)."""
        own = {key for i in self.images.values() for key in (i.name, i.mask_name, FACTOR + i.name)}
        wanted = volume_keys(self.rois)
        absent = [key for key in wanted if key not in data]
        if absent and self.placer.missing == "error":
            raise ValueError(
                f"the subject lacks {' and '.join(absent)}; add the files, or let the network do "
                "without them (--missing_nuclei fallback)."
            )
        d = {key: value for key, value in data.items() if key not in own}
        volumes: dict[str, Volume] = {}
        findings: list[Finding] = []
        for key in wanted:
            if key in data:
                volumes[key], found = _as_volume(key, data, self.images)
                findings += found
        for name, image in self.images.items():
            if image.mask_name in volumes:
                check_mask(volumes[image.mask_name], image, volumes.get(name))
        volumes, _ = take_out_references(volumes, self.images)
        implausible = list(plausible_findings(volumes, self.images))
        if self.implausible == "flag":
            implausible = [replace(found, severity="warning") for found in implausible]
        findings += implausible
        self._note(d, findings)
        d |= {key: _to_tensor(volume)[None] for key, volume in volumes.items()}
        for name in self.images:
            if name in d and not volumes[name].is_finite:
                self._fill_outside(d, name)
        return d

    def _note(self, d: dict[Hashable, Any], findings: Iterable[Finding]) -> None:
        """Raise the first error, and note what a person must know."""
        subject = str(d.get("subject", ""))
        for found in findings:
            text = str(replace(found, subject=subject))
            if found.severity == "error":
                raise FaultyFileError(found)
            _logger.warning("%s", text)
            if self.placer.missing == "fallback":
                d["flags"] = [*d.get("flags", []), text]

    def _fill_outside(self, d: dict[Hashable, Any], image: str) -> None:
        """Set non-finite voxels of an image to 0, provided that none lies in a region."""
        volume = d[image]
        file = volume.meta["filename_or_obj"]
        finite = torch.isfinite(volume.as_tensor())
        for name, place in self.placer(d).items():
            if self.rois[name].image.name != image or place.box is None:
                continue
            if count := int((~finite[0][place.box.inside]).sum()):
                raise ValueError(
                    f"{file} has {count} non-finite voxels (NaN or infinite) in ROI {name!r}, "
                    "expected none; reconstruct the image anew."
                )
        count = int((~finite).sum())
        _logger.warning("%s has %d non-finite voxels outside the ROIs; they become 0.", file, count)
        d[image] = torch.where(finite, volume, 0.0)
        if self.placer.missing == "fallback":
            title = self.images[image].title
            text = f"{count} voxels of {title} outside the ROIs are not finite, taken as 0"
            d["flags"] = [*d.get("flags", []), text]


class LoadVolumed(LoadImaged):
    """MONAI's ``LoadImaged`` by this package's reader, which checks a file while it reads it.

    Args:
        keys: of paths, or of volumes that were read already.
        ensure_channel_first: give (1, X, Y, Z) instead of (X, Y, Z).
    """

    def __init__(self, keys: Any, ensure_channel_first: bool = False) -> None:
        super().__init__(keys)
        self.ensure_channel_first = ensure_channel_first

    def __call__(self, data: Mapping[Hashable, Any], _reader: Any = None) -> dict[Hashable, Any]:
        """Read; raise FaultyFileError for a file that is no whole NIfTI volume."""
        d = dict(data)
        for key in self.key_iterator(d):
            tensor = _to_tensor(_as_volume(str(key), d, {})[0]).contiguous()
            d[key] = tensor[None] if self.ensure_channel_first else tensor
        return d


CheckVolumesd = ReadVolumesd  # its name in runs from before it read, which had LoadImaged for that


def _as_volume(
    key: str, data: Mapping[Hashable, Any], images: Mapping[str, Image]
) -> tuple[Volume, list[Finding]]:
    """Return a volume of a file or of MONAI's tensor, and what a person must know of it."""
    source = data[key]
    if not isinstance(source, MetaTensor):
        return read_file(key, source, images, factor=factor_of(data, key))
    path = Path(source.meta.get("filename_or_obj", "the volume"))
    stored = source.numpy().squeeze(0)
    volume = Volume(path=path, stored=stored, affine=source.affine.numpy())
    for image in images.values():
        if key == image.mask_name:
            return mend_mask(volume, image)
    return volume, []


def _to_tensor(volume: Volume) -> MetaTensor:
    """Copy the voxels into a tensor (X, Y, Z), as they lie: transforms may change it in place."""
    meta = {
        "filename_or_obj": str(volume.path),
        "original_affine": volume.affine.copy(),
        "spatial_shape": np.array(volume.shape),
        "space": "RAS",
        "original_channel_dim": float("nan"),
    }
    voxels = torch.from_numpy(volume.voxels.copy(order="K"))
    return MetaTensor(voxels, affine=torch.tensor(volume.affine), meta=meta)
