"""Every verb on every layout: it works, or says in one wording what is lacking and ends with 2."""

import gzip
import json
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pytest
from monai.bundle import ConfigParser
from tiny_cohort import make_subject, read_biomarkers, write_nifti
from tiny_run import make_run, read_rows
from tiny_segmentation import make_segmentation_bundle

from mrn_components.app.baseline import baseline
from mrn_components.app.biomarkers import measure_subjects
from mrn_components.app.challenge import challenge
from mrn_components.app.check import check
from mrn_components.app.contributions import contributions
from mrn_components.app.crossval import plan_folds
from mrn_components.app.evaluate_masks import evaluate_masks
from mrn_components.app.predict import predict
from mrn_components.app.segment import segment
from mrn_components.bundle import RunArguments
from mrn_components.system.errors import install_messages

BUNDLE = Path(__file__).parent.parent / "bundles" / "mrn"
NAMES = {"nm": "NM", "qsm": "QSM", "mask_nm": "NM_mask", "mask_qsm": "QSM_mask"}
# Names in BIDS: the stem after the entities.
BIDS = {"NM": "acq-NM_MTw", "QSM": "Chimap", "NM_mask": "acq-NM_dseg", "QSM_mask": "dseg"}
COUNT = 4  # two of each class, for two folds


@dataclass(frozen=True)
class DataSet:
    """Subjects on disk.

    Args:
        path: what is typed.
        ids: of the subjects.
        labels: option of the labels.
        masks: option of the masks.
    """

    path: Path
    ids: list[str]
    labels: str | None = None
    masks: str | None = None


def move(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)


def challenge_folders(root):
    for number in range(COUNT):
        make_subject(root / f"S{number}", number % 2, number)
    (root / "cases.csv").write_text("".join(f"S{number},{number % 2}\n" for number in range(COUNT)))
    return DataSet(root, [f"S{number}" for number in range(COUNT)])


def without_masks(root):
    data = challenge_folders(root)
    for path in root.rglob("*_mask.nii.gz"):
        path.unlink()
    return data


def without_labels(root):
    data = challenge_folders(root)
    (root / "cases.csv").unlink()
    return data


def plain_nii(root):
    data = challenge_folders(root)
    for path in list(root.rglob("*.nii.gz")):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    return data


def one_subject(root):
    data = challenge_folders(root)
    return DataSet(root / "S1", data.ids[1:2], labels=str(root / "cases.csv"))


def datalist(root, names=NAMES):
    data = challenge_folders(root / "files")
    entries = [
        {"subject": name, "label": number % 2}
        | {key: f"files/{name}/{stem}.nii.gz" for key, stem in names.items()}
        for number, name in enumerate(data.ids)
    ]
    (root / "list.json").write_text(json.dumps(entries))
    return DataSet(root / "list.json", data.ids)


def datalist_without_masks(root):
    return datalist(root, {"nm": "NM", "qsm": "QSM"})


def bids(root, derived=()):
    data = challenge_folders(root / "files")
    for name in data.ids:
        for stem, ending in BIDS.items():
            place = root / "derivatives" / "qsmxt" if stem in derived else root
            target = place / f"sub-{name}" / "anat" / f"sub-{name}_{ending}.nii.gz"
            move(root / "files" / name / f"{stem}.nii.gz", target)
    ids = [f"sub-{name}" for name in data.ids]
    rows = "".join(f"{name},{number % 2}\n" for number, name in enumerate(ids))
    (root / "labels.csv").write_text(rows)
    (root / "Chimap.json").write_text(json.dumps({"Units": "ppb"}))
    shutil.rmtree(root / "files")
    return DataSet(root, ids)


def bids_joined(root):
    """As QSMxT leaves them: maps in ppm, in a folder of derivatives."""
    data = bids(root, derived=("QSM", "QSM_mask"))
    (root / "Chimap.json").unlink()  # BIDS defines ppm
    for path in root.rglob("*_Chimap.nii.gz"):
        volume = nibabel.load(path)
        write_nifti(path, volume.get_fdata(dtype=np.float32) / 1000, volume.affine)
    return data


def linked_folders(root):
    data = challenge_folders(root / "store")
    (root / "data").mkdir()
    for name in data.ids:
        move(root / "store" / name, root / "store" / f"2024-{name}")
        (root / "data" / name).symlink_to(root / "store" / f"2024-{name}")
    move(root / "store" / "cases.csv", root / "data" / "cases.csv")
    return DataSet(root / "data", data.ids)


def masks_elsewhere(root):
    data = challenge_folders(root / "data")
    for path in list(root.rglob("*_mask.nii.gz")):
        move(path, root / "masks" / path.parent.name / path.name)
    return DataSet(data.path, data.ids, masks=str(root / "masks"))


LAYOUTS = [
    challenge_folders,
    without_masks,
    without_labels,
    plain_nii,
    one_subject,
    datalist,
    datalist_without_masks,
    bids,
    bids_joined,
    linked_folders,
    masks_elsewhere,
]


@pytest.fixture(scope="module")
def data_of(tmp_path_factory):
    made = {}

    def make(layout):
        if layout not in made:
            root = tmp_path_factory.mktemp("layout") / "d"
            root.mkdir()
            made[layout] = layout(root)
        return made[layout]

    return make


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    root = tmp_path_factory.mktemp("bundles")
    segmentation = make_segmentation_bundle(root / "segmentation")
    return {"bundle": str(make_run(root / "run", 0)), "segmentation": str(segmentation)}


# ---- verbs: each runs on a data set, and returns the ids that it has results of ------------------


def run_check(data, out, bundles):
    report = check(data.path, labels=data.labels, masks=data.masks, workers=1)
    faults = [f for f in report.findings if f.id in ("missing-file", "no-label", "no-folder")]
    assert not faults, list(map(str, faults))
    return [subject["subject"] for subject in report.subjects]


def run_predict(data, out, bundles):
    rows = read_rows(predict(data.path, out, masks=data.masks, abstain=False, **bundles))
    assert {row["status"] for row in rows} == {"ok"}
    return [row["subject"] for row in rows]


def run_segment(data, out, bundles):
    # Masks of a network with random weights.
    segment(data.path, out, segmentation=bundles["segmentation"], implausible="flag")
    rows = read_rows(out / "segmentation.csv")
    assert {row["status"] for row in rows} == {"ok"}
    for row in rows:
        assert {row["mask_qsm"], row["mask_nm"]} == {"segmented"}
        assert len(list((out / "subjects" / row["subject"]).glob("*_mask.nii.gz"))) == 2
    return [row["subject"] for row in rows]


def run_challenge(data, out, bundles):
    challenge(data.path, out, masks=data.masks, **bundles)
    for path in out.iterdir():
        assert {file.name for file in path.iterdir()} == {
            "NM_pred.nii.gz",
            "QSM_pred.nii.gz",
            "PD_pred.txt",
        }
    return sorted(path.name for path in out.iterdir())


def run_biomarkers(data, out, bundles):
    measure_subjects(data.path, out, masks=data.masks)
    return list(read_biomarkers(out))


def run_contributions(data, out, bundles):
    options = {"labels": data.labels, "masks": data.masks, "abstain": False} | bundles
    contributions(data.path, out, **options)
    return [row["subject"] for row in read_rows(out / "states.csv")]


def run_evaluate_masks(data, out, bundles):
    made = out / "made"
    for name in data.ids:
        make_subject(made / name, 0, 0)
    folder = evaluate_masks(made, data.path, output=out / "scores")
    rows = read_rows(folder / "masks.csv")
    assert {row["dice"] for row in rows} == {"1"}
    return sorted({row["subject"] for row in rows})


def options_of(data):
    named = {"labels": data.labels, "masks": data.masks}
    return {key: value for key, value in named.items() if value is not None}


def run_train(data, out, bundles):
    """What a training does first: find the subjects, and crop their regions."""
    overrides = options_of(data) | {"dataset_dir": str(data.path), "output_dir": str(out)}
    config = RunArguments((BUNDLE / "configs" / "train.yaml",), overrides).merged()
    parser = ConfigParser(config | {"bundle_root": str(BUNDLE), "num_workers": 0})
    subjects = parser.get_parsed_content("subjects")
    assert {subject["label"] for subject in subjects} <= {0, 1}
    assert parser.get_parsed_content("preprocessing")(dict(subjects[0])).keys() >= {"nm", "qsm3"}
    return [subject["subject"] for subject in subjects]


def run_crossval(data, out, bundles):
    settings = {"dataset_dir": str(data.path), "bundle": str(BUNDLE), "num_folds": 2}
    settings |= {"configs": [], "overrides": options_of(data)}
    runs, subjects = plan_folds(settings, out)
    lists = [json.loads((run.folder / "validation.json").read_text()) for run in runs]
    assert [len(members) for members in lists] == [2, 2]
    for path in (members[0]["mask_qsm"] for members in lists):
        assert Path(path).is_file()
    return [subject["subject"] for subject in subjects]


def run_baseline(data, out, bundles):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mrn_components.app.evaluate.write_figures", lambda *_: None)
        folder = baseline(data.path, out, num_folds=2, **options_of(data))
    return [row["subject"] for row in read_rows(folder / "out_of_fold.csv")]


VERBS = [
    run_check,
    run_predict,
    run_segment,
    run_biomarkers,
    run_contributions,
    run_evaluate_masks,
    run_challenge,
    run_train,
    run_crossval,
    run_baseline,
]
NO_MASK, NO_LABEL = "no (NM|QSM) mask", "no label"
# What a verb says where a layout lacks what it needs.
LACKING = {
    (run_biomarkers, without_masks): NO_MASK,
    (run_biomarkers, datalist_without_masks): NO_MASK,
    (run_evaluate_masks, without_masks): NO_MASK,
    (run_evaluate_masks, datalist_without_masks): NO_MASK,
    (run_evaluate_masks, masks_elsewhere): NO_MASK,  # there are none to compare with
    (run_train, without_masks): NO_MASK,
    (run_train, datalist_without_masks): NO_MASK,
    (run_train, without_labels): NO_LABEL,
    (run_crossval, without_masks): NO_MASK,
    (run_crossval, datalist_without_masks): NO_MASK,
    (run_crossval, without_labels): NO_LABEL,
    (run_crossval, one_subject): "label 0.*fewer folds",
    (run_baseline, without_masks): NO_MASK,
    (run_baseline, datalist_without_masks): NO_MASK,
    (run_baseline, without_labels): NO_LABEL,
    (run_baseline, one_subject): "label 0.*fewer folds",
}


@pytest.fixture
def run(data_of, bundles, tmp_path):
    """A function that runs a verb on a layout."""

    def call(verb, layout, **changed):
        return verb(data_of(layout), tmp_path / "out", bundles | changed)

    return call


@pytest.fixture
def refused(run, monkeypatch, capsys):
    """A function that runs a verb which must fail: its exit code and message, as of ``mrn``."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # is replaced
    install_messages()

    def call(*arguments, **changed):
        with pytest.raises((ValueError, OSError, RuntimeError), match="") as caught:
            run(*arguments, **changed)
        with pytest.raises(SystemExit) as end:
            sys.excepthook(caught.type, caught.value, caught.tb)
        return end.value.code, capsys.readouterr().err

    return call


def named(function):
    return function.__name__.removeprefix("run_")


@pytest.mark.parametrize("layout", LAYOUTS, ids=named)
@pytest.mark.parametrize("verb", VERBS, ids=named)
def test_a_verb_takes_a_layout(verb, layout, data_of, run, refused):
    if (verb, layout) in LACKING:
        code, message = refused(verb, layout)
        assert code == 2
        assert re.search(LACKING[verb, layout], message), message
    else:
        assert run(verb, layout) == data_of(layout).ids


def nm_alone(root):
    data = challenge_folders(root)
    for path in root.rglob("QSM*"):
        path.unlink()
    return data


def test_the_files_of_the_enabled_regions_are_enough(data_of, tmp_path):
    data = data_of(nm_alone)
    disabled = {f"rois#qsm{number}#_disabled_": True for number in (1, 2, 3)}
    run = str(make_run(tmp_path / "run", 0, **disabled))
    assert not [f for f in check(data.path, bundle=run).findings if f.id.startswith("missing")]
    assert len([f for f in check(data.path).findings if f.id == "missing-file"]) == COUNT
    rows = read_rows(predict(data.path, tmp_path / "out", bundle=run))
    assert [(row["subject"], row["status"], row["flags"]) for row in rows] == [
        (name, "ok", rows[0]["flags"]) for name in data.ids
    ]
    assert "QSM" not in rows[0]["flags"]
    measure_subjects(data.path, tmp_path / "measured", bundle=run)
    assert not [
        name for name in read_rows(tmp_path / "measured/biomarkers.csv")[0] if "qsm" in name
    ]
    contributions(str(data.path), str(tmp_path / "states"), bundle=run)
    config = RunArguments(
        (BUNDLE / "configs" / "train.yaml",), disabled | {"dataset_dir": str(data.path)}
    ).merged()
    assert len(ConfigParser(config).get_parsed_content("subjects")) == COUNT


@pytest.mark.parametrize("layout", [without_masks, datalist_without_masks], ids=named)
@pytest.mark.parametrize(
    "verb", [run_predict, run_segment, run_contributions, run_challenge], ids=named
)
def test_neither_masks_nor_a_segmenter(verb, layout, tmp_path, refused):
    code, message = refused(verb, layout, segmentation=str(tmp_path / "nowhere"))
    assert code == 2
    assert re.search(NO_MASK, message)
