#!/usr/bin/env python
"""Move the NM of phantoms by 5 mm and 5 degrees, align it again, and see how far it is from truth.

A phantom's NM lies some mm beside its QSM already, as drawn; where its substantia nigra really is
in QSM's world is known. Prints a line a subject, and a table for docs/log.md.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from mrn_components.app.align import align_images, moved_volumes
from mrn_components.images.image import CHALLENGE_IMAGES
from mrn_components.images.volume import Volume, read_volume
from mrn_components.phantom.cohort import draw_label, make_cohort
from mrn_components.phantom.signal import draw_traits

MASKED = [CHALLENGE_IMAGES["qsm"], CHALLENGE_IMAGES["nm"]]


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subjects", type=int, default=20)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--view", default="midbrain")
    parser.add_argument("--cases", default="moved moved+t1 aligned")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        size = {"subjects": options.subjects, "seed": options.seed, "view": options.view}
        cohort = make_cohort(Path(folder) / "phantoms", t1=True, workers=1, **size)
        print("| NM | T1 | moved | error, mean | most | over 0.7 mm | apart before | after | s |")
        for case in options.cases.split():
            moved, t1 = not case.startswith("aligned"), case.endswith("+t1")
            rows = [
                measure(cohort / f"PHAN{options.seed}_{i:03d}", i, options.seed, moved, t1)
                for i in range(options.subjects)
            ]
            print(summary(case, rows), flush=True)


def measure(folder: Path, index: int, seed: int, moved: bool, t1: bool) -> dict[str, float]:
    """Align one subject."""
    names = {"nm": "NM", "qsm": "QSM", "mask_nm": "NM_mask", "mask_qsm": "QSM_mask"}
    volumes = {key: read_volume(folder / f"{name}.nii.gz") for key, name in names.items()}
    affine = volumes["nm"].affine
    motion = movement(index, volumes["nm"]) if moved else np.eye(4)
    for key in ("nm", "mask_nm"):
        volumes[key] = replace(volumes[key], affine=motion @ affine)
    begin = time.perf_counter()
    bridge = read_volume(folder / "T1.nii.gz") if t1 else None
    found = align_images(volumes, MASKED, "auto", lambda: bridge)
    seconds = time.perf_counter() - begin
    nigra = [*np.argwhere(volumes["mask_nm"].ids > 0).mean(axis=0), 1]
    rng = np.random.default_rng(np.random.SeedSequence([seed, index]).spawn(5)[0])
    own = draw_traits(rng, effect=float(draw_label(index, seed=seed))).shift_mm * (-1, 1, 1)
    truth = (affine @ nigra)[:3] - own  # x of the grid runs to the left
    places = [volumes["nm"].affine @ nigra]
    places.append((volumes | moved_volumes(volumes, found))["nm"].affine @ nigra)
    qsm = volumes["mask_qsm"]
    middle = qsm.affine @ [*np.argwhere(np.isin(qsm.ids, (11, 12))).mean(axis=0), 1]
    row = {
        "applied": float(any(one["applied"] for one in found.values())),
        "error": float(np.linalg.norm(places[1][:3] - truth)),
        "before": float(np.linalg.norm((places[0] - middle)[:3])),
        "after": float(np.linalg.norm((places[1] - middle)[:3])),
        "best": float(np.linalg.norm(truth - middle[:3])),
        "seconds": seconds,
    }
    print(folder.name, {key: round(value, 2) for key, value in row.items()}, flush=True)
    return row


def movement(index: int, volume: Volume) -> np.ndarray:
    """Return a turn by 5 degrees about the middle of a volume, and a shift by 5 mm, at random."""
    rng = np.random.default_rng([7, index])
    axis, shift = (v / np.linalg.norm(v) for v in rng.standard_normal((2, 3)))
    matrix, middle = np.eye(4), volume.affine @ [*((np.array(volume.shape) - 1) / 2), 1]
    matrix[:3, :3] = Rotation.from_rotvec(np.deg2rad(5) * axis).as_matrix()
    matrix[:3, 3] = middle[:3] - matrix[:3, :3] @ middle[:3] + 5 * shift
    return matrix


def summary(case: str, rows: list[dict[str, float]]) -> str:
    """Return a row of the table."""
    of = {key: np.array([row[key] for row in rows]) for key in rows[0]}
    name, _, t1 = case.partition("+")
    cells = [name, "yes" if t1 else "no", f"{int(of['applied'].sum())} of {len(rows)}"]
    cells += [f"{of['error'].mean():.2f}", f"{of['error'].max():.2f}"]
    cells += [f"{int((of['error'] > 0.7).sum())}"]
    cells += [f"{of[key].mean():.2f} ({of[key].max():.2f})" for key in ("before", "after")]
    return f"| {' | '.join([*cells, format(of['seconds'].mean(), '.1f')])} |"


if __name__ == "__main__":
    main()
