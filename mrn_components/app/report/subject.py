"""The page of one subject."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import mrn_components
from mrn_components.app.report.explanation import UNEXPLAINED, Explanation
from mrn_components.app.report.images import Shown
from mrn_components.app.report.pages import at, decision, ends, short, write_page
from mrn_components.app.report.strips import biomarker_rows
from mrn_components.data.target import HC_PD, Classes, Score, Target

NUCLEUS_NAMES = {
    "CN": "caudate nucleus",
    "PUT": "putamen",
    "GP": "globus pallidus",
    "TH": "thalamus",
    "STN": "subthalamic nucleus",
    "SN": "substantia nigra",
    "RN": "red nucleus",
    "DN": "dentate nucleus",
}
STATUS_TEXTS = {"ok": "complete", "abstained": "abstained", "failed": "failed"}

_LEAST_SHARE = 0.01  # of the scale: smaller effects are not blown up to full colour
_STRONGEST_OPACITY = 0.7


def write_subject_report(
    path: Path,
    record: Mapping[str, Any],
    images: Mapping[str, Shown],
    *,
    explanation: Explanation | None = None,
    manifest: Mapping[str, Any] | None = None,
    target: Target = HC_PD,
) -> None:
    """Write the page of one subject.

    What is missing is said on the page.

    Args:
        path: of the page.
        record: the subject's ``prediction.json``.
        images: what ``draw_images`` returns.
        explanation: what ``explain_subject`` returned.
        manifest: of the predictions, for the provenance.
        target: what is predicted.
    """
    rois = [_roi(name, box, images, record) for name, box in record.get("boxes", {}).items()]
    scale = _add_occlusion(rois, explanation, target) if explanation else None
    measured = record.get("biomarkers") or {}
    shown = {name: image.image for name, image in images.items()}
    there = any(value is not None for value in measured.values())
    biomarkers = biomarker_rows(measured, shown) if there else {}
    write_page(
        path,
        "subject.html.j2",
        version=mrn_components.__version__,
        record={"error": None, **record},
        status_text=STATUS_TEXTS.get(record["status"], record["status"]),
        target=target,
        value=record.get(target.lead),
        decision=decision(record, target),
        verdict=_verdict(record, target),
        folds=record.get(f"{target.lead}_folds") or [],
        facts=_facts(record, target),
        trained_on=record.get("trained_on") == 1,
        flags=record.get("flags") or [],
        overviews={name: image.overview for name, image in images.items()},
        rois=rois,
        mask_text=_mask_text(record),
        shown=list(shown.values()),
        occlusion_scale=scale,
        biomarkers=biomarkers,
        nucleus_names=NUCLEUS_NAMES,
        sources=sorted({row.published for rows in biomarkers.values() for row in rows} - {""}),
        shapley=_shapley(explanation, record, target) if explanation else None,
        unexplained="" if explanation else _why_unexplained(record, target),
        made_with=_made_with(manifest or {}),
        inputs=_inputs(record),
        timings=list((record.get("timings_s") or {}).items()),
        provenance=_provenance(manifest or {}),
    )


def flatten(content: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A nested mapping as rows (name, text)."""
    rows: list[tuple[str, str]] = []
    for key, value in content.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            rows += flatten(value, f"{name} · ")
        elif isinstance(value, list) and any(isinstance(part, Mapping | list) for part in value):
            rows += flatten({str(index): part for index, part in enumerate(value)}, f"{name} · ")
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            rows.append((name, text))
    return rows


def _roi(
    name: str, box: Mapping[str, Any], images: Mapping[str, Shown], record: Mapping[str, Any]
) -> dict[str, Any]:
    """What the page shows of one ROI."""
    image = images[box["image"]]
    pictures, nuclei = image.rois.get(name, ([], []))
    return {
        "name": name,
        "image_name": image.image.title,
        "nuclei": [(nucleus, NUCLEUS_NAMES.get(nucleus, nucleus)) for nucleus in nuclei],
        "pictures": pictures,
        "problem": image.problem or "the box lies outside the image",
        "missing": name in (record.get("missing_rois") or []),
        "estimated": (record.get("estimated") or {}).get(name, []),
        "cells": [],
        "strongest": None,
    }


def _verdict(record: Mapping[str, Any], target: Target) -> str:
    """What follows from the value that the page shows first."""
    low, high = target.span
    if record["status"] == "abstained":
        return "The system abstains: no class is given."
    if isinstance(target, Score):
        return f"on a scale from {low:g} to {high:g}"
    if not target.is_binary:
        return f"the most probable class is {record.get('class')}"
    above = decision(record, target) == "pd"
    return f"{'' if above else 'not '}above the threshold 0.5: class {ends(target)[above]}"


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


def _why_unexplained(record: Mapping[str, Any], target: Target) -> str:
    """Why there are no Shapley values and maps."""
    if record["status"] == "failed":
        return "the prediction failed."
    if record.get(target.lead) is None:
        return f"the system gives no {target.noun}."
    if any(flag.startswith(UNEXPLAINED) for flag in record.get("flags") or []):
        return "the flags say why."
    return (
        "they need the network, and the subject was predicted without --report. "
        "`mrn predict INPUT OUTPUT --resume True --report True`, with the bundle and the options "
        "of the prediction, adds them."
    )


def _provenance(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Rows of the manifest, without the other subjects: a page goes where they must not."""
    others = ("inputs", "subjects", "timings_s", "images")
    return flatten({key: value for key, value in manifest.items() if key not in others})


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
    value, shown = record.get(target.lead), explanation[target.lead]
    boxes = record.get("boxes") or {}
    values = explanation["shapley"]
    largest = max((abs(value) for value in values.values()), default=0) or 1
    bars = []
    for name, part in values.items():
        width = round(50 * abs(part) / largest, 2)
        left = 50 if part > 0 else 50 - width
        nuclei = ", ".join(boxes.get(name, {}).get("nuclei") or [])
        bars.append({"name": name, "nuclei": nuclei, "value": part, "left": left, "width": width})
    differs = value is not None and abs(at(value, target) - at(shown, target)) > 0.5
    return {
        "baseline": explanation["baseline"],
        "value": shown,
        "bars": bars,
        "differs": differs,
    }


def _facts(record: Mapping[str, Any], target: Target) -> list[tuple[str, str]]:
    """Pairs below the scale: other classes, folds, views, masks."""
    facts = []
    if isinstance(target, Classes) and not target.is_binary and record.get(target.lead) is not None:
        for name, column in zip(target.names, target.columns, strict=True):
            facts.append((f"P({name})", f"{record[column]:.2f}"))
    folds = record.get(f"{target.lead}_folds") or []
    if folds:
        facts.append(("Folds", f"{min(folds):.2f} to {max(folds):.2f}"))
    if folds and record.get("fold_agreement") is not None:
        agree = round(record["fold_agreement"] * len(folds))
        facts.append(("Agreement", f"{agree} of {len(folds)} folds give this class"))
    if record.get("tta_std") is not None:
        facts.append(("Mirrored view", f"standard deviation {record['tta_std']:.3f}"))
    sources = record.get("mask_source") or {}
    facts += [(f"{name.upper()} mask", text) for name, text in sources.items()]
    if missing := record.get("missing_rois"):
        facts.append(("Hidden regions", ", ".join(missing)))
    return facts


def _mask_text(record: Mapping[str, Any]) -> str:
    sources = set((record.get("mask_source") or {}).values())
    if sources == {"segmented"}:
        return ", which a network drew"
    if "segmented" in sources:
        return ", which a network drew in part"
    return ", as given" if sources else ""


def _inputs(record: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Rows (name, path, hash) of the files."""
    files = (record.get("inputs") or {}).items()
    return [
        (name, str(file["path"]), str(file.get("sha256") or "not read")) for name, file in files
    ]
