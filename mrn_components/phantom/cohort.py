"""Cohorts of synthetic subjects as files in the challenge layout."""

import gzip
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from tqdm import tqdm

from mrn_components.images.image import CHALLENGE_IMAGES
from mrn_components.phantom.numbers import View
from mrn_components.phantom.subject import Phantom, check_settings, draw_label, make_subject
from mrn_components.system.files import write_text
from mrn_components.system.workers import in_order

_VERSION = 3  # raise when the same settings give other voxels or names
_QSM = CHALLENGE_IMAGES["qsm"].file
_FILES = tuple(file for i in CHALLENGE_IMAGES.values() for file in (i.file, str(i.mask)))
_QSM_STEP_PPB = 0.1  # QSM is stored as int16 multiples of it


def make_cohort(
    output: str | Path,
    *,
    subjects: int = 20,
    seed: int = 1,
    effect: float = 1.0,
    view: View = "brain",
    t1: bool = False,
    workers: int | None = None,
) -> Path:
    """Write a cohort of synthetic subjects, half of them with Parkinson's disease.

    Writes ``output/PHAN1_000/{QSM,NM,NM_mask,QSM_mask}.nii.gz``, ``output/train_cases.csv``
    (no header; ``PHAN1_000,0``) and ``output/phantom.json`` with the settings. Each subject appears
    at once when it is complete; an interrupted call goes on where it stopped, and a call with more
    subjects adds to those that are there.

    Args:
        output: folder to write to; new, empty, or begun by a call with the same settings.
        subjects: how many, half of them PD.
        seed: of the cohort; a subject depends on (seed, number) and on nothing else.
        effect: scale of every difference between PD and HC; 1 is the published size, 0 none.
        view: brain is the challenge's 300x300x70 grid, midbrain the part that holds the nuclei.
        t1: write a T1-like image too, e.g. to try a registration; nothing here reads it.
        workers: processes; by default one for each CPU.

    Returns:
        ``output`` as a path.

    Raises:
        ValueError: for settings that no cohort can have.
        FileExistsError: when ``output`` holds other files, or subjects of other settings.
    """
    check_settings(seed=seed, effect=effect, view=view)
    if subjects < 1:
        raise ValueError(f"subjects must be >= 1, got {subjects}.")
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be >= 1 or None for one a CPU, got {workers}.")
    output = Path(output)
    settings = {"seed": seed, "effect": float(effect), "view": view, "t1": t1}
    _claim(output, {"version": _VERSION, **settings})
    names = [f"PHAN{seed}_{index:03d}" for index in range(subjects)]
    surplus = {path.name for path in output.glob("PHAN*")} - set(names)
    if surplus:
        raise FileExistsError(
            f"{output} already holds {max(surplus)}, asked for {subjects} subjects. "
            "Ask for more subjects, or choose another output folder."
        )
    files = (*_FILES, *["T1"] * t1)
    missing = [index for index, name in enumerate(names) if not _is_complete(output / name, files)]
    write = partial(_write_subject, output=output, settings=settings)
    processes = min(workers or os.cpu_count() or 1, max(len(missing), 1))
    bar = partial(tqdm, total=len(missing), desc="phantoms", unit="subject")
    list(bar(in_order(write, missing, workers=processes if processes > 1 else 0)))
    rows = [f"{name},{draw_label(index, seed=seed)}\n" for index, name in enumerate(names)]
    write_text(output / "train_cases.csv", "".join(rows))
    return output


def _claim(output: Path, settings: dict[str, object]) -> None:
    """Record the settings in ``output``, or check that they are those recorded there."""
    record = output / "phantom.json"
    if record.exists():
        found = json.loads(record.read_text())
        if found != settings:
            raise FileExistsError(
                f"{output} already holds phantoms of other settings: "
                f"{_differences(found, settings)}. Choose another output folder or delete it."
            )
        return
    if output.exists() and (not output.is_dir() or any(output.glob("[!.]*"))):
        raise FileExistsError(
            f"{output} exists and is not a phantom cohort (it has no phantom.json). "
            "Choose a new or empty output folder."
        )
    write_text(record, json.dumps(settings, indent=2) + "\n")


def _differences(found: dict[str, object], wanted: dict[str, object]) -> str:
    keys = [key for key in wanted if found.get(key) != wanted[key]]
    return ", ".join(f"{key} is {found.get(key)!r}, asked for {wanted[key]!r}" for key in keys)


def _is_complete(folder: Path, files: Iterable[str]) -> bool:
    return all((folder / f"{name}.nii.gz").is_file() for name in files)


def _write_subject(index: int, *, output: Path, settings: Mapping[str, Any]) -> None:
    """Write a subject's folder under a hidden name, then rename it."""
    phantom = make_subject(index, **settings)
    folder = output / f"PHAN{settings['seed']}_{index:03d}"
    partial_folder = output / f".{folder.name}.partial"
    shutil.rmtree(partial_folder, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    partial_folder.mkdir()
    for name in phantom.volumes:
        content = gzip.compress(_to_nifti(phantom, name).to_bytes(), compresslevel=1, mtime=0)
        (partial_folder / f"{name}.nii.gz").write_bytes(content)
    partial_folder.replace(folder)


def _to_nifti(phantom: Phantom, name: str) -> nib.Nifti1Image:
    """Image with the challenge's header; integers, because noise in floats does not compress."""
    volume = phantom.volumes[name]
    if not name.endswith("_mask"):
        step = _QSM_STEP_PPB if name == _QSM else 1.0
        limits = np.iinfo(np.int16)
        volume = np.clip(np.rint(volume / step), limits.min, limits.max).astype(np.int16)
    image = nib.Nifti1Image(volume, phantom.affine)
    image.set_qform(phantom.affine, code=1)
    image.set_sform(phantom.affine, code=1)
    image.header.set_xyzt_units("mm", "sec")
    if name == _QSM:
        image.header.set_slope_inter(_QSM_STEP_PPB, 0)
    return image
