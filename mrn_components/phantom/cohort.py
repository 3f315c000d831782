"""Synthetic subjects, and cohorts of them as files in the challenge layout."""

import gzip
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from mrn_components.images.image import CHALLENGE_IMAGES
from mrn_components.phantom.anatomy import TISSUE_ID, Region, draw_anatomy, paint_tissues
from mrn_components.phantom.mean import Mean
from mrn_components.phantom.numbers import GRIDS, SCANNERS, SHAPES, Grid, Scanner, View
from mrn_components.phantom.signal import draw_traits, render_nm, render_qsm, render_t1
from mrn_components.system.files import replacing, write_json, write_text
from mrn_components.system.logs import bar
from mrn_components.system.workers import in_order

_RECORD, _LABELS = "phantom.json", "train_cases.csv"
_VERSION = 3  # raise when the same settings give other voxels or names
_QSM = CHALLENGE_IMAGES["qsm"].file
_FILES = tuple(file for i in CHALLENGE_IMAGES.values() for file in (i.file, str(i.mask)))
_ATLAS = {"QSM.nii.gz", "T1.nii.gz", "labels.nii.gz", "nuclei.csv"}
_QSM_STEP_PPB = 0.1  # QSM is stored as int16 multiples of it


def make_cohort(
    output: str | Path,
    *,
    subjects: int = 20,
    seed: int = 1,
    effect: float = 1.0,
    view: View = "brain",
    sites: int = 1,
    t1: bool = False,
    template: bool = False,
    workers: int | None = None,
) -> Path:
    """Write a cohort of synthetic subjects, half of them with Parkinson's disease.

    Writes ``output/PHAN1_000/{QSM,NM,NM_mask,QSM_mask}.nii.gz``, ``output/train_cases.csv``
    (no header; ``PHAN1_000,0``) and ``output/phantom.json`` with the settings. Each subject appears
    at once when it is complete; an interrupted call goes on where it stopped, and a call with more
    subjects adds to those that are there.

    Subjects of several sites differ by their scanner as well: the reference, noise and sharpness of
    QSM, the contrast of neuromelanin, and the share of PD (``scanners`` in
    ``phantom/numbers.yaml``). The csv then has a header and a column ``site``.

    Args:
        output: folder to write to; new, empty, or begun by a call with the same settings.
        subjects: how many, half of them PD.
        seed: of the cohort; a subject depends on (seed, number) and on nothing else.
        effect: scale of every difference between PD and HC; 1 is the published size, 0 none.
        view: brain is the challenge's 300x300x70 grid, midbrain the part that holds the nuclei.
        sites: scanners that examine the subjects in turn, 1 to 4.
        t1: write a T1-like image too, e.g. to try a registration; nothing here reads it.
        template: write an atlas instead, of the mean subject: QSM.nii.gz, T1.nii.gz, labels.nii.gz
            and nuclei.csv, as ``--atlas`` takes it.
        workers: processes; by default one for each CPU.

    Returns:
        ``output`` as a path.

    Raises:
        ValueError: for settings that no cohort can have.
        FileExistsError: when ``output`` holds other files, or subjects of other settings.
    """
    _check_settings(seed=seed, effect=effect, view=view, sites=sites)
    if subjects < 1:
        raise ValueError(f"subjects must be >= 1, got {subjects}.")
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be >= 1 or None for one a CPU, got {workers}.")
    output = Path(output)
    if template:
        return _write_template(output, view)
    settings = {"seed": seed, "effect": float(effect), "view": view, "t1": t1}
    settings |= {"sites": sites} if sites > 1 else {}
    _claim(output, {"version": _VERSION, **settings})
    names = [f"PHAN{seed}_{index:03d}" for index in range(subjects)]
    surplus = {path.name for path in output.glob("PHAN*")} - set(names)
    if surplus:
        raise FileExistsError(
            f"{output} already holds {max(surplus)}, asked for {subjects} subjects. "
            "Ask for more subjects, or choose another output folder."
        )
    files = (*_FILES, *["T1"] * t1)
    missing = [
        index
        for index, name in enumerate(names)
        if not all((output / name / f"{file}.nii.gz").is_file() for file in files)
    ]
    write = partial(_write_subject, output=output, settings=settings)
    processes = min(workers or os.cpu_count() or 1, max(len(missing), 1))
    written = in_order(write, missing, workers=processes if processes > 1 else 0)
    list(bar(written, "Phantoms", len(missing)))
    rows = [f"{name},{draw_label(i, seed=seed, sites=sites)}" for i, name in enumerate(names)]
    if sites > 1:
        own = [f"{row},{SCANNERS[i % sites].name}" for i, row in enumerate(rows)]
        rows = ["subject,label,site", *own]
    write_text(output / _LABELS, "".join(f"{row}\n" for row in rows))
    return output


@dataclass(frozen=True)
class Phantom:
    """A synthetic subject."""

    label: int  # 0 healthy control (HC), 1 Parkinson's disease (PD)
    affine: np.ndarray  # (4, 4) voxel to world in mm, axes LAS
    # {"NM", "QSM": float32; "NM_mask", "QSM_mask": uint8}, each (X, Y, Z), and where it was asked
    # for "T1". QSM in ppb, 0 outside the brain; NM and T1 in arbitrary units.
    volumes: dict[str, np.ndarray]


def make_subject(
    index: int,
    *,
    seed: int = 1,
    effect: float = 1.0,
    view: View = "brain",
    label: int | None = None,
    sites: int = 1,
    t1: bool = False,
) -> Phantom:
    """Make one subject; the same (seed, index) always gives the same one.

    Anatomy and disease do not depend on the view, ``effect`` changes nothing but the disease, and
    ``sites`` nothing but the labels and what scanners do to the images.

    Args:
        index: number of the subject, from 0.
        seed: of the cohort.
        effect: scale of every difference between PD and HC; 1 is the published size, 0 none.
        view: "brain" is the challenge's 300x300x70 grid, "midbrain" the part of it that holds the
            nuclei, on the same voxels.
        label: 0 or 1; by default ``draw_label(index, seed=seed, sites=sites)``.
        sites: scanners that examine the subjects in turn, 1 to 4.
        t1: make a T1-like image too; it changes none of the others.

    Raises:
        ValueError: for a negative index, seed or effect, another view or label, or too many sites.
    """
    _check_settings(seed=seed, effect=effect, view=view, sites=sites)
    if index < 0:
        raise ValueError(f"index must be >= 0, got {index}.")
    label = draw_label(index, seed=seed, sites=sites) if label is None else label
    if label not in (0, 1):
        raise ValueError(f"label must be 0 (HC) or 1 (PD), got {label!r}.")
    draws, site = _streams(index, seed), index % sites
    return _make(label, draws, effect=effect, view=view, t1=t1, scanner=SCANNERS[site])


def make_template(view: View = "brain") -> Phantom:
    """Make the healthy subject that is the mean in everything, without noise, with a T1."""
    return _make(0, [Mean()] * 5, effect=0.0, view=view, t1=True)


def _make(
    label: int,
    draws: Sequence[Any],
    *,
    effect: float,
    view: View,
    t1: bool,
    scanner: Scanner = SCANNERS[0],
) -> Phantom:
    """Make a subject of five sources of random numbers."""
    traits_rng, anatomy_rng, tissue_rng, image_rng, t1_rng = draws
    traits = draw_traits(traits_rng, effect=effect * label)
    anatomy = draw_anatomy(anatomy_rng, nm_loss=traits.nm_loss, shift_mm=traits.shift_mm)
    grid = GRIDS[view]
    tissue = paint_tissues(anatomy.pose, grid, tissue_rng)
    nm, qsm = CHALLENGE_IMAGES["nm"], CHALLENGE_IMAGES["qsm"]
    qsm_ids = [number for name in SHAPES for number in qsm.nuclei[name]]
    qsm_mask = _mask(grid, dict(zip(qsm_ids, anatomy.nuclei.values(), strict=True)))
    nm_mask = _mask(grid, dict(zip(nm.nuclei["SN"], anatomy.nm_seen.values(), strict=True)))
    brain = (tissue >= TISSUE_ID["csf"]) | (qsm_mask > 0)
    own: dict[str, Any] = {"grid": grid, "rng": image_rng, "scanner": scanner}
    volumes = {
        nm.file: render_nm(anatomy, traits, tissue, **own),
        qsm.file: render_qsm(anatomy, traits, tissue, brain=brain, **own),
        str(nm.mask): nm_mask,
        str(qsm.mask): qsm_mask,
    }
    if t1:
        volumes["T1"] = render_t1(anatomy, tissue, grid=grid, rng=t1_rng)
    return Phantom(label, grid.affine, volumes)


def latent_values(cohort: str | Path) -> dict[str, dict[str, float]]:
    """Return what each subject of a cohort was made of, by names of (nucleus, side).

    It is what a perfect measurement of the images would give, drawn again from the seed: the mean
    susceptibility and the gradient of a nucleus in ppb, nigrosome-1's share of the SN, the signal
    of NM, and the contrast of neuromelanin that is left. Sizes are not among it, nor what a scanner
    does.

    Args:
        cohort: folder that ``make_cohort`` wrote.

    Raises:
        FileNotFoundError: if the folder is none.
        ValueError: if another version made the cohort.
    """
    record = Path(cohort) / _RECORD
    if not record.is_file():
        raise FileNotFoundError(f"{cohort} is not a phantom cohort: it has no {_RECORD}.")
    settings = json.loads(record.read_text())
    if settings["version"] != _VERSION:
        raise ValueError(
            f"{cohort} holds phantoms of version {settings['version']}, this is version "
            f"{_VERSION}: what they were made of is not known; make them anew."
        )
    seed, effect, sites = settings["seed"], settings["effect"], settings.get("sites", 1)
    rows = (Path(cohort) / _LABELS).read_text().split()[int(sites > 1) :]
    values = {}
    for index, row in enumerate(rows):
        rng, *_ = _streams(index, seed)
        traits = draw_traits(rng, effect=effect * draw_label(index, seed=seed, sites=sites))
        values[row.split(",")[0]] = traits.seen()
    return values


def _streams(index: int, seed: int) -> list[np.random.Generator]:
    """Random numbers of a subject's traits, anatomy, tissue, images and T1."""
    streams = np.random.SeedSequence([seed, index]).spawn(5)
    return [np.random.default_rng(stream) for stream in streams]


def draw_label(index: int, *, seed: int = 1, sites: int = 1) -> int:
    """Class of a subject: each pair (2n, 2n + 1) holds one HC and one PD in random order.

    Of several sites each ten subjects of a site hold its share of PD in random order.
    """
    if sites > 1:
        place, site = divmod(index, sites)
        order = np.random.default_rng([seed, site, place // 10, 2]).permutation(10)
        return int(order[place % 10] < round(10 * SCANNERS[site].share))
    first = int(np.random.default_rng([seed, index // 2, 1]).integers(2))
    return first ^ (index % 2)


def _check_settings(*, seed: int, effect: float, view: str, sites: int) -> None:
    """Refuse settings that no cohort can have."""
    if not 1 <= sites <= len(SCANNERS):
        raise ValueError(f"sites must be 1 to {len(SCANNERS)}, got {sites}.")
    if seed < 0:
        raise ValueError(f"seed must be >= 0, got {seed}.")
    if not 0 <= effect < np.inf:
        raise ValueError(f"effect must be >= 0 (0 none, 1.0 published), got {effect}.")
    if view not in GRIDS:
        raise ValueError(f"view must be one of {sorted(GRIDS)}, got {view!r}.")


def _mask(grid: Grid, regions: dict[int, Region]) -> np.ndarray:
    mask = np.zeros(grid.shape, np.uint8)
    for number, region in regions.items():
        mask[region.index(grid)] = number
    return mask


def _claim(output: Path, settings: dict[str, object]) -> None:
    """Record the settings in ``output``, or check that they are those recorded there."""
    record = output / _RECORD
    if record.exists():
        found = json.loads(record.read_text())
        if found != settings:
            differing = ", ".join(
                f"{key} is {found.get(key)!r}, asked for {value!r}"
                for key, value in settings.items()
                if found.get(key) != value
            )
            raise FileExistsError(
                f"{output} already holds phantoms of other settings: {differing}. Choose another "
                "output folder or delete it."
            )
        return
    if output.exists() and (not output.is_dir() or any(output.glob("[!.]*"))):
        raise FileExistsError(
            f"{output} exists and is not a phantom cohort (it has no phantom.json). "
            "Choose a new or empty output folder."
        )
    write_json(record, settings)


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


def _write_template(output: Path, view: View) -> Path:
    """Write an atlas of the mean subject; the folder is new, or one of an atlas."""
    if output.exists() and (not output.is_dir() or {p.name for p in output.iterdir()} - _ATLAS):
        raise FileExistsError(f"{output} holds something else; choose a new folder for the atlas.")
    phantom, qsm = make_template(view), CHALLENGE_IMAGES["qsm"]
    phantom.volumes["labels_mask"] = phantom.volumes[str(qsm.mask)]
    for stem in (qsm.file, "T1", "labels"):
        name = "labels_mask" if stem == "labels" else stem
        content = gzip.compress(_to_nifti(phantom, name).to_bytes(), compresslevel=1, mtime=0)
        with replacing(output / f"{stem}.nii.gz") as unfinished:
            unfinished.write_bytes(content)
    rows = [f"{number},{nucleus},{side}\n" for number, (nucleus, side) in qsm.ids.items()]
    write_text(output / "nuclei.csv", "".join(["id,nucleus,side\n", *rows]))
    return output


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
