"""Numbers of a frozen encoder, against what is computed from crops step by step."""

import json
import shutil

import numpy as np
import pytest
import torch
from tiny_run import make_run, read_rows

from mrn_components import RES, PrepareROIBatch, load_subjects
from mrn_components.app.baseline import baseline
from mrn_components.app.predict.workflow import inference_workflow
from mrn_components.app.token_features import token_features
from mrn_components.data.dataset import collate_subjects
from mrn_components.system.errors import UnknownKeyError

ROIS = ["nm", "qsm1", "qsm2", "qsm3"]


@pytest.fixture
def run(tmp_path):
    return str(make_run(tmp_path / "run", seed=0))


@pytest.fixture
def features(run, tmp_path):
    def of(subjects, **options):
        options = {"encoder_weights": "none", "cache_dir": tmp_path / "cache", **options}
        return token_features(subjects, bundle=run, **options)

    return of


@torch.no_grad()
def by_hand(run, subject, roi, pooled):
    """Encode slice by slice, and average tokens one by one."""
    parser = inference_workflow("", run, bundle=run, encoder_weights="none").parser
    torch.manual_seed(1)
    encoder = parser.get_parsed_content("network").res.encoder.eval()
    crops = parser.get_parsed_content("preprocessing")(dict(subject))
    prepare = PrepareROIBatch(rois=parser.get_parsed_content("rois"))
    crops[f"inside_{roi}"] = (crops[f"mask_{roi}"] > 0).float()
    images, _ = prepare(collate_subjects([crops]))
    crops[roi] = crops[f"inside_{roi}"]
    inside, _ = prepare(collate_subjects([crops]))
    total, weights = 0.0, 0.0
    for image, mask in zip(images[roi][0][0], inside[roi][0][0], strict=True):
        (tokens,), (grid,) = encoder([image[None]])
        if pooled == "slices":
            total, weights = total + tokens[0], weights + 1
            continue
        rows, columns = (grid.height * 14, grid.width * 14)
        padded = np.zeros((rows, columns))
        top, left = (rows - mask.shape[0]) // 2, (columns - mask.shape[1]) // 2
        padded[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
        for y in range(grid.height):
            for x in range(grid.width):
                patch = padded[14 * y : 14 * y + 14, 14 * x : 14 * x + 14]
                weight = patch.mean() if pooled == "nuclei" else 1.0
                total = total + weight * tokens[1 + y * grid.width + x]
                weights += weight
    return (total / weights).tolist()


@pytest.mark.parametrize("pooled", ["nuclei", "patches", "slices"])
def test_columns_are_mean_tokens_of_the_rois(pooled, features, run, cohort):
    subjects = load_subjects(cohort)[:1]
    measured, roi_of, errors = features(subjects, pooled=pooled)
    assert errors == {}
    assert list(roi_of.values()) == [roi for roi in ROIS for _ in range(32)]
    own = measured["SUBJ_000"]
    assert list(own) == list(roi_of)
    for roi in ("nm", "qsm2"):
        got = [own[column] for column in own if roi_of[column] == roi]
        assert got == pytest.approx(by_hand(run, subjects[0], roi, pooled), abs=1e-5)


def test_tokens_are_computed_once(features, cohort, monkeypatch):
    subjects = load_subjects(cohort)[:1]
    first = features(subjects)
    monkeypatch.setattr(RES, "encode", None)
    assert features(subjects) == first


def test_a_subject_without_nm_lacks_its_columns_and_a_damaged_one_is_named(
    features, cohort, tmp_path
):
    data = shutil.copytree(cohort, tmp_path / "data")
    subjects = load_subjects(data)[:2]
    file = data / "SUBJ_001" / "QSM.nii.gz"
    file.write_bytes(file.read_bytes()[:4000])
    for key in ("nm", "mask_nm"):
        del subjects[0][key]
    measured, roi_of, errors = features(subjects)
    assert {roi_of[column] for column in measured["SUBJ_000"]} == {"qsm1", "qsm2", "qsm3"}
    assert list(errors) == ["SUBJ_001"]
    assert "QSM.nii.gz" in errors["SUBJ_001"]


def test_a_baseline_sees_them(features, run, cohort, tmp_path):
    options = {"bundle": run, "encoder_weights": "none", "num_folds": 2, "components": 3}
    out = baseline(cohort, tmp_path / "out", features="tokens", rois="choose", **options)
    numbers, *_ = features(load_subjects(cohort))
    rows = {row["subject"]: row for row in read_rows(out / "out_of_fold.csv")}
    assert list(rows) == list(numbers)
    record = json.loads((out / "crossval.json").read_text())
    assert record["model"].endswith(
        "tokens of a frozen encoder, pooled over the nuclei of each ROI"
    )
    assert record["features"] == 4 * 32
    assert {len(fold["picked"]) for fold in record["chosen"]} <= {1, 4}


def test_config_keys_are_for_tokens_alone(cohort, tmp_path):
    with pytest.raises(UnknownKeyError, match=r"config keys \['image_size'\] are for .*tokens"):
        baseline(cohort, tmp_path / "out", image_size=56)


def test_another_pooling_is_refused(features):
    with pytest.raises(ValueError, match=r"pooled must be one of .*, got 'max'"):
        features([], pooled="max")
