"""``mrn evaluate_masks``: the files it leaves and what it refuses."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest
from tiny_cohort import AFFINE, make_mask, make_subject, write_nifti

from mrn_components.app import cli
from mrn_components.app.evaluate_masks import evaluate_masks
from mrn_components.images.image import CHALLENGE_IMAGES


@pytest.fixture
def dataset(tmp_path):
    for number in range(3):
        make_subject(tmp_path / "data" / f"S{number}", label=0, seed=number)
    return tmp_path / "data"


def predict(folder, change=None, kind="mask"):
    """Write predicted masks of three subjects, ``change(subject, image, mask)`` of the truth."""
    for subject in ("S0", "S1", "S2"):
        (folder / subject).mkdir(parents=True)
        for image in ("nm", "qsm"):
            mask = make_mask(image)
            mask = mask if change is None else change(subject, image, mask)
            write_nifti(folder / subject / f"{image.upper()}_{kind}.nii.gz", mask)
    return folder


def read(output):
    with (output / "masks.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return rows, json.loads((output / "masks.json").read_text())


def entry(summaries, **keys):
    (found,) = [s for s in summaries if all(s[key] == value for key, value in keys.items())]
    return found


@pytest.mark.parametrize(("where", "kind"), [("", "pred"), ("subjects", "mask")])
def test_perfect_masks(tmp_path, dataset, where, kind):
    predict(tmp_path / "out" / where, kind=kind)
    output = evaluate_masks(tmp_path / "out", dataset)
    assert output == tmp_path / "out" / "evaluation"
    rows, report = read(output)
    assert len(rows) == 3 * 18
    assert {row["dice"] for row in rows} == {"1"}
    assert {row["hausdorff_voxels"] for row in rows} == {"0"}
    assert report["n"] == 3
    assert report["left_out"] == []
    assert (len(report["nuclei"]), len(report["labels"])) == (9, 18)
    assert all(s["dice"]["value"] == 1 and s["dice"]["n"] == 3 for s in report["labels"])


def test_sides_are_averaged_within_subjects_and_empties_are_counted(tmp_path, dataset):
    right, left = CHALLENGE_IMAGES["qsm"].nuclei["RN"]

    def change(subject, image, mask):
        if image == "qsm" and subject == "S0":
            mask[mask == right] = 0
        if image == "qsm" and subject == "S1":
            moved = np.roll(mask == left, 1, 2)
            mask[mask == left] = 0
            mask[moved & (mask == 0)] = left
        return mask

    output = evaluate_masks(predict(tmp_path / "out", change), dataset, output=tmp_path / "scores")
    rows, report = read(output)
    cells = {(row["subject"], row["label"]): row for row in rows if row["image"] == "qsm"}
    lost = cells["S0", str(right)]
    assert (lost["dice"], lost["hausdorff_voxels"], lost["empty"]) == ("0", "", "predicted")
    moved = float(cells["S1", str(left)]["dice"])
    assert 0 < moved < 1
    label = entry(report["labels"], image="qsm", nucleus="RN", side="right")
    assert label["label"] == right
    assert label["dice"]["value"] == pytest.approx(2 / 3)
    assert label["hausdorff_voxels"]["n"] == 2
    assert label["empty"] == {"predicted": 1, "truth": 0, "both": 0}
    nucleus = entry(report["nuclei"], image="qsm", nucleus="RN")
    assert nucleus["dice"]["value"] == pytest.approx((0.5 + (1 + moved) / 2 + 1) / 3, abs=1e-6)
    assert nucleus["dice"]["low"] < nucleus["dice"]["value"] < nucleus["dice"]["high"]
    assert nucleus["empty"]["predicted"] == 1
    text = (output / "masks.md").read_text()
    assert "| qsm | RN | 0.7" in text
    assert "Research use only" in text


def test_other_axes_of_the_same_grid_are_the_same_mask(tmp_path, dataset):
    predict(tmp_path / "out")
    for path in (tmp_path / "out").rglob("*.nii.gz"):
        image = nib.load(path)
        turned = nib.as_closest_canonical(nib.Nifti1Image(np.asarray(image.dataobj), AFFINE))
        nib.save(turned, path)
    rows, _ = read(evaluate_masks(tmp_path / "out", dataset))
    assert {row["dice"] for row in rows} == {"1"}


def test_the_same_masks_give_the_same_bytes(tmp_path, dataset):
    predict(tmp_path / "out")

    def written():
        folder = evaluate_masks(tmp_path / "out", dataset)
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    first = written()
    assert sorted(first) == ["masks.csv", "masks.json", "masks.md"]
    assert not any(str(tmp_path).encode() in content for content in first.values())
    assert written() == first


def test_the_command_prints_the_table(tmp_path, dataset, monkeypatch, capsys):
    predict(tmp_path / "out")
    arguments = [str(tmp_path / "out"), str(dataset), "--output", str(tmp_path / "scores")]
    monkeypatch.setattr("sys.argv", ["mrn", "evaluate_masks", *arguments])
    monkeypatch.setattr("sys.excepthook", None)  # main replaces it
    cli.main()
    out = capsys.readouterr().out
    assert "| nm | SN | 1.000, n 3 |" in out
    assert out.splitlines()[-1] == f"scores of the masks: {tmp_path / 'scores'}"


def test_missing_masks_are_refused_or_reported(tmp_path, dataset):
    predict(tmp_path / "out")
    (tmp_path / "out" / "S1" / "NM_mask.nii.gz").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"lacks 1 of the 6 masks .*: S1 nm; --partial True"
    ):
        evaluate_masks(tmp_path / "out", dataset)
    _, report = read(evaluate_masks(tmp_path / "out", dataset, partial=True))
    assert report["left_out"] == ["S1 nm"]
    assert entry(report["labels"], image="nm", side="left")["dice"]["n"] == 2
    assert "left out: S1 nm" in (tmp_path / "out" / "evaluation" / "masks.md").read_text()
    with pytest.raises(FileNotFoundError, match="lacks the masks of all 3 subjects"):
        evaluate_masks(tmp_path / "nowhere", dataset, partial=True)


def test_two_masks_of_one_image_are_refused(tmp_path, dataset):
    predict(tmp_path / "out")
    write_nifti(tmp_path / "out" / "S0" / "NM_pred.nii.gz", make_mask("nm"))
    with pytest.raises(ValueError, match=r"S0 .*2 files \(NM_mask\.nii\.gz, NM_pred\.nii\.gz\)"):
        evaluate_masks(tmp_path / "out", dataset)


def test_another_grid_names_the_subject(tmp_path, dataset):
    predict(tmp_path / "out")
    write_nifti(tmp_path / "out" / "S2" / "QSM_mask.nii.gz", make_mask("qsm")[1:])
    with pytest.raises(ValueError, match=r"^S2: .* the shape \(23, 24, 12\); expected that"):
        evaluate_masks(tmp_path / "out", dataset)
