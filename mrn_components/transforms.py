"""From volumes to regions of interest, and from predictions to what stock metrics read.

Shapes: X Y Z voxels of a volume; D slices, H rows, W columns of a crop.
"""

import logging
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.networks import one_hot
from monai.transforms import CropForeground, Orientation, Transform
from scipy import ndimage

from mrn_components.labels import LABELS, SIDES
from mrn_components.rois import ROI

_logger = logging.getLogger(__name__)
_MAX_SHIFT_MM = 0.1  # between an image's corners and its mask's


class CheckVolumesd(Transform):
    """Refuse volumes and masks that would give wrong crops.

    Comes right after the volumes are read, because intensity scaling hides what is checked here.
    Non-finite voxels outside every ROI, which QSM often has around the brain, become 0.

    Args:
        rois: the regions of interest by name.

    Raises:
        ValueError: for a volume that is not 3D, a mask on another grid than its image (corners more
            than 0.1 mm apart), mask values that are not label ids, or a non-finite voxel in an ROI.
    """

    def __init__(self, *, rois: Mapping[str, ROI]) -> None:
        self.rois = dict(rois)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Check the volumes and masks of the images that the ROIs need."""
        d = dict(data)
        for image in sorted({roi.image for roi in self.rois.values()}):
            volume, mask = d[image], d[f"mask_{image}"]
            _check_grid(volume, mask)
            _check_labels(mask, image)
            if not bool(torch.isfinite(volume).all()):
                d[image] = self._fill_outside(volume, mask, image)
        return d

    def _fill_outside(self, volume: MetaTensor, mask: MetaTensor, image: str) -> MetaTensor:
        """Set non-finite voxels to 0, provided that none lies in an ROI."""
        boxes = _component_boxes(mask)
        finite = torch.isfinite(volume.as_tensor())
        for name, roi in self.rois.items():
            if roi.image == image:
                start, stop = _roi_box(name, roi, boxes, mask)
                x, y, z = (slice(max(a, 0), b) for a, b in zip(start, stop, strict=True))
                count = int((~finite[0, x, y, z]).sum())
                if count:
                    raise ValueError(
                        f"{_file(volume)} has {count} non-finite voxels (NaN or infinite) in ROI "
                        f"{name!r}, expected none; reconstruct the image anew."
                    )
        _logger.warning(
            "%s has %d non-finite voxels outside the ROIs; they become 0.",
            _file(volume),
            int((~finite).sum()),
        )
        return torch.where(finite, volume, 0.0)  # type: ignore[return-value]


class ROICropd(Transform):
    """Crop every ROI out of its volume, per patient and at native resolution (section 3.3).

    The box holds the ROI's nuclei, of each label the largest 26-connected component, and
    ``roi.margin_mm`` on every side. Where it leaves the volume it is padded with the image's
    minimum, and with background in the mask. Volumes of any orientation give the same crops.

    The volumes ``nm, qsm, mask_nm, mask_qsm`` (1, X, Y, Z) give way to ``NAME`` and ``mask_NAME``
    of each ROI: (1, D, H, W), with the affine from (d, h, w) to mm. The first slice is the lowest,
    the first row anterior, the first column at the patient's right. Masks keep their label ids.

    Args:
        rois: the regions of interest by name.

    Raises:
        ValueError: if a mask has none of an ROI's nuclei.
    """

    def __init__(self, *, rois: Mapping[str, ROI]) -> None:
        self.rois = dict(rois)
        self.crop = CropForeground(allow_smaller=False)
        self.to_slices = Orientation(axcodes="SPL", labels=None)  # (X, Y, Z) -> (D, H, W)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Crop the ROIs."""
        volumes = {f"{kind}{image}" for image in LABELS for kind in ("", "mask_")}
        d = {key: value for key, value in data.items() if key not in volumes}
        images = {roi.image for roi in self.rois.values()}
        boxes = {image: _component_boxes(data[f"mask_{image}"]) for image in images}
        for name, roi in self.rois.items():
            volume, mask = data[roi.image], data[f"mask_{roi.image}"]
            box = _roi_box(name, roi, boxes[roi.image], mask)
            d[name] = self._crop(volume, *box, fill=float(volume.min()))
            d[f"mask_{name}"] = self._crop(mask, *box, fill=0.0)
        return d

    def _crop(
        self, volume: MetaTensor, start: np.ndarray, stop: np.ndarray, fill: float
    ) -> torch.Tensor:
        crop = self.to_slices(self.crop.crop_pad(volume, start, stop, value=fill))
        # A copy: saving a view into the cache would save the whole volume.
        return crop.clone(memory_format=torch.contiguous_format)


class MergeSidesd(Transform):
    """Turn label ids into classes: background 0, then the ROI's nuclei, left and right merged.

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
            classes = torch.zeros_like(ids, dtype=torch.uint8)
            for index, nucleus in enumerate(roi.nuclei, start=1):
                for label in LABELS[roi.image][nucleus]:
                    classes[ids == label] = index
            d[f"mask_{name}"] = classes
        return d


class ROIMaskChannelsd(Transform):
    """Append the one-hot mask of every ROI, background included, to its image (section 4.2).

    Comes after augmentation, which treats images and masks apart. ``NAME`` (1, D, H, W) becomes
    (1 + K, D, H, W): the image, background, then the ROI's nuclei.

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
            d[name] = torch.cat([d[name], channels])
        return d


class DiagnosisOutputd(Transform):
    """Adapt an evaluator's output, decollated or not, to stock metrics.

    ``pred`` (the network's dict, or its logits) becomes class probabilities (..., 2), ``prob_pd``
    the probability of Parkinson's disease (...), ``label`` the diagnosis (...), where there is one.
    An ensemble adds ``prob_pd_folds`` (..., F), test-time augmentation ``prob_pd_views`` (..., V).
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Adapt the output."""
        d = dict(data)
        output = d["pred"] if isinstance(d["pred"], Mapping) else {"logits": d["pred"]}
        d["pred"] = _probabilities(output["logits"])
        d["prob_pd"] = d["pred"][..., 1]
        for members in ("fold", "view"):
            if f"{members}_logits" in output:
                d[f"prob_pd_{members}s"] = _probabilities(output[f"{members}_logits"])[..., 1]
        if "label" in d.get("label", ()):
            d["label"] = d["label"]["label"]
        return d


def _probabilities(logits: torch.Tensor) -> torch.Tensor:
    return logits.float().softmax(dim=-1)


def _check_grid(volume: MetaTensor, mask: MetaTensor) -> None:
    for item in (volume, mask):
        if item.ndim != 4 or item.shape[0] != 1:
            raise ValueError(
                f"{_file(item)} must be one 3D volume, found {item.shape[0]} of the shape "
                f"{tuple(item.shape[1:])}; extract one."
            )
    if volume.shape != mask.shape:
        raise ValueError(
            f"{_file(mask)} has the shape {tuple(mask.shape[1:])}, expected that of "
            f"{_file(volume)}, {tuple(volume.shape[1:])}; draw the mask on this image."
        )
    corners = np.array([[*corner, 1] for corner in np.ndindex(2, 2, 2)], dtype=float)
    corners[:, :3] *= volume.shape[1:]
    shift_mm = np.linalg.norm((corners @ (volume.affine - mask.affine).numpy().T)[:, :3], axis=1)
    if shift_mm.max() > _MAX_SHIFT_MM:
        raise ValueError(
            f"the corners of {_file(mask)} lie up to {shift_mm.max():.2f} mm from those of "
            f"{_file(volume)}, expected at most {_MAX_SHIFT_MM} mm; correct the affine, or draw "
            "the mask on this image."
        )


def _check_labels(mask: MetaTensor, image: str) -> None:
    table = {i: nucleus for nucleus, ids in LABELS[image].items() for i in ids}
    values = mask.as_tensor()[mask.as_tensor() != 0].unique().tolist()
    wrong = [value for value in values if value not in table]
    if wrong:
        raise ValueError(
            f"{_file(mask)} holds the values {wrong[:5]}, expected 0 and the ids of {image} masks, "
            f"{table}; masks must be resampled with nearest neighbours only."
        )


def _component_boxes(mask: MetaTensor) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Box [start, stop) of the largest component of every label id in a mask (1, X, Y, Z)."""
    ids = mask.as_tensor()[0].to(torch.uint8).numpy()
    boxes = {}
    for label, outer in enumerate(ndimage.find_objects(ids), start=1):
        if outer is not None:
            components, count = ndimage.label(ids[outer] == label, structure=np.ones((3, 3, 3)))
            largest = np.bincount(components.ravel(), minlength=count + 1)[1:].argmax()
            inner = ndimage.find_objects(components)[largest]
            offset = np.array([axis.start for axis in outer])
            boxes[label] = (
                offset + [axis.start for axis in inner],
                offset + [axis.stop for axis in inner],
            )
    return boxes


def _roi_box(
    name: str,
    roi: ROI,
    boxes: Mapping[int, tuple[np.ndarray, np.ndarray]],
    mask: MetaTensor,
) -> tuple[np.ndarray, np.ndarray]:
    """Box [start, stop) of an ROI with its margin; it may leave the volume."""
    found = [boxes[label] for label in roi.label_ids if label in boxes]
    missing = [
        f"{side} {nucleus}"
        for nucleus in roi.nuclei
        for side, label in zip(SIDES, LABELS[roi.image][nucleus], strict=True)
        if label not in boxes
    ]
    if not found:
        raise ValueError(
            f"{_file(mask)} has none of the nuclei {list(roi.nuclei)} of ROI {name!r}; complete "
            f"the mask, or leave the ROI out (--rois#{name}#_disabled_ True)."
        )
    if missing:
        _logger.warning("%s lacks %s.", _file(mask), ", ".join(missing))
    margin = roi.margin_voxels(np.linalg.norm(mask.affine[:3, :3].numpy(), axis=0))
    start = np.min([start for start, _ in found], axis=0) - margin
    stop = np.max([stop for _, stop in found], axis=0) + margin
    return start, stop


def _file(item: MetaTensor) -> str:
    return str(item.meta.get("filename_or_obj", "the volume"))
