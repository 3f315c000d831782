"""Where the ROIs of a subject lie: around their nuclei, or around what stands in for lost ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from monai.data import MetaTensor
from nibabel.affines import voxel_sizes

from mrn_components.images.boxes import Box, BoxMm, enclosing_box, label_boxes, world_axes
from mrn_components.images.image import SIDES
from mrn_components.regions.population import USUAL_SPACING_MM, usual_box
from mrn_components.regions.roi import ROI, images_of

_SIZE_RANGE = (0.5, 2.0)  # times the usual; phantoms 0.7 to 1.3
_MAX_DISTANCE_MM = 15.0  # from where the other nuclei put it; phantoms up to 7
_UNKNOWN = BoxMm(np.zeros(3), np.full(3, 10.0))  # of an ROI whose usual size is not known

Missing = Literal["error", "fallback"]
Nucleus = tuple[str, str, str]  # name of the image, nucleus, side


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where an ROI lies, and what must be known about that."""

    box: Box | None  # its voxels, margin included; None for an ROI without a place or an image
    fault: str | None = None  # why there is no box
    shape: tuple[int, int, int] = (0, 0, 0)  # (D, H, W) of the population's box
    estimated: list[str] = field(default_factory=list)  # "left STN: mirrored from the right"
    flags: list[str] = field(default_factory=list)  # sentences for the user


class ROIPlacer:
    """Place the ROIs in a subject's volumes.

    An ROI's box holds its nuclei, of each id the largest 26-connected component, and
    ``roi.margin_mm`` on every side; or is a field of ``roi.extent_mm`` about their middle. An ROI
    without nuclei is the whole image. With ``missing="fallback"`` a nucleus that the mask lacks
    takes the box of its other side, reflected about the subject's mid-sagittal plane, or else the
    box of the population. Plane and population are put where the nuclei of all masks say, since
    the images share a world. Nuclei that the population does not know are taken as they are found,
    neither estimated nor doubted. With "error" none are estimated: those that there are must do.
    """

    def __init__(self, *, rois: Mapping[str, ROI], missing: Missing = "error") -> None:
        if missing not in get_args(Missing):
            raise ValueError(f"missing must be one of {list(get_args(Missing))}, got {missing!r}.")
        self.rois = dict(rois)
        self.missing = missing
        self.images = images_of(rois)
        self.usual = {  # of the nuclei that the population knows
            (image.name, nucleus, side): box
            for image in self.images.values()
            for nucleus, side in image.ids.values()
            if (box := usual_box(image.quantity, nucleus, side)) is not None
        }

    def __call__(self, data: Mapping[Any, Any]) -> dict[str, Placement]:
        """Place every ROI in volumes (1, X, Y, Z); "fallback" can do without any of them."""
        seen = self._seen_nuclei(data)
        found = {
            nucleus: box.to_mm(data[f"mask_{nucleus[0]}"].affine.numpy())
            for nucleus, box in seen.items()
            if self.missing == "fallback" and nucleus in self.usual
        }
        head = _Head(found, self.usual)
        return {name: self._place(roi, data, seen, head) for name, roi in self.rois.items()}

    def _seen_nuclei(self, data: Mapping[Any, Any]) -> dict[Nucleus, Box]:
        """Boxes of the nuclei in a subject's masks."""
        seen: dict[Nucleus, Box] = {}
        for name, image in self.images.items():
            if image.mask_name in data:
                boxes = label_boxes(data[image.mask_name].numpy()[0].astype(np.uint8))
                seen |= {(name, *of): boxes[i] for i, of in image.ids.items() if i in boxes}
        return seen

    def _place(
        self, roi: ROI, data: Mapping[Any, Any], seen: Mapping[Nucleus, Box], head: "_Head"
    ) -> Placement:
        volume, image = data.get(roi.image.name), roi.image.title
        shape = self._usual_shape(roi, volume)
        if volume is None:
            return Placement(box=None, fault=f"has no {image} image", shape=shape)
        if not roi.nuclei:
            return Placement(box=Box(np.zeros(3, int), np.array(volume.shape[1:])), shape=shape)
        affine = volume.affine.numpy()
        boxes: dict[Nucleus, Box] = {}
        lost: dict[str, list[Nucleus]] = {}  # what the mask lacks, by what stands in for it
        for nucleus in _nuclei(roi):
            if nucleus in seen:
                boxes[nucleus] = seen[nucleus]
            else:
                box, source = head.estimate(nucleus)
                lost.setdefault(source, []).append(nucleus)
                if box is not None:
                    boxes[nucleus] = box.to_voxels(affine)
        if not boxes:
            where = f"{' or '.join(roi.nuclei)} in the {image}" if seen else "nucleus in any"
            fault = f"has no place: no {where} mask"
            return Placement(box=None, fault=fault, shape=shape)
        texts = [
            f"the {image} mask lacks {', '.join(map(_text, nuclei))} ({source})"
            for source, nuclei in lost.items()
        ]
        texts += head.doubts(_nuclei(roi))
        texts += _border(boxes, seen, volume.shape[1:])
        estimated = [
            f"{_text(nucleus)}: {source}"
            for source, nuclei in lost.items()
            for nucleus in nuclei
            if nucleus in boxes
        ]
        grid = data.get(roi.image.mask_name, volume).affine.numpy()
        around = _roi_box(list(boxes.values()), roi, grid)
        return Placement(box=around, shape=shape, estimated=estimated, flags=texts)

    def _usual_shape(self, roi: ROI, volume: MetaTensor | None) -> tuple[int, int, int]:
        """(D, H, W) of the population's box, in voxels of the image or else of usual ones."""
        spacing = np.array(USUAL_SPACING_MM)
        if volume is not None:
            affine = volume.affine.numpy()
            spacing[world_axes(affine)] = voxel_sizes(affine)
            spacing[:2] = spacing[:2].min()  # as crops get square pixels
        affine = np.diag([*spacing, 1.0])
        usual = [self.usual[nucleus] for nucleus in _nuclei(roi) if nucleus in self.usual]
        boxes = [box.to_voxels(affine) for box in usual or [_UNKNOWN]]
        start, stop = _roi_box(boxes, roi, affine)
        width, height, depth = (stop - start).tolist()
        return depth, height, width


class _Head:
    """What the nuclei that were found tell about where the others lie."""

    def __init__(self, found: Mapping[Nucleus, BoxMm], usual: Mapping[Nucleus, BoxMm]) -> None:
        self.found = found
        shifts = [box.centre - usual[nucleus].centre for nucleus, box in found.items()]
        shift = np.median(shifts, axis=0) if shifts else np.zeros(3)  # no stray moves it
        self.expected = {n: BoxMm(box.centre + shift, box.half_size) for n, box in usual.items()}
        self.away_mm = {  # of a found nucleus from where the others put it
            nucleus: float(np.linalg.norm(box.centre - self.expected[nucleus].centre))
            for nucleus, box in found.items()
        }
        self.sound = {n: box for n, box in found.items() if self.away_mm[n] <= _MAX_DISTANCE_MM}
        pairs = [
            (box.centre, self.sound[_opposite(nucleus)].centre)
            for nucleus, box in self.sound.items()
            if nucleus[2] == "right" and _opposite(nucleus) in self.sound
        ]
        # The mid-sagittal plane: the points p with p @ normal == offset. Without pairs it is
        # upright, and where the shift has the population's.
        across = np.sum([right - left for right, left in pairs], axis=0)
        if not np.any(across):
            across = np.eye(3)[0]
        middles = [(right + left) / 2 for right, left in pairs] or [shift]
        self.normal = across / np.linalg.norm(across)
        self.offset = np.median(np.array(middles) @ self.normal)

    def estimate(self, nucleus: Nucleus) -> tuple[BoxMm | None, str]:
        """Box of a nucleus that was not found, if one can be told, and where it comes from."""
        if not self.found or nucleus not in self.expected:
            return None, "not estimated"
        other = self.sound.get(_opposite(nucleus))
        if other is None:
            return self.expected[nucleus], "placed where most people have it"
        beyond = other.centre @ self.normal - self.offset
        mirrored = BoxMm(other.centre - 2 * beyond * self.normal, other.half_size)
        return mirrored, f"mirrored from the {_opposite(nucleus)[2]}"

    def doubts(self, nuclei: Sequence[Nucleus]) -> list[str]:
        """Sentences on found nuclei of a size, or in a place, that is not a nucleus'."""
        texts = []
        for nucleus in (nucleus for nucleus in nuclei if nucleus in self.found):
            box, usual = self.found[nucleus], self.expected[nucleus]
            ratio = box.half_size / usual.half_size
            if ratio.min() < _SIZE_RANGE[0] or ratio.max() > _SIZE_RANGE[1]:
                texts.append(f"{_text(nucleus)} measures {_size(box)}, usual is {_size(usual)}")
            if nucleus not in self.sound:
                where = f"{self.away_mm[nucleus]:.0f} mm from where other nuclei put it"
                texts.append(f"{_text(nucleus)} lies {where}")
        return texts


def _nuclei(roi: ROI) -> list[Nucleus]:
    return [(roi.image.name, name, side) for name in roi.nuclei for side in SIDES]


def _opposite(nucleus: Nucleus) -> Nucleus:
    image, name, side = nucleus
    return image, name, SIDES[1 - SIDES.index(side)]


def _text(nucleus: Nucleus) -> str:
    return f"{nucleus[2]} {nucleus[1]}"


def _size(box: BoxMm) -> str:
    return " x ".join(f"{2 * half:.0f}" for half in box.half_size) + " mm"


def _border(
    boxes: Mapping[Nucleus, Box], seen: Mapping[Nucleus, Box], shape: Sequence[int]
) -> list[str]:
    """Sentences on nuclei that the image may not hold as a whole."""
    texts = []
    for nucleus, (start, stop) in boxes.items():
        if nucleus in seen and ((start <= 0) | (stop >= shape)).any():
            texts.append(f"{_text(nucleus)} touches the border of the image and may be cut off")
        elif ((start < 0) | (stop > shape)).any():
            texts.append(f"{_text(nucleus)} is expected beyond the border of the image")
    return texts


def _roi_box(boxes: Sequence[Box], roi: ROI, affine: np.ndarray) -> Box:
    spacing = voxel_sizes(affine)
    if roi.extent_mm is None:
        return enclosing_box(boxes, roi.margin_voxels(spacing.tolist()))
    start, stop = enclosing_box(boxes, (0, 0, 0))
    size = np.rint(np.array(roi.extent_mm)[world_axes(affine)] / spacing).astype(int).clip(1)
    start = (start + stop - size) // 2
    return Box(start, start + size)
