"""Whether a subject's images show the head in one place, and where it lies where they do not."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from mrn_components.data.layouts import Found, Need, find_subjects
from mrn_components.images.alignment import Alignment
from mrn_components.images.image import Image
from mrn_components.images.volume import Volume
from mrn_components.regions.nuclei import Nuclei

Mode = Literal["auto", "off", "always"]
# What a subject's images are aligned through, where it has one; no network looks at it.
BRIDGE = Image(file="T1", bids=("*_T1w.nii*",))

_APART_MM = 2.5  # of the centres of the nuclei in two masks: more is looked at
_AGREES_MM = 1.5  # between where the bridge leads and where the images alone do, at the nuclei
_MOVED_MM = 3.5  # of a head; what phantoms' NM moves by, 0.8 mm along each axis, is left alone


def find_bridges(data: Any, found: Found) -> dict[str, str]:
    """Find the T1 images of a data set's subjects: {subject: path} of those that have one.

    None is taken from DICOM, where it would have to be guessed among the series.
    """
    if found.sources:
        return {}
    images, need = {BRIDGE.name: BRIDGE}, Need(images="given", masks="none", labels="none")
    try:
        others = find_subjects(data, images, need=need, dicom=False).subjects
    except (OSError, ValueError):  # none has one
        return {}
    known = {subject["subject"] for subject in found.subjects}
    return {
        other["subject"]: other[BRIDGE.name]
        for other in others
        if BRIDGE.name in other and other["subject"] in known
    }


def align_images(
    volumes: Mapping[str, Volume],
    masked: Sequence[Image],
    mode: Mode,
    bridge: Callable[[], Volume | None],
) -> dict[str, dict[str, Any]]:
    """Find where a subject's images lie in the world of the one whose mask has most nuclei.

    With "auto" an image is looked at if the centres of the nuclei that it shares with that one lie
    more than 2.5 mm apart, or if it has no mask yet, and it is moved if the head turns out to have
    moved by more than 3.5 mm. With "always" both hold. It never moves where the images then agree
    less, or their nuclei lie further apart. Where an image that others are aligned through leads
    elsewhere than the images alone do, or nowhere, what fits better counts, and it is told.

    Args:
        volumes: images and masks by their keys.
        masked: the images that have masks, those with most nuclei first.
        mode: which images are looked at and moved.
        bridge: reads an image that others are aligned through; called where it is needed.

    Returns:
        {image: what a record holds of it} for each that was looked at: "to" which image, "through"
        which file, what to "doubt" of such a file, whether it was "applied" or else "why" not,
        "matrix" (4, 4) from its world to the other's in mm, "moved_mm" over a head, "degrees",
        "cost_before", "cost_after" (minus the mutual information), and "apart_mm_before",
        "apart_mm_after" of the nuclei's centres.
    """
    there = [image for image in masked if image.name in volumes]
    if mode == "off" or not there or there[0].mask_name not in volumes:
        return {}
    fixed, *others = there
    found = {image.name: _look(volumes, image, fixed, mode, bridge) for image in others}
    return {name: one for name, one in found.items() if one is not None}


def moved_volumes(
    volumes: Mapping[str, Volume], alignments: Mapping[str, Mapping[str, Any]]
) -> dict[str, Volume]:
    """Return the images that are to be moved, and their masks, in the world of the others."""
    return {
        key: alignment_of(found).moved(volumes[key])
        for name, found in alignments.items()
        for key in (name, f"mask_{name}")
        if found["applied"] and key in volumes
    }


def alignment_of(found: Mapping[str, Any]) -> Alignment:
    """Return the alignment that a record holds."""
    costs = {key: found[key] for key in ("cost_before", "cost_after")}
    return Alignment(matrix=np.array(found["matrix"]), **costs)


def told(name: str, found: Mapping[str, Any]) -> str | None:
    """Say in a sentence what became of an image; None where it was left alone."""
    this, other = name.upper(), str(found["to"]).upper()
    doubt = found.get("doubt")
    if not found["applied"]:
        text = f"{this} was not aligned to {other}: {found['why']}"
        if "matrix" in found:
            return f"{text}; {doubt}" if doubt else None
        return text
    through = f" through {found['through']}" if found["through"] else ""
    text = f"{this} was aligned to {other}{through}: the head had moved by "
    text += f"{found['moved_mm']:.1f} mm and turned by {found['degrees']:.1f} degrees"
    if found["apart_mm_before"] is not None:
        before, after = found["apart_mm_before"], found["apart_mm_after"]
        text += f"; its nuclei lie {after:.1f} mm apart, {before:.1f} before"
    return f"{text}; {doubt}" if doubt else text


def _look(
    volumes: Mapping[str, Volume],
    image: Image,
    fixed: Image,
    mode: Mode,
    bridge: Callable[[], Volume | None],
) -> dict[str, Any] | None:
    """Align an image; None where its nuclei lie where the other's do."""
    shared = [name for name in fixed.nuclei if name in image.nuclei]
    middle = _centre(volumes, fixed, shared or list(fixed.nuclei))
    if middle is None:
        return None
    place = _centre(volumes, image, shared)
    before = None if place is None else float(np.linalg.norm(place - middle))
    if mode == "auto" and before is not None and before <= _APART_MM:
        return None
    try:
        found, through, doubt = _best(volumes[image.name], volumes[fixed.name], middle, bridge)
    except ValueError as error:
        none = {"to": fixed.name, "through": None, "doubt": None, "applied": False}
        return none | {"why": str(error)}
    after = None if place is None else _distance(found.matrix, place, middle)
    why = _objection(found, mode, middle, before, after)
    return {
        "to": fixed.name,
        "through": through,
        "doubt": doubt,
        "applied": why is None,
        "why": why,
        "matrix": found.matrix.tolist(),
        "moved_mm": found.moved_mm(middle),
        "degrees": found.degrees,
        "cost_before": found.cost_before,
        "cost_after": found.cost_after,
        "apart_mm_before": before,
        "apart_mm_after": after,
    }


def _best(
    moving: Volume, fixed: Volume, middle: np.ndarray, bridge: Callable[[], Volume | None]
) -> tuple[Alignment, str | None, str | None]:
    """Align through the bridge if there is one, or else directly.

    The bridge shares more with either image than they do with each other, so that it counts unless
    the images, compared directly from there on, lead away from it: it may be of another head, or
    no head at all.

    Returns:
        What counts, the name of the bridge if it is through that, and what is wrong with it.
    """
    from mrn_components.images.registration import align  # slow to import, seldom needed

    doubt = None
    try:
        if (through := bridge()) is not None:
            name = through.path.name
            found = align(moving, fixed, near=middle, through=through)
            own = align(moving, fixed, near=middle, begin=found.matrix)
            if (apart := _apart(own, found, middle)) <= _AGREES_MM:
                return found, name, None
            doubt = f"through {name} it would lie {apart:.1f} mm from where the images alone lead, "
    except ValueError as error:
        return align(moving, fixed, near=middle), None, f"T1 was left out: {error}"
    direct = align(moving, fixed, near=middle)
    if doubt is None:
        return direct, None, None
    better = found.cost_after < direct.cost_after
    counts = "fits better and counts" if better else "fits less and was left out"
    doubt += f"which {counts}; see whether {name} is of this head"
    return (found, name, doubt) if better else (direct, None, doubt)


def _apart(one: Alignment, other: Alignment, middle: np.ndarray) -> float:
    """Return how far apart two alignments put what one of them puts at a point, in mm."""
    return _distance(other.matrix, _at(np.linalg.inv(one.matrix), middle), middle)


def _objection(
    found: Alignment, mode: Mode, middle: np.ndarray, before: float | None, after: float | None
) -> str | None:
    """Why an image stays where it is; None if it moves."""
    if found.cost_after >= found.cost_before:
        return "the images agree no better then"
    if before is not None and after is not None and after > before:
        return f"their nuclei would lie {after:.1f} mm apart instead of {before:.1f}"
    if mode == "auto" and (moved := found.moved_mm(middle)) < _MOVED_MM:
        return f"the head has moved by {moved:.1f} mm, less than {_MOVED_MM} mm"
    return None


def _centre(
    volumes: Mapping[str, Volume], image: Image, nuclei: Sequence[str]
) -> np.ndarray | None:
    """Return the centre of nuclei that a mask has on both sides, in mm; None without any."""
    if image.mask_name not in volumes:
        return None
    here = Nuclei(mask=volumes[image.mask_name], image=image)
    ids = [number for name in nuclei if here.has(name) for number in image.nuclei[name]]
    return here.centre_mm(*ids) if ids else None


def _at(matrix: np.ndarray, place: np.ndarray) -> np.ndarray:
    return matrix[:3, :3] @ place + matrix[:3, 3]


def _distance(matrix: np.ndarray, place: np.ndarray, middle: np.ndarray) -> float:
    return float(np.linalg.norm(_at(matrix, place) - middle))
