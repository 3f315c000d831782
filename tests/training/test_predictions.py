"""predictions.csv and metrics of an evaluation."""

import csv
import json
from types import SimpleNamespace

import pytest
import torch

from mrn_components import Classes, PredictionsHandler, Score
from mrn_components.data.predictions import read_predictions
from mrn_components.data.tables import read_labels
from mrn_components.data.target import read_target
from mrn_components.system.errors import FailedSubjectsError


def evaluate(handler, batches):
    handler.clear(None)
    for subjects, prob_pd, labels in batches:
        state = SimpleNamespace(
            batch={"subject": subjects},
            output={"prob_pd": torch.tensor(prob_pd), "label": torch.tensor(labels)},
        )
        handler.collect(SimpleNamespace(state=state))
    handler.write(None)


BATCHES = [(["S2", "S0"], [0.75, 0.5], [1, 0]), (["S1", "S3"], [0.25, 0.9], [0, 1])]


def test_rows_are_sorted_and_labelled(tmp_path):
    evaluate(PredictionsHandler(output_dir=tmp_path, labelled=True, trained_on={"S1"}), BATCHES)
    rows = list(csv.reader((tmp_path / "predictions.csv").open()))
    assert rows == [
        ["subject", "prob_pd", "class", "trained_on", "label"],
        ["S0", "0.500000", "0", "0", "0"],
        ["S1", "0.250000", "0", "1", "0"],
        ["S2", "0.750000", "1", "0", "1"],
        ["S3", "0.900000", "1", "0", "1"],
    ]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["accuracy"]["value"] == metrics["roc_auc"]["value"] == 1.0
    table = (tmp_path / "metrics.txt").read_text()
    assert "4 subjects" in table
    assert "sensitivity" in table
    assert "brier" in table


def test_without_labels_there_are_no_metrics(tmp_path):
    evaluate(PredictionsHandler(output_dir=tmp_path), BATCHES)
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.csv"]
    assert (
        (tmp_path / "predictions.csv").read_text().startswith("subject,prob_pd,class,trained_on\n")
    )


def test_a_second_evaluation_starts_anew(tmp_path):
    handler = PredictionsHandler(output_dir=tmp_path)
    evaluate(handler, BATCHES)
    evaluate(handler, [(["S9"], [0.1], [0])])
    rows = (tmp_path / "predictions.csv").read_text().splitlines()
    assert rows[1:] == ["S9,0.100000,0,0"]


def test_members_of_an_ensemble_and_views_have_columns(tmp_path):
    handler = PredictionsHandler(output_dir=tmp_path, labelled=True)
    output = {
        "prob_pd": torch.tensor([0.6]),
        "prob_pd_folds": torch.tensor([[0.4, 0.6, 0.8]]),
        "prob_pd_views": torch.tensor([[0.5, 0.7]]),
        "label": torch.tensor([1]),
    }
    state = SimpleNamespace(batch={"subject": ["S0"]}, output=output)
    handler.collect(SimpleNamespace(state=state))
    handler.write(None)
    (row,) = csv.DictReader((tmp_path / "predictions.csv").open())
    assert row == {
        "subject": "S0",
        "prob_pd": "0.600000",
        "class": "1",
        "prob_pd_fold0": "0.400000",
        "prob_pd_fold1": "0.600000",
        "prob_pd_fold2": "0.800000",
        "fold_agreement": "0.666667",
        "fold_std": "0.163299",
        "tta_std": "0.100000",
        "trained_on": "0",
        "label": "1",
    }
    assert list(row)[-1] == "label"


def test_masked_rois_and_flags_have_columns(tmp_path):
    handler = PredictionsHandler(output_dir=tmp_path)
    batch = {
        "subject": ["S0", "S1"],
        "missing_rois": [["nm", "qsm3"], []],
        "flags": [["nm: masked", "qsm3: masked"], []],
    }
    state = SimpleNamespace(batch=batch, output={"prob_pd": torch.tensor([0.6, 0.4])})
    handler.collect(SimpleNamespace(state=state))
    handler.write(None)
    first, second = csv.DictReader((tmp_path / "predictions.csv").open())
    assert (first["missing_rois"], first["flags"]) == ("nm;qsm3", "nm: masked; qsm3: masked")
    assert (second["missing_rois"], second["flags"]) == ("", "")


def batch(handler, subjects, output):
    state = SimpleNamespace(batch={"subject": subjects}, output=output)
    handler.collect(SimpleNamespace(state=state))


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_probability_that_is_no_number_fails_its_subject_and_the_others_go_on(tmp_path, wrong):
    handler = PredictionsHandler(output_dir=tmp_path, labelled=True)
    evaluate(handler, BATCHES)
    output = {"prob_pd": torch.tensor([0.2, wrong]), "label": torch.tensor([0, 1])}
    handler.clear(None)
    batch(handler, ["S0", "S1"], output)
    with pytest.raises(
        FailedSubjectsError, match=r"1 of 2 .*\n  S1: P\(PD\) is .*damaged.*diverged"
    ):
        handler.write(None)
    rows = list(csv.DictReader((tmp_path / "predictions.csv").open()))
    assert [row["prob_pd"] for row in rows] == ["0.200000", ""]
    assert rows[1]["status"] == "failed"
    assert "diverged" in rows[1]["error"]
    assert read_predictions(tmp_path / "predictions.csv") == {"S0": 0.2}
    assert not (tmp_path / "metrics.json").exists()  # of the evaluation before


def test_three_classes_have_a_column_each_and_a_score_has_its_own(tmp_path):
    target = Classes(names=["HC", "PD", "MSA"])
    handler = PredictionsHandler(output_dir=tmp_path, target=target, labelled=True)
    prob = torch.tensor([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]])
    folds = torch.tensor([[[0.6, 0.2, 0.2], [0.1, 0.5, 0.4]]] * 2)
    columns = {f"prob_{name}": prob[:, k] for k, name in enumerate(("hc", "pd", "msa"))}
    columns |= {f"prob_{n}_folds": folds[..., k] for k, n in enumerate(("hc", "pd", "msa"))}
    batch(handler, ["S0", "S1"], {**columns, "label": torch.tensor([1, 2])})
    handler.write(None)
    first, second = csv.DictReader((tmp_path / "predictions.csv").open())
    assert list(first)[:5] == ["subject", "prob_hc", "prob_pd", "prob_msa", "class"]
    assert (first["class"], first["label"], second["class"]) == ("PD", "PD", "MSA")
    assert (first["prob_msa_fold1"], first["fold_agreement"]) == ("0.400000", "0.500000")
    assert first["fold_std"] == "0.150000"  # of the positive class
    table = tmp_path / "predictions.csv"
    assert read_target(tmp_path) == target
    assert read_predictions(table, target) == {"S0": [0.2, 0.5, 0.3], "S1": [0.1, 0.1, 0.8]}
    assert read_labels(table, target) == {"S0": 1, "S1": 2}
    assert "roc_auc_msa" in json.loads((tmp_path / "metrics.json").read_text())

    target = Score(name="updrs", unit="points", range=[0, 60])
    handler = PredictionsHandler(output_dir=tmp_path, target=target, labelled=True)
    label = torch.tensor([27.3, 5.0])
    batch(handler, ["S0", "S1"], {"updrs": torch.tensor([12.5, 8.0]), "label": label})
    handler.write(None)
    assert table.read_text().splitlines() == [
        "subject,updrs,trained_on,label",
        "S0,12.500000,0,27.300000",
        "S1,8.000000,0,5.000000",
    ]
    assert read_target(tmp_path) == target
    assert json.loads((tmp_path / "metrics.json").read_text())["mae"]["value"] == pytest.approx(8.9)

    evaluate(PredictionsHandler(output_dir=tmp_path), BATCHES)
    assert read_target(tmp_path) == Classes()
    assert not (tmp_path / "target.json").exists()
