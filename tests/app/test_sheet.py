"""``mrn evaluate --sheet``: checklists and a model card say what the records hold, and no more."""

import csv
import hashlib
import json
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard

from mrn_components.app.evaluate import evaluate
from mrn_components.app.sheet.facts import DERIVED, read_table
from mrn_components.app.sheet.shown import shown
from mrn_components.app.sheet.write import write_sheet
from mrn_components.data.target import Score, write_target
from mrn_components.data.weight_records import RECORDS, append_record

CONFIGS = Path(__file__).parent.parent.parent / "bundles" / "mrn" / "configs"
FILES = ("sheet.md", "sheet.json", "model_card.md")


def words(text):
    return text.split()


NUMBERS = {  # of the published checklists
    "claim": [str(number) for number in range(1, 45)],
    "tripod": words(
        "1 2 3a 3b 3c 4 5a 5b 6a 6b 6c 7 8a 8b 8c 9a 9b 9c 10 11 12a 12b 12c 12d 12e 12f 12g 13 14 "
        "15 16 17 18a 18b 18c 18d 18e 18f 19 20a 20b 20c 21 22 23a 23b 24 25 26 27a 27b 27c"
    ),
}
NO_PROGRAM_KNOWS = {  # whatever the records hold
    "claim": words("1 2 3 4 5 6 7 8 11 13 14 15 16 17 18 21 34 36 40 41 42 43 44"),
    "tripod": words(
        "1 2 3a 3b 3c 4 5a 5b 6a 6b 6c 8a 8b 8c 10 14 16 17 18a 18b 18c 18d 18e 18f 19 20b 20c 25 "
        "26 27b 27c"
    ),
}
COLUMNS = words(
    "subject status prob_pd class unlike_training trained_on mask_source missing_rois flags error"
)
NUM = 24


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run with its records, and its evaluated predictions in its folder; copied, not changed."""
    root = tmp_path_factory.mktemp("machine") / "run1"
    make_bundle(root)
    predicted = root / "predictions"
    truth = np.arange(NUM) % 2
    prob = np.clip(np.random.default_rng(3).normal(0.3 + 0.4 * truth, 0.2), 0, 1)
    rows = [
        [f"T{i:02d}", "ok", f"{p:.6f}", int(p > 0.5), 0.5, 0, "given", "", "", ""]
        for i, p in enumerate(prob)
    ]
    write_rows(predicted / "predictions.csv", COLUMNS, rows)
    write_rows(
        root / "labels.csv",
        ["subject", "label", "site"],
        ((f"T{i:02d}", i % 2, "AB"[i // 12]) for i in range(NUM)),
    )
    write_manifest(predicted, {"models/model.pt": digest(root / "models" / "model.pt")})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mrn_components.app.evaluate.write_figures", lambda *_: None)
        evaluate(predicted, root / "labels.csv")
    return root


@pytest.fixture
def run(made, tmp_path):
    shutil.copytree(made, tmp_path / "run1")
    return tmp_path / "run1"


def make_bundle(root):
    """Write what training leaves, with folders of this machine where users name them."""
    (root / "configs").mkdir(parents=True)
    (root / "models").mkdir()
    mark = {"_target_": "mrn_components.locate_bundle", "name": "mrn", "made_in": str(root)}
    for name in ("train", "inference"):
        config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()) | {"bundle_root": mark}
        config |= {"dataset_dir": f"{root}/data", "encoder_weights": f"{root}/dinov2.safetensors"}
        write(root / "configs" / f"{name}.json", config)
    shutil.copyfile(CONFIGS / "metadata.json", root / "configs" / "metadata.json")
    write(root / "folds.json", {"seed": 1, "folds": [["V0", "V1"], ["V2", "V3", "V4"]]})
    make_weights(root / "models" / "model.pt")


def make_weights(path, ledger=True):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", "stands for tensors")
    if ledger:
        voxels = {"slices_mm": {"nm": [2.0, 2.5]}, "pixels_mm": {"nm": [0.7, 0.7]}}
        append_record(path, RECORDS[0], {"salt": "s", "sha256": ["hash"], **voxels})
    kept = {"rule": "best", "epoch": 7, "value": 0.8, "chosen_on_validation": True}
    append_record(path, RECORDS[1], kept)


def write_manifest(folder, weights, overrides=None):
    images = {
        "nm": {
            "file": "NM",
            "window": None,
            "relative_window": [0.7, 1.5],
            "percentiles": [0.5, 99.5],
        }
    }
    settings = {"bundle": "run1", "abstain": True, "align": "auto", "overrides": overrides or {}}
    content = {"weights": weights, "images": images, "config": "c0ffee", "settings": settings}
    content |= {"device": "cpu", "versions": {"torch": "2.10"}, "inputs": {"T00": {"nm": "1234"}}}
    write(folder / "manifest.json", content)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_rows(path, columns, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def fill(run, table="predictions/predictions.csv", evaluation="predictions/evaluation", **options):
    """Write the sheet of a run; the state of each item, (checklist, number), and the content."""
    write_sheet(run / table, run / evaluation, **options)
    content = json.loads((run / evaluation / "sheet.json").read_text())
    items = {
        (name, item["number"]): item
        for name, checklist in content["checklists"].items()
        for item in checklist["items"]
    }
    return items, content


def answered(items):
    return {key for key, item in items.items() if item["state"] == "answered"}


def change(path, **values):
    write(path, json.loads(path.read_text()) | values)


def test_every_item_of_both_lists_is_there_once():
    for name, numbers in NUMBERS.items():
        assert [item["number"] for item in read_table(f"{name}.yaml")["items"]] == numbers


def test_the_tables_name_facts_that_exist():
    table = read_table("facts.yaml")
    for name, row in table["facts"].items():
        assert {"label", "way"} <= row.keys() <= {"label", "way", "from"}, name
        assert row["way"] in table["ways"], name
        assert ("from" in row) != (name in DERIVED), name
    for name in NUMBERS:
        for item in read_table(f"{name}.yaml")["items"]:
            known = {"number", "section", "asks", "facts", "evidence", "authors", "unless"}
            assert {"number", "section", "asks"} <= item.keys() <= known, item
            assert item.get("facts") or item.get("authors"), item["number"]
            assert {*item.get("facts", ()), *item.get("evidence", ())} <= table["facts"].keys()


def test_ways_name_verbs_and_options_that_exist():
    from mrn_components.app.arguments import bind
    from mrn_components.app.cli import function_of

    commands = re.findall(
        r"`mrn ([^`]* [^`]*)`", " ".join(read_table("facts.yaml")["ways"].values())
    )
    assert len(commands) > 6
    for command in commands:
        verb, *words = command.split()
        bind(verb, function_of(verb), words)


def test_an_answer_stands_where_the_sheet_says(run):
    items, content = fill(run)
    found = answered(items)
    assert {("claim", n) for n in ("20", "22", "25", "27", "28", "29", "37", "38")} == {
        key for key in found if key[0] == "claim"
    }
    for key, item in items.items():
        assert (item["state"] == "answered") == (not item["authors"] and not item["todo"]), key
        assert item["facts"] or item["state"] != "answered", key
        for fact in item["facts"]:
            assert fact["text"]
            for source in fact["sources"]:
                assert content["records"][source["record"]] == source["file"]
                assert holds(run, source), (key, fact)
    assert "0 of 24 above 0.99" in str(items["tripod", "16"]["facts"])
    for key, numbers in NO_PROGRAM_KNOWS.items():
        assert {items[key, number]["state"] for number in numbers} == {"for the authors"}


def holds(run, source):
    """Whether a source is there, looked up without the product."""
    file, key = source["file"], source["key"]
    if source["record"] == "table":
        header, *_ = csv.reader((run / "predictions" / file).open())
        return key in (*header, "columns", "rows")
    if source["record"] in ("ledger", "kept"):
        path, member = re.fullmatch(r"run1/(.*) \((.*)\)", file).groups()
        content = json.loads(zipfile.ZipFile(run / path).read(f"archive/{member}"))
    else:
        places = [run.parent, run, run / "predictions", run / "predictions" / "evaluation"]
        content = json.loads(next(p / file for p in places if (p / file).is_file()).read_text())
    for part in key.split("#"):
        content = content[part]
    return content is not None


@pytest.mark.parametrize(
    ("removed", "lost"),
    [
        ("predictions/manifest.json", ["20", "22", "25", "27"]),
        ("configs/train.json", ["25"]),
        ("configs/inference.json", ["22"]),
    ],
)
def test_a_record_that_is_gone_leaves_its_items_missing(run, removed, lost):
    before = answered(fill(run)[0])
    (run / removed).unlink()
    items, content = fill(run)
    assert removed.split("/")[-1] not in str(content["records"])
    for number in lost:
        assert items["claim", number]["state"] == "missing"
        assert items["claim", number]["todo"]
    assert answered(items) < before


def test_weights_without_a_ledger_prove_nothing_of_their_subjects(run):
    make_weights(run / "models" / "model.pt", ledger=False)
    write_manifest(run / "predictions", {"models/model.pt": digest(run / "models" / "model.pt")})
    items, _ = fill(run)
    assert items["claim", "20"]["state"] == "missing"
    assert "do not prove" in (run / "predictions" / "evaluation" / "model_card.md").read_text()


def test_no_folder_of_this_machine_and_no_subject_is_told(run):
    write_manifest(
        run / "predictions",
        {"models/model.pt": digest(run / "models" / "model.pt")},
        {"network_def#res#encoder#weights": f"{run}/secret/dinov2.safetensors", "tta": True},
    )
    items, _ = fill(run)
    assert "dinov2.safetensors" in str(items["tripod", "12g"])
    for name in FILES:
        text = (run / "predictions" / "evaluation" / name).read_text()
        assert str(run.parent) not in text
        assert "/tmp" not in text
        assert not re.search(r"\bT\d\d\b|\bV\d\b", text)


def test_a_prediction_that_changed_the_config_says_what_it_was(run):
    weights = {"models/model.pt": digest(run / "models" / "model.pt")}
    write_manifest(run / "predictions", weights, {"rois#nm#size": 99, "implausible": "flag"})
    items, content = fill(run)
    texts = {fact["label"]: fact["text"] for fact in items["claim", "12"]["facts"]}
    assert "flag" in texts.values()
    assert "size: 99" in str(items["claim", "9"])
    assert (
        content["records"]["inference"]
        == "run1/configs/inference.json and manifest.json, overrides"
    )


def test_the_records_of_other_weights_are_refused_and_never_found(run, tmp_path, monkeypatch):
    away = tmp_path / "results"
    shutil.move(run / "predictions", away)
    other = tmp_path / "bundles" / "mrn" / "runs" / "run1"
    make_bundle(other)
    (other / "models" / "model.pt").write_bytes(b"others")
    monkeypatch.chdir(tmp_path)
    table = {"table": "results/predictions.csv", "evaluation": "results/evaluation"}
    items, content = fill(tmp_path, **table)
    assert "train" not in content["records"]
    assert "--bundle RUN" in items["claim", "25"]["todo"][0]
    with pytest.raises(ValueError, match=r"--bundle .* does not hold the weights .*model\.pt"):
        fill(tmp_path, **table, bundle=other)
    items, _ = fill(tmp_path, **table, bundle=run)
    assert items["claim", "25"]["state"] == "answered"
    shutil.copyfile(run / "models" / "model.pt", other / "models" / "model.pt")
    items, _ = fill(tmp_path, **table)
    assert items["claim", "25"]["state"] == "answered"


def test_a_config_for_anybody_says_nothing_of_a_training(run):
    change(run / "configs" / "train.json", bundle_root={"name": "mrn", "made_in": None})
    items, _ = fill(run)
    assert items["claim", "25"]["state"] == "missing"
    (run / "configs" / "train.yaml").write_text("# As run fold0 was trained.\n")
    items, _ = fill(run)
    assert items["claim", "25"]["state"] == "answered"


def test_validation_subjects_are_no_test_set(run):
    change(run / "folds.json", folds=[["T00", "T01", "V1"], ["V2"]])
    items, _ = fill(run)
    assert "2 are validation subjects" in str(items["claim", "20"]["facts"])
    assert items["claim", "33"]["state"] == "missing"


def test_a_cross_validation_is_the_internal_test(run):
    table = run / "predictions" / "predictions.csv"
    rows = list(csv.DictReader(table.open()))
    ids = [row["subject"] for row in rows]
    own = [[ids[i], i // 12, rows[i]["prob_pd"], i % 2] for i in range(NUM)]
    write_rows(run / "out_of_fold.csv", ["subject", "fold", "prob_pd", "label"], own)
    write(run / "folds.json", {"seed": 1, "folds": [ids[:12], ids[12:]]})
    kept = {"rule": "last", "epoch": 600, "chosen_on_validation": False}
    summary = {"accuracy": {"mean": 0.8, "sd": 0.1}}
    note = "Each fold's epoch was chosen on the subjects that it is scored on."
    folds = {"folds": [{}, {}], "kept_weights": [kept, None], "summary": summary, "note": note}
    write(run / "crossval.json", folds)
    shutil.move(run / "predictions" / "evaluation", run / "evaluation")
    where = {"table": "out_of_fold.csv", "evaluation": "evaluation"}
    items, _ = fill(run, **where)
    assert {items["claim", n]["state"] for n in ("20", "32", "37")} == {"answered"}
    assert items["claim", "33"]["state"] == "missing"
    assert "epoch 600, not chosen" in str(items["claim", "26"]["facts"])
    assert items["claim", "5"]["state"] == "for the authors"
    assert "was chosen on the subjects" not in str(items)  # the note on epochs is no loss
    own[0][1] = 1  # not the fold that left it out
    write_rows(run / "out_of_fold.csv", ["subject", "fold", "prob_pd", "label"], own)
    items, _ = fill(run, **where)
    assert items["claim", "20"]["state"] == "missing"


@pytest.mark.usefixtures("no_figures")
def test_the_verb_writes_all_three_with_groups(run):
    output = evaluate(run / "predictions", run / "labels.csv", sheet=True, group_by=["site"])
    assert {*FILES} <= {path.name for path in output.iterdir()}
    content = json.loads((output / "sheet.json").read_text())
    items = {item["number"]: item for item in content["checklists"]["tripod"]["items"]}
    assert items["23b"]["state"] == "answered"
    assert "by site: A (n 12, few): accuracy" in str(items["23b"]["facts"])
    assert "Cochran" in str(items["23b"]["facts"])
    assert items["23a"]["state"] == "missing"  # sites are no groups of people
    assert "--group_by sex,age" in items["23a"]["todo"][0]
    text = (output / "sheet.md").read_text()
    states = re.findall(r"^### .*: (answered|for the authors|missing)$", text, re.MULTILINE)
    assert len(states) == 96
    for part in (states[:44], states[44:]):  # CLAIM, TRIPOD+AI: each counts its own
        assert f"{part.count('answered')} answered" in text
    assert "esearch use only" in text


@pytest.mark.usefixtures("no_figures")
def test_a_score_has_a_sheet(tmp_path):
    folder = tmp_path / "scores"
    write_rows(folder / "predictions.csv", ["subject", "updrs"], ((f"T{i}", i) for i in range(9)))
    labels = ((f"T{i}", (i * 2) % 9) for i in range(9))
    write_rows(tmp_path / "labels.csv", ["subject", "label"], labels)
    write_target(folder, Score(name="updrs", range=(0, 9)))
    output = evaluate(folder, tmp_path / "labels.csv", sheet=True)
    items, _ = fill(folder, table="predictions.csv", evaluation="evaluation")
    assert "a score has no decisions" in str(items["claim", "39"]["facts"])
    assert {("claim", "37"), ("claim", "38")} <= answered(items)
    card = ModelCard.load(output / "model_card.md")
    assert {result.metric_type for result in card.data.eval_results} == {
        "mae",
        "pearsonr",
        "spearmanr",
    }


def test_the_card_is_one_for_hugging_face(run):
    fill(run)
    folder = run / "predictions" / "evaluation"
    metrics = json.loads((folder / "metrics.json").read_text())
    card = ModelCard.load(folder / "model_card.md")
    assert (card.data.library_name, card.data.model_name) == ("monai", "run1")
    assert card.data.license is None
    values = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert values["accuracy"] == round(metrics["accuracy"]["value"], 4)
    assert values["roc_auc"] == round(metrics["roc_auc"]["value"], 4)
    assert values.keys() == {"accuracy", "roc_auc", "f1", "brier_score"}
    for words in re.findall(r".{12}\bdiagnosis\b", card.text):
        assert "not for " in words
    assert "Not a medical device" in card.text
    assert "\n| accuracy | " in card.text
    change(run / "configs" / "metadata.json", license="apache-2.0")
    fill(run)
    assert ModelCard.load(folder / "model_card.md").data.license == "apache-2.0"


def test_what_a_bundle_says_is_text(run):
    words = "a <script>alert(1)</script> | b\n# c `d` *e* _f_ g_h [i](j)"
    change(run / "configs" / "metadata.json", description=words, task=words, intended_use=words)
    fill(run)
    for name in ("sheet.md", "model_card.md"):
        text = (run / "predictions" / "evaluation" / name).read_text()
        assert "<script>" not in text
        assert "\n# c" not in text
    assert (
        r"\| b # c \`d\` \*e\* \_f\_ g_h [i\](j)"
        in (run / "predictions" / "evaluation" / "sheet.md").read_text()
    )


def test_a_damaged_record_is_named(run):
    (run / "predictions" / "manifest.json").write_text('{"weights": ')
    with pytest.raises(ValueError, match=r"manifest\.json is damaged"):
        fill(run)


def test_parts_are_shown_with_what_they_are_set_to():
    config = {
        "size": 56,
        "images": {"nm": {"_target_": "mrn_components.Image"}},
        "network": {
            "_target_": "mrn_components.MRN",
            "size": "@size",
            "image": "@images#nm",
            "code": "$torch.device('cuda')",
            "whole": "@images",
            "ffa": {"_target_": "mrn_components.FFA", "_disabled_": True, "num_layers": 3},
            "rates": [1e-5, 2],
        },
    }
    text = shown(config["network"], config)
    assert text == "MRN(size: 56, image: nm, ffa: left out, rates: (1e-05, 2))"
    assert shown({"value": 0.5, "low": 0.4, "high": 0.6, "method": "Wilson"}, {}) == (
        "0.500 (0.400 to 0.600, Wilson)"
    )
    control = {"auc": None, "fields": {}, "reason": "fewer than 5 of a class"}
    assert shown(control, {}) == "not defined (fewer than 5 of a class)"
    assert shown({"value": None, "low": None, "high": None, "reason": "one class"}, {}) == (
        "not defined (one class)"
    )
