"""Fixtures of the pages of subjects."""

import pytest


@pytest.fixture(scope="module")
def output(cohort, tmp_path_factory):
    """Reports of a plain, a flagged, an abstained and a failed subject."""
    from tiny_report import EVIL, record, write_output  # other tests of the room do not wait for it

    from mrn_components.app.report.reports import write_reports

    failed = {"status": "failed", "prob_pd": None, "error": f"NM.nii.gz is {EVIL}"}
    inputs = {"nm": {"path": "SUBJ_000/NM.nii.gz", "sha256": "ab" * 32}}
    inputs["qsm"] = {"path": "SUBJ_000/QSM.nii.gz", "sha256": None}  # could not be read
    failed |= {
        "boxes": {},
        "inputs": inputs,
        "biomarkers": {},
        "prob_pd_folds": [],
        "mask_source": {},
    }
    abstained = {"status": "abstained", "missing_rois": ["nm"], "trained_on": 1}
    records = [
        record(cohort, "SUBJ_000"),
        record(cohort, "SUBJ_001", flags=[EVIL], estimated={"qsm2": [EVIL]}, prob_pd=0.2),
        record(cohort, "SUBJ_002", **abstained),
        record(cohort, "SUBJ_003", **failed),
    ]
    folder = write_output(tmp_path_factory.mktemp("reports") / "out", records)
    assert write_reports(folder, cohort) == folder / "index.html"
    return folder
