"""A subject's images as the pages show them: what could be read, and what could not and why."""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from mrn_components.app.report.aligned import draw_aligned
from mrn_components.app.report.scan import scan_facts
from mrn_components.app.report.slices import (
    Picture,
    Span,
    canonical_box,
    chosen_slices,
    draw_planes,
    draw_slice,
    encode,
    grey,
    percentile_window,
    radiological,
)
from mrn_components.images.boxes import Box
from mrn_components.images.finding import FaultyFileError
from mrn_components.images.image import Image
from mrn_components.images.masks import check_mask
from mrn_components.images.volume import Volume

_CONTEXT_MM = 6.0  # tissue shown around an ROI's box
_EDGE_COLOUR = (230, 159, 0)  # Okabe and Ito's orange
_UNREAD = "the image could not be read, see the flags."
_THUMBNAIL_ZOOM = 2
_LONGEST_THUMBNAIL = 90  # voxels, before the zoom


class Shown(NamedTuple):
    """What pages show of an image: drawn once, while its voxels are in memory."""

    image: Image
    overview: Picture | None  # the whole slice that most regions cross; None without voxels
    rois: dict[str, list[Picture]]  # one to three slices of each, low to high
    thumbnail: dict[str, Any]  # of the index: "name", what is "shown", "uri", None without voxels
    problem: str  # why voxels or mask are missing; "" if neither is
    facts: Mapping[str, str] = MappingProxyType({})  # of the scan
    reel: Sequence[Picture] = ()  # every slice that a region crosses, low to high
    planes: Mapping[str, Picture] = MappingProxyType({})  # coronal and sagittal
    aligned: Sequence[Picture] = ()  # before and after, where the image was aligned to another one


def draw_images(
    record: Mapping[str, Any], sources: Mapping[str, Volume | str], images: Mapping[str, Image]
) -> dict[str, Shown]:
    """Draw what pages show of a subject's images; a mask that does not fit is a ``problem``.

    The ``record`` is its ``prediction.json``, as far as it is known; ``sources`` are the images and
    masks that there are, by their keys, or why they cannot be shown.
    """
    inputs, boxes = record["inputs"].items(), record["boxes"]
    unread = {key: _UNREAD for key, file in inputs if file["sha256"] is None}
    shown = {name: _drawn(image, {**unread, **sources}, boxes) for name, image in images.items()}
    for name, found in record["alignment"].items():
        other = images[found["to"]]
        volumes = (sources.get(key) for key in (name, other.name, other.mask_name))
        moving, fixed, mask = (v if isinstance(v, Volume) else None for v in volumes)
        if "matrix" in found and moving and fixed and mask:
            pictures = draw_aligned(found, moving, fixed, mask, other)
            shown[name] = shown[name]._replace(aligned=pictures)
    return shown


def _drawn(
    image: Image, sources: Mapping[str, Volume | str], boxes: Mapping[str, Mapping[str, Any]]
) -> Shown:
    volume, mask = sources.get(image.name, "there is no image."), sources.get(image.mask_name, "")
    if isinstance(volume, str):
        return Shown(image, None, {}, {"name": image.title, "shown": "", "uri": None}, volume)
    if isinstance(mask, Volume):
        try:
            check_mask(mask.canonical, image, volume.canonical)
        except FaultyFileError as error:
            mask = str(error)
    drawing = Drawing(image, volume, mask if isinstance(mask, Volume) else None)
    mine = {roi: box for roi, box in boxes.items() if box["image"] == image.name}
    here = {roi: drawing.box(box) for roi, box in mine.items()}
    return Shown(
        image=image,
        overview=drawing.overview(here),
        rois={roi: drawing.roi(roi, here[roi], box["nuclei"]) for roi, box in mine.items()},
        thumbnail=drawing.thumbnail(here),
        problem=mask if isinstance(mask, str) else "",
        facts=scan_facts(volume),
        reel=drawing.reel(here),
        planes=drawing.planes(here),
    )


class Drawing:
    """Draws an image of a subject with its mask, which lies on the same grid, if there is one."""

    def __init__(self, image: Image, volume: Volume, mask: Volume | None) -> None:
        self.image = image
        self.affine = volume.affine  # of the file, whose voxels the record counts
        self.volume = volume.canonical
        self.mask = None if mask is None else mask.canonical

    def box(self, box: Mapping[str, Any]) -> Box:
        """A box of the record in voxels of the volume."""
        return canonical_box(box["start"], box["stop"], affine=self.affine, volume=self.volume)

    def overview(self, boxes: Mapping[str, Box]) -> Picture:
        """The whole slice that most boxes cross."""
        crossed = np.zeros(self.volume.shape[2])
        for box in boxes.values():
            crossed[self._inside(box)[2]] += 1
        best = np.flatnonzero(crossed == crossed.max())
        z, nuclei = int(best[len(best) // 2]), self.image.nuclei
        window = self.overall_window(boxes)
        return draw_slice(self.volume, self.mask, z, nuclei=nuclei, boxes=boxes, window=window)

    def reel(self, boxes: Mapping[str, Box]) -> list[Picture]:
        """Every slice that a box crosses."""
        window, nuclei = self.overall_window(boxes), self.image.nuclei
        crossed = {z for box in boxes.values() for z in range(*self._inside(box)[2].indices(10**6))}
        options: dict[str, Any] = {
            "nuclei": nuclei,
            "boxes": boxes,
            "window": window,
            "small": True,
        }
        return [draw_slice(self.volume, self.mask, z, **options) for z in sorted(crossed)]

    def planes(self, boxes: Mapping[str, Box]) -> dict[str, Picture]:
        """The coronal and the sagittal plane with most of the nuclei."""
        window, nuclei = self.overall_window(boxes), self.image.nuclei
        return draw_planes(self.volume, self.mask, nuclei=nuclei, boxes=boxes, window=window)

    def overall_window(self, boxes: Mapping[str, Box]) -> Span:
        """What is black and white in pictures of more than one region.

        It is the image's own, or if that is relative to a region's tissue, that of the first box.
        """
        relative = boxes and self.image.relative_window is not None
        return self._window(self._inside(next(iter(boxes.values()))) if relative else ...)

    def roi(self, name: str, box: Box, named: Sequence[str]) -> list[Picture]:
        """One to three slices through an ROI, low to high, none if it lies outside."""
        nuclei = {key: self.image.nuclei[key] for key in named if key in self.image.nuclei}
        region = self._inside(box)
        if not self.volume.stored[region].size:
            return []
        context = np.ceil(_CONTEXT_MM / self.volume.spacing_mm).astype(int)
        right, front, _ = self._inside(Box(box.start - context, box.stop + context))
        window = self._window(region)
        return [
            draw_slice(
                self.volume,
                self.mask,
                z,
                nuclei=nuclei,
                boxes={name: box},
                window=window,
                region=(right, front),
            )
            for z in chosen_slices(self.mask, nuclei, region[2])
        ]

    def thumbnail(self, boxes: Mapping[str, Box]) -> dict[str, Any]:
        """A small picture of the substantia nigra's region.

        Of the first region where there is no substantia nigra, of a whole slice without regions.
        """
        regions = {roi: self._inside(box) for roi, box in boxes.items()}
        nigra = {roi: found for roi, r in regions.items() if (found := self._nigra(r)).size}
        if nigra:
            # Of several the one with most of it, and of these the closest to it.
            roi = max(nigra, key=lambda roi: (int(nigra[roi].sum()), -nigra[roi].size))
            shown, region, marked = f"region {roi}", regions[roi], nigra[roi]
        else:  # the whole of it, in steps that leave it no larger than a region
            step = math.ceil(max(self.volume.shape[:2]) / _LONGEST_THUMBNAIL)
            shown, region = "middle slice", (slice(None, None, step),) * 2
            marked = np.zeros(self.volume.stored[region].shape, bool)
        uri = _small(self.volume.values(region), marked, self._window(region))
        return {"name": self.image.title, "shown": shown, "uri": uri}

    def _inside(self, box: Box) -> tuple[slice, ...]:
        """The part of a box that lies in the volume."""
        return tuple(map(slice, *np.clip(box, 0, self.volume.shape)))

    def _nigra(self, region: tuple[slice, ...]) -> np.ndarray:
        """Which voxels of a region are of the substantia nigra."""
        if self.mask is None:
            return np.zeros(self.volume.stored[region].shape, bool)
        return np.isin(self.mask.ids[region], self.image.nuclei.get("SN", ()))

    def _window(self, where: Any) -> Span:
        """The values that are black and white: the image's, or those of some of its voxels."""
        if self.image.window is not None:
            return self.image.window
        voxels = self.volume.values(where)
        if self.image.relative_window is None or self.mask is None:
            return percentile_window(voxels, self.image.percentiles)
        tissue = voxels[(self.mask.ids[where] == 0) & (voxels > 0)]  # as ``scale_crop`` has it
        if not tissue.size:
            return percentile_window(voxels, self.image.percentiles)
        low, high = (end * float(np.median(tissue)) for end in self.image.relative_window)
        return low, high


def _small(voxels: np.ndarray, marked: np.ndarray, window: Span) -> str:
    """The slice of some voxels with most that are marked, their edge in orange."""
    z = int(marked.sum(axis=(0, 1)).argmax()) if marked.any() else voxels.shape[2] // 2
    zoom = np.ones((_THUMBNAIL_ZOOM, _THUMBNAIL_ZOOM), np.uint8)
    pixels = np.kron(grey(radiological(voxels[..., z]), window), zoom)
    inside = np.kron(radiological(marked[..., z]).astype(np.uint8), zoom).astype(bool)
    colours = np.repeat(pixels[..., None], 3, axis=2)
    colours[inside & ~ndimage.binary_erosion(inside)] = _EDGE_COLOUR
    return encode(colours, "webp", quality=70)
