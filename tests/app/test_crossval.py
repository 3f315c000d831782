"""The folds of a cross-validation: what is left to do, doing it, failing, and the results."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_bundles import BUNDLES, TINY
from tiny_run import read_rows

from mrn_components import Classes, Score
from mrn_components.app import crossval as module
from mrn_components.app.bundle_run import BundleRun
from mrn_components.app.crossval import crossval, plan_folds, run_here, submit, write_results
from mrn_components.app.evaluate import evaluate
from mrn_components.app.predict import predict
from mrn_components.data import DataLeakageError, load_subjects
from mrn_components.data.predictions import write_predictions as write_table
from mrn_components.data.weight_records import KEPT_WEIGHTS, append_record
from mrn_components.system import files

BUNDLE = BUNDLES / "mrn"
# A "training" of two epochs and a "prediction", which note how they were called.
TRAIN = """
import sys
from pathlib import Path
folder = Path(sys.argv[1])
print("trains", sys.argv[2:], flush=True)
(folder / "models/checkpoints").mkdir(parents=True, exist_ok=True)
for name in ("model.pt", "checkpoints/epoch_0002.pt"):
    (folder / "models" / name).touch()
"""
PREDICT = """
import sys
from pathlib import Path
folder = Path(sys.argv[1]) / "out_of_fold"
print("predicts", flush=True)
folder.mkdir(exist_ok=True)
(folder / "predictions.csv").write_text("subject\\n")
"""


def make_fold(folder, train=TRAIN, predict=PREDICT, fold=0):
    commands = [[sys.executable, "-c", code, str(folder)] for code in (train, predict)]
    return BundleRun(
        name=f"fold {fold}",
        folder=folder,
        epochs=2,
        train=commands[0],
        predict=commands[1],
        predictions=folder / "out_of_fold" / "predictions.csv",
    )


def log(folder):
    return (folder / "train.log").read_text().splitlines()


def touch(folder, *names):
    for age, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (1000 + age, 1000 + age))


MODEL, FIRST, SECOND = (
    "models/model.pt",
    "models/checkpoints/epoch_0001.pt",
    "models/checkpoints/epoch_0002.pt",
)
TABLE = "out_of_fold/predictions.csv"


@pytest.mark.parametrize(
    ("files", "state", "calls"),
    [
        ((), "start", ["trains []", "predicts"]),
        ((MODEL, "tensorboard/events"), "start", ["trains []", "predicts"]),
        ((MODEL, FIRST), "resume", ["trains ['--resume', 'True']", "predicts"]),
        ((MODEL, FIRST, SECOND), "predict", ["predicts"]),
        ((TABLE, MODEL, FIRST, SECOND), "predict", ["predicts"]),  # of earlier weights
        ((MODEL, FIRST, SECOND, TABLE), "done", []),
    ],
)
def test_a_fold_does_what_is_left(tmp_path, files, state, calls):
    touch(tmp_path, *files)
    run = make_fold(tmp_path)
    assert run.state() == state
    run.run()
    assert run.state() == "done"
    assert (log(tmp_path) if calls else []) == calls


def test_a_fold_that_died_before_its_first_checkpoint_starts_afresh(tmp_path):
    """Its weights would make the training refuse the folder."""
    touch(tmp_path, MODEL, "tensorboard/events", "models/.unfinished.1.epoch_0001.pt")
    with pytest.raises(RuntimeError, match="exit code 1"):
        make_fold(tmp_path, train="raise SystemExit(1)").run()
    assert not (tmp_path / "models").exists()
    assert not (tmp_path / "tensorboard").exists()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "raise SystemExit('waffle\\n\\nerror: NM is missing;\\nadd it')",
            r"NM is missing;\nadd it",
        ),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "exit code 3"),
        ("import os; os.kill(os.getpid(), 9)", "ended by SIGKILL, often for want of memory"),
    ],
)
def test_a_failing_fold_says_why_and_the_others_go_on(tmp_path, capsys, code, message):
    runs = [make_fold(tmp_path / "0", train=code), make_fold(tmp_path / "1", fold=1)]
    (failure,) = run_here(runs, jobs=1)
    assert f"fold 0: {message}".replace("\\n", "\n") in failure
    assert f"(all of it is in {tmp_path / '0' / 'train.log'})" in failure
    assert [run.state() for run in runs] == ["start", "done"]
    assert "trains []" in capsys.readouterr().out


def test_several_folds_at_a_time_write_to_their_logs_only(tmp_path, capsys):
    runs = [make_fold(tmp_path / str(k), fold=k) for k in range(3)]
    assert run_here(runs, jobs=3) == []
    assert all(log(run.folder) == ["trains []", "predicts"] for run in runs)
    assert "trains" not in capsys.readouterr().out


def test_a_folder_in_use_is_refused_also_while_only_the_training_lives(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_PATIENCE_S", 0.3)
    run = make_fold(tmp_path, train="import time; print('up', flush=True); time.sleep(5)")
    child = os.fork()
    if child == 0:
        run.run()
        os._exit(0)
    while not (tmp_path / "train.log").is_file() or "up" not in log(tmp_path):
        time.sleep(0.02)
    with pytest.raises(RuntimeError, match=rf"is in use by process {child} on .*; wait until"):
        run.run()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with pytest.raises(RuntimeError, match="or by a process that it started"):
        run.run()


@pytest.mark.slow
def test_folds_as_jobs(tmp_path):
    runs = [make_fold(tmp_path / "0"), make_fold(tmp_path / "1", train="1 / 0", fold=1)]
    parameters = {"timeout_min": 1}
    (failure,) = submit(runs, tmp_path / "jobs", cluster="local", parameters=parameters)
    assert "fold 1: " in failure
    assert "ZeroDivisionError" in failure
    assert [run.state() for run in runs] == ["done", "start"]


def test_jobs_without_submitit_say_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(RuntimeError, match=r"pip install 'mrn-components\[slurm\]'"):
        submit([make_fold(tmp_path)], tmp_path, cluster="slurm", parameters={})


# ---- the plan


def settings(cohort, **changes):
    base = {"dataset_dir": str(cohort), "bundle": str(BUNDLE), "num_folds": 5, "configs": []}
    return {**base, "overrides": {"epochs": 2}, **changes}


def test_every_fold_has_its_subjects_and_its_commands(cohort, tmp_path):
    runs, subjects = plan_folds(settings(cohort, configs=["small.yaml"]), tmp_path, processes=2)
    members = []
    for number, run in enumerate(runs):
        validation = load_subjects(run.folder / "validation.json")
        assert len(validation) == 2
        members += validation
        command = " ".join(run.train)
        assert "torch.distributed.run --standalone --nproc_per_node=2 -m monai.bundle" in command
        assert "train.yaml" in command
        assert "small.yaml" in command
        for flag in (f"--fold {number}", "--epochs 2", f"--output_dir {run.folder}"):
            assert flag in command
        assert f"--bundle {run.folder}" in " ".join(run.predict)
        assert run.epochs == 2
    assert sorted(members, key=lambda s: s["subject"]) == subjects
    assert json.loads((tmp_path / "folds.json").read_text())["seed"] == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"overrides": {"lerning_rate": 3}}, "--lerning_rate: the config has no 'lerning_rate'"),
        ({"overrides": {"fold": 3}}, "--fold: `mrn crossval` sets it for every fold"),
        ({"overrides": {"epochs": 3}}, r"overrides was {'epochs': 2}, is now {'epochs': 3}"),
        ({"num_folds": 4}, "num_folds was 5, is now 4.*name another output folder"),
    ],
)
def test_other_settings_and_unknown_keys_are_refused(cohort, tmp_path, changes, message):
    plan_folds(settings(cohort), tmp_path)
    with pytest.raises(ValueError, match=message):
        plan_folds(settings(cohort, **changes), tmp_path)


def test_an_overlay_that_is_not_there_is_named(cohort, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no configs/smal\.yaml"):
        plan_folds(settings(cohort, configs=["smal.yaml"]), tmp_path)


def test_folds_that_share_an_image_are_refused_before_anything_trains(cohort, tmp_path):
    copied = Path(shutil.copytree(cohort, tmp_path / "data"))
    for number in range(1, 10):
        shutil.copy(copied / "SUBJ_000" / "NM.nii.gz", copied / f"SUBJ_{number:03d}")
    with pytest.raises(RuntimeError) as caught:
        plan_folds(settings(copied), tmp_path / "out")
    assert isinstance(caught.value.__cause__, DataLeakageError)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").glob("fold*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fold": 5}, "fold must be 0 to 4, got 5"),
        ({"executor": "pbs"}, "executor must be 'local' or 'slurm', got 'pbs'"),
        ({"jobs": 0}, "jobs and processes must be >= 1, got 0 and 1"),
    ],
)
def test_arguments_that_name_nothing_are_refused(cohort, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        crossval(str(cohort), str(tmp_path), bundle=str(BUNDLE), **arguments)


def test_one_fold_alone_says_what_is_missing(cohort, tmp_path, capsys, monkeypatch):
    def pretend(runs, jobs):
        for run in runs:
            touch(run.folder, MODEL, SECOND, TABLE)
        return []

    monkeypatch.setattr(module, "run_here", pretend)
    crossval(str(cohort), str(tmp_path), bundle=str(BUNDLE), fold=2, epochs=2)
    out = capsys.readouterr().out
    assert "Folds 0, 1, 3, 4 are not trained yet." in out
    assert f"mrn crossval {cohort} {tmp_path} --bundle" in out
    assert "--epochs 2" in out
    assert not (tmp_path / "crossval.json").exists()


def test_failures_end_in_one_message(cohort, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "run_here", lambda *_: ["  fold 1: no"])
    with pytest.raises(RuntimeError, match=r"1 of 5 folds failed; .*\n  fold 1: no"):
        crossval(str(cohort), str(tmp_path), bundle=str(BUNDLE))


# ---- the results


def write_weights(folder, chosen=True):
    (folder / "models").mkdir(parents=True, exist_ok=True)
    torch.save({}, folder / "models/model.pt")
    record = {"rule": "any", "chosen_on_validation": chosen}
    append_record(folder / "models/model.pt", KEPT_WEIGHTS, record)


def write_predictions(runs, probabilities, trained_on="0", chosen=True):
    for run in runs:
        write_weights(run.folder, chosen)
        lines = ["subject,prob_pd,class,trained_on"]
        for subject in load_subjects(run.folder / "validation.json"):
            prob = probabilities[subject["subject"]]
            lines.append(f"{subject['subject']},{prob:.6f},{int(prob > 0.5)},{trained_on}")
        run.predictions.parent.mkdir()
        run.predictions.write_text("\n".join(lines) + "\n")


def test_results_hold_every_subject_once_and_the_metrics(cohort, tmp_path):
    runs, subjects = plan_folds(settings(cohort), tmp_path)
    prob = {s["subject"]: 0.9 if s["label"] else 0.1 for s in subjects}
    wrong = load_subjects(runs[3].folder / "validation.json")
    prob |= {subject["subject"]: 0.2 for subject in wrong if subject["label"]}
    write_predictions(runs, prob)
    table = write_results(runs, subjects, tmp_path)
    rows = list(csv.DictReader((tmp_path / "out_of_fold.csv").open()))
    assert [row["subject"] for row in rows] == [s["subject"] for s in subjects]
    assert [int(row["label"]) for row in rows] == [s["label"] for s in subjects]
    assert [float(row["prob_pd"]) for row in rows] == list(prob.values())
    content = json.loads((tmp_path / "crossval.json").read_text())
    accuracies = [metrics["accuracy"]["value"] for metrics in content["folds"]]
    assert accuracies == [1, 1, 1, 0.5, 1]
    assert content["summary"]["accuracy"] == pytest.approx({"mean": 0.9, "sd": 0.05**0.5})
    assert content["overall"]["accuracy"]["value"] == 0.9
    assert "0.900 (0.224)" in table
    assert [record["rule"] for record in content["kept_weights"]] == ["any"] * 5


@pytest.mark.parametrize(
    ("chosen", "note"), [(True, "a little too good; folds trained with --keep last"), (False, "No")]
)
def test_results_say_whether_epochs_were_chosen_on_their_subjects(cohort, tmp_path, chosen, note):
    runs, subjects = plan_folds(settings(cohort), tmp_path)
    write_predictions(runs, {s["subject"]: 0.5 for s in subjects}, chosen=chosen)
    table = write_results(runs, subjects, tmp_path)
    said = json.loads((tmp_path / "crossval.json").read_text())["note"]
    assert note in said
    assert table.endswith(said)


def test_predictions_by_a_network_that_saw_the_subject_are_refused(cohort, tmp_path):
    runs, subjects = plan_folds(settings(cohort), tmp_path)
    write_predictions(runs, dict.fromkeys((s["subject"] for s in subjects), 0.5), trained_on="1")
    with pytest.raises(DataLeakageError, match=r"fold 0: .* trained on .*SUBJ_"):
        write_results(runs, subjects, tmp_path)


def runs_of(tmp_path, tables, target):
    """Runs of folds that have predicted: a table each."""
    runs = []
    for fold, rows in enumerate(tables):
        path = tmp_path / f"fold{fold}" / "predictions.csv"
        write_table(path, rows, target)
        write_weights(path.parent)
        command = {"train": (), "predict": ()}
        runs.append(BundleRun(f"fold {fold}", path.parent, 1, predictions=path, **command))
    return runs


def test_results_of_several_classes_and_of_scores_have_their_own_columns_and_metrics(tmp_path):
    names = [f"S{number:02d}" for number in range(12)]
    three = Classes(names=["HC", "PD", "MSA"])
    rng = np.random.default_rng(2)
    prob = dict(zip(names, rng.dirichlet([1, 1, 1], 12).tolist(), strict=True))
    rows = [
        {"subject": name, **dict(zip(three.columns, prob[name], strict=True)), "trained_on": 0}
        for name in names
    ]
    rows = [row | three.decide(row) for row in rows]
    subjects = [{"subject": name, "label": number % 3} for number, name in enumerate(names)]
    table = write_results(runs_of(tmp_path, [rows[:6], rows[6:]], three), subjects, tmp_path)
    lines = list(csv.DictReader((tmp_path / "out_of_fold.csv").open()))
    columns = ["prob_hc", "prob_pd", "prob_msa"]
    mapped = [f"{column}_calibrated" for column in columns]
    assert list(lines[0]) == ["subject", "fold", *columns, "class", *mapped, "label"]
    assert sum(float(lines[0][column]) for column in mapped) == pytest.approx(1, abs=1e-5)
    assert [line["label"] for line in lines[:3]] == ["HC", "PD", "MSA"]
    content = json.loads((tmp_path / "crossval.json").read_text())
    assert content["overall"]["roc_auc_msa"]["value"] is not None
    assert "roc_auc" in table

    updrs = Score(name="updrs", range=[0, 60])
    rows = [{"subject": s, "updrs": 4.0 * n, "trained_on": 0} for n, s in enumerate(names)]
    subjects = [{"subject": name, "label": 5.0 * number} for number, name in enumerate(names)]
    runs = runs_of(tmp_path, [rows[:6], rows[6:]], updrs)
    table = write_results(runs, subjects, tmp_path)
    assert json.loads((tmp_path / "crossval.json").read_text())["overall"]["pearson"]["value"] == 1
    assert "mae" in table
    assert evaluate(*[tmp_path / "out_of_fold.csv"] * 2, output=tmp_path / "evaluation").is_dir()

    rows[3] = {"subject": "S03", "status": "failed", "error": "updrs is nan", "trained_on": 0}
    with pytest.raises(ValueError, match="S03 has no prediction: updrs is nan"):
        write_results(runs_of(tmp_path, [rows[:6], rows[6:]], updrs), subjects, tmp_path)


# ---- end to end


def start(cohort, output):
    """``mrn crossval`` in miniature, in a process group of its own."""
    overrides = {**TINY["mrn"], "epochs": 3}
    flags = [str(part) for key, value in overrides.items() for part in (f"--{key}", value)]
    command = [sys.executable, "-W", "ignore", "-m", "mrn_components.app.cli", "crossval"]
    command += [str(cohort), str(output), "--bundle", str(BUNDLE), "--folds", "2", *flags]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, start_new_session=True)


@pytest.mark.slow
def test_killed_in_the_second_fold_and_started_again_it_ends_the_same(cohort, tmp_path):
    """SIGKILL of all its processes; the second call skips fold 0 and resumes fold 1."""
    assert start(cohort, tmp_path / "whole").wait() == 0
    process = start(cohort, tmp_path / "killed")
    checkpoints = tmp_path / "killed" / "fold1" / "models" / "checkpoints"
    while not (checkpoints / "epoch_0001.pt").exists():
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (checkpoints / "epoch_0003.pt").exists()
    weights = (tmp_path / "killed" / "fold0" / "models" / "model.pt").stat().st_mtime_ns

    assert start(cohort, tmp_path / "killed").wait() == 0
    assert (tmp_path / "killed" / "fold0" / "models" / "model.pt").stat().st_mtime_ns == weights
    assert "Resumed after epoch" in (tmp_path / "killed" / "fold1" / "train.log").read_text()
    for name in ("out_of_fold.csv", "crossval.json", "folds.json"):
        assert (tmp_path / "killed" / name).read_text() == (tmp_path / "whole" / name).read_text()
    assert len((tmp_path / "killed" / "out_of_fold.csv").read_text().splitlines()) == 11

    ensemble = tmp_path / "killed" / "ensemble"
    rows = read_rows(predict(str(cohort), str(tmp_path), bundle=str(ensemble), num_workers=0))
    assert {row["trained_on"] for row in rows} == {"1"}  # by one fold or the other
    assert {"prob_pd_fold0", "prob_pd_fold1"} <= rows[0].keys()
    assert all(0 < float(row["prob_pd_calibrated"]) < 1 for row in rows)
