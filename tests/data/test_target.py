"""What is predicted: labels, folds and categories of classes and of scores."""

import numpy as np
import pytest
import torch

from mrn_components import Classes, Score
from mrn_components.data import split_folds
from mrn_components.data.target import read_target, write_target

THREE = Classes(names=["HC", "PD", "MSA"])
UPDRS = Score(name="updrs", unit="points", range=[0, 60])


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (Classes, {"names": ["HC"]}, r"two or more that differ, got \['HC'\]"),
        (Classes, {"names": ["pd", "PD"]}, "two or more that differ"),
        (Classes, {"names": ["HC", "early PD"]}, "'early PD' must begin with a letter"),
        (Classes, {"names": ["0", "1"]}, "'0' must begin with a letter"),
        (Classes, {"names": ["HC", "MSA"]}, r"positive must be one of \['HC', 'MSA'\], got 'PD'"),
        (Score, {"range": [3, 3]}, r"range must be \[low, high\], got \[3, 3\]"),
        (Score, {"name": "class"}, "'class' is another column"),
        (Score, {"name": "a,b"}, "'a,b' must begin with a letter"),
    ],
)
def test_a_faulty_target_says_what_is_wrong(kind, arguments, message):
    with pytest.raises(ValueError, match=message):
        kind(**arguments)


def test_labels_are_numbers_or_names_of_classes_and_scores_in_their_range():
    assert [THREE.parse(text) for text in ("0", "PD", " msa ", 2, 1.0)] == [0, 1, 2, 2, 1]
    for value in ("3", "", "P", True, 0.5, None, float("nan")):
        with pytest.raises(ValueError, match=r"label must be 0 \(HC\), 1 \(PD\) or 2 \(MSA\), got"):
            THREE.parse(value)
    assert [UPDRS.parse(text) for text in ("0", "27.5", 60)] == [0, 27.5, 60]
    for value in ("-1", "61", "nan", "high", None):
        with pytest.raises(ValueError, match="label must be a number from 0 to 60, got"):
            UPDRS.parse(value)


def test_of_two_classes_either_may_be_the_positive_one():
    swapped = Classes(names=["MSA", "PSP"], positive="MSA")
    values = swapped.values(torch.tensor([[2.0, 0.0]]))
    assert list(values) == ["prob_msa"]
    assert values["prob_msa"].item() == pytest.approx(torch.tensor(2.0).sigmoid().item())
    assert [swapped.decide({"prob_msa": prob})["class"] for prob in (0.9, 0.5)] == [0, 1]
    assert swapped.metrics([0.9, 0.2], [0, 1])["accuracy"]["value"] == 1
    assert swapped.confusion([0.9, 0.7, 0.2], [0, 1, 1]) == {
        "true_msa": 1,
        "false_psp": 0,
        "false_msa": 1,
        "true_psp": 1,
    }


def test_the_contrast_holds_thirds_of_a_score_apart():
    labels = torch.tensor([0, 19.9, 20, 40, 59, 60])
    assert UPDRS.categories(labels).tolist() == [0, 0, 1, 2, 2, 2]
    assert torch.equal(THREE.categories(torch.tensor([2, 0])), torch.tensor([2, 0]))


def subjects(labels):
    return [{"subject": f"S{i:03d}", "label": label} for i, label in enumerate(labels)]


def test_folds_have_every_class_and_every_quarter_of_a_score():
    labels = np.arange(45) % 3
    by_id = {s["subject"]: s["label"] for s in subjects(labels)}
    for fold in split_folds(subjects(labels), target=THREE)["folds"]:
        assert np.bincount([by_id[name] for name in fold]).tolist() == [3, 3, 3]
    scores = np.random.default_rng(1).gamma(2, 8, 40).clip(0, 60)
    by_id = {s["subject"]: s["label"] for s in subjects(scores)}
    for fold in split_folds(subjects(scores), target=UPDRS)["folds"]:
        quarters = np.searchsorted(np.quantile(scores, [0.25, 0.5, 0.75]), [by_id[n] for n in fold])
        assert np.bincount(quarters).tolist() == [2, 2, 2, 2]
    few = split_folds(subjects([1.0, 2, 3, 4, 5, 6]), num_folds=3, target=UPDRS)["folds"]
    assert {len(fold) for fold in few} == {2}
    with pytest.raises(ValueError, match=r"2 people have label 2 \(MSA\)"):
        split_folds(subjects([0, 1] * 5 + [2, 2]), target=THREE)
    with pytest.raises(ValueError, match="num_folds is 5, but 4 people have"):
        split_folds(subjects([1.0, 2, 3, 4]), target=UPDRS)


@pytest.mark.parametrize("target", [THREE, UPDRS, Classes(names=["PD", "HC"])])
def test_tables_tell_their_target(tmp_path, target):
    write_target(tmp_path, target)
    assert read_target(tmp_path) == target
    (tmp_path / "target.json").write_text('{"kind": "Rank"}')
    with pytest.raises(ValueError, match=r"target.json: .* names no target: 'Rank'"):
        read_target(tmp_path)
