"""The front matter of a model card, as Hugging Face reads it."""

from typing import Any

import yaml

from mrn_components.app.sheet.numbers import metrics_of
from mrn_components.app.sheet.study import Study
from mrn_components.app.sheet.subjects import evaluated
from mrn_components.data.target import Classes

_HUB_NAMES = {  # our metric: the hub's
    "accuracy": "accuracy",
    "roc_auc": "roc_auc",
    "f1_macro": "f1",
    "brier": "brier_score",
    "mae": "mae",
    "pearson": "pearsonr",
    "spearman": "spearmanr",
}


def front_matter(study: Study) -> str:
    """Return the YAML at the head of a card, with a license only where the metadata has one."""
    metadata = study.contents.get("metadata", {})
    results = _results(study)
    content: dict[str, Any] = {
        "language": "en",
        "library_name": "monai",
        "tags": [
            *("monai", "medical-imaging", "mri", "research-use-only"),
            *(str(metadata[key]).lower() for key in ("organ",) if key in metadata),
        ],
        "metrics": [metric["type"] for metric in results],
        "model-index": [
            {"name": model_name(study), "results": [{**_whose(study), "metrics": results}]},
        ],
    }
    if "license" in metadata:
        content["license"] = str(metadata["license"])
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)


def model_name(study: Study) -> str:
    """Return the name of the bundle or run that predicted, or of the evaluated table."""
    name = study.value("manifest", "settings#bundle") or study.value("metrics", "name")
    return str(name)


def _whose(study: Study) -> dict[str, Any]:
    """Name the task, and the subjects by what the records know of them: their number and hash."""
    digest = study.value("metrics", "labels#sha256") or ""
    kind = "classification" if isinstance(study.target, Classes) else "regression"
    return {
        "task": {"type": f"image-{kind}", "name": f"research on {study.target.title}"},
        "dataset": {
            "type": "not-published",
            "name": f"{evaluated(study)[0]} (labels with SHA-256 {digest[:12]})",
        },
    }


def _results(study: Study) -> list[dict[str, Any]]:
    """Return the metrics that the hub knows, four digits each, with intervals in their names."""
    found = metrics_of(study)
    results = []
    for name, kind in _HUB_NAMES.items():
        metric = found.get(name)
        if metric is None or metric["value"] is None:
            continue
        interval = ""
        if metric["low"] is not None:
            share = study.value("metrics", "confidence")
            interval = f", {share:.0%} interval {metric['low']:.3f} to {metric['high']:.3f}"
        results.append(
            {"type": kind, "name": f"{name}{interval}", "value": round(metric["value"], 4)}
        )
    return results
