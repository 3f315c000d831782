"""A subject's images as the pages show them: what could be read, and what could not and why."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from mrn_components.app.report.pages import data_uri
from mrn_components.app.report.slices import (
    Box,
    Picture,
    canonical_box,
    draw_slice,
    encode,
    grey,
    percentile_window,
    radiological,
    roi_slices,
)
from mrn_components.images.finding import FaultyFileError
from mrn_components.images.image import CHALLENGE_IMAGES, Image
from mrn_components.images.masks import check_mask
from mrn_components.images.volume import Volume

_EDGE_COLOUR = (230, 159, 0)  # Okabe and Ito's orange
_UNREAD = "the image could not be read, see the flags."
_THUMBNAIL_ZOOM = 2
_LONGEST_THUMBNAIL = 90  # voxels, before the zoom


@dataclass(frozen=True)
class Shown:
    """What pages show of an image: drawn once, while its voxels are in memory.

    Args:
        image: what it is.
        overview: the whole slice that most regions cross, for the template.
        rois: pictures of each region in it, and the nuclei in them.
        thumbnail: what the index shows.
        problem: why voxels or mask are missing; "" if neither is.
    """

    image: Image
    overview: dict[str, Any]
    rois: dict[str, tuple[list[Picture], list[str]]]
    thumbnail: dict[str, Any]
    problem: str


@dataclass(frozen=True)
class SubjectImage:
    """An image of a subject with its mask.

    Args:
        image: what it is.
        volume: its voxels, on the axes closest to RAS+; None where there are none.
        mask: of its nuclei, on the same grid; None where there is none.
        affine: (4, 4) of the file, voxel to mm.
        problem: why volume or mask is missing; "" if neither is.
    """

    image: Image
    volume: Volume | None
    mask: Volume | None
    affine: np.ndarray
    problem: str

    def box(self, box: Mapping[str, Any]) -> Box | None:
        """A box of the record in voxels of the volume; None without a volume."""
        if self.volume is None:
            return None
        return canonical_box(box["start"], box["stop"], affine=self.affine, volume=self.volume)

    def boxes(self, boxes: Mapping[str, Mapping[str, Any]]) -> dict[str, Box]:
        """The boxes of the record that lie in this image."""
        own = {roi: self.box(box) for roi, box in boxes.items() if box["image"] == self.image.name}
        return {roi: box for roi, box in own.items() if box is not None}

    def drawn(self, boxes: Mapping[str, Mapping[str, Any]]) -> Shown:
        """Draw all that pages show of the image.

        Args:
            boxes: of the record.
        """
        own = {roi: box for roi, box in boxes.items() if box["image"] == self.image.name}
        return Shown(
            image=self.image,
            overview=self.overview(boxes),
            rois={roi: self._roi(roi, box) for roi, box in own.items()},
            thumbnail=self.thumbnail(boxes),
            problem=self.problem,
        )

    def _roi(self, name: str, box: Mapping[str, Any]) -> tuple[list[Picture], list[str]]:
        found = self.box(box)
        if self.volume is None or found is None:
            return [], []
        nuclei = self.nuclei_inside(found, box.get("nuclei"))
        window = self.image.window
        pictures = roi_slices(
            self.volume, self.mask, name=name, nuclei=nuclei, box=found, window=window
        )
        return pictures, list(nuclei)

    def overview(self, boxes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """The whole slice that most boxes cross, for the template.

        Args:
            boxes: of the record.
        """
        view: dict[str, Any] = {"names": self.image.title, "picture": None}
        if self.volume is None:
            return view | {"problem": self.problem}
        own = self.boxes(boxes)
        depth = self.volume.shape[2]
        crossed = np.zeros(depth)
        for start, stop in own.values():
            low, high = np.clip((start[2], stop[2]), 0, depth)
            crossed[low:high] += 1
        best = np.flatnonzero(crossed == crossed.max())
        window = self.image.window or percentile_window(self.volume.values())
        picture = draw_slice(
            self.volume,
            self.mask,
            int(best[len(best) // 2]),
            nuclei=self.image.nuclei,
            boxes=own,
            window=window,
        )
        return view | {"picture": picture}

    def nuclei_inside(self, box: Box, named: Sequence[str] | None) -> dict[str, tuple[int, int]]:
        """Label ids of an ROI's nuclei: those that are named, or that lie wholly in its box.

        Args:
            box: in voxels of the volume.
            named: what the record says; None where it says nothing.
        """
        table = self.image.nuclei
        if named is not None:
            return {name: table[name] for name in named if name in table}
        if self.mask is None:
            return {}
        array = self.mask.ids
        low, high = np.clip(box, 0, array.shape)
        inside = np.bincount(array[tuple(map(slice, low, high))].ravel(), minlength=256)
        everywhere = np.bincount(array.ravel(), minlength=256)
        return {
            name: ids
            for name, ids in table.items()
            if any(everywhere[i] for i in ids) and all(inside[i] == everywhere[i] for i in ids)
        }

    def thumbnail(self, boxes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """A small picture of the substantia nigra's region, for the index.

        Of the first region where there is no substantia nigra, of a whole slice without regions.

        Args:
            boxes: of the record.

        Returns:
            {"name": of the image, "shown": what of it, "uri": None without a picture}.
        """
        thumb: dict[str, Any] = {"name": self.image.title, "shown": "", "uri": None}
        if self.volume is None:
            return thumb
        nigra = self.image.nuclei.get("SN", ())
        best = None
        for roi, box in self.boxes(boxes).items():
            low, high = np.clip(box, 0, self.volume.shape)
            if (low >= high).any():
                continue
            region = tuple(map(slice, low, high))
            inside = np.zeros(1) if self.mask is None else np.isin(self.mask.ids[region], nigra)
            rank = (int(inside.sum()), -int(np.prod(high - low)))  # most of it, closest to it
            if best is None or rank > best[0]:
                best = rank, roi, region
        if best is not None:
            return thumb | {"shown": f"region {best[1]}", "uri": self._small(best[2], nigra)}
        # Without regions: the whole of it, in steps that leave it no larger than a region.
        steps = [max(1, math.ceil(n / _LONGEST_THUMBNAIL)) for n in self.volume.shape[:2]]
        whole = tuple(slice(None, None, max(steps)) for _ in steps)
        return thumb | {"shown": "middle slice", "uri": self._small((*whole, slice(None)), ())}

    def _small(self, region: tuple[slice, ...], nigra: Sequence[int]) -> str:
        """The slice of a region with most of the substantia nigra, its edge in orange."""
        assert self.volume is not None
        voxels = self.volume.values(region)
        inside = np.zeros(voxels.shape, bool)
        if self.mask is not None:
            inside = np.isin(self.mask.ids[region], nigra)
        z = int(inside.sum(axis=(0, 1)).argmax()) if inside.any() else voxels.shape[2] // 2
        window = self.image.window or percentile_window(voxels)
        zoom = np.ones((_THUMBNAIL_ZOOM, _THUMBNAIL_ZOOM), np.uint8)
        pixels = np.kron(grey(radiological(voxels[..., z]), window), zoom)
        marked = np.kron(radiological(inside[..., z]).astype(np.uint8), zoom).astype(bool)
        colours = np.repeat(pixels[..., None], 3, axis=2)
        colours[marked & ~ndimage.binary_erosion(marked)] = _EDGE_COLOUR
        return data_uri(encode(colours, "WEBP", quality=70), "webp")


def take_images(
    sources: Mapping[str, Volume | str], images: Mapping[str, Image] = CHALLENGE_IMAGES
) -> dict[str, SubjectImage]:
    """Take a subject's volumes for its page; a mask that does not fit is a ``problem``, no error.

    Args:
        sources: images and masks, by their keys, or why they cannot be shown; those there are.
        images: what a subject has.
    """
    return {name: _take(image, sources) for name, image in images.items()}


def draw_images(
    record: Mapping[str, Any],
    sources: Mapping[str, Volume | str],
    images: Mapping[str, Image] = CHALLENGE_IMAGES,
) -> dict[str, Shown]:
    """Draw what pages show of a subject's images.

    Args:
        record: its ``prediction.json``, as far as it is known: the boxes, and what was read.
        sources: images and masks, by their keys, or why they cannot be shown; those there are.
        images: what a subject has.
    """
    inputs = (record.get("inputs") or {}).items()
    unread = dict.fromkeys([key for key, file in inputs if file.get("sha256") is None], _UNREAD)
    taken = take_images({**unread, **sources}, images)
    return {name: image.drawn(record.get("boxes") or {}) for name, image in taken.items()}


def _take(image: Image, sources: Mapping[str, Volume | str]) -> SubjectImage:
    volume = sources.get(image.name, "there is no image.")
    mask = sources.get(image.mask_name, "")
    if isinstance(volume, str):
        return SubjectImage(image, None, None, np.eye(4), volume)
    if isinstance(mask, str):
        return SubjectImage(image, volume.canonical, None, volume.affine, mask)
    try:
        check_mask(mask.canonical, image, volume.canonical)
    except FaultyFileError as error:
        return SubjectImage(image, volume.canonical, None, volume.affine, str(error))
    return SubjectImage(image, volume.canonical, mask.canonical, volume.affine, "")
