"""Three classes, and a score, by YAML alone: trained, predicted, evaluated and reported."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import accuracy_score, f1_score, mean_absolute_error, roc_auc_score
from tiny_bundles import train
from tiny_run import make_datalist, read_rows

from mrn_components.app.check import check
from mrn_components.app.contributions import contributions
from mrn_components.app.evaluate import evaluate
from mrn_components.app.predict import predict
from mrn_components.app.report.reports import write_reports
from mrn_components.data.target import read_target

# Overlays: what a researcher writes into a file beside train.yaml.
THREE = "target: {_target_: mrn_components.Classes, names: [HC, PD, MSA], positive: MSA}\n"
UPDRS = "target: {_target_: mrn_components.Score, name: updrs, unit: points, range: [0, 60]}\n"
LABELS = {"three": lambda n: ("HC", "PD", "MSA")[n % 3], "updrs": lambda n: 6.5 * n}


@pytest.fixture(scope="module", params=["three", "updrs"])
def trained(request, cohort, tmp_path_factory):
    """What is predicted, the run of fold 0, and a datalist of its validation subjects."""
    kind = request.param
    folder = tmp_path_factory.mktemp(kind)
    (folder / "mine.yaml").write_text(THREE if kind == "three" else UPDRS)
    data = make_datalist(cohort, folder / "six.json", count=6)
    subjects = [entry["subject"] for entry in json.loads(Path(data).read_text())]
    labels = {name: LABELS[kind](number) for number, name in enumerate(subjects)}
    (folder / "labels.csv").write_text("".join(f"{s},{label}\n" for s, label in labels.items()))
    run = folder / "run"
    table = str(folder / "labels.csv")
    trainer = train(data, run, "mrn", [str(folder / "mine")], num_folds=2, labels=table)
    assert math.isfinite(trainer.state.metrics["loss"])
    files = {"nm": "NM", "qsm": "QSM", "mask_nm": "NM_mask", "mask_qsm": "QSM_mask"}
    entries = [
        {"subject": name, "label": labels[name]}
        | {key: str(cohort / name / f"{file}.nii.gz") for key, file in files.items()}
        for name in json.loads((run / "folds.json").read_text())["folds"][0]
    ]
    (folder / "validation.json").write_text(json.dumps(entries))
    out = folder / "out"
    predict(folder / "validation.json", out, bundle=str(run), report=True, num_workers=0)
    return kind, run, folder / "validation.json", out


def test_three_classes_and_scores_are_predicted_and_evaluated(trained):
    kind, _, data, out = trained
    rows = read_rows(out / "predictions.csv")
    assert {row["status"] for row in rows} == {"ok"}
    metrics = json.loads((evaluate(out, data) / "metrics.json").read_text())
    figures = {path.stem for path in (out / "evaluation").glob("*.svg")}
    labels = {entry["subject"]: entry["label"] for entry in json.loads(data.read_text())}
    truth = [labels[row["subject"]] for row in rows]
    if kind == "updrs":
        values = [float(row["updrs"]) for row in rows]
        assert "class" not in rows[0]
        assert metrics["mae"]["value"] == pytest.approx(mean_absolute_error(truth, values))
        assert metrics["spearman"]["value"] == pytest.approx(spearmanr(truth, values)[0])
        assert figures == {"scatter", "difference"}
        return
    names = read_target(out).names
    prob = np.array([[float(row[f"prob_{name.lower()}"]) for name in names] for row in rows])
    assert prob.sum(axis=1) == pytest.approx(1, abs=1e-5)
    found = [names[number] for number in prob.argmax(axis=1)]
    assert [row["class"] for row in rows] == found
    assert metrics["accuracy"]["value"] == accuracy_score(truth, found)
    assert metrics["f1_macro"]["value"] == pytest.approx(f1_score(truth, found, average="macro"))
    numbers = [names.index(label) for label in truth]
    auc = roc_auc_score(numbers, prob / prob.sum(axis=1, keepdims=True), multi_class="ovr")
    assert metrics["roc_auc"]["value"] == pytest.approx(auc)
    assert figures == {"roc", "reliability", "confusion"}


def test_their_pages_name_what_is_predicted(trained):
    kind, _, data, out = trained
    index = write_reports(out, data).read_text()
    page = next((out / "subjects").glob("*/report.html")).read_text()
    evaluate(out, data)
    cohort = (out / "evaluation" / "report.html").read_text()
    title = "updrs (points)" if kind == "updrs" else "P(MSA)"
    assert all(title in text for text in (index, page, cohort))
    assert "P(PD)" not in re.sub(r"<style>.*?</style>", "", index, flags=re.S)
    if kind == "updrs":
        assert "on a scale from 0 to 60" in page
        assert "Mean absolute error" in cohort
    else:
        assert "is the most probable class" in page
        for name in ("HC", "PD", "MSA"):  # a bar and a row each
            assert f'<th scope="row">{name}</th><td><div class="folds"' in page
            assert f'<th scope="row">{name}</th><td class="number">' in cohort
        assert "Each class against the rest" in cohort


def test_contributions_are_of_the_positive_class_or_of_the_score(trained, tmp_path):
    kind, run, data, out = trained
    table = contributions(data, tmp_path, bundle=str(run), num_workers=0, require_labels=True)
    lead = "updrs" if kind == "updrs" else "prob_msa"
    predicted = {row["subject"]: float(row[lead]) for row in read_rows(out / "predictions.csv")}
    for row in read_rows(table):
        assert float(row[lead]) == pytest.approx(predicted[row["subject"]], abs=1e-4)
        total = sum(float(row[roi]) for roi in ("nm", "qsm1", "qsm2", "qsm3"))
        assert total == pytest.approx(float(row[lead]) - float(row["baseline"]), abs=1e-4)
    state = read_rows(tmp_path / "table.csv")[0]  # nothing is masked
    metrics = json.loads((evaluate(out, data) / "metrics.json").read_text())
    for name in read_target(out).main_metrics:  # predictions.csv has six decimals
        assert float(state[name] or "nan") == pytest.approx(
            np.float64(metrics[name]["value"]), abs=1e-3, nan_ok=True
        )
    text = (tmp_path / "table.md").read_text()
    assert "paper" not in text  # which has HC and PD alone
    assert ("Pearson's correlation (95 % interval)" in text) == (kind == "updrs")


def test_a_check_by_the_bundle_reads_its_labels(trained):
    kind, run, data, _ = trained
    report = check(data, bundle=str(run), workers=1)
    assert "labels-line" not in {finding.id for finding in report.findings}
    assert ("MSA" in report.counts) == (kind == "three")
