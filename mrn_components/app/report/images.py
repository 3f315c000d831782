"""A subject's images as the pages show them: what could be read, and what could not and why."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from scipy import ndimage

from mrn_components.app.report.pages import data_uri
from mrn_components.app.report.slices import (
    Box,
    Span,
    canonical_box,
    draw_slice,
    encode,
    grey,
    percentile_window,
    radiological,
)
from mrn_components.images.labels import LABELS, ImageName
from mrn_components.images.volumes import Volume, check_same_grid, read_mask, read_volume

IMAGE_NAMES: dict[ImageName, str] = {"nm": "NM", "qsm": "QSM"}
QSM_WINDOW = (-100.0, 250.0)  # ppb, what the bundles' preprocessing shows the network

_EDGE_COLOUR = (230, 159, 0)  # Okabe and Ito's orange
_THUMBNAIL_ZOOM = 2
_LONGEST_THUMBNAIL = 90  # voxels, before the zoom


@dataclass(frozen=True)
class SubjectImage:
    """An image of a subject with its mask.

    Args:
        name: "nm" or "qsm".
        volume: its voxels; None where there are none.
        mask: of its nuclei, on the same grid; None where there is none.
        affine: (4, 4) of the file, voxel to mm.
        problem: why volume or mask is missing; "" if neither is.
    """

    name: ImageName
    volume: Volume | None
    mask: Volume | None
    affine: np.ndarray
    problem: str

    @property
    def window(self) -> Span | None:
        """Values that are black and white in a region; None for percentiles of the region."""
        return QSM_WINDOW if self.name == "qsm" else None

    def box(self, box: Mapping[str, Any]) -> Box | None:
        """A box of the record in voxels of the volume; None without a volume."""
        if self.volume is None:
            return None
        return canonical_box(box["start"], box["stop"], affine=self.affine, volume=self.volume)

    def boxes(self, boxes: Mapping[str, Mapping[str, Any]]) -> dict[str, Box]:
        """The boxes of the record that lie in this image."""
        own = {roi: self.box(box) for roi, box in boxes.items() if box["image"] == self.name}
        return {roi: box for roi, box in own.items() if box is not None}

    def overview(self, boxes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """The whole slice that most boxes cross, for the template.

        Args:
            boxes: of the record.
        """
        view: dict[str, Any] = {"names": IMAGE_NAMES[self.name], "picture": None}
        if self.volume is None:
            return view | {"problem": self.problem}
        own = self.boxes(boxes)
        depth = self.volume.array.shape[2]
        crossed = np.zeros(depth)
        for start, stop in own.values():
            low, high = np.clip((start[2], stop[2]), 0, depth)
            crossed[low:high] += 1
        best = np.flatnonzero(crossed == crossed.max())
        window = self.window or percentile_window(self.volume.array)
        picture = draw_slice(
            self.volume,
            self.mask,
            int(best[len(best) // 2]),
            nuclei=LABELS[self.name],
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
        table = LABELS[self.name]
        if named is not None:
            return {name: table[name] for name in named if name in table}
        if self.mask is None:
            return {}
        array = self.mask.array
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
        thumb: dict[str, Any] = {"name": IMAGE_NAMES[self.name], "shown": "", "uri": None}
        if self.volume is None:
            return thumb
        nigra = LABELS[self.name]["SN"]
        best = None
        for roi, box in self.boxes(boxes).items():
            low, high = np.clip(box, 0, self.volume.array.shape)
            if (low >= high).any():
                continue
            region = tuple(map(slice, low, high))
            inside = np.zeros(1) if self.mask is None else np.isin(self.mask.array[region], nigra)
            rank = (int(inside.sum()), -int(np.prod(high - low)))  # most of it, closest to it
            if best is None or rank > best[0]:
                best = rank, roi, region
        if best is not None:
            return thumb | {"shown": f"region {best[1]}", "uri": self._small(best[2], nigra)}
        # Without regions: the whole of it, in steps that leave it no larger than a region.
        steps = [max(1, math.ceil(n / _LONGEST_THUMBNAIL)) for n in self.volume.array.shape[:2]]
        whole = tuple(slice(None, None, max(steps)) for _ in steps)
        return thumb | {"shown": "middle slice", "uri": self._small((*whole, slice(None)), ())}

    def _small(self, region: tuple[slice, ...], nigra: Sequence[int]) -> str:
        """The slice of a region with most of the substantia nigra, its edge in orange."""
        assert self.volume is not None
        voxels = self.volume.array[region]
        inside = np.zeros(voxels.shape, bool)
        if self.mask is not None:
            inside = np.isin(self.mask.array[region], nigra)
        z = int(inside.sum(axis=(0, 1)).argmax()) if inside.any() else voxels.shape[2] // 2
        window = self.window or percentile_window(voxels)
        zoom = np.ones((_THUMBNAIL_ZOOM, _THUMBNAIL_ZOOM), np.uint8)
        pixels = np.kron(grey(radiological(voxels[..., z]), window), zoom)
        marked = np.kron(radiological(inside[..., z]).astype(np.uint8), zoom).astype(bool)
        colours = np.repeat(pixels[..., None], 3, axis=2)
        colours[marked & ~ndimage.binary_erosion(marked)] = _EDGE_COLOUR
        return data_uri(encode(colours, "WEBP", quality=70), "webp")


def read_images(files: Mapping[str, Path], unread: Sequence[str] = ()) -> dict[str, SubjectImage]:
    """Read a subject's images; what cannot be read is a ``problem`` and no error.

    Args:
        files: of "nm", "qsm", "mask_nm" and "mask_qsm", those that there are.
        unread: names of files that there are, but that ``mrn predict`` could not read.
    """
    return {name: _read_image(name, files, unread) for name in IMAGE_NAMES}


def _read_image(name: ImageName, files: Mapping[str, Path], unread: Sequence[str]) -> SubjectImage:
    volume, mask, affine = None, None, np.eye(4)
    problem = "" if name in files else "there is no image."
    if name in unread:
        problem = "the image could not be read, see the flags."
    try:
        if name in files:
            volume = read_volume(files[name])
            affine = nibabel.load(files[name]).affine  # type: ignore[attr-defined]
        if volume is not None and f"mask_{name}" in files:
            found = read_mask(files[f"mask_{name}"], name)
            check_same_grid(volume, found)
            mask = found
    except (OSError, ValueError, MemoryError) as error:  # a page less is no reason to stop
        problem = str(error) or "the image needs more memory than there is."
    return SubjectImage(name, volume, mask, affine, problem)
