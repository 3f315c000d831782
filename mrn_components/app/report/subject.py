"""The page of one subject."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mrn_components.app.report.explanation import UNEXPLAINED, Explanation
from mrn_components.app.report.images import Shown
from mrn_components.app.report.pages import at, decision, read_json, short, write_page
from mrn_components.app.report.strips import biomarker_rows
from mrn_components.data.target import Classes, Target
from mrn_components.system.files import write_text

EXPLANATION = "explanation.json"
PAGE = "report.html"
THUMBNAILS = "thumbnails.json"  # of the index

_LEAST_SHARE = 0.01  # of the scale: smaller effects are not blown up to full colour
_STRONGEST_OPACITY = 0.7
# Keys of a record that may be absent or null.
_ABSENT: dict[str, Any] = {
    "trained_on": 0,
    **dict.fromkeys(("error", "class", "fold_agreement", "tta_std")),
    **dict.fromkeys(("flags", "missing_rois"), ()),
    **{key: {} for key in ("boxes", "biomarkers", "estimated", "inputs")},
    **{key: {} for key in ("mask_source", "timings_s")},
}


def write_pages(
    folder: Path,
    record: Mapping[str, Any],
    images: Mapping[str, Shown],
    manifest: Mapping[str, Any],
    target: Target,
) -> None:
    """Write a subject's page, and what the index shows of it; what is missing is said there.

    Args:
        folder: of the subject, with ``explanation.json`` if it was explained.
        record: its ``prediction.json``.
        images: what ``draw_images`` returns.
        manifest: of the predictions, for the provenance.
        target: what is predicted.
    """
    explanation = read_json(folder / EXPLANATION)
    thumbnails = [image.thumbnail for image in images.values()]
    write_text(folder / THUMBNAILS, json.dumps(thumbnails) + "\n")
    record = _ABSENT | {key: value for key, value in record.items() if value is not None}
    rois = [_roi(name, images[box["image"]], record) for name, box in record["boxes"].items()]
    scale = _add_occlusion(rois, explanation, target) if explanation else None
    measured = record["biomarkers"]
    there = any(value is not None for value in measured.values())
    shown = {name: image.image for name, image in images.items()}
    biomarkers = biomarker_rows(measured, shown) if there else {}
    # A page goes where the other subjects must not.
    others = ("inputs", "subjects", "timings_s", "images")
    write_page(
        folder / PAGE,
        "subject.html.j2",
        record=record,
        target=target,
        value=record.get(target.lead),
        decision=decision(record, target),
        folds=record.get(f"{target.lead}_folds", []),
        facts=_facts(record, target),
        images=list(images.values()),
        rois=rois,
        occlusion_scale=scale,
        biomarkers=biomarkers,
        sources=sorted({row.published for rows in biomarkers.values() for row in rows} - {""}),
        shapley=_shapley(explanation, record, target) if explanation else None,
        unexplainable=any(flag.startswith(UNEXPLAINED) for flag in record["flags"]),
        made_with=_made_with(manifest),
        provenance=flatten({key: value for key, value in manifest.items() if key not in others}),
    )


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
            rows.append((name, str(value)))
    return rows


def _roi(name: str, image: Shown, record: Mapping[str, Any]) -> dict[str, Any]:
    """What the page shows of one ROI."""
    pictures, nuclei = image.rois.get(name, ([], []))
    return {
        "name": name,
        "image_name": image.image.title,
        "nuclei": nuclei,
        "pictures": pictures,
        "problem": image.problem or "the box lies outside the image",
        "missing": name in record["missing_rois"],
        "estimated": record["estimated"].get(name, []),
        "cells": [],
        "strongest": None,
    }


def _add_occlusion(
    rois: Sequence[dict[str, Any]], explanation: Explanation, target: Target
) -> float | None:
    """Lay the maps over the ROIs' boxes; the effect of the full colour, the same in all maps."""
    maps = {roi: np.array(effects) for roi, effects in explanation["occlusion"].items()}
    if not maps:
        return None
    least = _LEAST_SHARE * (target.span[1] - target.span[0])
    scale = max(least, *(float(np.abs(effects).max()) for effects in maps.values()))
    for roi in rois:
        effects = maps.get(roi["name"])
        if effects is None or roi["missing"] or not roi["pictures"]:
            continue
        frame = roi["pictures"][len(roi["pictures"]) // 2].frames[0]
        height, width = frame.height / effects.shape[0], frame.width / effects.shape[1]
        roi["strongest"] = float(effects.flat[np.abs(effects).argmax()])
        roi["cells"] = [
            {
                "left": round(frame.left + column * width, 2),
                "top": round(frame.top + row * height, 2),
                "width": round(width, 2),
                "height": round(height, 2),
                "effect": float(effect),
                "opacity": round(_STRONGEST_OPACITY * abs(float(effect)) / scale, 2),
            }
            for (row, column), effect in np.ndenumerate(effects)
        ]
    return scale


def _made_with(manifest: Mapping[str, Any]) -> list[str]:
    """What a reader must see of the manifest without unfolding it."""
    settings = manifest.get("settings") or {}
    weights = [f"{name} {short(text)}" for name, text in (manifest.get("weights") or {}).items()]
    parts = {
        "Predicted": manifest.get("written"),
        "bundle": settings.get("bundle"),
        "weights": ", ".join(weights),
        "segmentation": settings.get("segmentation") if manifest.get("segmentation") else None,
        "computed on": manifest.get("device"),
    }
    return [f"{name} {text}" for name, text in parts.items() if text]


def _shapley(explanation: Explanation, record: Mapping[str, Any], target: Target) -> dict[str, Any]:
    """The bars of the ROIs' Shapley values, left and width in percent, and their ends."""
    values, shown = explanation["shapley"], explanation[target.lead]
    largest = max(map(abs, values.values()), default=0) or 1
    bars = []
    for name, value in values.items():
        width = round(50 * abs(value) / largest, 2)
        left = 50 if value > 0 else 50 - width
        nuclei = ", ".join(record["boxes"].get(name, {}).get("nuclei") or [])
        bars.append({"name": name, "nuclei": nuclei, "value": value, "left": left, "width": width})
    first = record.get(target.lead)
    differs = first is not None and abs(at(first, target) - at(shown, target)) > 0.5
    return {"baseline": explanation["baseline"], "value": shown, "bars": bars, "differs": differs}


def _facts(record: Mapping[str, Any], target: Target) -> list[tuple[str, str]]:
    """Pairs below the scale: other classes, folds, views, masks."""
    facts = []
    if isinstance(target, Classes) and not target.is_binary and record.get(target.lead) is not None:
        for name, column in zip(target.names, target.columns, strict=True):
            facts.append((f"P({name})", f"{record[column]:.2f}"))
    if folds := record.get(f"{target.lead}_folds"):
        facts.append(("Folds", f"{min(folds):.2f} to {max(folds):.2f}"))
        if record["fold_agreement"] is not None:
            agree = round(record["fold_agreement"] * len(folds))
            facts.append(("Agreement", f"{agree} of {len(folds)} folds give this class"))
    if record["tta_std"] is not None:
        facts.append(("Mirrored view", f"standard deviation {record['tta_std']:.3f}"))
    facts += [(f"{name.upper()} mask", text) for name, text in record["mask_source"].items()]
    if record["missing_rois"]:
        facts.append(("Hidden regions", ", ".join(record["missing_rois"])))
    return facts
