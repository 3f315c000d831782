"""From files to tensors: the volumes that the regions need, read once and checked."""

import logging
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImaged, Transform

from mrn_components.images.masks import check_mask
from mrn_components.images.volume import Volume, read_volume
from mrn_components.regions.placement import Missing, ROIPlacer
from mrn_components.regions.roi import ROI, images_of, volume_keys

_logger = logging.getLogger(__name__)


class ReadVolumesd(Transform):
    """Read the images and masks that the regions need, and refuse what would give wrong crops.

    Each key becomes a tensor (1, X, Y, Z) in single precision with its affine, as MONAI's
    ``LoadImaged`` gives it; keys of images that no region needs go. Non-finite voxels outside every
    region, which QSM often has around the brain, become 0.

    Args:
        rois: the regions of interest by name.
        missing: "fallback" lets images and masks be absent, as ``ROICropd`` does.

    Raises:
        FaultyFileError: for a file that is no whole NIfTI volume, a mask on another grid than its
            image (corners more than 0.1 mm apart), or mask values that are no ids.
        ValueError: for an image that is absent, or a non-finite voxel in a region.
    """

    def __init__(self, *, rois: Mapping[str, ROI], missing: Missing = "error") -> None:
        self.rois = dict(rois)
        self.images = images_of(rois)
        self.placer = ROIPlacer(rois=rois, missing=missing)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Read and check paths, volumes that were read already, or MONAI's tensors (1, X, Y, Z)."""
        own = {key for image in self.images.values() for key in (image.name, image.mask_name)}
        wanted = volume_keys(self.rois)
        absent = [key for key in wanted if key not in data]
        if absent and self.placer.missing == "error":
            raise ValueError(
                f"the subject lacks {' and '.join(absent)}; add the files, or let the network do "
                "without them (--missing_nuclei fallback)."
            )
        d = {key: value for key, value in data.items() if key not in own}
        volumes = {key: _as_volume(data[key]) for key in wanted if key in data}
        for name, image in self.images.items():
            if image.mask_name in volumes:
                check_mask(volumes[image.mask_name], image, volumes.get(name))
        d |= {key: _to_tensor(volume)[None] for key, volume in volumes.items()}
        for name in self.images:
            if name in d and not bool(torch.isfinite(d[name]).all()):
                self._fill_outside(d, name)
        return d

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
            tensor = _to_tensor(_as_volume(d[key]))
            d[key] = tensor[None] if self.ensure_channel_first else tensor
        return d


CheckVolumesd = ReadVolumesd  # its name in runs from before it read, which had LoadImaged for that


def _as_volume(source: Any) -> Volume:
    if isinstance(source, MetaTensor):
        path = Path(source.meta.get("filename_or_obj", "the volume"))
        stored = source.numpy().squeeze(0)
        return Volume(path=path, stored=stored, affine=source.affine.numpy())
    return source if isinstance(source, Volume) else read_volume(source)


def _to_tensor(volume: Volume) -> MetaTensor:
    """Copy the voxels into a tensor (X, Y, Z): transforms may change it in place."""
    meta = {
        "filename_or_obj": str(volume.path),
        "original_affine": volume.affine.copy(),
        "spatial_shape": np.array(volume.shape),
        "space": "RAS",
        "original_channel_dim": float("nan"),
    }
    return MetaTensor(torch.tensor(volume.voxels), affine=torch.tensor(volume.affine), meta=meta)
