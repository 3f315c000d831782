"""manifest.json: what a prediction was made with."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from mrn_components.app.records import Record
from mrn_components.system.files import weights_hash, write_json
from mrn_components.system.versions import versions_with

_PACKAGES = ("monai", "torch", "timm", "pytorch-ignite", "nibabel", "numpy", "nnunetv2")


def hash_files(files: Sequence[Path], folder: Path) -> dict[str, str]:
    """SHA-256 of files, by their path in ``folder``, or their name where they lie elsewhere."""
    hashes: dict[str, str] = {}
    for path in files:
        inside = path.absolute().is_relative_to(folder.absolute())
        name = str(path.absolute().relative_to(folder.absolute())) if inside else path.name
        if name in hashes:  # model.pt of one fold and of another
            name = f"{len(hashes)} {name}"
        hashes[name] = weights_hash(path)
    return hashes


def hash_content(content: Any) -> str:
    """SHA-256 of what JSON makes of ``content``; tells two settings apart."""
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def made_with(
    run: Mapping[str, Any], device: torch.device, packages: Sequence[str] = ()
) -> dict[str, Any]:
    """Say what a subject is predicted with, now: hashes, settings, device and versions.

    ``packages`` are those whose versions count beside the usual ones.
    """
    return {
        "research_use_only": True,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        **run,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "versions": versions_with(tuple(dict.fromkeys((*_PACKAGES, *packages)))),
    }


def write_manifest(output_dir: Path, made: Mapping[str, Any], records: Sequence[Record]) -> None:
    """Write ``manifest.json`` of what ``made_with`` returns and what became of the subjects."""
    statuses = [record["status"] for record in records]
    content = {
        **made,
        "subjects": {status: statuses.count(status) for status in ("ok", "abstained", "failed")},
        "timings_s": _timings(records),
        "inputs": {
            record["subject"]: {key: file["sha256"] for key, file in record["inputs"].items()}
            for record in records
        },
    }
    write_json(output_dir / "manifest.json", content)


def _timings(records: Sequence[Record]) -> dict[str, dict[str, float]]:
    """Mean and sum of each stage's seconds, over the subjects that went through it."""
    of_stage: dict[str, list[float]] = {}
    for record in records:
        for stage, seconds in record["timings_s"].items():
            of_stage.setdefault(stage, []).append(seconds)
    return {
        stage: {"mean": round(sum(times) / len(times), 4), "total": round(sum(times), 4)}
        for stage, times in of_stage.items()
    }
