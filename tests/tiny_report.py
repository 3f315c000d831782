"""What ``mrn predict`` and ``mrn crossval`` leave, for pages to be written of it."""

import csv
import json
from pathlib import Path

import numpy as np

from mrn_components.app.out_of_fold import write_page
from mrn_components.biomarkers import measure_nuclei
from mrn_components.images.volume import read_volume
from mrn_components.metrics import diagnosis_metrics

EVIL = "<script>alert(1)</script>"
BOXES = {
    "nm": {"image": "nm", "nuclei": ["SN"], "start": [4, 5, 1], "stop": [20, 14, 8]},
    "qsm2": {"image": "qsm", "nuclei": [], "start": [4, 4, 1], "stop": [20, 16, 8]},
    # It leaves the volume.
    "qsm3": {"image": "qsm", "nuclei": [], "start": [3, -2, 0], "stop": [21, 9, 5]},
}
EXPLANATION = {
    "prob_pd": 0.7,
    "baseline": 0.5,
    "shapley": {"nm": 0.3, "qsm2": -0.1, "qsm3": 0.0},
    "occlusion": {roi: [[0.05, -0.02, 0.0], [0.0, 0.01, 0.0]] for roi in BOXES},
}
FILES = {"nm": "NM", "qsm": "QSM", "mask_nm": "NM_mask", "mask_qsm": "QSM_mask"}


def record(cohort: Path, subject: str, **changes) -> dict:
    files = {key: f"{subject}/{name}.nii.gz" for key, name in FILES.items()}
    return {
        "subject": subject,
        "status": "ok",
        "prob_pd": 0.7,
        "class": 1,
        "prob_pd_folds": [0.6, 0.8, 0.4],
        "fold_agreement": 2 / 3,
        "fold_std": 0.16,
        "trained_on": 0,
        "mask_source": {"nm": "given", "qsm": "given"},
        "missing_rois": [],
        "estimated": {},
        "flags": [],
        "error": None,
        "boxes": BOXES,
        "biomarkers": measure_nuclei(
            {key: read_volume(cohort / file) for key, file in files.items()}
        ),
        "timings_s": {"read": 0.1},
        "inputs": {key: {"path": file, "sha256": "ab" * 32} for key, file in files.items()},
        "research_use_only": True,
    } | changes


def write_output(folder: Path, records: list[dict], explained=("SUBJ_000",)) -> Path:
    """What ``mrn predict`` leaves."""
    columns = ("subject", "status", "prob_pd", "flags", "error")
    folder.mkdir(exist_ok=True)
    with (folder / "predictions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in records:
            own = folder / "subjects" / row["subject"]
            own.mkdir(parents=True)
            (own / "prediction.json").write_text(json.dumps(row))
            if row["subject"] in explained:
                (own / "explanation.json").write_text(json.dumps(EXPLANATION))
            writer.writerow([row["subject"], row["status"], row["prob_pd"], "", row["error"]])
    (folder / "manifest.json").write_text(json.dumps({"weights": {"model.pt": "cd" * 32}}))
    return folder


def write_cross_validation(folder: Path) -> Path:
    """The page of a cross-validation of two folds."""
    rng = np.random.default_rng(2)
    truth = np.arange(20) % 2
    prob = np.clip(rng.normal(0.4 + 0.2 * truth, 0.2), 0, 1).round(6)
    lines = ["subject,fold,prob_pd,class,label"]
    lines += [f"S{i:02d},{i // 10},{prob[i]},{int(prob[i] > 0.5)},{truth[i]}" for i in range(20)]
    (folder / "out_of_fold.csv").write_text("\n".join(lines) + "\n")
    folds = [diagnosis_metrics(prob[part], truth[part]) for part in (slice(10), slice(10, 20))]
    summary = {name: {"mean": 0.5, "sd": 0.1} for name in folds[0]}
    content = {"folds": folds, "summary": summary, "overall": diagnosis_metrics(prob, truth)}
    content["note"] = ""
    (folder / "crossval.json").write_text(json.dumps(content))
    return write_page(folder, "mrn")
