"""What an ensemble carries of its out-of-fold predictions, and what it says of new subjects."""

import json
import logging

import numpy as np
import pytest
import torch

from mrn_components import Classes, Score
from mrn_components.app.calibration import (
    CALIBRATION,
    calibrate_rows,
    describe_calibration,
    find_calibration,
    fit_calibration,
    read_calibration,
)
from mrn_components.app.inspect.contents import content_differences
from mrn_components.data import DataLeakageError
from mrn_components.data.ledger import describe_ledger, find_trained_on, new_ledger
from mrn_components.data.predictions import (
    read_calibrated,
    read_intervals,
    read_sets,
    write_predictions,
)
from mrn_components.data.target import HC_PD
from mrn_components.data.weight_records import append_record
from mrn_components.metrics.conformal import left_out_sets
from mrn_components.metrics.conformal_intervals import left_out_intervals, score_intervals
from mrn_components.metrics.recalibration import SCORES, fit_recalibration, recalibrate_folds

THREE = Classes(names=["HC", "PD", "MSA"])
UPDRS = Score(name="updrs", range=[0, 60])
OF_SCORE = {
    "target": {"kind": "Score"},
    "method": "line",
    "intercepts": [0.0],
    "folds": [{"weights": "a", "own": {"score": [1.0]}}],
}


def study(target=HC_PD, count=60, folds=3, seed=1):
    """Out-of-fold rows of a network that sounds too sure, and the labels."""
    rng = np.random.default_rng(seed)
    kinds = len(target.names)
    labels = np.arange(count) % kinds
    scores = rng.normal(0, 1, (count, kinds)) + np.eye(kinds)[labels]
    prob = np.exp(3 * scores) / np.exp(3 * scores).sum(axis=1, keepdims=True)
    rows = []
    for place, own in enumerate(prob.round(6)):
        cells = {name: float(value) for name, value in target.in_tables(own).items()}
        row = {"subject": f"S{place:03d}", "fold": place * folds // count, **cells}
        value = list(cells.values()) if len(cells) > 1 else cells[target.lead]
        row |= target.decide(cells) | {"label": target.shown(labels[place]), "value": value}
        rows.append(row)
    return rows, dict(zip([row["subject"] for row in rows], labels.tolist(), strict=True))


def score_study(count=60, folds=3, seed=1):
    """Out-of-fold rows of a network whose scores lie twice too far apart, and the labels."""
    rng = np.random.default_rng(seed)
    labels = rng.uniform(10, 50, count).round()
    scores = np.clip(30 + 2 * (labels - 30 + rng.normal(0, 6, count)), 0, 60).round(6)
    rows = [
        {"subject": f"S{i:03d}", "fold": i * folds // count, "updrs": s, "value": s, "label": y}
        for i, (s, y) in enumerate(zip(scores.tolist(), labels.tolist(), strict=True))
    ]
    return rows, {row["subject"]: row["label"] for row in rows}


def write_weights(folder, rows, folds=3, leaked=()):
    """Weight files that say whom they were trained on: the other folds, and who is ``leaked``."""
    files = []
    for fold in range(folds):
        seen = [row["subject"] for row in rows if row["fold"] != fold or row["subject"] in leaked]
        folder.mkdir(exist_ok=True)
        torch.save({"number": torch.tensor(fold)}, folder / f"fold{fold}.pt")
        ledger = describe_ledger(new_ledger(frozenset(f"id {name}" for name in seen)))
        append_record(folder / f"fold{fold}.pt", "training_subjects.json", ledger)
        files.append(folder / f"fold{fold}.pt")
    return files


@pytest.fixture
def fitted(tmp_path):
    """{"weights", "calibration"} of a study of HC and PD, with the file beside the weights."""
    rows, _ = study()
    write_predictions(tmp_path / "out_of_fold.csv", rows, HC_PD)
    weights = write_weights(tmp_path / "models", rows)
    calibration = fit_calibration(tmp_path / "out_of_fold.csv", weights)
    content = json.dumps(describe_calibration(calibration))
    (tmp_path / "models" / CALIBRATION).write_text(content)
    return {"weights": weights, "calibration": calibration, "rows": rows}


def test_the_file_holds_what_was_fitted_and_no_subject(fitted, tmp_path):
    text = (tmp_path / "models" / CALIBRATION).read_text()
    assert "S00" not in text
    read = read_calibration(tmp_path / "models" / CALIBRATION)
    ours = fitted["calibration"]
    assert describe_calibration(read) == describe_calibration(ours)
    assert (read.recalibration, read.weights) == (ours.recalibration, ours.weights)
    assert read.recalibration.slope < 0.8
    assert read.sizes == {"HC": 30, "PD": 30}
    names = [{"subject": "S007"}, {"subject": "S999"}]
    assert find_trained_on(names, [read.ledger]) == {"S007"}


def test_a_subject_is_mapped_network_by_network(fitted):
    calibration = fitted["calibration"].at(0.8)
    row = calibration.apply({"prob_pd": 0.9, "prob_pd_folds": [0.99, 0.9, 0.81]})
    slope, (_, intercept) = calibration.recalibration.slope, calibration.recalibration.intercepts
    odds = np.log(np.array([0.99, 0.9, 0.81]) / [0.01, 0.1, 0.19])
    expected = 1 / (1 + np.exp(-slope * odds - intercept))
    assert row["prob_pd_calibrated"] == pytest.approx(expected.mean())
    assert row["prob_pd_calibrated_folds"] == pytest.approx(expected.tolist())
    assert (row["set"], row["set_level"]) == (["PD"], 0.8)
    sets = [calibration.apply({"prob_pd_folds": [p] * 3})["set"] for p in (0.001, 0.5, 0.999)]
    assert sets[0] == ["HC"]
    assert sets[2] == ["PD"]
    assert sets[1] not in (["HC"], ["PD"])


def test_the_order_of_a_single_network_stays_and_all_agree_at_its_ends(fitted):
    calibration = fitted["calibration"]
    values = [
        calibration.apply({"prob_pd_folds": [p] * 3})["prob_pd_calibrated"]
        for p in np.linspace(0.001, 0.999, 50)
    ]
    assert (np.diff(values) > 0).all()


def test_more_than_two_classes(tmp_path):
    rows, _ = study(THREE, 90)
    write_predictions(tmp_path / "out_of_fold.csv", rows, THREE)
    calibration = fit_calibration(tmp_path / "out_of_fold.csv", write_weights(tmp_path, rows))
    (tmp_path / CALIBRATION).write_text(json.dumps(describe_calibration(calibration)))
    calibration = read_calibration(tmp_path / CALIBRATION).at(None)
    assert (calibration.target, calibration.level) == (THREE, 0.9)
    folds = {"prob_hc_folds": [0.1] * 3, "prob_pd_folds": [0.2] * 3, "prob_msa_folds": [0.7] * 3}
    cells = calibration.apply(folds)
    mapped = [cells[f"{column}_calibrated"] for column in THREE.columns]
    assert sum(mapped) == pytest.approx(1)
    assert mapped == sorted(mapped)
    assert mapped[2] < 0.7
    assert "MSA" in cells["set"]


def test_rows_of_a_cross_validation_are_mapped_by_the_other_folds(tmp_path):
    rows, labels = study()
    added, facts = calibrate_rows(rows, labels, HC_PD)
    prob = HC_PD.by_class([row["prob_pd"] for row in rows])
    truth, folds = (np.array([*each]) for each in (labels.values(), [r["fold"] for r in rows]))
    expected = recalibrate_folds(prob, truth, folds)[:, 1]
    assert [row["prob_pd_calibrated"] for row in added] == expected.tolist()
    sets = left_out_sets(prob, truth, folds, 0.9)
    assert [row["set"] for row in added] == [
        [name for name, inside in zip(HC_PD.names, own, strict=True) if inside] for own in sets
    ]
    found, held_out = fit_recalibration(prob, truth, folds)
    assert facts["calibration"]["slope"] == found.slope
    assert facts["calibration"]["loss"] == "cross_entropy"
    assert facts["calibration"]["left_out"] == held_out

    table = tmp_path / "out_of_fold.csv"
    write_predictions(table, added, HC_PD)
    header = table.read_text().splitlines()[0]
    assert header == "subject,fold,prob_pd,class,prob_pd_calibrated,set,set_level,label"
    read = read_calibrated(table, HC_PD)
    assert [read[row["subject"]] for row in added] == pytest.approx(expected.tolist(), abs=1e-6)
    assert read_sets(table, HC_PD) == ({row["subject"]: row["set"] for row in added}, 0.9)


@pytest.mark.parametrize(("kind", "column"), [("classes", "set"), ("score", "updrs_low")])
def test_few_subjects_have_no_sets(kind, column):
    target = HC_PD if kind == "classes" else UPDRS
    # 6 or 7 of a class, or 6 scores, in two folds of three
    rows, labels = study(count=20) if kind == "classes" else score_study(count=9)
    added, facts = calibrate_rows(rows, labels, target)
    assert f"{target.lead}_calibrated" in added[0]
    assert column not in added[0]
    assert facts


def test_scores_are_drawn_together_and_have_intervals(tmp_path):
    rows, labels = score_study()
    added, facts = calibrate_rows(rows, labels, UPDRS)
    scores = np.array([row["value"] for row in rows])
    truth, folds = (np.array([*each]) for each in (labels.values(), [r["fold"] for r in rows]))
    expected = np.clip(recalibrate_folds(scores, truth, folds, SCORES), 0, 60)
    assert [row["updrs_calibrated"] for row in added] == expected.tolist()
    assert np.square(expected - truth).mean() < 0.6 * np.square(scores - truth).mean()
    ends = np.clip(left_out_intervals(scores, truth, folds, 0.9), 0, 60)
    assert [[row["updrs_low"], row["updrs_high"]] for row in added] == ends.tolist()
    assert facts["calibration"]["method"] == "line"
    assert facts["calibration"]["loss"] == "squared_error"
    assert 0.4 < facts["calibration"]["slope"] < 0.6  # they lie twice too far apart

    table = tmp_path / "out_of_fold.csv"
    write_predictions(table, added, UPDRS)
    header = table.read_text().splitlines()[0]
    assert header == "subject,fold,updrs,updrs_calibrated,updrs_low,updrs_high,set_level,label"
    read, level = read_intervals(table, UPDRS)
    assert level == 0.9
    assert np.array([*read.values()]) == pytest.approx(ends, abs=1e-6)

    weights = write_weights(tmp_path / "models", rows)
    fitted = describe_calibration(fit_calibration(table, weights))
    (tmp_path / "models" / CALIBRATION).write_text(json.dumps(fitted))
    found = find_calibration(weights, UPDRS, 0.8)
    assert found.sizes == {"updrs": 60}
    new = np.array([10.0, 30.0, 32.0])  # of the three networks
    cells = found.apply({"updrs": 24.0, "updrs_folds": new.tolist()})
    mapped = found.recalibration.apply(new)
    assert cells["updrs_calibrated"] == pytest.approx(mapped.mean())
    low, high = score_intervals(found.own, mapped[:, None], 0.8)[0]
    assert (cells["updrs_low"], cells["updrs_high"], cells["set_level"]) == (low, high, 0.8)
    assert low < cells["updrs_calibrated"] < high
    with pytest.raises(ValueError, match=r"at least 99 calibration subjects, .* had 60 of updrs"):
        find_calibration(weights, UPDRS, 0.99)


# ---- what is refused


def test_a_network_that_saw_a_subject_of_its_fold_is_refused_by_name(tmp_path):
    rows, _ = study()
    write_predictions(tmp_path / "out_of_fold.csv", rows, HC_PD)
    weights = write_weights(tmp_path, rows, leaked=("S021", "S022"))
    with pytest.raises(DataLeakageError, match=r"fold1.pt was trained on S021, S022, which its"):
        fit_calibration(tmp_path / "out_of_fold.csv", weights)


def test_other_folds_are_refused(tmp_path):
    rows, _ = study()
    write_predictions(tmp_path / "out_of_fold.csv", rows, HC_PD)
    weights = write_weights(tmp_path, rows)
    with pytest.raises(
        ValueError, match=r"has the folds \['0', '1', '2'\], expected .* 2 networks"
    ):
        fit_calibration(tmp_path / "out_of_fold.csv", weights[:2])


def test_a_level_that_needs_more_subjects_says_how_many(fitted):
    weights = fitted["weights"]
    assert find_calibration(weights, HC_PD, 0.95).level == 0.95
    assert find_calibration(weights, HC_PD, None).level == 0.9
    message = "--set_level 0.99 needs at least 99 .* each class, .* had 30 of HC, 30 of PD; choose"
    with pytest.raises(ValueError, match=message):
        find_calibration(weights, HC_PD, 0.99)
    with pytest.raises(ValueError, match=r"set_level must lie between 0 and 1, .* got 90"):
        find_calibration(weights, HC_PD, 90)


def test_other_weights_are_not_calibrated(fitted, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    weights = fitted["weights"]
    assert find_calibration(weights[:1], HC_PD, None) is None
    assert find_calibration(weights[::-1], HC_PD, None) is None
    assert "was fitted to other weights, and is not used" in caplog.text
    (tmp_path / "models" / CALIBRATION).unlink()
    assert find_calibration(weights, HC_PD, None) is None
    message = r"--set_level needs .*models/calibration.json, fitted .*; `mrn crossval` writes it"
    with pytest.raises(ValueError, match=message):
        find_calibration(weights, HC_PD, 0.9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slope": 1e9}, "slope 1000000000.0 are none of a fit"),
        ({"slope": "$print(1)"}, "could not convert"),
        ({"method": "eval"}, "method 'eval'"),
        ({"intercepts": [0.0]}, "must be 2 numbers"),
        ({"intercepts": [0.0, 1e300]}, "must be 2 numbers"),
        ({"folds": []}, "needs folds"),
        ({"folds": [{"weights": "a", "own": {"HC": [0.5], "PD": [1.5]}}]}, "must lie in 0 to 1"),
        ({"folds": [{"weights": "a", "own": {"HC": [0.5]}}]}, "PD"),
        ({"subjects": {"salt": "a"}}, "sha256"),
        ({"target": {"kind": "os.system"}}, "names no target"),
        ({"target": {"kind": "Score"}}, "score"),
        (OF_SCORE | {"method": "temperature"}, "method 'temperature'"),
        (OF_SCORE | {"intercepts": [0.0, 1.0]}, "must be 1 numbers"),
        (OF_SCORE | {"intercepts": ["inf"]}, "must be 1 numbers"),
        (OF_SCORE | {"folds": [{"weights": "a", "own": {"score": [-1]}}]}, "must lie in 0 to inf"),
        (OF_SCORE | {"folds": [{"weights": "a", "own": {"score": ["inf"]}}]}, "lie in 0 to inf"),
    ],
)
def test_a_foreign_file_is_data_or_is_refused(fitted, tmp_path, change, message):
    path = tmp_path / "models" / CALIBRATION
    assert not [d for d in content_differences(tmp_path, []) if d.file.endswith(CALIBRATION)]
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=rf"{CALIBRATION} is no calibration .*{message}"):
        read_calibration(path)
    (found,) = [d for d in content_differences(tmp_path, []) if d.file.endswith(CALIBRATION)]
    assert found.effect == "refused"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["S0,5,2,70,0.9"], "line 2: updrs_high must be a number from 0 to 60, got '70'"),
        (["S0,5,20,10,0.9"], "line 2: updrs_low must not be above updrs_high"),
        (["S0,5,2,7,0.9", "S1,5,,,"], r"the column updrs_low is empty for 1 .* \['S1'\], and not"),
        (["S0,5,2,7,0.9", "S1,5,2,7,0.8"], r"set_level must be one .*\['0.8', '0.9'\]"),
    ],
)
def test_faulty_intervals_are_refused(tmp_path, rows, message):
    table = tmp_path / "predictions.csv"
    table.write_text("\n".join(["subject,updrs,updrs_low,updrs_high,set_level", *rows]) + "\n")
    with pytest.raises(ValueError, match=message):
        read_intervals(table, UPDRS)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["S0,0.5,{HC;MSA},0.9"], r"line 2: set must be like \{HC\}, .* got '\{HC;MSA\}'"),
        (["S0,0.5,HC,0.9"], "got 'HC'"),
        (["S0,0.5,{HC},0.9", "S1,0.5,{},0.8"], r"set_level must be one .*\['0.8', '0.9'\]"),
        (["S0,0.5,{HC},high"], r"set_level must be one number .*\['high'\]"),
        (["S0,0.5,{HC},7"], r"set_level must be one number between 0 and 1 .*\['7'\]"),
        (["S0,0.5,{HC},0.9", "S1,0.5,,"], r"the column set is empty for 1 .* \['S1'\], and not"),
    ],
)
def test_faulty_sets_are_refused(tmp_path, rows, message):
    table = tmp_path / "predictions.csv"
    table.write_text("\n".join(["subject,prob_pd,set,set_level", *rows]) + "\n")
    with pytest.raises(ValueError, match=message):
        read_sets(table, HC_PD)


def test_only_what_was_predicted_has_to_be_calibrated(tmp_path):
    table = tmp_path / "predictions.csv"
    table.write_text(
        "subject,status,prob_pd,prob_pd_calibrated,set,set_level\n"
        "S0,ok,0.5,0.5,{HC},0.9\nS1,failed,,,,\n"
    )
    assert read_calibrated(table, HC_PD) == {"S0": 0.5}
    assert read_sets(table, HC_PD) == ({"S0": ["HC"]}, 0.9)
    table.write_text(table.read_text() + "S2,ok,0.7,,,\n")
    with pytest.raises(ValueError, match=r"prob_pd_calibrated is empty for 1 .* \['S2'\], and not"):
        read_calibrated(table, HC_PD)
    table.write_text("subject,status,prob_pd,prob_pd_calibrated,set,set_level\nS2,ok,0.7,,,\n")
    assert read_calibrated(table, HC_PD) == {}
    assert read_sets(table, HC_PD) == ({}, None)
