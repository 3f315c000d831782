"""From volumes to regions of interest.

Shapes: X Y Z voxels of a volume; D slices, H rows, W columns of a crop.
"""

import logging
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.networks import one_hot
from monai.transforms import Spacing, Transform
from nibabel.affines import from_matvec
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from torch import Tensor
from torch.nn.functional import pad

from mrn_components.images.boxes import Box
from mrn_components.images.image import SIDES, Image
from mrn_components.regions.placement import Missing, Placement, ROIPlacer
from mrn_components.regions.roi import ROI
from mrn_components.regions.scaling import scale_crop

_logger = logging.getLogger(__name__)
_SLICES = axcodes2ornt("SPL")  # (X, Y, Z) -> (D, H, W)
_MIN_CONTRAST = 1e-3  # standard deviation in an ROI, of intensities scaled to [0, 1]


class ROICropd(Transform):
    """Crop every ROI out of its volume, per patient and at native resolution (section 3.3).

    The box is that of ``ROIPlacer``. Where it leaves the volume it is padded with the image's
    minimum, and with background in the mask. Volumes of any orientation give the same crops.
    Slices whose pixels are no squares are resampled to the finer of their spacings, so that tissue
    keeps its shape. Crops of an image with a ``relative_window`` are scaled by it, to [0, 1].

    The images and masks (1, X, Y, Z) give way to ``NAME`` and ``mask_NAME`` of each ROI:
    (1, D, H, W), with the affine from (d, h, w) to mm. The first slice is the lowest, the first row
    anterior, the first column at the patient's right. Masks keep their ids; without a mask, and of
    an ROI without nuclei, they are background.

    With ``missing="fallback"`` no absence raises: boxes of nuclei that a mask lacks are estimated,
    and an ROI without image, place or contrast is masked as in Table 4, by zeros in the shape of
    the population's box. Nothing of this is silent; the data gain

    - ``missing_rois``: names of the masked ROIs;
    - ``estimated``: ``{roi: ["left STN: mirrored from the right"]}``;
    - ``boxes`` of the others: ``{roi: {"image": "qsm", "nuclei": ["SN"], "start": [x, y, z],
      "stop": [x, y, z]}}``, in voxels of the volume, margin included; they may leave it;
    - ``flags``: sentences on all of this, on nuclei of unusual size or place, and on those that
      the border of the image may cut.

    Args:
        rois: the regions of interest by name.
        missing: "error", or "fallback" for prediction.

    Raises:
        ValueError: with "error", for a mask that has none of an ROI's nuclei, and for an ROI
            without contrast.
    """

    def __init__(self, *, rois: Mapping[str, ROI], missing: Missing = "error") -> None:
        self.rois = dict(rois)
        self.placer = ROIPlacer(rois=rois, missing=missing)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Crop the ROIs."""
        images = self.placer.images.values()
        volumes = {key for image in images for key in (image.name, image.mask_name)}
        d = {key: value for key, value in data.items() if key not in volumes}
        report: dict[Hashable, Any] = {"boxes": {}, "estimated": {}, "missing_rois": []}
        report["flags"] = [*data.get("flags", [])]
        for name, place in self.placer(data).items():
            roi = self.rois[name]
            fault = place.fault
            if place.box is not None:
                fault = _fault(data[roi.image.name], place.box, roi.image)
            if fault is not None and self.placer.missing == "error":
                file = data[roi.image.name].meta.get("filename_or_obj", "the volume")
                raise ValueError(
                    f"ROI {name!r} {fault} ({file}); mend the image, its units or its mask, or "
                    f"leave the ROI out (--rois#{name}#_disabled_ True)."
                )
            if place.box is None or fault is not None:
                d[name], d[f"mask_{name}"] = (torch.zeros(1, *place.shape) for _ in range(2))
            else:
                d[name], d[f"mask_{name}"] = self._crops(data, roi, place.box)
            _note(report, name, roi, place, fault)
        for text in report["flags"]:
            _logger.warning("%s: %s.", data.get("subject", "a subject"), text)
        return d | report if self.placer.missing == "fallback" else d

    def _crops(self, data: Mapping[Hashable, Any], roi: ROI, box: Box) -> tuple[Tensor, Tensor]:
        """An ROI of an image and of its mask, which may be absent: all background then."""
        volume = data[roi.image.name]
        crop = _crop(volume, box)
        if not roi.nuclei or roi.image.mask_name not in data:
            mask = torch.zeros_like(crop)
        else:
            mask = _crop(data[roi.image.mask_name], box, fill=0.0, mode="nearest")
        return scale_crop(crop, mask, roi.image), mask


class MergeSidesd(Transform):
    """Turn ids of nuclei into classes: background 0, then the ROI's nuclei, left and right merged.

    Nuclei of other ROIs become background (section 3.4).

    Args:
        rois: the regions of interest by name.
    """

    def __init__(self, *, rois: Mapping[str, ROI]) -> None:
        self.rois = dict(rois)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Merge the sides in the ROIs' masks."""
        d = dict(data)
        for name, roi in self.rois.items():
            ids = d[f"mask_{name}"]
            classes = d[f"mask_{name}"] = torch.zeros_like(ids, dtype=torch.uint8)
            for place, number in enumerate(roi.ids):
                classes[ids == number] = place // len(SIDES) + 1
        return d


class ROIMaskChannelsd(Transform):
    """Append the one-hot mask of every ROI, background included, to its image (section 4.2).

    Comes after augmentation, which treats images and masks apart. ``NAME`` (1, D, H, W) becomes
    (1 + K, D, H, W): the image, background, then the ROI's nuclei. All channels of an ROI that
    ``ROICropd`` masked are zeros, as Table 4's masking makes them.

    Args:
        rois: the regions of interest by name.
    """

    def __init__(self, *, rois: Mapping[str, ROI]) -> None:
        self.rois = dict(rois)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Append the masks."""
        d = dict(data)
        for name, roi in self.rois.items():
            channels = one_hot(d[f"mask_{name}"], roi.num_classes, d[name].dtype, dim=0)
            if name in d.get("missing_rois", ()):
                channels = torch.zeros_like(channels)
            d[name] = torch.cat([d[name], channels])
        return d


def _crop(
    volume: MetaTensor, box: Box, fill: float | None = None, mode: str = "bilinear"
) -> Tensor:
    """A box of a volume as slices with square pixels; beyond it is ``fill``, or its minimum."""
    voxels, affine = volume.as_tensor(), volume.affine.numpy()
    start, shape = np.maximum(box.start, 0), np.array(voxels.shape[1:])
    crop = voxels[(slice(None), *box.inside)]
    affine = affine @ from_matvec(np.eye(3), start)
    before, after = start - box.start, np.maximum(box.stop - shape, 0)
    if before.any() or after.any():
        edges = [int(edge) for pair in zip(before[::-1], after[::-1], strict=True) for edge in pair]
        crop = pad(crop, edges, value=float(voxels.min()) if fill is None else fill)
        affine = affine @ from_matvec(np.eye(3), -before)
    turn = ornt_transform(io_orientation(affine), _SLICES)
    affine = affine @ inv_ornt_aff(turn, crop.shape[1:])
    crop = crop.flip([axis + 1 for axis, way in enumerate(turn[:, 1]) if way < 0])
    crop = crop.permute(0, *(int(axis) + 1 for axis in np.argsort(turn[:, 0])))
    # A copy: saving a view into the cache would save the whole volume.
    crop = crop.clone(memory_format=torch.contiguous_format)
    found: Any = MetaTensor(crop, affine=torch.from_numpy(affine))
    thickness, *pixel = found.pixdim.tolist()
    if max(pixel) > 1.01 * min(pixel):
        spacing = (thickness, min(pixel), min(pixel))
        found = Spacing(spacing, mode=mode, padding_mode="border", scale_extent=True)(found)
        found = found.clone(memory_format=torch.contiguous_format)
    return found


def _fault(volume: MetaTensor, box: Box, image: Image) -> str | None:
    """Why a volume shows nothing in an ROI's box, or None."""
    voxels = volume.as_tensor()[0][box.inside].float()
    if voxels.numel() == 0:
        return f"lies outside the {image.title} image"
    voxels = scale_crop(voxels, torch.zeros_like(voxels), image)  # where that is still to come
    if float(voxels.std(correction=0)) < _MIN_CONTRAST:
        return f"has no contrast in the {image.title} image"
    return None


def _note(
    report: dict[Hashable, Any], name: str, roi: ROI, place: Placement, fault: str | None
) -> None:
    """Write down what became of an ROI."""
    if place.estimated:
        report["estimated"][name] = place.estimated
    report["flags"] += [f"{name}: {text}" for text in place.flags]
    if fault is not None:
        report["missing_rois"].append(name)
        report["flags"].append(f"{name}: masked, since it {fault}")
    elif place.box is not None:
        start, stop = (corner.tolist() for corner in place.box)
        where = {"image": roi.image.name, "nuclei": list(roi.nuclei)}
        report["boxes"][name] = where | {"start": start, "stop": stop}
