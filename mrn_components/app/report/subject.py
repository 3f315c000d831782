"""The page of one subject."""

from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from mrn_components.app.records import EXPLANATION, PAGE, THUMBNAILS, UNEXPLAINED, Record
from mrn_components.app.report.attention import attention_image, is_even
from mrn_components.app.report.images import Shown
from mrn_components.app.report.pages import (
    decision,
    read_json,
    shown_title,
    shown_value,
    write_page,
)
from mrn_components.app.report.region_bars import is_nothing, region_bars
from mrn_components.app.report.scan import DATE, MEASURES
from mrn_components.app.report.strips import biomarker_rows
from mrn_components.data.predictions import calibrated
from mrn_components.data.target import Target
from mrn_components.metrics.spread import FAR
from mrn_components.system.files import write_json

_NEAR = 0.1  # of the threshold: trainings with other seeds differ by as much


def write_pages(
    folder: Path,
    record: Record,
    images: Mapping[str, Shown],
    manifest: Mapping[str, Any],
    target: Target,
    *,
    scan_date: bool = False,
) -> None:
    """Write a subject's page, and what the index shows of it; what is missing is said there.

    The ``folder`` is the subject's, with ``explanation.json`` if it was explained; ``images`` are
    what ``draw_images`` returns; ``manifest`` says what the subjects were predicted with. The page
    tells when the images were made only with ``scan_date``.
    """
    manifest = _of_subject(manifest, record)
    thumbnails = [image.thumbnail for image in images.values()]
    write_json(folder / THUMBNAILS, thumbnails, indent=None)
    measured = record["biomarkers"]
    there = any(value is not None for value in measured.values())
    shown = {name: image.image for name, image in images.items()}
    biomarkers = biomarker_rows(measured, shown) if there else {}
    lead = calibrated(target.lead)
    explanation = read_json(folder / EXPLANATION)
    maps, looks = (_maps(explanation, kind, record) for kind in ("occlusion", "attention"))
    facts = dict.fromkeys(name for image in images.values() for name in image.facts)
    # A page goes where the other subjects must not.
    others = ("inputs", "subjects", "timings_s", "images")
    write_page(
        folder / PAGE,
        "subject.html.j2",
        record=record,
        target=target,
        value=record.get(target.lead),
        shown=shown_value(record, target),
        title_shown=shown_title([record], target),
        calibrated=calibrated,
        decision=decision(record, target),
        near=_NEAR,
        far=FAR,
        facts=[name for name in facts if scan_date or name != DATE],
        measures=MEASURES,
        folds=record.get(f"{lead}_folds", record.get(f"{target.lead}_folds", [])),
        images=images,
        biomarkers=biomarkers,
        sources=sorted({row.published for rows in biomarkers.values() for row in rows} - {""}),
        explanation=explanation,
        bars=region_bars(explanation, target) if explanation else [],
        is_nothing=is_nothing,
        maps=maps,
        unmoved=[roi for roi, rows in maps.items() if is_nothing([*chain(*rows)], target)],
        looks=looks,
        attention_image=attention_image,
        even=[roi for roi, look in looks.items() if is_even(look["cells"])],
        unexplainable=any(flag.startswith(UNEXPLAINED) for flag in record["flags"]),
        manifest=manifest,
        seconds=_seconds(record["timings_s"]),
        provenance=flatten({key: value for key, value in manifest.items() if key not in others}),
    )


def _maps(explanation: Mapping[str, Any] | None, kind: str, record: Record) -> dict[str, Any]:
    """Return the maps of the regions that the network saw, of one kind, if there are any."""
    found = (explanation or {}).get(kind, {})
    return {roi: own for roi, own in found.items() if roi not in record["missing_rois"]}


def _seconds(timings: Mapping[str, float]) -> dict[str, float]:
    """Return the seconds of each stage, and of what is none of them: together they are all."""
    stages = {stage: seconds for stage, seconds in timings.items() if stage != "total"}
    other = timings.get("total", 0.0) - sum(stages.values())
    return stages | ({"other": other} if other >= 0.005 else {})


def _of_subject(manifest: Mapping[str, Any], record: Record) -> dict[str, Any]:
    """Leave out of a manifest the segmentation, if it drew no mask of this subject."""
    settings = dict(manifest.get("settings", {}))
    if set(record["mask_source"].values()) <= {"given"}:
        settings.pop("segmentation", None)
        manifest = {key: value for key, value in manifest.items() if key != "segmentation"}
    return {**manifest, "settings": settings} if settings else dict(manifest)


def flatten(content: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A nested mapping as rows (name, text)."""
    rows: list[tuple[str, str]] = []
    for key, value in content.items():
        name = f"{prefix}{key}"
        if isinstance(value, list):
            nested = any(isinstance(part, Mapping | list) for part in value)
            value = dict(enumerate(value)) if nested else ", ".join(map(str, value))
        if isinstance(value, Mapping):
            rows += flatten(value, f"{name} · ")
        else:
            rows.append((name, _without_folders(str(value))))
    return rows


def _without_folders(text: str) -> str:
    """The end of an absolute path: pages are mailed, and need not tell of this machine."""
    path = Path(text)
    return str(Path(*path.parts[-2:])) if path.is_absolute() and len(path.parts) > 2 else text
