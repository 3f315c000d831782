#!/usr/bin/env python
"""Lay an atlas of the mean phantom on others of other shape, and compare with their masks.

Prints Dice (mean of both sides) and seconds of a core, a line a subject, and the means last.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from mrn_components.images.image import CHALLENGE_IMAGES
from mrn_components.images.volume import read_volume
from mrn_components.phantom.cohort import make_cohort
from mrn_components.segmentation.atlas import Atlas, read_atlas


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subjects", type=int, default=10)
    parser.add_argument("--seed", type=int, default=77)
    parser.add_argument("--view", default="midbrain")
    parser.add_argument("--images", default="QSM", help="QSM, or QSM,T1")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder, size = Path(scratch), {"view": options.view, "workers": 1}
        make_cohort(folder / "atlas", template=True, **size)
        shape = {"subjects": options.subjects, "seed": options.seed, "t1": True}
        subjects = sorted(make_cohort(folder / "data", **shape, **size).glob("PHAN*"))
        atlas = read_atlas(folder / "atlas", list(CHALLENGE_IMAGES.values()))
        rows = [measure(atlas, subject, options.images.split(",")) for subject in subjects]
    print("| subject |", " | ".join(rows[0]), "|")
    for name, row in zip(subjects, rows, strict=True):
        print(line(name.name, row))
    print(line("mean", {key: np.mean([row[key] for row in rows]) for key in rows[0]}))


def measure(atlas: Atlas, subject: Path, images: list[str]) -> dict[str, float]:
    """Lay the atlas on a subject."""
    drawn = read_volume(subject / "QSM_mask.nii.gz").ids
    begin = time.process_time()
    mask = atlas.lay({stem: read_volume(subject / f"{stem}.nii.gz") for stem in images})
    seconds = time.process_time() - begin
    row = {
        nucleus: float(np.mean([dice(mask == number, drawn == number) for number in ids]))
        for nucleus, ids in atlas.image.nuclei.items()
    }
    row["seconds"] = seconds
    print(line(subject.name, row), flush=True)
    return row


def dice(one: np.ndarray, other: np.ndarray) -> float:
    """Return the overlap of two masks."""
    return 2 * float(np.sum(one & other)) / float(np.sum(one) + np.sum(other))


def line(name: str, row: dict[str, float]) -> str:
    """Return a row of the table."""
    cells = [f"{value:.0f}" if key == "seconds" else f"{value:.3f}" for key, value in row.items()]
    return f"| {name} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
