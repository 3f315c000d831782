"""Masks as people draw and save them, made into what the program works with.

Three things are understood: integers that a scale factor of the header has moved, another table of
ids, and one id of both sides. What is left is judged by ``images.masks``.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from nibabel.affines import apply_affine
from scipy import ndimage

from mrn_components.images.boxes import nonzero_box
from mrn_components.images.finding import Finding, fault, finding
from mrn_components.images.image import Image
from mrn_components.images.volume import Volume, read_volume
from mrn_components.regions.population import usual_box

_MIN_SHARE = 0.2  # of the smaller side in the larger one
_MIN_APART_MM = 4.0  # of the sides' middles: phantoms' red nuclei are 9 mm apart
_MIN_ACROSS = 1.5  # times as far apart to the side as in other directions
_NUM_CUTS = 5  # until the plane stays
_WIDE = 1.6  # times the usual width of one side: what is wider holds both
_WHOLE = 0.1  # of a component: less on the other side of the cut leaves it whole
_MIN_OFF = 0.15  # of the width of both sides: how far their middles are apart at least


def read_file(
    key: str, source: Volume | str | Path, images: Mapping[str, Image], *, factor: float = 1.0
) -> tuple[Volume, list[Finding]]:
    """Read the file of a key such as qsm or mask_qsm, as every verb takes it.

    A mask comes with the ids of its image's ``nuclei``, the voxels of an image are ``factor`` times
    those of its file. Volumes were read already and stay as they are.

    Returns:
        The volume, and what a person must know of it.

    Raises:
        FaultyFileError: for a file that is no whole NIfTI volume, or a mask of two ids for a
            nucleus that both lie on both sides.
    """
    if isinstance(source, Volume):
        return source, []
    for image in images.values():
        if key == image.mask_name:
            return mend_mask(read_volume(source), image)
    return read_volume(source, factor=factor), []


def mend_mask(mask: Volume, image: Image) -> tuple[Volume, list[Finding]]:
    """Give a mask, as its file has it, the ids of its image's ``nuclei``.

    - Integers that the header scales are rounded, where the scale factor explains the rest.
    - Ids of the table ``drawn_as`` become those of ``nuclei``, all else background.
    - One id on both sides, where the other side's lacks, is split at the midline, and reported
      unless the table says so.

    Returns:
        The mask, on the same grid, and what a person must know of it.

    Raises:
        FaultyFileError: for two ids of a nucleus that both lie on both sides.
    """
    mask = _translated(_unscaled(mask), image)
    found = set(mask.numbers.tolist())
    if len(image.nuclei) == 1 and len(found) == 1 and max(found) == int(np.nan_to_num(max(found))):
        return _split_binary(mask, image, found.pop())
    if image.unknown_values(mask.numbers):
        return mask, []  # no table of ours: the checks say so
    findings = []
    for nucleus, (right, left) in image.nuclei.items():
        if {right, left} <= found:
            _refuse_middle(mask, nucleus, right, left)
        elif single := {right, left} & found:
            drawn = single.pop()
            split = _sides(mask, image, nucleus, drawn)
            if split is not None:
                mask = _with_sides(mask, drawn, split, right, left)
                findings += _one_label(mask, image, nucleus, drawn)
    return mask, findings


def _unscaled(mask: Volume) -> Volume:
    """Round integers that the header scales, if no value is further off than half a step."""
    stored, step = mask.stored, abs(mask.slope)
    if stored.dtype.kind not in "iu" or (mask.slope, mask.inter) == (1.0, 0.0) or step >= 1:
        return mask
    values = mask.values()
    whole = np.rint(values)
    if np.abs(values - whole).max(initial=0) > step / 2 * 1.001 or whole.min(initial=0) < 0:
        return mask
    dtype = np.uint8 if whole.max(initial=0) <= 255 else np.int32
    return replace(mask, stored=whole.astype(dtype), slope=1.0, inter=0.0)


def _translated(mask: Volume, image: Image) -> Volume:
    """Turn the ids of ``drawn_as`` into those of ``nuclei``; an id of both sides is the right's."""
    if not image.drawn_as:
        return mask
    values = mask.mask_values
    ids = np.zeros(values.shape, np.uint8)
    for nucleus, drawn in image.drawn_as.items():
        for number, ours in reversed(list(zip(drawn, image.nuclei[nucleus], strict=True))):
            ids[values == number] = ours
    return replace(mask, stored=ids, slope=1.0, inter=0.0)


def _split_binary(mask: Volume, image: Image, value: float) -> tuple[Volume, list[Finding]]:
    """Split a mask of one nucleus that has one value, such as 255, if it lies on both sides."""
    ((nucleus, (right, left)),) = image.nuclei.items()
    split = _sides(mask, image, nucleus, value)
    if split is None:
        return mask, []
    mended = _with_sides(mask, value, split, right, left)
    return mended, _one_label(mask, image, nucleus, value)


def _with_sides(mask: Volume, drawn: float, on_right: np.ndarray, right: int, left: int) -> Volume:
    values = mask.mask_values
    where = values == drawn
    ids = np.where(where, 0, values).astype(np.uint8)
    ids[where] = np.where(on_right, right, left)
    return replace(mask, stored=ids, slope=1.0, inter=0.0)


def _sides(mask: Volume, image: Image, nucleus: str, drawn: float) -> np.ndarray | None:
    """Say of each voxel of an id, in their order, whether it is on the right; None of one side.

    Components stay whole; where one holds both sides, it is cut in its middle.
    """
    values = mask.mask_values
    region = nonzero_box(values == drawn)
    inside = values[region] == drawn
    parts, count = ndimage.label(inside, structure=np.ones((3, 3, 3)))
    part_of = parts[inside]  # from 1, of each voxel
    start = [axis.start for axis in region]
    x_mm = apply_affine(mask.affine, np.argwhere(inside) + start)
    sizes = np.bincount(part_of, minlength=count + 1)
    sums = [np.bincount(part_of, axis, minlength=count + 1) for axis in x_mm.T]
    centres = np.array(sums).T / np.maximum(sizes, 1)[:, None]
    large = np.flatnonzero(sizes >= _MIN_SHARE * sizes.max())
    if len(large) > 1:
        first, last = large[np.argmin(centres[large, 0])], large[np.argmax(centres[large, 0])]
        across, *others = np.abs(centres[last] - centres[first])
        if across >= max(_MIN_APART_MM, _MIN_ACROSS * float(np.hypot(*others))):
            middle = (centres[first, 0] + centres[last, 0]) / 2
            return centres[part_of, 0] > middle
    usual = usual_box(image.quantity, nucleus)
    low, high = x_mm[:, 0].min(), x_mm[:, 0].max()
    if usual is None or high - low < 2 * _WIDE * usual.half_size[0]:
        return None
    on_right = x_mm[:, 0] > (low + high) / 2
    for _ in range(_NUM_CUTS):  # the plane between the sides' middles, which follows a tilted head
        if not _MIN_SHARE <= on_right.mean() <= 1 - _MIN_SHARE:
            return None
        right, left = x_mm[on_right].mean(axis=0), x_mm[~on_right].mean(axis=0)
        on_right = (x_mm - (right + left) / 2) @ (right - left) > 0
    across, *others = np.abs(right - left)
    shares = np.bincount(part_of, on_right, minlength=count + 1)[large] / sizes[large]
    cut = np.minimum(shares, 1 - shares) > _WHOLE
    # The plane of a head on its side parts neither right from left, nor two pieces at once.
    return on_right if across >= float(np.hypot(*others)) and cut.sum() < 2 else None


def _one_label(mask: Volume, image: Image, nucleus: str, drawn: float) -> list[Finding]:
    """Report one id of both sides, unless a table says so."""
    right, left = image.nuclei[nucleus]
    if len({*image.drawn_as.get(nucleus, (right, left))}) == 1:
        return []
    found = f"label {drawn:g} of {nucleus} on both sides of the midline"
    return [finding("one-label", mask.path, found, right=right, left=left)]


def _refuse_middle(mask: Volume, nucleus: str, right: int, left: int) -> None:
    """Refuse two ids of which neither lies on one side: they are of another table."""
    sides = [mask.places[number] @ mask.affine[0, :3] for number in (right, left)]
    width_mm = np.ptp(np.concatenate(sides)) + mask.spacing_mm.min()
    if abs(sides[0].mean() - sides[1].mean()) < _MIN_OFF * width_mm:
        found = f"the labels {right} and {left} of {nucleus} in the middle, neither on one side"
        raise fault("both-sides", mask.path, found, right=right, left=left)
