"""An atlas of the user's: template images, the nuclei in them, and how they are laid on a subject.

A folder holds templates on one grid, named as a subject's images are (``QSM.nii.gz``,
``T1.nii.gz``, or both), ``labels.nii.gz`` on that grid, and ``nuclei.csv`` with the columns
``id,nucleus,side``: right, left, or both where one id stands for both sides, which are then parted
at x = 0 of the atlas's world. Several ids may make a nucleus.
"""

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.affines import apply_affine, voxel_sizes
from scipy import ndimage

from mrn_components.data.case import existing
from mrn_components.data.tables import csv_lines
from mrn_components.images.boxes import nonzero_box
from mrn_components.images.image import SIDES, Image
from mrn_components.images.masks import grid_findings
from mrn_components.images.volume import Volume, read_volume

TABLE, LABELS = "nuclei.csv", "labels"
_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # ITK's world, of NIfTI's
_WHOLE_STEP_MM, _NEAR_STEP_MM = 2.5, 1.3  # of the voxels that are compared
_AFFINE_STEPS, _WARP_STEPS = (500, 200, 50), (40, 20, 4)  # at most, from coarse to fine
_LONGEST = 0.35  # change in a step of the deformation, in voxels
_MARGIN_MM, _ROOM_MM = 12.0, 6.0  # about the nuclei, and more of a template, to be bent
_WINDOW = (0.5, 99.5)  # percentiles
_BINS = 32  # of the mutual information
_SIGNED = 0.2  # share of negative voxels: maps of both signs have more, other images less


_Pairs = Mapping[str, tuple[Volume, Volume]]  # an image of the subject and its template, by stem


@dataclass(frozen=True, kw_only=True)
class Atlas:
    """Templates and the nuclei in them."""

    folder: Path
    templates: Mapping[str, Volume]  # by the stem of their file
    nuclei: Volume  # ids of ``image`` (uint8), on the templates' grid
    image: Image  # whose masks it makes

    @property
    def files(self) -> list[Path]:
        """The files that decide what the masks look like."""
        templates = [volume.path for volume in self.templates.values()]
        return sorted([*templates, self.nuclei.path, self.folder / TABLE])

    def lay(self, targets: Mapping[str, Volume]) -> np.ndarray:
        """Lay the atlas on a subject.

        Args:
            targets: its images by the stem of their file: those of the templates, one at least;
                they share a world. The mask is made on ``self.image``'s grid.

        Returns:
            The mask (X, Y, Z), ids in uint8: of each the largest component.

        Raises:
            ValueError: for a subject without any image that the atlas has a template of.
        """
        pairs = {n: (targets[n], one) for n, one in self.templates.items() if n in targets}
        if not pairs:
            raise ValueError(
                f"the atlas {self.folder.name} has templates of {', '.join(self.templates)}, and "
                "the subject has none of these images."
            )
        ants = _ants()
        with tempfile.TemporaryDirectory() as scratch:
            affine = self._affine(ants, pairs, scratch)
            near = self._near(ants, affine)
            warp = self._warp(ants, pairs, near, affine, scratch)
            onto = targets[self.image.file]
            box = _box(onto, near)
            grid, labels = _to_ants(ants, onto, box), _to_ants(ants, self.nuclei)
            ids = ants.apply_transforms(grid, labels, warp, interpolator="genericLabel").numpy()
        mask = np.zeros(onto.shape, np.uint8)
        mask[box] = _largest(np.rint(ids).astype(np.uint8))
        return mask

    def _affine(self, ants: Any, pairs: _Pairs, scratch: str) -> str:
        """Find the affine map of the first pair, over all that both show; return its file."""
        target, template = next(iter(pairs.values()))
        start = f"{scratch}/start.mat"  # ANTs' own, centres of mass, is none where values are +-
        shift = _LPS[:3, :3] @ (_middle(template) - _middle(target))
        ants.write_transform(ants.create_ants_transform(dimension=3, translation=shift), start)
        found = ants.registration(
            _to_ants(ants, target, step_mm=_WHOLE_STEP_MM),
            _to_ants(ants, template, step_mm=_WHOLE_STEP_MM),
            "Affine",
            initial_transform=start,
            outprefix=f"{scratch}/affine",
            aff_iterations=_AFFINE_STEPS,
            aff_shrink_factors=(4, 2, 1),
            aff_smoothing_sigmas=(2, 1, 0),
            random_seed=1,
        )
        return found["fwdtransforms"][-1]

    def _near(self, ants: Any, affine: str) -> np.ndarray:
        """Return the corners (2, 3), in mm, of a box of the world around the subject's nuclei."""
        matrix = _affine_matrix(ants.read_transform(affine))  # from the subject to the atlas
        return _around(apply_affine(np.linalg.inv(matrix), self._corners()), _MARGIN_MM)

    def _corners(self) -> np.ndarray:
        """Return the corners (8, 3), in mm of the atlas's world, of the box of its nuclei."""
        ends = np.array([(axis.start, axis.stop) for axis in nonzero_box(self.nuclei.ids)])
        corners = np.array(list(np.ndindex(2, 2, 2)))
        return apply_affine(self.nuclei.affine, ends[range(3), corners])

    def _warp(
        self, ants: Any, pairs: _Pairs, near: np.ndarray, affine: str, scratch: str
    ) -> list[str]:
        """Find how the templates are bent about the nuclei; return the files of both maps."""
        own = _around(self._corners(), _MARGIN_MM + _ROOM_MM)
        further = []  # metric, subject, template, weight, bins
        for stem, (target, template) in pairs.items():
            # A map shows alike numbers in every head, in other images they are arbitrary.
            metric = "meansquares" if stem == self.image.file else "mattes"
            fixed = _to_ants(ants, target, _box(target, near), _NEAR_STEP_MM)
            moving = _to_ants(ants, template, _box(template, own), _NEAR_STEP_MM)
            further.append((metric, fixed, moving, 1.0, _BINS))
        metric, fixed, moving, *_ = further.pop(0)
        found = ants.registration(
            fixed,
            moving,
            "SyNOnly",
            initial_transform=affine,
            outprefix=f"{scratch}/warp",
            grad_step=_LONGEST,
            syn_metric=metric,
            syn_sampling=_BINS,
            reg_iterations=_WARP_STEPS,
            multivariate_extras=further or None,
            random_seed=1,
        )
        return found["fwdtransforms"]


def read_atlas(folder: str | Path, images: Sequence[Image]) -> Atlas:
    """Read an atlas.

    Args:
        folder: of the templates, their labels and the table of nuclei.
        images: those that are to have masks; the one with most nuclei is the one it is laid on.

    Raises:
        FileNotFoundError: naming what the folder lacks.
        ValueError: for a faulty table, nuclei that the image does not know, or templates on several
            grids, and if ANTs is not installed.
    """
    folder = Path(folder)
    image = max(images, key=lambda image: len(image.nuclei))
    stems = [image.file, "T1"]
    found = {stem: existing(folder, [stem]) for stem in (*dict.fromkeys(stems), LABELS)}
    lacking = [name for name in (LABELS,) if not found[name]]
    lacking += [] if any(found[stem] for stem in stems) else [f"one of {', '.join(stems)}"]
    lacking += [] if (folder / TABLE).is_file() else [TABLE]
    if lacking:
        raise FileNotFoundError(
            f"{folder} is no atlas: it has no {' and no '.join(lacking)}; expected templates such "
            f"as QSM.nii.gz or T1.nii.gz, {LABELS}.nii.gz on their grid, and {TABLE} with the "
            "columns id,nucleus,side (docs/atlas.md)."
        )
    templates = {stem: read_volume(found[stem][0]) for stem in stems if found[stem]}
    labels = read_volume(found[LABELS][0])
    for template in templates.values():
        for fault in grid_findings(template, labels):
            raise ValueError(str(fault))
    if image.file in templates:
        _check_sign(templates[image.file], image)
    ids = _ids(labels, _table(folder / TABLE, image), image)
    _ants()
    return Atlas(
        folder=folder,
        templates=templates,
        nuclei=labels.with_voxels(ids, labels.path),
        image=image,
    )


def carry_nuclei(mask: Volume, of: Image, onto: Volume, to: Image) -> np.ndarray:
    """Carry the nuclei of a mask to the grid of another image of the subject, in the same world.

    Args:
        mask: whose ids are those of ``of``.
        of: the image that the mask is of.
        onto: the other image.
        to: what it is, with its own ids.

    Returns:
        The mask (X, Y, Z), ids of ``to`` in uint8: each voxel has the nucleus of its centre.
    """
    own = np.zeros(256, np.uint8)  # ids of ``to`` by those of ``of``
    for nucleus, ids in to.nuclei.items():
        own[list(of.nuclei[nucleus])] = ids
    matrix = np.linalg.inv(mask.affine) @ onto.affine  # from its voxels to the mask's
    return ndimage.affine_transform(own[mask.ids], matrix, output_shape=onto.shape, order=0)


def _table(table: Path, image: Image) -> dict[int, tuple[str, str]]:
    """Read {id: (nucleus, side)} of a table; nuclei that the image does not have are left out."""
    lines = csv_lines(table)
    if (header := next(lines, (1, []))[1]) != ["id", "nucleus", "side"]:
        raise ValueError(f"{table} line 1: expected the header id,nucleus,side, got {header}.")
    found = {}
    for number, cells in lines:
        sound = len(cells) == 3 and cells[0].isdecimal() and cells[2] in (*SIDES, "both")
        if not sound:
            raise ValueError(
                f"{table} line {number}: expected id,nucleus,right|left|both, got "
                f"{','.join(cells)!r}."
            )
        if int(cells[0]) in found:
            raise ValueError(f"{table} line {number}: the id {cells[0]} stands in a line before.")
        if cells[1] in image.nuclei:
            found[int(cells[0])] = cells[1], cells[2]
    if not found:
        raise ValueError(f"{table} names none of the nuclei {', '.join(image.nuclei)}.")
    return found


def _ids(labels: Volume, table: Mapping[int, tuple[str, str]], image: Image) -> np.ndarray:
    """Return an image's ids (uint8) in place of an atlas's."""
    values = np.rint(labels.mask_values).astype(int)
    ids = np.zeros(labels.shape, np.uint8)
    for number, (nucleus, side) in table.items():
        voxels = np.argwhere(values == number)
        if not voxels.size:
            there = ", ".join(map(str, np.unique(values[values != 0])[:40]))
            raise ValueError(
                f"{TABLE} has the id {number} ({nucleus}, {side}), and no voxel of "
                f"{labels.path} does; the ids there are {there or 'none'}."
            )
        right = apply_affine(labels.affine, voxels)[:, 0] > 0 if side == "both" else side == "right"
        ids[tuple(voxels.T)] = np.where(right, *image.nuclei[nucleus])
    return ids


def _check_sign(template: Volume, image: Image) -> None:
    """Refuse a template of a map that lies about 0 if it has hardly a voxel below."""
    values = template.voxels[np.nan_to_num(template.voxels) != 0]
    negative = float((values < 0).mean()) if values.size else 0.0
    if image.facts.magnitude is False and negative < _SIGNED:
        raise ValueError(
            f"{template.path}: negative values in {negative:.0%} of its voxels; expected a "
            f"{image.facts.title}, which lies about 0. Name a template after what it shows."
        )


def _largest(ids: np.ndarray) -> np.ndarray:
    """Keep of every id the largest 26-connected component."""
    kept = np.zeros_like(ids)
    for number in np.unique(ids[ids > 0]):
        pieces, _ = ndimage.label(ids == number, structure=np.ones((3, 3, 3)))
        kept[pieces == np.bincount(pieces.ravel())[1:].argmax() + 1] = number
    return kept


def _box(volume: Volume, corners_mm: np.ndarray) -> tuple[slice, ...]:
    """Return the part of a volume that lies in a box of the world."""
    points = corners_mm[np.array(list(np.ndindex(2, 2, 2))), range(3)]
    voxels = apply_affine(np.linalg.inv(volume.affine), points)
    start = np.clip(np.floor(voxels.min(axis=0)), 0, volume.shape).astype(int)
    stop = np.clip(np.ceil(voxels.max(axis=0)) + 1, 0, volume.shape).astype(int)
    if (stop - start).min() < 4:
        raise ValueError(f"{volume.path.name} shows nothing where the atlas has its nuclei.")
    return tuple(map(slice, start.tolist(), stop.tolist()))


def _around(points: np.ndarray, margin_mm: float) -> np.ndarray:
    """Return the corners (2, 3) of the box around some points, with a margin."""
    return np.array([points.min(axis=0) - margin_mm, points.max(axis=0) + margin_mm])


def _middle(volume: Volume) -> np.ndarray:
    """Return the middle of what a volume shows, in mm."""
    every = 3
    shown = np.nan_to_num(volume.values(np.s_[::every, ::every, ::every])) != 0
    voxels = every * np.argwhere(shown)
    if not voxels.size:
        raise ValueError(f"{volume.path.name} shows nothing that an atlas could be laid on.")
    return apply_affine(volume.affine, voxels.mean(axis=0))


def _to_ants(
    ants: Any, volume: Volume, box: tuple[slice, ...] | None = None, step_mm: float = 0.0
) -> Any:
    """Return a volume, or a part of it, as ANTs' image; with a step every n-th voxel, blurred."""
    box = box or tuple(slice(0, length) for length in volume.shape)
    voxels = np.nan_to_num(volume.values(box)).astype(np.float32)
    affine = volume.affine.copy()
    affine[:3, 3] = apply_affine(affine, [axis.start for axis in box])
    every = np.ones(3, int)
    if step_mm:
        if (shown := voxels[voxels != 0]).size:
            voxels = np.clip(voxels, *np.percentile(shown, _WINDOW))
        every = np.maximum(np.rint(step_mm / volume.spacing_mm), 1).astype(int)
        blur = np.where(every > 1, 0.4 * every, 0)
        voxels = ndimage.gaussian_filter(voxels, blur)[tuple(slice(None, None, n) for n in every)]
    lps = _LPS @ affine
    spacing = voxel_sizes(affine)
    return ants.from_numpy(
        np.ascontiguousarray(voxels),
        origin=lps[:3, 3].tolist(),
        spacing=(spacing * every).tolist(),
        direction=lps[:3, :3] / spacing,
    )


def _affine_matrix(transform: Any) -> np.ndarray:
    """Return the map (4, 4) of NIfTI's worlds that an affine transform of ANTs stands for."""
    lps, middle = np.eye(4), np.array(transform.fixed_parameters)
    lps[:3, :3] = np.reshape(transform.parameters[:9], (3, 3))
    lps[:3, 3] = middle + transform.parameters[9:] - lps[:3, :3] @ middle
    return _LPS @ lps @ _LPS


def _ants() -> Any:
    """Import ANTs, which is an extra; a ValueError says how it is had."""
    try:
        # Several threads add up in any order; it is read when ANTs computes for the first time.
        os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "1")
        import ants
    except ImportError as error:
        raise ValueError(
            'an atlas is laid by ANTs, which is not installed: pip install "mrn-components[atlas]".'
        ) from error
    return ants
