"""`mrn reproduce`: scores, report, cohorts, and the way from rows to a table."""

import csv
import io
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_run
from monai.bundle import ConfigParser
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score
from tiny_cohort import make_subject

from mrn_components.app.paper import METRICS, load_table
from mrn_components.app.reproduce import run as module
from mrn_components.app.reproduce.cohorts import Data, make_data
from mrn_components.app.reproduce.cost import Cost, cost_of
from mrn_components.app.reproduce.regression import RegressionRun
from mrn_components.app.reproduce.report import Report, score_rows
from mrn_components.app.reproduce.run import reproduce
from mrn_components.data import load_subjects
from mrn_components.data.identities import DataLeakageError
from mrn_components.data.predictions import read_predictions
from mrn_components.phantom import cohort as cohort_module
from mrn_components.phantom.cohort import draw_label
from mrn_components.system.files import write_text

LABELS = np.array([0, 1] * 30)
BUNDLES = str(Path(__file__).parents[2] / "bundles")


def probabilities(signal, seeds=1, spread=0.0, seed=0):
    """P(PD) (S, N) that shows the label by ``signal`` standard deviations."""
    rng = np.random.default_rng(seed)
    shift = signal + spread * rng.standard_normal((seeds, 1))
    logits = shift * (LABELS - 0.5) + rng.standard_normal((seeds, len(LABELS)))
    return 1 / (1 + np.exp(-logits))


# ---- scores


def test_values_are_scikit_learns_mean_over_the_seeds():
    prob = probabilities(1.0, seeds=3)
    scores = score_rows({"row": prob}, LABELS)["row"]
    expected = {
        "accuracy": np.mean([accuracy_score(LABELS, p > 0.5) for p in prob]),
        "roc_auc": np.mean([roc_auc_score(LABELS, p) for p in prob]),
        "f1_macro": np.mean([f1_score(LABELS, p > 0.5, average="macro") for p in prob]),
    }
    for metric, score in scores.items():
        assert score.value == pytest.approx(expected[metric])
        assert len(score.by_seed) == 3
        low, high = score.interval
        assert low < score.value < high


def test_a_row_does_not_differ_from_itself_and_differences_are_antisymmetric():
    rows = {"a": probabilities(1.0), "b": probabilities(2.0, seed=1)}
    scores = score_rows({**rows, "same": rows["a"]}, LABELS)
    a, b, same = (scores[name]["roc_auc"] for name in ("a", "b", "same"))
    assert a.minus(same) == (0, None)  # every resample says so
    difference, (low, high) = a.minus(b)
    opposite, limits = b.minus(a)
    assert opposite == -difference
    assert limits == pytest.approx((-high, -low))


def test_a_row_whose_resamples_do_not_differ_has_no_interval():
    scores = score_rows({"row": np.full((1, 60), 0.3)}, LABELS)["row"]
    assert {metric: score.interval for metric, score in scores.items()} == dict.fromkeys(scores)
    assert scores["accuracy"].value == 0.5


def test_pairing_narrows_the_interval_of_a_difference():
    base = probabilities(1.0)
    nearly = base + np.random.default_rng(3).normal(0, 0.001, base.shape)
    scores = score_rows({"a": base, "b": np.clip(nearly, 0, 1)}, LABELS)
    _, (low, high) = scores["a"]["roc_auc"].minus(scores["b"]["roc_auc"])
    assert high - low < 0.01


def test_the_chance_of_training_widens_the_interval():
    def width(spread):
        prob = probabilities(1.0, seeds=4, spread=spread)
        low, high = score_rows({"row": prob}, LABELS)["row"]["roc_auc"].interval
        return high - low

    assert width(2.0) > 1.3 * width(0.0)


def test_one_class_alone_cannot_be_scored():
    with pytest.raises(ValueError, match="must be of both classes, got the labels"):
        score_rows({"row": np.array([[0.1, 0.9]])}, np.array([1, 1]))


def test_intervals_of_one_seed_cover_the_truth():
    """With 60 cohorts, 95 % intervals of an uninformative row hold 0.5 in most."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(60):
        score = score_rows({"row": rng.random((1, 60))}, LABELS)["row"]["roc_auc"]
        low, high = score.interval
        held += low <= 0.5 <= high
    assert held >= 52


# ---- report


def report(table=8, **scored):
    scores = score_rows(scored, LABELS)
    loaded = load_table(table)
    return Report(
        table=loaded,
        rows=loaded.rows,
        scores=scores,
        setting="phantoms",
        seeds=[1],
        unscored={"MRN-DPT-Global": "a run failed"},
    )


def test_rows_are_told_apart_only_where_chance_does_not_explain_them():
    good, other, bad = probabilities(6.0), probabilities(6.0, seed=1), probabilities(0.0, seed=2)
    names = ["SERes10-mSupMoCo", "MRN-DPT-Global", "MRN-DPT-Local (ours)"]
    text = report(**dict(zip(names, (bad, other, good), strict=True))).markdown()
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if "|" in line}
    assert lines[names[0]].endswith(": separable |")
    assert lines[names[1]].endswith(": not separable |")
    assert "Of 3 pairs of rows 2 are separable" in text
    assert f"- {names[2]} is above {names[0]}." in text
    assert "82.0 (73.3 to 88.3)" in lines[names[1]]  # the paper's accuracy of 100 subjects
    assert "without the chance of training" in text
    assert "Research use only" in text


def test_a_row_without_scores_says_why():
    text = report(**{"MRN-DPT-Local (ours)": probabilities(1.0)}).markdown()
    assert "| a run failed |" in text
    assert "| not ours |" in text  # SERes10-mSupMoCo was not asked for
    assert "Of 0 pairs" in text


def test_the_csv_holds_every_row_and_metric():
    rows = list(csv.DictReader(io.StringIO(report(**{"MRN-DPT-Global": probabilities(1.0)}).csv())))
    assert [(row["row"], row["metric"]) for row in rows] == [
        (row.name, metric) for row in load_table(8).rows for metric in METRICS
    ]
    assert rows[3]["ours"] == f"{100 * accuracy_score(LABELS, probabilities(1.0)[0] > 0.5):.2f}"
    assert rows[0]["ours"] == ""
    assert rows[0]["paper"] == "81.0"


def test_costs_and_notes_stand_in_the_tables_that_ask_for_them():
    table = load_table("peers")
    cost = Cost(trained=0.5, total=86.25, tflop=0.0123, peak_gib=None, seconds=1.5)
    shown = Report(
        table=table,
        rows=table.rows,
        scores=score_rows({"MRN": probabilities(1.0)}, LABELS),
        setting="phantoms",
        seeds=[1],
        unscored={},
        costs={"MRN": cost},
    )
    lines = {
        line.split("|")[1].strip(): line for line in shown.markdown().splitlines() if "|" in line
    }
    assert lines["MRN"].endswith("| – | 0.5 of 86.2 | 0.0123 | – | 1.50 |")
    assert lines["SERes10"].endswith("| – | – | – | – |")
    assert len({line.count("|") for line in lines.values()}) == 1
    assert "logistic, geometry: sizes and places of the crops, a control, not a marker." in (
        shown.markdown()
    )
    assert shown.costs_csv().splitlines() == [
        "row,trained,total,tflop,peak_gib,seconds",
        "MRN,0.5,86.25,0.0123,,1.5",
    ]
    assert "TFLOP" not in report().markdown()


# ---- costs


def test_costs_are_counted_of_one_subject(cohort, tmp_path):
    """Of an encoder of one block and a classifier, by the operations of their layers."""
    parts = {f"network_def#res#{part}#_disabled_": True for part in ("ffa", "sfa")}
    more = {"train": {"network_def#res#dpt#_disabled_": True}, "inference": {}}
    (tmp_path / "configs").mkdir()
    for name, own in more.items():
        parser = ConfigParser()
        parser.read_config(f"{BUNDLES}/mrn/configs/{name}.yaml")
        parser.update({**tiny_run.TINY, **parts, **own})
        content = {key: value for key, value in parser.get().items() if key != "_meta_"}
        (tmp_path / "configs" / f"{name}.json").write_text(json.dumps(content))
    run = SimpleNamespace(folder=tmp_path, predictions=tmp_path / "test" / "predictions.csv")
    subject = load_subjects(cohort)[0]

    cost = cost_of(run, subject)
    network = parser.get_parsed_content("network")
    count = sum(parameter.numel() for parameter in network.parameters())
    assert cost.total == cost.trained == pytest.approx(count / 1e6)
    crops = parser.get_parsed_content("preprocessing")(dict(subject))
    flop = 2 * (4 * 32 * 32 + 32 * 2)  # of the classifier, four tokens of 32
    for roi in network.rois:
        slices, (rows, columns) = crops[roi].shape[1], crops[roi].shape[2:]
        scale = 28 / max(rows, columns)
        patches = -(-round(rows * scale) // 14) * -(-round(columns * scale) // 14)
        tokens = patches + 5
        block = 2 * tokens * 12 * 32 * 32 + 4 * tokens**2 * 32
        flop += slices * (2 * patches * 14 * 14 * 32 + block)
    assert cost.tflop == pytest.approx(flop / 1e12)
    assert (cost.peak_gib, cost.seconds) == (None, None)
    run.predictions.parent.mkdir()
    timings = {"timings_s": {"read": {"mean": 0.5}, "classify": {"mean": 0.25}}}
    run.predictions.with_name("manifest.json").write_text(json.dumps(timings))
    (tmp_path / "configs" / "train.json").unlink()  # what was counted stays
    assert cost_of(run, subject).seconds == 0.75


# ---- regressions


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """Six subjects that are not in the cohort."""
    root = tmp_path_factory.mktemp("others")
    for number in range(6):
        make_subject(root / f"TEST_{number:03d}", label=number % 2, seed=100 + number)
    rows = [f"TEST_{number:03d},{number % 2}" for number in range(6)]
    (root / "train_cases.csv").write_text("\n".join(rows) + "\n")
    return root


def regression(folder, training, test, **more):
    kind = {"features": "biomarkers", "model": "logistic", "seed": 1, "num_folds": 5, **more}
    data = Data(training=training, test=test)
    return RegressionRun(name="row", folder=folder, data=data, cache_dir=folder / "cache", **kind)


def test_a_regression_predicts_the_test_subjects_from_the_training_part(cohort, others, tmp_path):
    run = regression(tmp_path, cohort, others)
    assert run.state() == "start"
    run.run()
    assert run.state() == "done"
    prob = read_predictions(run.predictions)
    assert list(prob) == [f"TEST_{number:03d}" for number in range(6)]
    assert min(list(prob.values())[1::2]) > max(list(prob.values())[::2])  # it is easy
    written = run.predictions.read_bytes()
    run.run()
    assert run.predictions.read_bytes() == written


def test_a_regression_is_not_scored_on_whom_it_was_fitted_to(cohort, tmp_path):
    with pytest.raises(DataLeakageError):
        regression(tmp_path, cohort, cohort).run()
    assert regression(tmp_path, cohort, cohort).state() == "start"


def test_what_phantoms_were_made_of_tells_their_disease_without_their_images(tmp_path):
    for seed in (1, 2):
        rows = []
        for index in range(20):
            name, label = f"PHAN{seed}_{index:03d}", draw_label(index, seed=seed)
            make_subject(tmp_path / f"{seed}" / name, label=0, seed=100 * seed + index)
            rows.append(f"{name},{label}")
        (tmp_path / f"{seed}" / "train_cases.csv").write_text("\n".join(rows) + "\n")
        settings = {"version": cohort_module._VERSION, "seed": seed, "effect": 4.0}
        (tmp_path / f"{seed}" / "phantom.json").write_text(json.dumps(settings))
    run = regression(tmp_path / "run", tmp_path / "1", tmp_path / "2", features="latent")
    run.run()
    prob = read_predictions(run.predictions)
    truth = [subject["label"] for subject in run.data.test_subjects()]
    assert roc_auc_score(truth, list(prob.values())) > 0.9


# ---- cohorts


def test_shuffled_labels_are_the_same_labels_in_another_order(cohort, tmp_path):
    data = make_data("paper", tmp_path, ["true", "shuffled", "null"], (cohort, cohort), 1.0)
    assert set(data) == {"true", "shuffled"}
    true = load_subjects(cohort)
    shuffled = data["shuffled"].test_subjects()
    assert [s["subject"] for s in shuffled] == [s["subject"] for s in true]
    labels = [[s["label"] for s in subjects] for subjects in (true, shuffled)]
    assert sorted(labels[0]) == sorted(labels[1])
    assert labels[0] != labels[1]
    again = make_data("paper", tmp_path, ["shuffled"], (cohort, cohort), 1.0)["shuffled"]
    assert [s["label"] for s in again.test_subjects()] == labels[1]


# ---- from rows to a table


@pytest.fixture
def untrained(monkeypatch, cohort):
    """Runs that write probabilities without training; the folders that were asked for."""
    folders = []
    subjects = load_subjects(cohort)

    def run_here(runs, jobs):
        failures = []
        for run in runs:
            folders.append(run.folder)
            if "DPT-Global" in run.name:
                failures.append(f"  {run.name}: out of luck")
                continue
            rows = [f"{s['subject']},{0.9 if s['label'] else 0.2},0,0" for s in subjects]
            header = "subject,prob_pd,class,trained_on"
            write_text(run.predictions, "\n".join([header, *rows]) + "\n")
            write_text(run.folder / "models" / "checkpoints" / "epoch_0009.pt", "")
        return failures

    monkeypatch.setattr(module, "run_here", run_here)
    monkeypatch.setattr("mrn_components.app.bundle_run.BundleRun.state", state)
    return folders


def state(self):
    return "done" if self.predictions.is_file() else "start"


def options(cohort, tmp_path, **more):
    paths = {"dataset_dir": str(cohort), "test_dir": str(cohort), "output": str(tmp_path)}
    return {"scale": "paper", "bundles": BUNDLES, **paths, **more}


def test_a_failed_run_leaves_a_table_of_the_others(untrained, cohort, tmp_path):
    with pytest.raises(RuntimeError, match=r"1 of 3 runs failed; mend (?s:.)*Global, seed 1: out"):
        reproduce(8, **options(cohort, tmp_path))
    text = (tmp_path / "table8-paper.md").read_text()
    assert text.count("a run failed") == 1
    assert text.count("100.0 (no interval)") == 6
    assert (tmp_path / "table8-paper-pairs.csv").read_text().count("\n") == 1 + 3


def test_rows_and_tables_share_the_runs_that_train_the_same(untrained, cohort, tmp_path):
    reproduce(7, **options(cohort, tmp_path))
    first = set(untrained)
    reproduce(7, **options(cohort, tmp_path, rows=["SERes10-mSupMoCo"], seeds=[1, 2]))
    assert len(first) == 3
    assert len(set(untrained) - first) == 1  # the row that was asked for, with seed 2
    text = (tmp_path / "table7-paper.md").read_text()
    assert "Training seeds: 1, 2." in text
    assert "| MRN-ViT-Base (ours) |" not in text  # what it is compared with has no seed 2


def test_the_row_to_compare_with_comes_along_if_it_is_trained(untrained, cohort, tmp_path):
    one = options(cohort, tmp_path, rows=["MRN-DPT-Local (ours)"])
    reproduce(8, **one)
    assert len(untrained) == 1
    text = reproduce(8, **options(cohort, tmp_path, rows=["SERes10-mSupMoCo"])).read_text()
    assert len(untrained) == 2
    assert "| MRN-DPT-Local (ours) |" in text


def test_a_null_cohort_cannot_be_made_of_patients(untrained, cohort, tmp_path):
    rows = ["Control, shuffled labels", "Control, no disease effect"]
    text = reproduce(2, **options(cohort, tmp_path, rows=rows)).read_text()
    assert "| made of phantoms only |" in text
    assert "| control: the interval" in text


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"scale": "large"}, "scale must be 'small' or 'paper', got 'large'"),
        ({"test_dir": None}, "name the subjects to train on by --dataset_dir DIR and those to sc"),
        ({"epoch": 1}, "the config has no 'epoch'"),
        ({"output_dir": "x"}, "--output_dir: `mrn reproduce` sets it for every run"),
        ({"seeds": []}, "seeds must name at least one and jobs be >= 1"),
        ({"jobs": 0}, "seeds must name at least one and jobs be >= 1, got .* and 0"),
    ],
)
def test_arguments_that_name_nothing(cohort, tmp_path, more, message):
    with pytest.raises(ValueError, match=message):
        reproduce(8, **options(cohort, tmp_path, **more))


@pytest.mark.slow
def test_a_table_of_phantoms_is_trained_once(tmp_path):
    def call():
        return reproduce(
            8,
            output=str(tmp_path),
            bundles=BUNDLES,
            rows=["MRN-DPT-Global"],
            epochs=1,
            pretrain_epochs=0,
        )

    text = call().read_text()
    assert "Of 0 pairs of rows" in text
    weights = sorted(tmp_path.glob("runs/*/models/model.pt"))
    saved = [path.stat().st_mtime_ns for path in weights]
    assert len(weights) == 1
    assert call().read_text() == text
    assert [path.stat().st_mtime_ns for path in weights] == saved
