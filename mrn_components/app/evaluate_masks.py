"""``mrn evaluate_masks``: how well segmented masks agree with those that readers drew."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial as partial_of
from pathlib import Path
from typing import Any

import numpy as np

import mrn_components
from mrn_components.data import Subject
from mrn_components.data.layouts import Need, filters_of, find_subjects
from mrn_components.images.image import CHALLENGE_IMAGES, Image
from mrn_components.images.masks import check_mask
from mrn_components.metrics import CONFIDENCE, NUM_RESAMPLES, Metric
from mrn_components.metrics.intervals import bootstrap_interval, undefined_interval
from mrn_components.metrics.segmentation import score_masks
from mrn_components.regions.drawn import read_file
from mrn_components.system.files import csv_text, write_json, write_text
from mrn_components.system.logs import bar
from mrn_components.system.texts import fill_template

Row = dict[str, Any]  # {"subject", "image", "nucleus", "side", "label"} and a MaskScore

_METRICS = ("dice", "hausdorff_voxels", "hausdorff95_mm")
_VOLUMES = ("volume_mm3", "true_volume_mm3")
_EMPTY = ("predicted", "truth", "both")


def evaluate_masks(
    masks: str | Path,
    dataset: str | Path,
    *,
    output: str | Path | None = None,
    partial: bool = False,
    nm_filter: str | None = None,
    qsm_filter: str | None = None,
    nm_series: str | None = None,
    qsm_series: str | None = None,
    seed: int = 1,
) -> Path:
    """Compare segmented masks with drawn ones: Dice, Hausdorff distances and volumes.

    Writes ``masks.{csv,json,md}``.

    Args:
        masks: folder of ``ID/{NM,QSM}_mask.nii.gz`` or, as the challenge collects them,
            ``ID/{NM,QSM}_pred.nii.gz``; the folder that ``mrn predict`` wrote; or BIDS.
        dataset: subjects with the masks that readers drew: folder in the challenge's layout, one
            subject's folder, a JSON datalist or a BIDS directory.
        output: folder of the results; None means ``evaluation`` in ``masks``.
        partial: score the masks that are there, instead of refusing when some are missing.
        nm_filter: glob of the NM images' names in BIDS, e.g. "*acq-NM*"; with a slash, of paths.
        qsm_filter: the same of QSM, e.g. "derivatives/qsmxt*/*_Chimap*".
        nm_series: the NM series of DICOM studies, by number or glob of the description.
        qsm_series: the same of QSM.
        seed: seed of the bootstrap.

    Returns:
        The folder of the results.

    Raises:
        FileNotFoundError: if masks are missing.
        ValueError: for a mask that cannot be read or lies on another grid, naming the subject.
    """
    need = Need(images="given", masks="all", labels="none")
    find = partial_of(
        find_subjects,
        dataset,
        filters=filters_of(CHALLENGE_IMAGES, nm_filter, qsm_filter),
        series=filters_of(CHALLENGE_IMAGES, nm_series, qsm_series),
    )
    truth = find(need=need).require_all()
    made = find(need=replace(need, masks="given"), masks=masks).require_all()
    pairs = zip(made, truth, strict=True)
    every = [(*pair, image) for pair in pairs for image in CHALLENGE_IMAGES.values()]
    there = [(ours, theirs, image) for ours, theirs, image in every if image.mask_name in ours]
    missing = [f"{s['subject']} {i.name}" for ours, s, i in every if i.mask_name not in ours]
    if missing and not partial:
        raise FileNotFoundError(
            f"{masks} lacks {len(missing)} of the {len(every)} masks of {dataset}: "
            f"{', '.join(missing[:10])}{', ...' if len(missing) > 10 else ''}; --partial True "
            "scores those that are there."
        )
    rows = [row for case in bar(there, "Masks", unit="mask") for row in _score(*case)]
    report = {
        "n": len({row["subject"] for row in rows}),
        "left_out": missing,
        "nuclei": _summaries(rows, ("image", "nucleus"), seed),
        "labels": _summaries(rows, ("image", "nucleus", "side", "label"), seed),
        "confidence": CONFIDENCE,
        "bootstrap": {"seed": seed, "resamples": NUM_RESAMPLES},
        "masks": Path(masks).resolve().name,
        "dataset": Path(dataset).resolve().name,
        "version": mrn_components.__version__,
        "note": "Research use only.",
    }
    folder = Path(masks) / "evaluation" if output is None else Path(output)
    write_text(folder / "masks.csv", csv_text(rows, floats=".6g"))
    write_json(folder / "masks.json", report)
    template = Path(__file__).with_suffix(".md.j2")
    write_text(folder / "masks.md", fill_template(template, **report))
    return folder


def _score(made: Subject, truth: Subject, image: Image) -> list[Row]:
    """Compare the masks of an image of a subject, nucleus by nucleus and side by side."""
    key = {"subject": truth["subject"], "image": image.name}
    try:
        ours, theirs = (
            read_file(image.mask_name, of[image.mask_name], CHALLENGE_IMAGES)[0].canonical
            for of in (made, truth)
        )
        check_mask(theirs, image)
        check_mask(ours, image, theirs)
    except ValueError as error:
        raise ValueError(f"{key['subject']}: {error}") from error
    labels, spacing_mm = list(image.ids), theirs.spacing_mm.tolist()
    scores = score_masks(ours.ids, theirs.ids, labels=labels, spacing_mm=spacing_mm)
    return [
        {**key, "nucleus": nucleus, "side": side, "label": label, **scores[label]}
        for label, (nucleus, side) in image.ids.items()
    ]


def _summaries(rows: Sequence[Row], keys: Sequence[str], seed: int) -> list[dict[str, Any]]:
    """Summarise the rows that agree in ``keys``, in the order of their first."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return [
        dict(zip(keys, values, strict=True))
        | {name: _mean(group, name, seed) for name in _METRICS}
        | {name: float(np.mean([row[name] for row in group])) for name in _VOLUMES}
        | {"empty": {which: sum(row["empty"] == which for row in group) for which in _EMPTY}}
        for values, group in groups.items()
    ]


def _mean(rows: Sequence[Row], metric: str, seed: int) -> Metric:
    """Mean over subjects of the mean over their sides, where it is defined."""
    sides: dict[str, list[float]] = {}
    for row in rows:
        if row[metric] is not None:
            sides.setdefault(row["subject"], []).append(row[metric])
    values = np.array([np.mean(pair) for pair in sides.values()])
    interval = undefined_interval("bootstrap", "needs two subjects")
    if len(values) > 1:
        interval = bootstrap_interval([values], np.mean, seed)
    return {"value": float(values.mean()) if len(values) else None, "n": len(values), **interval}
