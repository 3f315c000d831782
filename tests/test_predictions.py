"""predictions.csv and metrics of an evaluation."""

import csv
import json
from types import SimpleNamespace

import torch

from mrn_components import PredictionsHandler


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
        ["subject", "prob_pd", "class", "label", "trained_on"],
        ["S0", "0.500000", "0", "0", "0"],
        ["S1", "0.250000", "0", "0", "1"],
        ["S2", "0.750000", "1", "1", "0"],
        ["S3", "0.900000", "1", "1", "0"],
    ]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["accuracy"]["value"] == metrics["roc_auc"]["value"] == 1.0
    assert "4 subjects" in (tmp_path / "metrics.txt").read_text()


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
