"""``mrn baseline``: scikit-learn's own numbers, on the folds of ``mrn crossval``, in its files."""

import csv
import json
import shutil
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import norm
from sklearn import pipeline as sklearn_pipeline
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import (
    GridSearchCV,
    PredefinedSplit,
    StratifiedGroupKFold,
    StratifiedKFold,
    cross_val_predict,
)
from sklearn.preprocessing import StandardScaler
from tiny_bundles import BUNDLES
from tiny_run import read_rows

from mrn_components import Classes, Score
from mrn_components.app.baseline import baseline
from mrn_components.app.baseline.features import Features, roi_by_column
from mrn_components.app.baseline.models import Recipe, ROIColumns
from mrn_components.app.baseline.nested import fit_folds, inner_splits
from mrn_components.app.crossval import plan_folds
from mrn_components.biomarkers import columns_of
from mrn_components.checks.masks import REGIONS
from mrn_components.data import DataLeakageError, load_subjects
from mrn_components.data.folds import split_folds
from mrn_components.data.target import HC_PD
from mrn_components.images.image import CHALLENGE_IMAGES
from mrn_components.metrics import diagnosis_metrics
from mrn_components.system.errors import FailedSubjectsError

# ---- the models, on tables of numbers


def made(count=60, columns=6, shift=1.0, target=HC_PD):
    """Subjects with labels, and a table whose first column tells them; some cells are missing."""
    rng = np.random.default_rng(0)
    classes = len(target.names) if isinstance(target, Classes) else 2
    label = np.arange(count) % classes
    values = rng.normal(size=(count, columns))
    values[:, 0] += shift * label
    values[rng.random(values.shape) < 0.05] = np.nan
    values = values * 7 + 3
    names = [f"S{number:03d}" for number in range(count)]
    table = Features(
        subjects=names,
        columns=[f"c{number}" for number in range(columns)],
        rois=["nm"] * (columns // 2) + ["qsm"] * (columns - columns // 2),
        values=values,
    )
    subjects = [{"subject": n, "label": int(k)} for n, k in zip(names, label, strict=True)]
    return table, subjects


def out_of_fold(table, fitted):
    """The values of all subjects, in the table's order."""
    found = {name: value for f in fitted for name, value in zip(f.subjects, f.values, strict=True)}
    return np.array([found[name] for name in table.subjects])


def fold_of(table, folds):
    fold = {name: k for k, members in enumerate(folds["folds"]) for name in members}
    return np.array([fold[name] for name in table.subjects])


def fixed(kind, target, **grid):
    """A recipe with its own grid, such as one value: nothing to choose."""

    class Fixed(Recipe):
        def grid(self, _rois):
            return grid

    return Fixed(kind=kind, target=target)


def scikit(model):
    return sklearn_pipeline.make_pipeline(SimpleImputer(strategy="median"), StandardScaler(), model)


def test_probabilities_are_those_of_scikit_learns_cross_val_predict():
    table, subjects = made()
    folds = split_folds(subjects, 5, seed=3)
    fitted = fit_folds(table, subjects, folds, fixed("logistic", HC_PD, model__C=[0.1]))
    own = scikit(LogisticRegression(C=0.1))
    labels = [subject["label"] for subject in subjects]
    outer = PredefinedSplit(fold_of(table, folds))
    expected = cross_val_predict(own, table.values, labels, cv=outer, method="predict_proba")
    np.testing.assert_allclose(out_of_fold(table, fitted), expected[:, 1], atol=1e-12)


def test_the_inner_choice_is_that_of_a_nested_cross_val_predict():
    table, subjects = made(shift=0.7)
    folds = split_folds(subjects, 4, seed=2)
    fitted = fit_folds(table, subjects, folds, Recipe(kind="logistic", target=HC_PD))
    grid = {"logisticregression__C": np.logspace(-4, 2, 7)}
    inner = StratifiedKFold(5, shuffle=True, random_state=2)
    own = GridSearchCV(scikit(LogisticRegression()), grid, scoring="neg_log_loss", cv=inner)
    labels = [subject["label"] for subject in subjects]
    outer = PredefinedSplit(fold_of(table, folds))
    expected = cross_val_predict(own, table.values, labels, cv=outer, method="predict_proba")
    np.testing.assert_allclose(out_of_fold(table, fitted), expected[:, 1], atol=1e-3)  # lbfgs
    assert {f.chosen["inner_folds"] for f in fitted} == {5}


def test_people_stay_together_inside_too():
    table, subjects = made(40)
    subjects = [s | {"person": f"P{i % 20}"} for i, s in enumerate(subjects)]
    folds = split_folds(subjects, 4, seed=1)
    inside = [s for s in subjects if s["subject"] not in folds["folds"][0]]
    people = np.array([s["person"] for s in inside])
    for training, held_out in inner_splits(inside, HC_PD, 1):
        assert not {*people[training]} & {*people[held_out]}
        assert len(training) + len(held_out) == len(inside)
    labels = [s["label"] for s in inside]
    splitter = StratifiedGroupKFold(5, shuffle=True, random_state=1)
    expected = [part.tolist() for _, part in splitter.split(labels, labels, people)]
    assert [part.tolist() for _, part in inner_splits(inside, HC_PD, 1)] == expected
    assert len(fit_folds(table, subjects, folds, fixed("logistic", HC_PD))) == 4


@pytest.mark.parametrize("kind", ["logistic", "svm"])
def test_the_area_is_that_of_the_distributions(kind):
    """One column of two normal distributions, one deviation apart: Phi(1 / sqrt 2)."""
    table, subjects = made(300, columns=1, shift=1.0)
    table = replace(table, rois=["nm"], values=np.nan_to_num(table.values))
    folds = split_folds(subjects, 2)
    key = {"logistic": "model__C", "svm": "model__estimator__C"}[kind]
    recipe = fixed(kind, HC_PD, **{key: [0.1, 1.0]})
    prob = out_of_fold(table, fit_folds(table, subjects, folds, recipe))
    area = roc_auc_score([s["label"] for s in subjects], prob)
    assert area == pytest.approx(norm.cdf(1 / np.sqrt(2)), abs=0.07)


def test_labels_that_nothing_tells_are_told_by_chance():
    table, subjects = made(200, columns=30, shift=0)
    folds = split_folds(subjects, 3)
    fitted = fit_folds(table, subjects, folds, Recipe(kind="logistic", target=HC_PD))
    labels = np.array([s["label"] for s in subjects])
    area = diagnosis_metrics(out_of_fold(table, fitted), labels)["roc_auc"]
    assert area["low"] < 0.5 < area["high"]


def test_it_can_choose_the_roi_that_tells():
    """Beside sixty columns of noise, all together tell less than the right ones alone."""
    table, subjects = made(80, columns=64, shift=0)
    label = np.array([s["label"] for s in subjects])
    values = np.nan_to_num(table.values)
    values[:, 60:] += 6.0 * label[:, None]
    table = replace(table, rois=["nm"] * 60 + ["qsm2"] * 4, values=values)
    folds = split_folds(subjects, 3)
    areas = {}
    for choose in (True, False):
        grid = Recipe(kind="logistic", target=HC_PD, choose_rois=choose).grid(table.rois)
        recipe = fixed("logistic", HC_PD, **grid | {"model__C": [0.01, 1.0]})
        fitted = fit_folds(table, subjects, folds, recipe)
        areas[choose] = roc_auc_score(label, out_of_fold(table, fitted))
        picked = [f.chosen.get("columns__picked") for f in fitted]
        assert picked == ([("qsm2",)] * 3 if choose else [None] * 3)
    assert areas[True] > areas[False] + 0.03


def test_components_are_of_each_roi_by_itself():
    rng = np.random.default_rng(1)
    table = rng.normal(size=(12, 5)) * [1, 5, 1, 3, 1]
    found = ROIColumns(["a", "b", "a", "b", "b"], ["b", "a"], 2).fit_transform(table)
    for place, columns in ((0, [1, 3, 4]), (2, [0, 2])):
        own = table[:, columns] - table[:, columns].mean(axis=0)
        u, s, _ = np.linalg.svd(own, full_matrices=False)
        np.testing.assert_allclose(np.abs(found[:, place : place + 2]), np.abs(u * s)[:, :2])
    few = ROIColumns(["a"] * 5, ["a"], 20).fit_transform(table[:3])
    assert few.shape == (3, 3)


def test_three_classes_and_a_score():
    three = Classes(names=["HC", "PD", "MSA"])
    table, subjects = made(60, target=three, shift=3.0)
    for kind in ("logistic", "svm"):
        recipe = fixed(kind, three)
        prob = out_of_fold(
            table, fit_folds(table, subjects, split_folds(subjects, 3, target=three), recipe)
        )
        assert prob.shape == (60, 3)
        np.testing.assert_allclose(prob.sum(axis=1), 1)
        assert (prob.argmax(axis=1) == [s["label"] for s in subjects]).mean() > 0.5

    table, subjects = made(60)
    updrs = Score(name="updrs", range=(0, 60))
    told = np.nan_to_num(table.values[:, 0]) + 20
    subjects = [
        s | {"label": float(np.clip(n, 0, 60))} for s, n in zip(subjects, told, strict=True)
    ]
    labels = np.array([s["label"] for s in subjects])
    folds = split_folds(subjects, 3, target=updrs)
    for kind in ("logistic", "svm"):
        recipe = fixed(kind, updrs)
        values = out_of_fold(table, fit_folds(table, subjects, folds, recipe))
        assert np.corrcoef(values, labels)[0, 1] > 0.7
        assert values.min() >= 0

        if kind == "logistic":
            outer = PredefinedSplit(fold_of(table, folds))
            expected = cross_val_predict(scikit(Ridge(1.0)), table.values, labels, cv=outer)
            np.testing.assert_allclose(values, expected.clip(0, 60))
    grid = Recipe(kind="logistic", target=updrs).grid(table.rois)
    (first, *_) = fit_folds(table, subjects, folds, Recipe(kind="logistic", target=updrs))
    assert first.chosen["model__regressor__alpha"] in grid["model__regressor__alpha"]


def test_boosted_trees():
    pytest.importorskip("xgboost")
    table, subjects = made(60, shift=2.0)
    folds = split_folds(subjects, 3)
    small = fixed("xgboost", HC_PD, model__n_estimators=[20], model__max_depth=[1, 2])
    fit = partial(fit_folds, table, subjects, folds, small)
    prob = out_of_fold(table, fit())
    assert roc_auc_score([s["label"] for s in subjects], prob) > 0.75
    assert np.array_equal(prob, out_of_fold(table, fit()))
    assert {*Recipe(kind="xgboost", target=HC_PD).grid(["nm"])} == {
        "model__n_estimators",
        "model__max_depth",
    }


def test_without_xgboost_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "xgboost", None)
    with pytest.raises(RuntimeError, match=r"pip install 'mrn-components\[xgboost\]'"):
        Recipe(kind="xgboost", target=HC_PD).pipeline(["nm"])


def test_too_few_of_a_class():
    table, subjects = made(4)
    folds = split_folds(subjects, 2)
    (first, _) = fit_folds(table, subjects, folds, Recipe(kind="logistic", target=HC_PD))
    assert first.chosen == {"model__C": 0.1, "inner_folds": 0}
    with pytest.raises(ValueError, match=r"fold 0 has 1 subjects with HC .* expected 3 at least"):
        fit_folds(table, subjects, folds, Recipe(kind="svm", target=HC_PD))


# ---- the verb


NUCLEI = ("CN", "PUT", "GP", "TH", "STN", "SN", "RN", "DN")
MEANS = [*(f"qsm_mean_ppb_{nucleus}" for nucleus in NUCLEI), "nm_contrast_ratio"]
pytestmark = pytest.mark.usefixtures("no_figures")


@pytest.fixture(scope="module")
def done(cohort, tmp_path_factory):
    """A baseline of the ten tiny subjects."""
    output = tmp_path_factory.mktemp("baseline") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mrn_components.app.evaluate.write_figures", lambda *_: None)
        return baseline(cohort, output)


def test_folds_are_those_of_crossval_and_may_be_given(cohort, done, tmp_path):
    settings = {"dataset_dir": str(cohort), "bundle": str(BUNDLES / "mrn"), "num_folds": 5}
    plan_folds(settings | {"configs": [], "overrides": {}}, tmp_path / "cv")
    found = (tmp_path / "cv" / "folds.json").read_text()
    assert (done / "folds.json").read_text() == found
    other = json.loads(found)
    one, two, *rest = other["folds"]
    other["folds"] = [one + two, [name for members in rest for name in members]]
    (tmp_path / "cv" / "folds.json").write_text(json.dumps(other | {"seed": 7}))
    again = baseline(cohort, tmp_path / "out", folds=tmp_path / "cv", features="geometry")
    assert json.loads((again / "folds.json").read_text()) == other | {"seed": 7}
    assert {row["fold"] for row in read_rows(again / "out_of_fold.csv")} == {"0", "1"}
    with pytest.raises(ValueError, match=r"asked for are 3 folds"):
        baseline(cohort, tmp_path / "out", folds=tmp_path / "cv", num_folds=3)
    with pytest.raises(FileNotFoundError, match=r"--folds: 5 is not there; .*--num_folds"):
        baseline(cohort, tmp_path / "out", folds="5")


def test_files_are_those_of_crossval(cohort, done):
    rows = read_rows(done / "out_of_fold.csv")
    assert list(rows[0]) == ["subject", "fold", "prob_pd", "class", "prob_pd_calibrated", "label"]
    subjects = load_subjects(cohort)
    assert [(r["subject"], int(r["label"])) for r in rows] == [
        (s["subject"], s["label"]) for s in subjects
    ]
    content = json.loads((done / "crossval.json").read_text())
    assert len(content["folds"]) == len(content["chosen"]) == 5
    assert {"num_subjects", "summary", "overall", "note"} <= content.keys()
    assert content["model"] == "logistic regression on biomarkers"
    assert "inside each training part, by cross entropy" in content["note"]
    page = (done / "evaluation" / "report.html").read_text()
    assert "by a logistic regression on biomarkers that was not trained on it" in page
    assert not list(done.rglob("*.pkl"))


def test_the_coefficients_say_what_was_predicted(cohort, done):
    """Biomarkers, measured by the other verb, times coefficients: P(PD)."""
    from mrn_components.app.biomarkers import measure_subjects

    measured = read_rows(measure_subjects(cohort, done.parent / "measured"))
    number_of = {row["subject"]: row for row in measured}
    lines = read_rows(done / "coefficients.csv")
    rois = {line["column"]: line["roi"] for line in lines}
    assert list(rois) == ["intercept", *columns_of()]
    assert rois["qsm_mean_ppb_SN_left"] == rois["asymmetry_volume_mm3_STN"] == "qsm2"
    assert rois["nm_contrast_ratio_right"] == "nm"
    for row in read_rows(done / "out_of_fold.csv"):
        logit = 0.0
        for line in (line for line in lines if line["fold"] == row["fold"]):
            x = 1.0
            if line["column"] != "intercept":
                x = float(number_of[row["subject"]][line["column"]] or line["imputed"])
                x = (x - float(line["mean"])) / float(line["scale"])
            logit += x * float(line["coefficient"])
        assert expit(logit) == pytest.approx(float(row["prob_pd"]), abs=1e-4)


def test_means_are_the_biomarkers_that_are_means():
    columns = roi_by_column("means", CHALLENGE_IMAGES, REGIONS)
    sides = [f"{what}_{side}" for what in MEANS for side in ("right", "left")]
    assert list(columns) == sides
    assert {*columns.values()} == {"qsm1", "qsm2", "qsm3", "nm"}


def test_geometry_is_called_a_control(cohort, tmp_path, capsys):
    out = baseline(cohort, tmp_path, features="geometry", num_folds=2)
    said = "geometry only: sizes and places of crops, a control, not a marker"
    assert said in capsys.readouterr().out
    assert json.loads((out / "crossval.json").read_text())["model"].endswith(said)
    rows = read_rows(out / "coefficients.csv")
    assert {row["column"] for row in rows if row["roi"] == "nm"} == {
        f"nm {what} {axis}" for what in ("size", "place") for axis in "xyz"
    }


def test_one_command_compares_with_a_crossval(cohort, done, tmp_path):
    rows = read_rows(done / "out_of_fold.csv")
    for number, row in enumerate(rows):
        row["prob_pd"] = f"{0.2 + 0.5 * int(row['label']) - 0.02 * number:.6f}"
    other = tmp_path / "cv"
    other.mkdir()
    with (other / "out_of_fold.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    out = baseline(cohort, tmp_path / "out", against=other, features="geometry", num_folds=2)
    metrics = json.loads((out / "evaluation" / "metrics.json").read_text())
    assert metrics["against"]["name"] == "cv"
    text = (out / "evaluation" / "metrics.txt").read_text()
    assert "DeLong" in text
    assert "McNemar" in text
    with pytest.raises(FileNotFoundError, match=r"--against: .*nowhere is not there; name the out"):
        baseline(cohort, tmp_path / "out", against=tmp_path / "nowhere")


def test_labels_may_be_others(cohort, tmp_path):
    names = [subject["subject"] for subject in load_subjects(cohort)]
    other = tmp_path / "shuffled.csv"
    other.write_text("".join(f"{name},{number // 5}\n" for number, name in enumerate(names)))
    out = baseline(cohort, tmp_path / "out", labels=other, num_folds=2)
    assert [row["label"] for row in read_rows(out / "out_of_fold.csv")] == ["0"] * 5 + ["1"] * 5


def test_what_is_missing_is_imputed_and_said_and_the_unreadable_are_left_out(cohort, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(cohort, data)
    for name in ("NM.nii.gz", "NM_mask.nii.gz"):
        (data / "SUBJ_002" / name).unlink()
    damaged = data / "SUBJ_004" / "QSM.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:500])
    with pytest.raises(FailedSubjectsError, match=r"1 of 10 subjects failed.*\n  SUBJ_004: .*gzip"):
        baseline(data, tmp_path / "out", num_folds=2)
    rows = {row["subject"]: row for row in read_rows(tmp_path / "out" / "out_of_fold.csv")}
    assert len(rows) == 9
    flags = {name: row["flags"] for name, row in rows.items() if row["flags"]}
    assert list(flags) == ["SUBJ_002"]
    assert "of 71 numbers are missing, the training's medians used: nm_volume" in flags["SUBJ_002"]
    # The split is that of the whole data set, as crossval makes it.
    folds = json.loads((tmp_path / "out" / "folds.json").read_text())["folds"]
    assert folds == split_folds(load_subjects(cohort), 2)["folds"]


def test_one_person_under_two_names_is_refused_as_by_crossval(cohort, tmp_path):
    shutil.copytree(cohort, tmp_path / "data")
    for number in range(1, 10):
        shutil.copy(
            tmp_path / "data" / "SUBJ_000" / "NM.nii.gz",
            tmp_path / "data" / f"SUBJ_{number:03d}" / "NM.nii.gz",
        )
    with pytest.raises(DataLeakageError, match=r"(?s)two folds share a person.*case_id,label"):
        baseline(tmp_path / "data", tmp_path / "out")
    assert not (tmp_path / "out" / "out_of_fold.csv").exists()


def test_lines_of_a_table_without_a_subject_are_refused(cohort, tmp_path):
    lines = (cohort / "train_cases.csv").read_text() + "NOBODY,1\n"
    (tmp_path / "more.csv").write_text(lines)
    with pytest.raises(ValueError, match=r"subject 'NOBODY' has no images"):
        baseline(cohort, tmp_path / "out", labels=tmp_path / "more.csv")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"components": -1}, "components must be >= 0, got -1"),
        ({"features": "voxels"}, "features must be one of .*'geometry'.*, got 'voxels'"),
        ({"model": "forest"}, "model must be one of .*'svm'.*, got 'forest'"),
        ({"rois": "some"}, "rois must be one of .*'choose'.*, got 'some'"),
        ({"num_folds": 6}, "num_folds is 6, but 5 people have label 0"),
    ],
)
def test_arguments_that_name_nothing_are_refused(cohort, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        baseline(cohort, tmp_path, **arguments)


def test_the_folder_of_a_crossval_is_refused(cohort, tmp_path):
    (tmp_path / "settings.json").write_text(json.dumps({"bundle": "bundles/mrn", "num_folds": 5}))
    with pytest.raises(ValueError, match=r"holds a cross-validation of a network; name another"):
        baseline(cohort, tmp_path)
