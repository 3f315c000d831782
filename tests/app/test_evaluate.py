"""``mrn evaluate``: the files it leaves and what it refuses."""

import hashlib
import json

import numpy as np
import pytest
from sklearn.metrics import (
    brier_score_loss,
    log_loss,
    mean_absolute_error,
    mean_squared_error,
    root_mean_squared_error,
)
from tiny_run import write_predictions

from mrn_components.app.evaluate import evaluate
from mrn_components.app.records import empty_record
from mrn_components.data import DataLeakageError
from mrn_components.data.predictions import write_predictions as write_table
from mrn_components.data.target import HC_PD, Classes, Score
from mrn_components.metrics import compare_diagnoses, diagnosis_metrics, needed_subjects
from mrn_components.system.files import write_text

FIGURES = ("roc", "precision", "reliability", "decision", "confusion")
FILES = sorted(
    ["metrics.json", "metrics.txt", "report.html"]
    + [f"{name}.{kind}" for name in FIGURES for kind in ("png", "svg")]
)


@pytest.fixture
def study(tmp_path):
    """Labels and two models' predictions of 40 subjects: (folder, truth, a, b)."""
    rng = np.random.default_rng(8)
    truth = np.arange(40) % 2
    a = np.clip(rng.normal(0.35 + 0.3 * truth, 0.2), 0, 1).round(6)
    b = np.clip(a + rng.normal(0, 0.2, 40), 0, 1).round(6)
    write_predictions(tmp_path / "mrn", a)
    write_predictions(tmp_path / "baseline", b)
    lines = [f"S{i:02d},{label}" for i, label in enumerate(truth)]
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    return tmp_path, truth, a, b


def test_one_model(study):
    folder, truth, a, _ = study
    output = evaluate(folder / "mrn", folder / "labels.csv")
    assert output == folder / "mrn" / "evaluation"
    assert sorted(path.name for path in output.iterdir()) == FILES
    report = json.loads((output / "metrics.json").read_text())
    metrics = diagnosis_metrics(a, truth)
    assert {name: report[name] for name in metrics} == metrics
    assert report["confusion"] == HC_PD.confusion(a, truth)
    assert (report["n"], report["prevalence"], report["name"]) == (40, 0.5, "mrn")
    assert report["confidence"] == 0.95
    assert report["bootstrap"] == {"seed": 1, "resamples": 2000}
    table = folder / "mrn" / "predictions.csv"
    assert report["predictions"]["sha256"] == hashlib.sha256(table.read_bytes()).hexdigest()
    assert {"scipy", "scikit-learn", "matplotlib", "python"} <= set(report["versions"])
    assert "comparison" not in report
    assert "against" not in report
    text = (output / "metrics.txt").read_text()
    assert text.startswith("40 subjects, 20 of them PD; research use only\n\nmrn\n")
    assert "left out" not in text


@pytest.mark.usefixtures("no_figures")
def test_geometry_alone_stands_beside_the_network(study):
    """Of the records that ``mrn predict`` leaves beside its table."""
    folder, truth, *_ = study
    assert "geometry" not in evaluate_to_json(folder)
    for number, label in enumerate(truth):
        subject = folder / "mrn" / "subjects" / f"S{number:02d}"
        subject.mkdir(parents=True)
        box = {"image": "nm", "start": [10, 20, 3], "stop": [40 + 2 * int(label), 40 + number, 9]}
        record = empty_record(subject.name) | {"run": "any", "boxes": {"nm": box}}
        (subject / "prediction.json").write_text(json.dumps(record))
    found = evaluate_to_json(folder)["geometry"]
    assert found["auc"] == 1.0
    assert found["fields"]["nm size x"] == 1.0
    assert found["reason"] == "4 fields that differ between subjects"
    sentence = "sizes and places of the crops alone: AUC 1.00 (4 fields"
    assert sentence in (folder / "mrn" / "evaluation" / "metrics.txt").read_text()
    assert "crops alone" in (folder / "mrn" / "evaluation" / "report.html").read_text()

    (subject / "prediction.json").write_text('{"subject": "S39", "boxes": {')  # the last one's
    assert evaluate_to_json(folder)["geometry"]["auc"] == 1.0


def evaluate_to_json(folder, **options):
    output = evaluate(folder / "mrn", folder / "labels.csv", **options)
    return json.loads((output / "metrics.json").read_text())


def test_two_models(study):
    folder, truth, a, b = study
    output = evaluate(
        folder / "mrn",
        folder / "labels.csv",
        against=folder / "baseline",
        names=["MRN", "SERes10"],
        output=folder / "out",
        seed=5,
    )
    report = json.loads((output / "metrics.json").read_text())
    assert report["comparison"] == compare_diagnoses(a, b, truth)
    against = report["against"]
    metrics = diagnosis_metrics(b, truth, seed=5)
    assert {name: against[name] for name in metrics} == metrics
    assert (report["name"], against["name"]) == ("MRN", "SERes10")
    text = (output / "metrics.txt").read_text()
    assert "MRN minus SERes10" in text
    assert "separable at 5 %" in text


@pytest.mark.usefixtures("no_figures")
def test_the_order_of_the_rows_does_not_matter(study):
    folder, *_ = study
    first = json.loads(
        (evaluate(folder / "mrn", folder / "labels.csv") / "metrics.json").read_text()
    )
    table = folder / "mrn" / "predictions.csv"
    header, *rows = table.read_text().splitlines()
    table.write_text("\n".join([header, *reversed(rows)]) + "\n")
    second = json.loads(
        (evaluate(folder / "mrn", folder / "labels.csv") / "metrics.json").read_text()
    )
    assert first["predictions"].pop("sha256") != second["predictions"].pop("sha256")
    assert first == second


def test_two_runs_give_the_same_bytes(study):
    folder, *_ = study
    for name in ("first", "second"):
        evaluate(
            folder / "mrn",
            folder / "labels.csv",
            against=folder / "baseline",
            output=folder / name,
        )
    for name in FILES:
        first, second = (folder / run / name for run in ("first", "second"))
        assert first.read_bytes() == second.read_bytes(), name
        assert str(folder) not in first.read_text(errors="replace"), name  # files are mailed


@pytest.mark.usefixtures("no_figures")
def test_labels_may_stand_in_the_predictions(study):
    folder, truth, a, _ = study
    table = folder / "mrn" / "predictions.csv"
    header, *rows = table.read_text().splitlines()
    labelled = [f"{row},{label}" for row, label in zip(rows, truth, strict=True)]
    table.write_text("\n".join([f"{header},label", *labelled]) + "\n")
    report = json.loads((evaluate(table) / "metrics.json").read_text())
    assert report["accuracy"] == diagnosis_metrics(a, truth)["accuracy"]


@pytest.mark.usefixtures("no_figures")
def test_a_cross_validation_keeps_its_page(study):
    """Its folder stands for its table, whose results lie beside what ``mrn crossval`` wrote."""
    folder, truth, a, _ = study
    folds = folder / "cv"
    write_predictions(folds, a)
    (folds / "predictions.csv").rename(folds / "out_of_fold.csv")
    write_text(folds / "evaluation" / "report.html", "the folds")
    output = evaluate(folds, folder / "labels.csv")
    assert output == folds / "out_of_fold_evaluation"
    assert (folds / "evaluation" / "report.html").read_text() == "the folds"
    assert json.loads((output / "metrics.json").read_text())["n"] == len(truth)


@pytest.mark.usefixtures("no_figures")
def test_a_threshold_comes_from_other_subjects(study):
    folder, truth, a, _ = study
    others = folder / "cv" / "out_of_fold.csv"
    rows = [("T1", 0.1, 0), ("T2", 0.3, 0), ("T3", 0.35, 1), ("T4", 0.9, 1)]
    lines = [f"{name},{prob},{label}" for name, prob, label in rows]
    write_text(others, "\n".join(["subject,prob_pd,label", *lines]) + "\n")
    report = evaluate_to_json(folder, threshold_from=others.parent)
    assert report["threshold_from"]["value"] == pytest.approx(0.325)
    assert report["threshold_from"]["subjects"] == 4
    found = (a > 0.325) == truth
    assert report["accuracy_at_threshold"]["value"] == found.mean()
    assert report["sensitivity_at_threshold"]["value"] == found[truth == 1].mean()
    text = (folder / "mrn" / "evaluation" / "metrics.txt").read_text()
    assert "threshold of 4 other subjects: 0.325" in text
    write_text(others, others.read_text().replace("T2", "S07"))
    with pytest.raises(DataLeakageError, match=r"has 1 of the subjects .*\['S07'\]"):
        evaluate_to_json(folder, threshold_from=others)


@pytest.mark.usefixtures("no_figures")
def test_how_many_subjects_an_interval_takes(study):
    folder, truth, a, _ = study
    needed = evaluate_to_json(folder, half_width=0.1)["needed_subjects"]
    assert needed == needed_subjects(diagnosis_metrics(a, truth), 40, 0.1)
    with pytest.raises(ValueError, match=r"half_width must be above 0 and below 0.5, got 5"):
        evaluate_to_json(folder, half_width=5)


@pytest.mark.usefixtures("no_figures")
def test_unequal_subjects_are_refused_or_left_out(study):
    folder, truth, a, _ = study
    write_predictions(folder / "mrn", a[:38], extra=[("X1", "0.5")])
    message = r"mrn/predictions.csv lacks \['S38', 'S39'\]\n.*labels.csv lacks \['X1'\]"
    with pytest.raises(ValueError, match=message) as error:
        evaluate(folder / "mrn", folder / "labels.csv")
    error.match("the 38 that all tables name with --partial True")
    output = evaluate(folder / "mrn", folder / "labels.csv", partial=True)
    report = json.loads((output / "metrics.json").read_text())
    assert report["n"] == 38
    assert report["left_out"] == ["S38", "S39", "X1"]
    assert report["accuracy"] == diagnosis_metrics(a[:38], truth[:38])["accuracy"]
    assert "3 subjects are left out" in (output / "metrics.txt").read_text()


def test_no_common_subject_is_refused(study):
    folder, *_ = study
    (folder / "labels.csv").write_text("Z0,0\nZ1,1\n")
    with pytest.raises(ValueError, match="have no subject in common"):
        evaluate(folder / "mrn", folder / "labels.csv", partial=True)


def test_a_model_is_not_scored_on_what_it_was_trained_on(study):
    folder, *_ = study
    table = folder / "baseline" / "predictions.csv"
    table.write_text(table.read_text().replace("prob_pd\n", "trained_on\n"))
    lines = [f"S{i:02d},0.5,{int(i == 7)}" for i in range(40)]
    table.write_text("\n".join(["subject,prob_pd,trained_on", *lines]) + "\n")
    with pytest.raises(DataLeakageError, match=r"\['S07'\]"):
        evaluate(folder / "mrn", folder / "labels.csv", against=table)
    assert not (folder / "mrn" / "evaluation").exists()


@pytest.mark.parametrize("names", [["A"], ["A", "A"], ["A", ""], ["A", "B", "C"]])
def test_names_are_one_for_each_model(study, names):
    folder, *_ = study
    with pytest.raises(ValueError, match=r"names must be 2 different names.* --names MRN,baseline"):
        evaluate(folder / "mrn", folder / "labels.csv", against=folder / "baseline", names=names)


@pytest.mark.usefixtures("no_figures")
def test_default_names_are_those_of_folders_or_files(study):
    folder, *_ = study
    table = folder / "mrn" / "predictions.csv"
    (folder / "v2.csv").write_text(table.read_text())
    for against, names in [(folder / "v2.csv", ("mrn", "v2")), (table, ("A", "B"))]:
        output = evaluate(table, folder / "labels.csv", against=against, output=folder / "out")
        report = json.loads((output / "metrics.json").read_text())
        assert (report["name"], report["against"]["name"]) == names


# ---- calibrated probabilities and sets


def write_calibrated(table, truth, prob, mapped, sets):
    """A table with what stands beside the probabilities where there is a calibration."""
    rows = [
        {"subject": f"S{i:02d}", "prob_pd": p, "prob_pd_calibrated": m, "set": s, "set_level": 0.8}
        for i, (p, m, s) in enumerate(zip(prob.tolist(), mapped.tolist(), sets, strict=True))
    ]
    labelled = [row | {"label": int(label)} for row, label in zip(rows, truth, strict=True)]
    write_table(table, labelled, HC_PD)


def test_calibrated_probabilities_and_sets_are_judged_by_the_labels(study):
    folder, truth, prob, _ = study
    mapped = (0.5 + 0.3 * (prob - 0.5)).round(6)
    members = [["HC"], ["PD"], ["HC", "PD"], []]
    sets = [members[i // 2 % 4] for i in range(40)]
    table = folder / "mrn" / "predictions.csv"
    write_calibrated(table, truth, prob, mapped, sets)
    sites = folder / "sites.csv"
    lines = [f"S{i:02d},{label},{'AB'[i // 20]}" for i, label in enumerate(truth)]
    sites.write_text("\n".join(["subject,label,site", *lines]) + "\n")
    output = evaluate(table, sites, group_by="site")
    report = json.loads((output / "metrics.json").read_text())
    own = report["calibration"]
    for name, values in (("own", prob), ("calibrated", mapped)):
        expected = {
            "cross_entropy": log_loss(truth, values),
            "brier": brier_score_loss(truth, values),
            "ece": diagnosis_metrics(values, truth)["ece"]["value"],
        }
        assert own[name] == pytest.approx(expected, abs=1e-6)
    change = own["change"]
    assert change["value"] == pytest.approx(log_loss(truth, mapped) - log_loss(truth, prob))
    assert change["low"] < change["value"] < change["high"]
    coverage = report["sets"]["coverage"]
    held = [name in own for name, own in zip(np.array(["HC", "PD"])[truth], sets, strict=True)]
    assert coverage["all subjects"]["value"] == np.mean(held)
    assert coverage["PD"]["value"] == np.mean(np.array(held)[truth == 1])
    assert [coverage["all subjects"][key] for key in ("n", "several", "none")] == [40, 10, 10]
    assert report["roc_auc"] == diagnosis_metrics(prob, truth)["roc_auc"]  # the network's own
    by_site = report["sets"]["by_group"]
    assert by_site["site B"]["all subjects"]["value"] == np.mean(held[20:])
    assert by_site["site A"]["HC"]["n"] == 10

    text = (output / "metrics.txt").read_text()
    assert f"calibrated: cross entropy {own['calibrated']['cross_entropy']:.3f} (before " in text
    assert "sets at 80 %: HC 0.5" in text
    assert (
        "20 of one class, 10 uncertain, 10 unlike the training\nsets at 80 % of site A: HC" in text
    )
    page = (output / "report.html").read_text()
    for words in (
        "Calibrated probabilities and sets",
        "Sets at 80",
        "Unlike the training",
        "site B, all sub",
    ):
        assert words in page
    assert "calibrated: ECE" in (output / "reliability.svg").read_text()


def test_calibrated_scores_and_intervals_are_judged_by_the_labels(tmp_path):
    rng = np.random.default_rng(0)
    truth = rng.uniform(0, 60, 45).round(3)
    scores = np.clip(2 * truth - 30 + rng.normal(0, 8, 45), 0, 60).round(3)
    mapped, low, high = (np.clip(scores / 2 + 15 + d, 0, 60).round(3) for d in (0, -7, 7))
    columns = {"updrs": scores, "updrs_calibrated": mapped, "updrs_low": low, "updrs_high": high}
    columns |= {"set_level": np.full(45, 0.9), "label": truth}
    rows = [
        {"subject": f"S{i:02d}", **{name: float(values[i]) for name, values in columns.items()}}
        for i in range(45)
    ]
    target = Score(name="updrs", unit="points", range=[0, 60])
    table = tmp_path / "predictions.csv"
    write_table(table, rows, target)
    sites = tmp_path / "sites.csv"
    lines = [f"{row['subject']},{row['label']},{'AB'[i % 2]}" for i, row in enumerate(rows)]
    sites.write_text("\n".join(["subject,label,site", *lines]) + "\n")
    output = evaluate(table, sites, group_by="site")
    report = json.loads((output / "metrics.json").read_text())
    own = report["calibration"]
    for name, values in (("own", scores), ("calibrated", mapped)):
        mae = mean_absolute_error(truth, values)
        expected = {"mae": mae, "rmse": root_mean_squared_error(truth, values)}
        assert own[name] == pytest.approx(expected)
    squares = [mean_squared_error(truth, values) for values in (scores, mapped)]
    assert own["change"]["value"] == pytest.approx(squares[1] - squares[0])
    assert own["change"]["low"] < own["change"]["value"] < own["change"]["high"] < 0
    held = (low <= truth) & (truth <= high)
    coverage = report["intervals"]["coverage"]
    assert coverage["all subjects"]["value"] == held.mean()
    assert coverage["all subjects"]["width"] == pytest.approx((high - low).mean())
    assert [own["n"] for own in coverage.values()] == [15, 15, 15, 45]
    assert report["intervals"]["by_group"]["site B"]["all subjects"]["value"] == held[1::2].mean()

    text = (output / "metrics.txt").read_text()
    assert f"calibrated: mean absolute error {own['calibrated']['mae']:.3f} (before " in text
    assert "intervals at 90 %: updrs up to " in text
    assert "intervals at 90 % of site B: " in text
    page = (output / "report.html").read_text()
    for words in ("Calibrated scores and intervals", "Root mean squared error", "Mean width"):
        assert words in page


@pytest.mark.usefixtures("no_figures")
def test_of_two_models_each_has_its_own_calibration(study):
    folder, truth, prob, _ = study
    table = folder / "mrn" / "predictions.csv"
    write_calibrated(table, truth, prob, prob**2, [["HC"]] * 40)
    plain = folder / "baseline" / "predictions.csv"
    evaluate(plain, table, against=table, output=folder / "out")
    report = json.loads((folder / "out" / "metrics.json").read_text())
    assert "calibration" not in report
    assert report["against"]["calibration"]["own"]["brier"] == pytest.approx(
        brier_score_loss(truth, prob), abs=1e-6
    )
    page = (folder / "out" / "report.html").read_text()
    assert page.count('id="calibration"') == 1


@pytest.mark.usefixtures("no_figures")
def test_calibration_of_several_classes(tmp_path):
    three = Classes(names=["HC", "PD", "MSA"])
    rng = np.random.default_rng(3)
    truth = np.arange(60) % 3
    prob, mapped = rng.dirichlet([1, 1, 1], (2, 60)).round(6)
    rows = []
    for i in range(60):
        cells = {name: float(p) for name, p in three.in_tables(prob[i]).items()}
        calibrated = three.in_tables(mapped[i]).items()
        cells |= {f"{name}_calibrated": float(p) for name, p in calibrated}
        label = three.shown(truth[i])
        rows.append({"subject": f"S{i:02d}", **cells, "set": ["MSA"], "set_level": 0.9})
        rows[-1]["label"] = label
    write_table(tmp_path / "predictions.csv", rows, three)
    output = evaluate(tmp_path, tmp_path)
    report = json.loads((output / "metrics.json").read_text())
    prob, mapped = (p / p.sum(axis=1, keepdims=True) for p in (prob, mapped))  # of six decimals
    assert report["calibration"]["own"]["cross_entropy"] == pytest.approx(
        log_loss(truth, prob), abs=1e-4
    )
    assert report["calibration"]["calibrated"]["brier"] == pytest.approx(
        brier_score_loss(truth, mapped), abs=1e-4
    )
    assert report["sets"]["coverage"]["MSA"]["value"] == 1
    assert report["sets"]["coverage"]["HC"]["value"] == 0
