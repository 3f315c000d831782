"""The bundle of several runs."""

import json
import shutil

import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow
from tiny_run import CONFIGS, make_datalist, make_run, read_rows

from mrn_components import FoldCheckpointLoader, FoldEnsemble
from mrn_components.app.calibration import CALIBRATION, read_calibration
from mrn_components.app.ensemble import save_ensemble
from mrn_components.app.predict import predict
from mrn_components.data import DataLeakageError
from mrn_components.data.predictions import read_predictions, write_predictions
from mrn_components.data.target import HC_PD
from mrn_components.system.errors import user_message


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return [make_run(root / f"fold{seed}", seed) for seed in range(3)]


@pytest.fixture(scope="module")
def ensemble(runs, tmp_path_factory):
    """With a calibration on subjects of which one, SUBJ_003, is predicted here."""
    folder = tmp_path_factory.mktemp("out")
    names = [f"S{number}" for number in range(29)] + ["SUBJ_003"]
    prob = np.random.default_rng(1).uniform(0.2, 0.8, 30).tolist()
    rows = [
        {"subject": name, "fold": place % 3, "prob_pd": prob[place], "label": place // 3 % 2}
        for place, name in enumerate(names)
    ]
    write_predictions(folder / "out_of_fold.csv", rows, HC_PD)
    return save_ensemble(runs, folder / "ensemble", out_of_fold=folder / "out_of_fold.csv")


@pytest.fixture(scope="module")
def subjects(cohort, tmp_path_factory):
    return make_datalist(cohort, tmp_path_factory.mktemp("few") / "subjects.json")


def test_it_predicts_the_mean_of_its_runs(runs, ensemble, subjects, tmp_path):
    table = predict(subjects, str(tmp_path / "all"), bundle=str(ensemble), set_level=0.8)
    rows = read_rows(table)
    folds = [f"prob_pd_fold{fold}" for fold in range(3)]
    columns = ["subject", "status", "prob_pd", "class", "prob_pd_calibrated", "set", "set_level"]
    assert list(rows[0])[:-5] == [*columns, *folds, "fold_agreement", "fold_std"]
    check_calibrated(table.parent, rows, ensemble)
    for fold, run in enumerate(runs):
        alone = read_rows(predict(subjects, str(tmp_path / run.name), bundle=str(run)))
        for row, expected in zip(rows, alone, strict=True):
            got, wanted = float(row[f"prob_pd_fold{fold}"]), float(expected["prob_pd"])
            assert got == pytest.approx(wanted, abs=2e-6)
    for row in rows:
        members = torch.tensor([float(row[fold]) for fold in folds])
        assert float(row["prob_pd"]) == pytest.approx(float(members.mean()), abs=2e-6)
        assert float(row["fold_std"]) == pytest.approx(float(members.std(correction=0)), abs=2e-6)
        agree = sum((float(row[fold]) > 0.5) == (row["class"] == "1") for fold in folds)
        assert float(row["fold_agreement"]) == pytest.approx(agree / 3, abs=1e-6)
    assert max(float(row["fold_std"]) for row in rows) > 0.01


def check_calibrated(output, rows, ensemble):
    """Calibrated cells are the calibration's, and who it was fitted on is refused as a test."""
    calibration = read_calibration(ensemble / "models" / CALIBRATION).at(0.8)
    for row in rows:
        record = json.loads((output / "subjects" / row["subject"] / "prediction.json").read_text())
        cells = calibration.apply(record)
        assert {key: record[key] for key in cells} == cells
        assert float(row["prob_pd_calibrated"]) == pytest.approx(
            cells["prob_pd_calibrated"], abs=1e-6
        )
        assert row["set"] == "{" + ";".join(cells["set"]) + "}"
        assert row["set_level"] == "0.8"
    assert [row["trained_on"] for row in rows] == ["0", "0", "0", "1"]
    with pytest.raises(DataLeakageError, match=r"\['SUBJ_003'\]"):
        read_predictions(output / "predictions.csv")
    manifest = json.loads((output / "manifest.json").read_text())
    assert manifest["calibration"] == calibration.summary()


def test_it_evaluates_and_mirrors(ensemble, subjects, tmp_path):
    workflow = ConfigWorkflow(
        [str(ensemble / "configs" / name) for name in ("inference.json", "evaluate.yaml")],
        workflow_type="infer",
        dataset_dir=subjects,
        output_dir=str(tmp_path),
        bundle_root=str(ensemble),
        tta=True,
    )
    workflow.initialize()
    assert workflow.check_properties() == []
    workflow.run()
    (first, *_) = read_rows(tmp_path / "predictions.csv")
    columns = ["fold_std", "tta_std", "trained_on", "missing_rois", "flags", "label"]
    assert list(first)[-6:] == columns
    assert float(first["tta_std"]) > 0
    assert json.loads((tmp_path / "metrics.json").read_text())["accuracy"]["value"] is not None


def test_its_folder_is_a_bundle(runs, ensemble):
    names = sorted(str(path.relative_to(ensemble)) for path in ensemble.rglob("*.*"))
    assert names == [
        "configs/evaluate.yaml",
        "configs/inference.json",
        "configs/logging.conf",
        "configs/metadata.json",
        "models/calibration.json",
        "models/fold0.pt",
        "models/fold0.pt.sha256",
        "models/fold1.pt",
        "models/fold1.pt.sha256",
        "models/fold2.pt",
        "models/fold2.pt.sha256",
    ]
    for fold, run in enumerate(runs):
        copy = ensemble / "models" / f"fold{fold}.pt"
        assert copy.read_bytes() == (run / "models" / "model.pt").read_bytes()


def test_the_overlay_of_the_bundle_is_the_same_ensemble(ensemble):
    own, overlay = (
        ConfigWorkflow(str(ensemble / "configs" / "inference.json")),
        ConfigWorkflow([str(CONFIGS / name) for name in ("inference.yaml", "ensemble.yaml")]),
    )
    for key in ("network", "checkpoint", "guards", "inferer", "evaluator"):
        assert own.parser[key] == overlay.parser[key]
    assert overlay.parser.get_parsed_content("ckpt_path")[4].endswith("runs/fold4/models/model.pt")


def test_an_earlier_ensemble_is_replaced_and_nothing_else(runs, tmp_path):
    save_ensemble(runs, tmp_path / "ensemble")
    save_ensemble(runs[:1], tmp_path / "ensemble")
    assert [path.name for path in (tmp_path / "ensemble" / "models").glob("*.pt")] == ["fold0.pt"]
    assert [path.name for path in tmp_path.iterdir()] == ["ensemble"]
    with pytest.raises(FileExistsError, match="fold0 is there and no ensemble; name a new folder"):
        save_ensemble(runs, runs[0])


def test_a_failed_copy_leaves_nothing(runs, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(shutil, "copyfile", fail)
    with pytest.raises(OSError, match="No space left"):
        save_ensemble(runs, tmp_path / "ensemble")
    assert list(tmp_path.iterdir()) == []


def test_unlike_runs_are_refused(runs, tmp_path):
    margin = make_run(tmp_path / "margin", 0, **{"rois#nm#margin_mm": 8.0})
    with pytest.raises(ValueError, match=r"margin has rois#nm#margin_mm 8.0, and .*fold0 has None"):
        save_ensemble([runs[0], margin], tmp_path / "out")
    deeper = make_run(tmp_path / "deeper", 0, **{"network_def#res#ffa#num_layers": 2})
    with pytest.raises(ValueError, match=r"network_def#res#ffa#num_layers 2, and .*fold0 has 1"):
        save_ensemble([runs[0], deeper], tmp_path / "out")
    clip = make_run(tmp_path / "clip", 0, **{"preprocessing#transforms#3#a_max": 300.0})
    with pytest.raises(ValueError, match=r"preprocessing#transforms#3#a_max 300.0, and"):
        save_ensemble([runs[0], clip], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unfinished_or_no_runs_are_refused(runs, tmp_path):
    with pytest.raises(ValueError, match="at least one run, got none"):
        save_ensemble([], tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="is no bundle"):
        save_ensemble([tmp_path], tmp_path / "out")
    run = shutil.copytree(runs[0], tmp_path / "run")
    (run / "models" / "model.pt").unlink()
    with pytest.raises(FileNotFoundError, match=r"model.pt is not there. Finish this run first"):
        save_ensemble([run], tmp_path / "out")
    config = json.loads((run / "configs" / "inference.json").read_text())
    del config["checkpoint"]
    (run / "configs" / "inference.json").write_text(json.dumps(config))
    (run / "models" / "model.pt").touch()
    with pytest.raises(ValueError, match=r"has no \['checkpoint'\], which an ensemble replaces"):
        save_ensemble([run], tmp_path / "out")


def test_missing_weights_say_what_to_do(ensemble, cohort, tmp_path):
    with pytest.raises(RuntimeError) as caught:
        predict(str(cohort), str(tmp_path), bundle=str(ensemble), ckpt_path=["a.pt", "b.pt"])
    assert "a.pt is not there. Train this fold first" in user_message(caught.value)


def test_files_and_folds_are_as_many(runs):
    network = FoldEnsemble(network=torch.nn.Linear(1, 1), num_folds=2)
    with pytest.raises(ValueError, match=r"each of the 2 folds, got .*; make network#num_folds"):
        FoldCheckpointLoader(network=network, paths=str(runs[0] / "models" / "model.pt"))
