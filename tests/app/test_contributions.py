"""What each ROI adds, from a run's folder to the files."""

import csv
import json
import shutil
import sys

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from tiny_cohort import make_subject
from tiny_run import make_datalist, make_run, read_rows
from tiny_segmentation import make_segmentation_bundle

from mrn_components.app import cli
from mrn_components.app.contributions import contributions
from mrn_components.app.ensemble import save_ensemble
from mrn_components.app.predict import predict
from mrn_components.app.records import read_record
from mrn_components.app.states import StateScores, leakage, state_metrics
from mrn_components.data.weight_records import REFERENCES, append_record
from mrn_components.networks.inferers import masked_states
from mrn_components.networks.masking import MASK_MODES
from mrn_components.system.errors import FailedSubjectsError

ROIS = ("nm", "qsm1", "qsm2", "qsm3")
STATES = ["+".join(masked) or "none" for masked in masked_states(ROIS)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("contributions") / "run", 0)


@pytest.fixture(scope="module")
def subjects(cohort, tmp_path_factory):
    return make_datalist(cohort, tmp_path_factory.mktemp("few") / "subjects.json")


def states_of(*arguments, **options):
    """P(PD) of each subject in every state."""
    rows = read_rows(contributions(*arguments, **options).with_name("states.csv"))
    return {row.pop("subject"): [float(cell) for cell in row.values()] for row in rows}


def test_files_of_labelled_subjects(run, subjects, tmp_path):
    path = contributions(subjects, str(tmp_path), bundle=str(run), require_labels=True)
    assert path == tmp_path / "contributions.csv"
    states = read_rows(tmp_path / "states.csv")
    assert list(states[0]) == ["subject", *STATES]
    rows = read_rows(path)
    assert list(rows[0]) == ["subject", "prob_pd", "baseline", *ROIS]
    predicted = read_rows(tmp_path / "predictions.csv")
    for row, state, prediction in zip(rows, states, predicted, strict=True):
        assert row["subject"] == state["subject"] == prediction["subject"]
        assert (row["prob_pd"], row["baseline"]) == (state["none"], state[STATES[-1]])
        assert float(row["prob_pd"]) == pytest.approx(float(prediction["prob_pd"]), abs=1e-6)
        total = sum(float(row[roi]) for roi in ROIS)
        assert total == pytest.approx(float(row["prob_pd"]) - float(row["baseline"]), abs=1e-6)
    summary = json.loads((tmp_path / "contributions.json").read_text())
    assert summary["mask_mode"] == "voxels"
    assert summary["subjects"] == 4
    mean = np.mean([abs(float(row["nm"])) for row in rows])
    assert summary["mean_absolute_shapley"]["nm"] == pytest.approx(mean, abs=1e-6)
    table = read_rows(tmp_path / "table.csv")
    assert [row["masked"] for row in table] == STATES
    assert table[0]["paper_accuracy"] == "0.83000000"
    last = [float(row[STATES[-1]]) for row in states]
    auc = roc_auc_score([0, 1, 0, 1], last)
    assert float(table[-1]["roc_auc"]) == pytest.approx(auc)
    assert summary["leakage"]["roc_auc"]["value"] == pytest.approx(auc)
    text = (tmp_path / "table.md").read_text()
    assert "| nm | qsm1 | qsm2 | qsm3 | accuracy (95 % interval)" in text
    assert "| 45.0, 40.7, 37.3 |" in text.splitlines()[-3]
    assert summary["leakage"]["finding"] in text
    assert summary["geometry"]["reason"] == "fewer than 5 of a class"
    assert "crops alone: AUC undefined (fewer than 5 of a class). Research use only." in text

    contributions(subjects, str(tmp_path), bundle=str(run))  # without labels: no old table
    assert not [file.name for file in tmp_path.iterdir() if file.name.startswith("table")]


@pytest.mark.parametrize("mode", MASK_MODES)
def test_a_state_is_what_predict_gives_with_these_rois_masked(mode, run, subjects, tmp_path):
    scores = states_of(subjects, tmp_path / "all", bundle=str(run), mask_mode=mode)
    masked = ("nm", "qsm2")
    alone = predict(
        subjects, str(tmp_path), bundle=str(run), masked_rois=list(masked), mask_mode=mode
    )
    expected = [float(row["prob_pd"]) for row in read_rows(alone)]
    index = masked_states(ROIS).index(masked)
    got = [states[index] for states in scores.values()]
    assert got == pytest.approx(expected, abs=2e-6)  # predictions.csv has six decimals


def test_references_of_the_weights_take_the_place_of_masked_rois(run, subjects, tmp_path):
    options = {"mask_mode": "reference", "require_labels": True}
    message = "needs weights with reference subjects of these ROIs.*or take --mask_mode voxels"
    with pytest.raises(ValueError, match=message):
        contributions(subjects, str(tmp_path / "none"), bundle=str(run), **options)
    shutil.copytree(run, tmp_path / "run")
    weights = tmp_path / "run" / "models" / "model.pt"
    draw = np.random.default_rng(0)
    vectors = {name: draw.normal(size=(3, 128)).tolist() for name in ("HC", "PD")}
    append_record(weights, REFERENCES, {"rois": ROIS, "subjects": vectors})
    out = tmp_path / "out"
    rows = read_rows(contributions(subjects, str(out), bundle=str(tmp_path / "run"), **options))
    assert len({row["baseline"] for row in rows}) == 1 < len({row["prob_pd"] for row in rows})
    for row in rows:
        total = sum(float(row[roi]) for roi in ROIS)
        assert total == pytest.approx(float(row["prob_pd"]) - float(row["baseline"]), abs=1e-6)
    summary = json.loads((out / "contributions.json").read_text())
    assert summary["mask_mode"] == "reference"
    finding = summary["leakage"]["finding"]
    assert "all subjects get the same references: no test for leaks" in finding


def test_an_ensemble_and_other_rois(subjects, tmp_path):
    changes = {"rois#qsm1#_disabled_": True, "rois#qsm3#_disabled_": True}
    runs = [make_run(tmp_path / f"fold{seed}", seed, **changes) for seed in (1, 2)]
    ensemble = save_ensemble(runs, tmp_path / "ensemble")
    each = [
        states_of(subjects, tmp_path / f"{bundle.name}_out", bundle=str(bundle)) for bundle in runs
    ]
    path = contributions(subjects, str(tmp_path / "out"), bundle=str(ensemble))
    rows = read_rows(path.with_name("states.csv"))
    assert list(rows[0]) == ["subject", "none", "nm", "qsm2", "nm+qsm2"]
    for row in rows:
        mean = np.mean([scores[row["subject"]] for scores in each], axis=0)
        got = [float(cell) for cell in list(row.values())[1:]]
        assert got == pytest.approx(mean, abs=1e-6)
    assert {"predictions.csv", "biomarkers.csv", "manifest.json", "contributions.csv"} <= {
        file.name for file in path.parent.iterdir()
    }
    assert not path.with_name("table.csv").exists()
    assert json.loads(path.with_name("contributions.json").read_text())["leakage"] is None


def test_it_is_a_prediction_with_states(run, tmp_path, capsys):
    """Raw images, faulty subjects, --resume, and what predict itself writes."""
    segmentation = str(make_segmentation_bundle(tmp_path / "segmentation"))
    for number in range(3):
        make_subject(tmp_path / "few" / f"S{number}", number % 2, number)
        for mask in (tmp_path / "few" / f"S{number}").glob("*_mask.nii.gz"):
            mask.unlink()
    (tmp_path / "few" / "S1" / "QSM.nii.gz").write_bytes(b"nothing")
    out = tmp_path / "out"
    options = {"bundle": str(run), "segmentation": segmentation, "abstain": False}
    with pytest.raises(FailedSubjectsError, match="1 of 3 subjects failed"):
        predict(tmp_path / "few", out, **options)
    with pytest.raises(FailedSubjectsError, match="1 of 3 subjects failed"):
        contributions(tmp_path / "few", out, resume=True, **options)
    assert "left: 2 without these states, 1 failed before" in capsys.readouterr().out
    states = read_rows(out / "states.csv")
    assert [row["subject"] for row in states] == ["S0", "S2"]
    record = read_record(out, "S0")
    assert record["mask_source"] == {"nm": "segmented", "qsm": "segmented"}
    assert record["states"]["prob_pd"][0] == pytest.approx(record["prob_pd"], abs=1e-6)
    shutil.rmtree(tmp_path / "few" / "S1")
    make_subject(tmp_path / "few" / "S1", 1, 1)
    contributions(tmp_path / "few", out, resume=True, **options)
    assert "resume: 2 subjects are done; left: 1 failed before" in capsys.readouterr().out
    assert [row["subject"] for row in read_rows(out / "states.csv")] == ["S0", "S1", "S2"]


def scores_of(prob_pd, labels, rois=("nm",)):
    names = [f"S{index:02d}" for index in range(len(prob_pd))]
    values = {name: {"prob_pd": own} for name, own in zip(names, prob_pd, strict=True)}
    return StateScores(rois, values, dict(zip(names, labels, strict=True)))


def test_metrics_of_each_state_follow_the_labels():
    labels = [0, 1] * 5
    rows = state_metrics(scores_of([[0.2 + 0.6 * y, 0.4] for y in labels], labels))
    assert [row["masked"] for row in rows] == [[], ["nm"]]
    assert [row["accuracy"]["value"] for row in rows] == [1.0, 0.5]
    assert [row["roc_auc"]["value"] for row in rows] == [1.0, 0.5]
    assert "paper" not in rows[0]


def test_missing_labels_are_named():
    scores = scores_of([[0.1, 0.2]] * 2, [1, 0])
    del scores.labels["S01"]
    with pytest.raises(ValueError, match=r"subjects \['S01'\] have no label; name a table"):
        state_metrics(scores)


def test_leakage_is_said_plainly():
    labels = [0, 1] * 20
    rng = np.random.default_rng(0)
    blind = scores_of([[0.5, float(p)] for p in rng.random(40)], labels)
    leaky = scores_of([[0.5, 0.2 + 0.6 * y] for y in labels], labels)
    noisy = [0.2 + 0.6 * y + 0.4 * p for y, p in zip(labels, rng.random(40) - 0.5, strict=True)]
    noisy[0], noisy[1] = 0.6, 0.4  # one pair in the wrong order: the interval has a width
    noisy = scores_of([[0.5, p] for p in noisy], labels)
    for scores, seen, words in (
        (noisy, True, "leaves 0.5 out: the geometry of the crops leaks the class."),
        (blind, False, "holds 0.5: no leak through the geometry of the crops is seen."),
        (leaky, True, "leaves 0.5 out: the geometry of the crops leaks the class."),
    ):
        leak = leakage(state_metrics(scores)[-1], "voxels")
        assert leak["seen"] is seen
        assert leak["finding"].startswith("With all ROIs masked, the ROC AUC is ")
        assert leak["finding"].endswith(words)
    mean = leakage(state_metrics(leaky)[-1], "mean")  # which keeps a brightness
    assert "the geometry or the mean of the crops leaks" in mean["finding"]
    assert leakage(state_metrics(leaky)[-1], "token")["seen"] is None
    few = scores_of([[0.5, 0.5]] * 2, [0, 1])
    assert "no interval" in leakage(state_metrics(few)[-1], "noise")["finding"]


def test_what_is_varied_here_is_refused(run, subjects, tmp_path):
    with pytest.raises(ValueError, match=r"averages no views; leave out --tta"):
        contributions(subjects, str(tmp_path), bundle=str(run), tta=True)
    with pytest.raises(ValueError, match="mask_mode must be one of"):
        contributions(subjects, str(tmp_path), bundle=str(run), mask_mode="blur")
    with pytest.raises(ValueError, match="--ckpt: the config has no 'ckpt'"):
        contributions(subjects, str(tmp_path), bundle=str(run), ckpt="x")
    assert list(tmp_path.iterdir()) == []


def test_the_command_prints_the_table(run, cohort, tmp_path, monkeypatch, capsys):
    options = ["--bundle", str(run), "--labels", "train_cases.csv", "--mask_mode", "token"]
    arguments = ["mrn", "contributions", str(cohort), str(tmp_path), *options]
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # main replaces it
    cli.main()
    out = capsys.readouterr().out
    assert f"contributions: {tmp_path / 'contributions.csv'}" in out
    assert "the score is constant, since zero ROI tokens tell nothing" in out
    with (tmp_path / "states.csv").open() as file:
        baselines = {row[STATES[-1]] for row in csv.DictReader(file)}
    assert len(baselines) == 1
