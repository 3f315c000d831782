"""A tiny hand-made cohort in the challenge layout."""

import csv
from itertools import permutations, product
from pathlib import Path

import nibabel
import numpy as np

from mrn_components.images.image import CHALLENGE_IMAGES

SHAPE = (24, 24, 12)  # voxels
AFFINE = np.diag([-0.6667, 0.6667, 2.0, 1.0])  # LAS, as the challenge's

AXCODES = ["".join(codes) for axes in permutations(("RL", "AP", "SI")) for codes in product(*axes)]

# Voxel box of the left side of each nucleus, (x, y, z) start and stop; x rises to the left.
_LEFT = {
    "CN": ((14, 15, 7), (17, 20, 10)),
    "PUT": ((17, 12, 6), (20, 18, 9)),
    "GP": ((15, 11, 6), (17, 15, 9)),
    "TH": ((13, 7, 7), (17, 11, 10)),
    "STN": ((14, 11, 4), (16, 13, 6)),
    "SN": ((14, 8, 3), (17, 11, 6)),
    "RN": ((12, 7, 4), (14, 9, 6)),
    "DN": ((14, 3, 1), (18, 6, 3)),
}


def write_nifti(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return path


def make_mask(image: str) -> np.ndarray:
    """Draw boxes for nuclei, the right ones mirrored from the left."""
    mask = np.zeros(SHAPE, np.uint8)
    for nucleus, (right, left) in CHALLENGE_IMAGES[image].nuclei.items():
        box = tuple(slice(a, b) for a, b in zip(*_LEFT[nucleus], strict=True))
        side = np.zeros(SHAPE, bool)
        side[box] = True
        mask[side] = left
        mask[side[::-1]] = right
    return mask


def make_subject(folder: Path, label: int, seed: int) -> Path:
    """Write a subject whose substantia nigra shows the diagnosis in both images.

    Nuclei but the thalamus hold iron, and the neuromelanin stands out by a third to a half.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for image, scale, around, shown in (("nm", 1000.0, 1.0, 0.3), ("qsm", 100.0, 0.0, 0.5)):
        ids = CHALLENGE_IMAGES[image].nuclei
        mask = make_mask(image)
        bright = (mask > 0) & ~np.isin(mask, ids.get("TH", ()))
        nigra = np.isin(mask, ids["SN"])
        volume = scale * (
            around + 0.2 * rng.random(SHAPE) + shown * bright + (shown if label else 0) * nigra
        )
        write_nifti(folder / f"{image.upper()}.nii.gz", volume.astype(np.float32))
        write_nifti(folder / f"{image.upper()}_mask.nii.gz", mask)
    return folder


def read_biomarkers(folder):
    """Read biomarkers.csv of a folder: {subject: {column: value}}, without failed subjects."""
    with (folder / "biomarkers.csv").open(encoding="utf-8", newline="") as file:
        rows = {row.pop("subject"): row for row in csv.DictReader(file)}
    return {
        subject: {column: float(cell) if cell else None for column, cell in row.items()}
        for subject, row in rows.items()
        if not row.pop("error")
    }
