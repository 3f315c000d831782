"""What ``scripts/pack_bundle.py`` writes of a run: card, metadata, weights, package."""

import errno
import importlib.util
import json
import logging
import re
import shutil
import subprocess
import sys
import zipfile
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import yaml
from monai.bundle import ConfigParser
from safetensors.torch import load_file, load_model
from tiny_run import TINY, make_run
from torch.utils.tensorboard import SummaryWriter

from mrn_components.app.calibration import CALIBRATION
from mrn_components.app.ensemble import save_ensemble
from mrn_components.app.evaluate import evaluate
from mrn_components.app.inspect import inspect_bundle
from mrn_components.app.packing.card import study_of
from mrn_components.app.packing.configs import take_configs
from mrn_components.app.packing.curves import draw_curves, read_curves
from mrn_components.app.packing.evaluation import find_metrics, read_overlaps
from mrn_components.app.packing.metadata import flat_overlaps
from mrn_components.app.packing.origin import origin_of
from mrn_components.app.packing.package import needed_rooms
from mrn_components.app.packing.proof import commands, compare, prove
from mrn_components.app.packing.sample import run_sample
from mrn_components.app.packing.weights import packed_files, save_safetensors, take_weights
from mrn_components.app.sheet.study import Study
from mrn_components.data.predictions import write_predictions
from mrn_components.data.target import HC_PD
from mrn_components.data.weight_records import CROP_SIZES, append_record, read_record
from mrn_components.system.errors import (
    DamagedFileError,
    ResourceError,
    UntrustedBundleError,
)
from mrn_components.system.files import csv_text
from mrn_components.system.hashes import file_hash, verify_hashes

ROOT = Path(__file__).parents[2]
BUNDLES = ROOT / "bundles"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("pack", ROOT / "scripts" / "pack_bundle.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def add_training(run):
    """Write the config that a run was trained with."""
    train = ConfigParser()
    train.read_config(str(BUNDLES / "mrn" / "configs" / "train.yaml"))
    train.update(TINY | {"encoder_weights": "none", "epochs": 7, "dataset_dir": "/data/patients"})
    content = {key: value for key, value in train.get().items() if key != "_meta_"}
    (run / "configs" / "train.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run as training leaves it, predictions by its weights and what is said of these."""
    root = make_run(tmp_path_factory.mktemp("machine") / "run1", seed=1)
    add_training(root)
    writer = SummaryWriter(str(root / "tensorboard"))
    for epoch in (1, 2, 3):
        writer.add_scalar("loss", 1 / epoch, epoch)
    writer.close()
    folder = root / "predictions"
    folder.mkdir()
    rows = [f"S{i:02d},ok,{0.3 + 0.4 * (i % 2):.6f},{i % 2},0" for i in range(12)]
    table = "\n".join(["subject,status,prob_pd,class,trained_on", *rows, ""])
    (folder / "predictions.csv").write_text(table)
    weights = {"models/model.pt": file_hash(root / "models" / "model.pt")}
    (folder / "manifest.json").write_text(json.dumps({"weights": weights, "settings": {}}))
    labels = root / "labels.csv"
    labels.write_text("".join(f"S{i:02d},{i % 2}\n" for i in range(12)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mrn_components.app.evaluate.write_figures", lambda *_: None)
        evaluate(folder, labels)
    return root


@pytest.fixture(scope="module")
def packed(run, script, tmp_path_factory):
    """The run's zip, unpacked."""
    folder = tmp_path_factory.mktemp("packed")
    metrics = run / "predictions" / "evaluation" / "metrics.json"
    command = ["mrn", "--run", str(run), "--metrics", str(metrics), "--no_proof"]
    words = ["--data", "Phantoms | of mrn phantom; Apache-2.0."]
    script.main([*command, *words, "--output", str(folder / "pd_classification.zip")])
    shutil.unpack_archive(folder / "pd_classification.zip", folder)
    return folder / "pd_classification"


def test_metadata_are_of_these_weights(packed):
    content = json.loads((packed / "configs" / "metadata.json").read_text())
    tensors = content["network_data_format"]["inputs"]
    assert list(tensors) == ["image", "qsm1", "qsm2", "qsm3"]
    assert {tensor["spatial_shape"][2] for tensor in tensors.values()} == {28}
    assert "28 pixels" in content["description"]
    assert "random numbers" in content["description"]
    metrics = content["eval_metrics"]
    assert (metrics["accuracy"], metrics["roc_auc"], metrics["subjects"]) == (1.0, 1.0, 12)
    assert all(isinstance(value, int | float) for value in metrics.values())
    assert content["data_source"] == "Phantoms | of mrn phantom; Apache-2.0."


def test_the_card_says_what_a_reader_needs(packed):
    text = (packed / "docs" / "README.md").read_text()
    assert "224" not in text
    assert "vit_small_patch14" in text
    assert "- epochs: 7\n" in text
    for words in ("| accuracy | 1.000", "GPU memory", "LICENSE", "Phantoms \\| of", "QSM_mask"):
        assert words in text, words
    assert "![Loss and validation metrics by epoch](curves.png)" in text
    assert {p.name for p in (packed / "docs").iterdir()} == {
        *("README.md", "data_license.txt", "curves.png")
    }
    assert str(packed.parent) not in text
    assert "/data/patients" not in text
    assert "Crops of another size than 28 pixels are refused" in text
    assert "--filepath models/" not in text  # a file more than hashes.json names is refused
    (command,) = commands(packed / "docs" / "README.md")
    assert command[:3] == ["-m", "monai.bundle", "run"]
    assert (packed / "sample" / "PHAN7777_001" / "QSM_mask.nii.gz").is_file()
    assert verify_hashes(packed) == {}


def test_configs_keep_their_comments_and_no_other_recipes(packed):
    text = (packed / "configs" / "train.yaml").read_text()
    assert text.startswith("# As run run1 was trained.")
    assert "\nepochs: 7\n" in text
    assert "image_size: 28  # was 224: pixels of an ROI's longest in-plane side" in text
    assert "# ---- network (Figures 1-2)" in text
    names = {path.stem for path in (packed / "configs").glob("*.yaml")}
    assert names == {
        *("train", "inference", "evaluate", "ensemble", "multi_gpu_train", "multi_gpu_evaluate")
    }


def test_weights_say_their_size_and_lie_there_once(packed):
    assert [path.name for path in (packed / "models").iterdir()] == ["model.pt"]
    sizes = read_record(packed / "models" / "model.pt", CROP_SIZES)
    assert sizes == dict.fromkeys(("nm", "qsm1", "qsm2", "qsm3"), 28)


def test_the_package_is_what_the_configs_need(packed):
    rooms = {path.name for path in (packed / "mrn_components").iterdir()}
    assert {"networks", "training", "bundle.py", "__init__.py"} <= rooms
    assert not rooms & {"app", "phantom", "biomarkers", "segmentation"}
    assert (packed / "mrn_components" / "regions" / "plausible.yaml").is_file()
    assert "segmentation" in needed_rooms(BUNDLES / "segmentation" / "configs")


def test_rooms_are_found_in_whatever_way_they_are_imported(tmp_path, monkeypatch):
    code = {
        "images": "from mrn_components import __version__, metrics\nfrom os import path",
        "metrics": "def late():\n    import mrn_components.data.tables",
        "data": "from mrn_components.system.files import csv_text\nfrom . import x",
        **dict.fromkeys(("system", "app"), ""),
    }
    for room, text in code.items():
        (tmp_path / f"{room}.py").write_text(text)
    (tmp_path / "x.yaml").write_text("nm: {_target_: mrn_components.Image}")
    monkeypatch.setattr("mrn_components.app.packing.package._PACKAGE", tmp_path)
    assert needed_rooms(tmp_path) == {"images", "metrics", "data", "system"}


def test_an_evaluation_of_other_weights_is_refused(run, packed, tmp_path):
    other = shutil.copytree(run, tmp_path / "run1")
    with (other / "models" / "model.pt").open("ab") as file:
        file.write(b"x")
    metrics = other / "predictions" / "evaluation" / "metrics.json"
    with pytest.raises(ValueError, match=r"is not of these weights: --run .*run1 does not hold"):
        study_of(packed, metrics, other / "models", other)
    (other / "predictions" / "predictions.csv").write_text("subject,prob_pd\n")
    with pytest.raises(ValueError, match=r"were changed; evaluate again"):
        study_of(packed, metrics, other / "models", other)


def test_metrics_are_found_in_a_folder(run):
    file = run / "predictions" / "evaluation" / "metrics.json"
    for path in (file, file.parent, run / "predictions"):
        assert find_metrics(path) == file


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("predictions/predictions.csv", "is not an evaluation"),
        ("metrics_fold0.json", "is not an evaluation"),
        ("models", "is a folder without an evaluation"),
        ("metrics.json", "is not there"),
        ("both", "holds metrics.json and masks.json; name one"),
    ],
)
def test_metrics_that_are_none_are_refused(name, message, run, tmp_path):
    root = shutil.copytree(run, tmp_path / "run1")
    (root / "metrics_fold0.json").write_text("{}")
    (root / "both").mkdir()
    for file in ("metrics.json", "masks.json"):
        (root / "both" / file).write_text("{}")
    ending = "" if name == "both" else "; name metrics.json of `mrn evaluate` or masks.json of"
    with pytest.raises((ValueError, FileNotFoundError), match=f"--metrics .*{message}{ending}"):
        find_metrics(root / name)


def test_a_damaged_evaluation_is_named(run, packed, tmp_path):
    metrics = tmp_path / "metrics.json"
    for text, message in (("{", "is damaged"), ("[]", "holds list"), ("{}", "evaluate again")):
        metrics.write_text(text)
        with pytest.raises(ValueError, match=rf"--metrics.*metrics.json.*{message}"):
            study_of(packed, metrics, run / "models", run)


def test_overlaps_of_something_else_are_refused(run, packed, tmp_path):
    masks = tmp_path / "evaluation" / "masks.json"
    masks.parent.mkdir()
    for content in ({}, {"n": 6, "nuclei": [{"image": "nm"}]}, {"n": 6, "nuclei": [1]}):
        masks.write_text(json.dumps(content))
        with pytest.raises(ValueError, match="is not what `mrn evaluate_masks` writes"):
            read_overlaps(masks, run / "models", "--run x")
    dice = {"value": 0.9, "low": None, "high": None}
    nuclei = [{"image": "nm", "nucleus": "SN", "dice": dice}]
    masks.write_text(json.dumps({"n": 6, "nuclei": nuclei}))
    made_by = {"models/model.pt": file_hash(run / "models" / "model.pt")}
    for segmentation in (None, made_by):
        (tmp_path / "manifest.json").write_text(json.dumps({"segmentation": segmentation}))
        found = read_overlaps(masks, run / "models", "--run x")
        assert found == {"dice_nm_SN": 0.9, "subjects": 6}
    (tmp_path / "manifest.json").write_text('{"segmentation": {"models/nm.pt": "0"}}')
    with pytest.raises(ValueError, match=r"not of these weights: --run x does not hold models/nm"):
        read_overlaps(masks, run / "models", "--run x")
    with pytest.raises(ValueError, match="scores masks, and this bundle makes none"):
        study_of(packed, masks, run / "models", run)


def test_errors_of_the_user_end_the_script_with_2_and_one_message(run):
    script, metrics = ROOT / "scripts" / "pack_bundle.py", run / "none.json"
    command = [sys.executable, str(script), "mrn", "--run", str(run), "--metrics", str(metrics)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"\nerror: --metrics {metrics} is not there; name ")


def test_bars_of_earlier_runs_are_drawn_in_terminals_only(run, tmp_path):
    earlier = shutil.copytree(run, tmp_path / "run1")
    path = earlier / "configs" / "inference.json"
    path.write_text(path.read_text().replace('"disable": null, ', ""))
    assert "disable" not in json.loads(path.read_text())["guards"]["progress"]
    configs = shutil.copytree(BUNDLES / "mrn" / "configs", tmp_path / "configs")
    take_configs(earlier, configs)
    packed = yaml.safe_load((configs / "inference.yaml").read_text())
    assert packed["guards"]["progress"]["disable"] is None


def of_training(run, tmp_path, **changes):
    """The packed training config of a run in which some keys are changed."""
    earlier = shutil.copytree(run, tmp_path / "run1")
    path = earlier / "configs" / "train.json"
    parser = ConfigParser(json.loads(path.read_text()))
    parser.update(changes)
    path.write_text(json.dumps(parser.get()))
    configs = shutil.copytree(BUNDLES / "mrn" / "configs", tmp_path / "configs")
    take_configs(earlier, configs)
    return yaml.safe_load((configs / "train.yaml").read_text())


def test_of_a_folder_of_this_machine_the_bundles_own_stays_and_its_neighbours_are_the_runs(
    run, tmp_path
):
    own = yaml.safe_load((BUNDLES / "mrn" / "configs" / "train.yaml").read_text())
    changes = {
        "handlers#msupmoco#_disabled_": True,
        "handlers#validation#interval": "/data/x",
        "handlers#validation#first_epoch": 3,
        "allow_changed": ["/data/x", "epochs"],
        "further_masks": "/data/masks",
        "further": {"_target_": "mrn_components.ReadVolumesd", "file": "/data/x.json"},
    }
    packed = of_training(run, tmp_path, **changes)
    assert packed["dataset_dir"] == own["dataset_dir"]
    assert packed["further_masks"] is own["further_masks"] is None
    assert packed["handlers"]["msupmoco"] == own["handlers"]["msupmoco"] | {"_disabled_": True}
    kept = {"interval": "@val_interval", "first_epoch": 3}
    assert packed["handlers"]["validation"] == own["handlers"]["validation"] | kept
    assert packed["allow_changed"] == ["x", "epochs"]
    assert packed["further"] == {"_target_": "mrn_components.ReadVolumesd", "file": "x.json"}


@pytest.mark.parametrize(
    ("typed", "kept"),
    [("/data/dinov2.pth", "dinov2.pth"), ("hub", "hub"), ("none", "none")],
)
def test_what_the_encoder_began_with_stays_true(run, tmp_path, typed, kept):
    assert of_training(run, tmp_path, encoder_weights=typed)["encoder_weights"] == kept


@pytest.mark.parametrize(
    ("train", "words", "allowed"),
    [
        (None, "weights of which no record", "began with, *for the authors*"),
        ({}, "random numbers", "no one else's"),
        ({"encoder_weights": "none"}, "random numbers", "no one else's"),
        ({"encoder_weights": "hub"}, "vit_x_dinov2 of timm", "(DINOv2 and its copy by timm)"),
        ({"encoder_weights": "my.pth"}, "my.pth", "(`my.pth`), *for the authors*"),
    ],
)
def test_the_licence_is_of_what_the_training_began_with(train, words, allowed):
    encoder = {"network_def": {"res": {"encoder": {"name": "vit_x_dinov2"}}}}
    contents = {} if train is None else {"train": train | encoder}
    origin = origin_of(Study(Path(), [], HC_PD, contents, {}))
    assert words in origin.words
    assert allowed in origin.license


def test_weights_of_another_size_are_refused(packed, tmp_path):
    shutil.copytree(packed / "configs", tmp_path / "x" / "configs")
    (tmp_path / "models").mkdir()
    weights = torch.load(packed / "models" / "model.pt", weights_only=True)
    torch.save(weights, tmp_path / "models" / "model.pt")
    append_record(tmp_path / "models" / "model.pt", CROP_SIZES, {"nm": 56})
    with pytest.raises(ValueError, match=r"crops of another size.*nm 28 for 56"):
        take_weights(tmp_path / "x", tmp_path / "models")


def test_a_tensor_of_two_names_is_saved_once_and_loads(tmp_path):
    first = torch.nn.Linear(50, 50)
    network = torch.nn.ModuleDict({"a": first, "b": first, "c": torch.nn.Linear(50, 50)})
    torch.save(network.state_dict(), tmp_path / "model.pt")
    save_safetensors(tmp_path / "model.pt")
    path = tmp_path / "model.safetensors"
    assert set(load_file(path)) == {"a.weight", "a.bias", "c.weight", "c.bias"}
    other = torch.nn.ModuleDict({"a": torch.nn.Linear(50, 50), "c": torch.nn.Linear(50, 50)})
    other["b"] = other["a"]
    load_model(other, path)
    assert torch.equal(other["b"].weight, first.weight)


def test_curves_are_those_of_all_files_by_epoch(tmp_path):
    for tag, start in (("loss", 1), ("roc_auc", 1), ("loss", 3)):
        writer = SummaryWriter(str(tmp_path / "tb"), filename_suffix=f".{tag}{start}")
        for epoch in (start, start + 1):
            writer.add_scalar(tag, epoch / 10, epoch)
        writer.close()
    curves = read_curves(tmp_path / "tb")
    assert dict(curves["loss"]) == pytest.approx({1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4})
    assert [value for _, value in curves["roc_auc"]] == pytest.approx([0.1, 0.2])
    assert draw_curves(tmp_path / "tb", tmp_path)
    assert (tmp_path / "curves.png").is_file()
    (tmp_path / "empty").mkdir()
    assert not draw_curves(tmp_path / "empty", tmp_path / "x")
    assert not draw_curves(tmp_path / "none", tmp_path / "x")


def test_of_an_epoch_that_was_done_twice_the_curves_have_the_later(tmp_path):
    for number, epochs in enumerate(((1, 2, 3), (2, 3))):  # resumed after the first
        writer = SummaryWriter(str(tmp_path), filename_suffix=f".{number}")
        for epoch in epochs:
            writer.add_scalar("loss", epoch + number, epoch)
        writer.close()
    assert read_curves(tmp_path) == {"loss": [(1, 1.0), (2, 3.0), (3, 4.0)]}


@pytest.mark.parametrize("files", [["model.pt"], ["model_nm.pt", "model.pt"]])
def test_only_networks_whose_weights_are_there_are_packed(files, tmp_path):
    shutil.copytree(BUNDLES / "segmentation" / "configs", tmp_path / "configs")
    (tmp_path / "models").mkdir()
    for file in files:
        (tmp_path / "models" / file).touch()
    assert sorted(packed_files(tmp_path)) == sorted(files)


ROWS = [
    {"subject": "A", "prob_pd": "0.100000", "class": "0", "flags": "odd"},
    {"subject": "B", "prob_pd": "", "class": "", "flags": "lost"},
]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, ""),
        ({"0#prob_pd": "0.100009"}, ""),
        ({"0#prob_pd": "0.2"}, "prob_pd '0.2' of A, where it was packed '0.100000'"),
        ({"0#prob_pd": ""}, "prob_pd '' of A, where"),
        ({"1#prob_pd": "0.5"}, "prob_pd '0.5' of B, where it was packed ''"),
        ({"0#class": "1"}, "class '1' of A"),
        ({"0#flags": "even"}, "flags 'even' of A"),
        ({"1#subject": "C"}, "predicts A, C, where it was packed A, B"),
        ({"1": None}, "predicts A, where it was packed A, B"),
        ({"0": None, "1": None}, "another table: .*no subjects below its header"),
    ],
)
def test_the_proof_compares_what_it_unpacked(changes, message, tmp_path):
    rows = {str(number): dict(row) for number, row in enumerate(ROWS)}
    for place, value in changes.items():
        number, _, column = place.partition("#")
        if column:
            rows[number][column] = value
        else:
            del rows[number]
    (tmp_path / "x.csv").write_text(csv_text(list(rows.values()), list(ROWS[0])))
    with pytest.raises(RuntimeError, match=message) if message else nullcontext():
        compare(tmp_path / "x.csv", ROWS)


def test_a_table_that_lacks_fails_the_proof(tmp_path):
    with pytest.raises(RuntimeError, match=r"another table: .*none\.csv"):
        compare(tmp_path / "none.csv", ROWS)
    (tmp_path / "x.csv").write_text("subject,score\nA,1\n")
    with pytest.raises(RuntimeError, match=r"another table: .*prob_pd"):
        compare(tmp_path / "x.csv", ROWS)


def test_a_card_without_commands_fails_the_proof(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("x/requirements.txt", "PyYAML")
        archive.writestr("x/docs/README.md", "```bash\n. venv/bin/activate\n```\n")
    (tmp_path / "proof").mkdir()
    with pytest.raises(RuntimeError, match="card has no command"):
        prove(tmp_path / "x.zip", tmp_path / "proof", [])


def test_the_zip_that_is_there_stays_until_the_new_one_is_whole(script, tmp_path, monkeypatch):
    def full(_source, target):
        Path(target).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "full")

    (tmp_path / "x.zip").write_bytes(b"earlier")
    command = ["mrn", "--output", str(tmp_path / "x.zip"), "--data", "x"]
    monkeypatch.setattr(script, "assemble", lambda _name, folder, _args: folder.mkdir())
    with monkeypatch.context() as patch:
        patch.setattr(script.shutil, "copyfile", full)
        with pytest.raises(ResourceError, match=r"x\.zip"):
            script.main(command)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"earlier"]
    script.main(command)
    assert zipfile.is_zipfile(tmp_path / "x.zip")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--random_weights", "--metrics", "metrics.json"], "--metrics are of trained weights"),
        (["--random_weights", "--weights", "x"], "not allowed with argument"),
        (["--output", "dist"], "--output dist must end with .zip"),
    ],
)
def test_options_that_contradict_are_refused_at_once(script, capsys, words, message):
    with pytest.raises(SystemExit, match="2"):
        script.main(["mrn", *words])
    assert message in capsys.readouterr().err


def test_a_run_of_another_bundle_is_refused(run, tmp_path):
    configs = shutil.copytree(BUNDLES / "seres10" / "configs", tmp_path / "configs")
    with pytest.raises(ValueError, match="a run of the bundle mrn, not of seres10; name mrn"):
        take_configs(run, configs)


def test_damaged_weights_are_not_packed(packed, tmp_path):
    shutil.copytree(packed / "configs", tmp_path / "x" / "configs")
    (tmp_path / "models").mkdir()
    content = bytearray((packed / "models" / "model.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "models" / "model.pt").write_bytes(content)
    with pytest.raises(DamagedFileError, match=r"model\.pt is damaged"):
        take_weights(tmp_path / "x", tmp_path / "models")


def test_overlaps_become_names_and_numbers():
    dice = {"value": 0.90321, "low": 0.8, "high": None}
    found = flat_overlaps({"n": 6, "nuclei": [{"image": "nm", "nucleus": "SN", "dice": dice}]})
    assert found == {"dice_nm_SN": 0.9032, "dice_nm_SN_low": 0.8, "subjects": 6}


def test_zips_are_named_after_what_they_do(script):
    assert sorted(script.NAMES) == sorted(path.name for path in BUNDLES.iterdir())
    for name in script.NAMES.values():
        assert re.search("_(classification|segmentation)$", name)


def test_a_packed_run_is_data(packed):
    assert inspect_bundle(packed) == []


def test_an_ensemble_is_packed_with_its_calibration(script, tmp_path, caplog):
    folds = [make_run(tmp_path / f"fold{seed}", seed) for seed in range(2)]
    add_training(folds[0])
    rows = [
        {"subject": f"S{i}", "fold": i % 2, "prob_pd": (i * 7 % 20) / 20, "label": i // 2 % 2}
        for i in range(20)
    ]
    write_predictions(tmp_path / "out_of_fold.csv", rows, HC_PD)
    (tmp_path / "folds.json").write_text('{"folds": [["S0", "S1"], ["S2"]], "seed": 1}')
    ensemble = save_ensemble(folds, tmp_path / "ensemble", out_of_fold=tmp_path / "out_of_fold.csv")
    output = tmp_path / "out" / "pd_classification.zip"
    script.main(["mrn", "--run", str(ensemble), "--no_proof", "--output", str(output)])
    shutil.unpack_archive(output, output.parent)
    bundle = output.with_suffix("")
    names = {path.name for path in (bundle / "models").iterdir()}
    assert names == {"fold0.pt", "fold1.pt", CALIBRATION}
    assert inspect_bundle(bundle) == []
    text = (bundle / "docs" / "README.md").read_text()
    assert "mean of the probabilities of 2 networks" in text
    assert "- epochs: 7\n" in text
    assert "3 subjects in 2 folds of 2, 1 (seed 1); each model is trained without its fold" in text
    assert re.search(r"2 networks, in all [0-9.]+ million parameters", text)
    assert "monai.bundle.load" not in text
    with caplog.at_level(logging.INFO):
        rows = run_sample(bundle).table
    assert "INFO" not in caplog.text  # notes would name a temporary folder
    for row in rows:
        each = [float(row[f"prob_pd_fold{fold}"]) for fold in range(2)]
        assert float(row["prob_pd"]) == pytest.approx(sum(each) / 2, abs=2e-6)


def test_the_card_of_a_score_speaks_of_no_classes(script, tmp_path):
    target = {"_target_": "mrn_components.Score", "name": "updrs", "unit": "points"}
    runs = [make_run(tmp_path / f"fold{seed}", seed, target=target) for seed in range(2)]
    add_training(runs[0])
    ensemble = save_ensemble(runs, tmp_path / "ensemble")
    output = tmp_path / "updrs.zip"
    script.main(["mrn", "--run", str(ensemble), "--no_proof", "--output", str(output)])
    shutil.unpack_archive(output, tmp_path)
    text = (tmp_path / "updrs" / "docs" / "README.md").read_text()
    for words in ("\nRegression, MRI", "mean of the scores of 2", "Regression of updrs (points)"):
        assert words in text, words
    for words in ("Classification", "classes are drawn", "probabilities"):
        assert words not in text, words


def test_a_run_that_is_not_data_is_not_packed(script, tmp_path):
    command = f"$__import__('pathlib').Path({str(tmp_path / 'ran')!r}).touch() or 0.0"
    run = make_run(tmp_path / "run", 1)
    add_training(run)
    file = run / "configs" / "inference.json"
    config = json.loads(file.read_text())
    config["network_def"]["dropout"] = command
    file.write_text(json.dumps(config))
    output = tmp_path / "x.zip"
    with pytest.raises(UntrustedBundleError, match=r"(?s)network_def#dropout.*take these out"):
        script.main(["mrn", "--run", str(run), "--output", str(output)])
    assert not (tmp_path / "ran").exists()
    assert not output.exists()


def test_the_large_files_are_hashed(packed):
    (entry,) = yaml.safe_load((packed / "large_files.yml").read_text())["large_files"]
    assert entry["hash_val"] == file_hash(packed / "models" / "model.pt")
