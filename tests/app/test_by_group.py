"""Metrics by site: of ``mrn evaluate``, ``mrn baseline`` and ``mrn crossval``."""

import json
import shutil

import numpy as np
import pytest
import torch
from tiny_bundles import BUNDLES
from tiny_run import read_rows

from mrn_components import Score
from mrn_components.app.baseline import baseline
from mrn_components.app.baseline.features import Features
from mrn_components.app.baseline.harmonize import Harmonizer
from mrn_components.app.crossval import plan_folds, write_results
from mrn_components.app.evaluate import evaluate
from mrn_components.app.out_of_fold import write_page
from mrn_components.data import load_subjects
from mrn_components.data.predictions import write_predictions
from mrn_components.data.target import HC_PD
from mrn_components.data.weight_records import KEPT_WEIGHTS, REPRESENTATION, append_record
from mrn_components.metrics import diagnosis_metrics
from mrn_components.system.errors import FailedSubjectsError, UnknownKeyError

pytestmark = pytest.mark.usefixtures("no_figures")


@pytest.fixture
def sited(cohort, tmp_path):
    """The cohort, whose csv tells two sites that share both classes."""
    data = tmp_path / "data"
    shutil.copytree(cohort, data)
    rows = [row.split(",") for row in (data / "train_cases.csv").read_text().split()]
    lines = [f"{name},{label},{'AB'[i // 6]}" for i, (name, label) in enumerate(rows)]
    (data / "train_cases.csv").write_text("\n".join(["subject,label,site", *lines]) + "\n")
    return data


def tables(folder, sites="ABC", count=90):
    rng = np.random.default_rng(0)
    label = np.arange(count) % 2
    prob = 1 / (1 + np.exp(-rng.normal(size=count) - label))
    site = [sites[(i // 2) % len(sites)] for i in range(count)]
    rows = [f"S{i:02d},{k},{s},{30 + i}" for i, (k, s) in enumerate(zip(label, site, strict=True))]
    (folder / "labels.csv").write_text("\n".join(["subject,label,site,age", *rows]))
    lines = [f"S{i:02d},{p:.6f}" for i, p in enumerate(prob)]
    (folder / "predictions.csv").write_text("\n".join(["subject,prob_pd", *lines]))
    return np.round(prob, 6), label, np.array(site)


def test_evaluate_scores_each_site_as_if_it_were_alone(tmp_path):
    prob, label, site = tables(tmp_path)
    out = evaluate(tmp_path, "labels.csv", group_by="site")
    found = json.loads((out / "metrics.json").read_text())["by_group"]
    assert found.keys() == {"site"}
    (scored,) = found["site"].values()
    assert list(scored["groups"]) == ["A", "B", "C"]
    for name, own in scored["groups"].items():
        alone = diagnosis_metrics(prob[site == name], label[site == name])
        assert {key: own[key] for key in alone} == json.loads(json.dumps(alone))
        assert own["n"] == 30
        assert own["classes"] == {"HC": 15, "PD": 15}
        assert not own["few"]
    test = scored["heterogeneity"]["roc_auc"]
    assert test["df"] == 2
    assert 0 < test["p"] <= 1
    text = (out / "metrics.txt").read_text()
    assert "not seen to differ (Cochran's Q" in text
    page = (out / "report.html").read_text()
    assert "By site" in page
    assert "15 HC, 15 PD" in page
    without = evaluate(tmp_path, "labels.csv", output=tmp_path / "plain")
    assert "by_group" not in json.loads((without / "metrics.json").read_text())


def test_several_columns_have_a_table_each_and_ages_go_by_thirds(tmp_path):
    """The ages are 30 to 119; lexically 91 would come last."""
    prob, label, _ = tables(tmp_path)
    out = evaluate(tmp_path, "labels.csv", group_by=["site", "age"])
    found = json.loads((out / "metrics.json").read_text())["by_group"]
    assert list(found) == ["site", "age"]
    (scored,) = found["age"].values()
    assert list(scored["groups"]) == ["30 to 59", "60 to 89", "90 to 119"]
    alone = diagnosis_metrics(prob[60:], label[60:])
    assert scored["groups"]["90 to 119"]["accuracy"] == alone["accuracy"]
    page = (out / "report.html").read_text()
    assert "By site" in page
    assert "By age" in page
    assert "by age" in (out / "metrics.txt").read_text()


def test_numbers_of_many_sites_stay_sites(tmp_path):
    tables(tmp_path, sites=[str(number) for number in range(2, 12)])
    out = evaluate(tmp_path, "labels.csv", group_by="site")
    (scored,) = json.loads((out / "metrics.json").read_text())["by_group"]["site"].values()
    assert list(scored["groups"]) == [str(number) for number in range(2, 12)]


def test_small_sites_are_marked_and_what_is_undefined_is_left_out(tmp_path):
    tables(tmp_path, sites="ABC", count=8)
    text = (evaluate(tmp_path, "labels.csv", group_by="site") / "metrics.txt").read_text()
    assert "C (few)  2" in text
    assert "C left out, needs two subjects of each class" in text


def test_a_column_that_no_table_has_is_refused(tmp_path):
    tables(tmp_path)
    with pytest.raises(ValueError, match=r"no column 'scanner' to group by in .*labels.csv and "):
        evaluate(tmp_path, "labels.csv", group_by="scanner")
    lines = (tmp_path / "labels.csv").read_text().replace("S03,1,B", "S03,1,")
    (tmp_path / "labels.csv").write_text(lines)
    with pytest.raises(
        ValueError, match=r"'site', to group by, has no value for 1 subjects: \['S03"
    ):
        evaluate(tmp_path, "labels.csv", group_by="site")


@pytest.mark.parametrize("value", ["inf", "unknown"])
def test_numbers_and_a_word_are_no_groups(value, tmp_path):
    tables(tmp_path)
    lines = (tmp_path / "labels.csv").read_text().replace("S03,1,B,33", f"S03,1,B,{value}")
    (tmp_path / "labels.csv").write_text(lines)
    with pytest.raises(ValueError, match=rf"'age', to group by, has 90 .*'{value}'\]"):
        evaluate(tmp_path, "labels.csv", group_by="age")
    with pytest.raises(ValueError, match=r"'subject', to group by, has 90 different values for 90"):
        evaluate(tmp_path, "labels.csv", group_by="subject")


def test_a_score_has_correlations_by_site(tmp_path):
    target = Score(name="updrs", range=(0, 100))
    rng = np.random.default_rng(1)
    rows = [
        {"subject": f"S{i:02d}", "updrs": float(i + rng.normal()), "label": i, "site": "AB"[i % 2]}
        for i in range(5, 45)
    ]
    write_predictions(tmp_path / "predictions.csv", rows, target, ["site"])
    out = evaluate(tmp_path, tmp_path / "predictions.csv", group_by="site")
    (scored,) = json.loads((out / "metrics.json").read_text())["by_group"]["site"].values()
    assert scored["groups"]["A"]["pearson"]["value"] > 0.9
    assert scored["heterogeneity"].keys() == {"pearson"}


def test_a_baseline_leaves_one_site_out(sited, tmp_path, capsys):
    out = baseline(sited, tmp_path / "out", group_by="site", features="means")
    rows = read_rows(out / "out_of_fold.csv")
    assert [row["site"] for row in rows] == ["A"] * 6 + ["B"] * 4
    assert {(row["site"], row["fold"]) for row in rows} == {("A", "0"), ("B", "1")}
    content = json.loads((out / "crossval.json").read_text())
    assert content["groups"] == [["A"], ["B"]]
    assert content["group_test"]["accuracy"] is None  # four people
    assert "By site" in (out / "evaluation" / "report.html").read_text()
    assert "The site no test" in capsys.readouterr().out
    plain = baseline(sited, tmp_path / "plain", features="means", num_folds=2)
    mixed = baseline(
        sited, tmp_path / "mixed", features="means", folds=plain, group_by="site"
    )  # the folds stay, the tables are by site
    assert (mixed / "folds.json").read_text() == (plain / "folds.json").read_text()
    by = json.loads((mixed / "evaluation" / "metrics.json").read_text())["by_group"]
    assert by.keys() == {"site"}
    one, other = ([r["prob_pd"] for r in read_rows(o / "out_of_fold.csv")] for o in (plain, mixed))
    assert one == other


def test_a_reference_takes_a_scanners_shift_out_of_a_baseline(sited, tmp_path):
    """Of four subjects QSM is 30 ppb too high: relative to the thalamus nothing changes."""
    import nibabel

    options = {"features": "means", "num_folds": 2, "images#qsm#reference": "TH"}
    before = read_rows(baseline(sited, tmp_path / "before", **options) / "out_of_fold.csv")
    for number in range(6, 10):
        path = sited / f"SUBJ_{number:03d}" / "QSM.nii.gz"
        image = nibabel.load(path)
        nibabel.save(nibabel.Nifti1Image(image.get_fdata() + 30, image.affine), path)
    after = read_rows(baseline(sited, tmp_path / "after", **options) / "out_of_fold.csv")
    for one, other in zip(before, after, strict=True):
        assert float(one["prob_pd"]) == pytest.approx(float(other["prob_pd"]), abs=1e-4)
    with pytest.raises(UnknownKeyError, match=r"config keys \['image_size'\] are for --features"):
        baseline(sited, tmp_path / "none", image_size=3)


def test_crossval_hands_sites_to_its_runs_and_tables(sited, tmp_path):
    settings = {"dataset_dir": str(sited), "bundle": str(BUNDLES / "mrn"), "num_folds": 5}
    settings |= {"configs": [], "overrides": {"group_by": "site"}}
    runs, subjects = plan_folds(settings, tmp_path / "cv")
    assert len(runs) == 2
    assert [s["group"] for s in subjects] == ["A"] * 6 + ["B"] * 4
    assert json.loads((tmp_path / "cv" / "folds.json").read_text())["groups"] == [["A"], ["B"]]
    assert "--group_by site" in " ".join(runs[0].train)
    for run in runs:
        rows = load_subjects(run.folder / "validation.json")
        lines = [f"{row['subject']},0.{3 + row['label']},{row['label']}" for row in rows]
        run.predictions.parent.mkdir(parents=True)
        run.predictions.write_text("\n".join(["subject,prob_pd,class", *lines]))
        weights = run.folder / "models" / "model.pt"
        weights.parent.mkdir()
        torch.save({}, weights)
        append_record(weights, KEPT_WEIGHTS, {"rule": "last", "chosen_on_validation": False})
        append_record(weights, REPRESENTATION, {"groups": "can be told: balanced accuracy 0.9"})
    write_results(runs, subjects, tmp_path / "cv", "site")
    rows = read_rows(tmp_path / "cv" / "out_of_fold.csv")
    assert [row["site"] for row in rows] == ["A"] * 6 + ["B"] * 4
    page = write_page(tmp_path / "cv", "mrn", group_by="site").read_text()
    assert "Fold 1<br><small>B</small>" in page
    assert "fold 0: it can be told: balanced accuracy 0.9; fold 1: it can be told" in page


# ---- harmonisation


def test_harmonised_folds_take_sites_out_and_unknown_sites_get_words(sited, tmp_path):
    pytest.importorskip("combatlearn")
    options = {"features": "means", "harmonize": "site"}
    lines = (sited / "train_cases.csv").read_text().replace("SUBJ_009,1,B", "SUBJ_009,1,C")
    (sited / "train_cases.csv").write_text(lines.replace(",B", ",A"))
    with pytest.raises(FailedSubjectsError, match=r"SUBJ_009: not predicted: .* of the site C"):
        baseline(sited, tmp_path / "out", **options)
    rows = read_rows(tmp_path / "out" / "out_of_fold.csv")
    assert [row["subject"] for row in rows] == [f"SUBJ_{i:03d}" for i in range(9)]


def test_combat_has_nothing_to_say_of_a_site_that_is_left_out(sited, tmp_path):
    pytest.importorskip("combatlearn")
    with pytest.raises(
        ValueError, match=r"ComBat knows no site that it is not fitted to.*\(A, B\)"
    ):
        baseline(sited, tmp_path, features="means", harmonize="site", group_by="site")


def test_combat_is_fitted_to_healthy_subjects_of_the_training_part():
    pytest.importorskip("combatlearn")
    rng = np.random.default_rng(0)
    count = 200
    site = np.array(list("AB"))[rng.integers(2, size=count)]
    label = (rng.random(count) < np.where(site == "A", 0.3, 0.7)).astype(int)
    own = rng.normal(size=(count, 4)) + 1.0 * label[:, None]
    values = np.where((site == "B")[:, None], 5 + 2 * own, own)
    values[3, 1] = np.nan
    names = [f"S{i:03d}" for i in range(count)]
    columns, rois = list("abcd"), ["nm"] * 4
    harmonizer = Harmonizer(site_of=dict(zip(names, site, strict=True)), target=HC_PD)
    training = [{"subject": n, "label": int(k)} for n, k in zip(names[:150], label, strict=False)]

    def apply(numbers):
        table = Features(subjects=names, columns=columns, rois=rois, values=numbers)
        return harmonizer.apply(table, training, names[150:])

    seen, kept, predicted = apply(values)
    assert (len(kept), predicted) == (150, names[150:])
    assert np.isnan(seen[3, 1])
    held_out = np.arange(count) >= 150
    for group in (0, 1):  # the disease stays, though sites have unlike shares of it
        means = [np.nanmean(seen[held_out & (site == s) & (label == group)]) for s in "AB"]
        assert means[0] == pytest.approx(means[1], abs=0.8)
    effects = [np.nanmean(seen[label == 1], 0) - np.nanmean(seen[label == 0], 0)]
    assert np.min(effects) > 0.5
    other = np.where(held_out[:, None], values * 3, values)
    assert np.array_equal(apply(other)[0][:150], seen[:150], equal_nan=True)
