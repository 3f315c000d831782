"""Sites and other groups: where they are told, and folds that no two share one of."""

import json

import pytest

from mrn_components.data import load_subjects, select_fold, split_folds
from mrn_components.data.groups import give_groups
from mrn_components.data.layouts import Need, find_subjects
from mrn_components.images.image import CHALLENGE_IMAGES

ROWS = ["subject,age,label,site", "S0,61,0,B", "S1,62.5,1,01", "S2,,0,n/a"]


def touch(root, *names, files=("NM", "QSM")):
    for name in names:
        (root / name).mkdir(parents=True)
        for file in files:
            (root / name / f"{file}.nii.gz").touch()
    return root


def load(data, group_by, **options):
    options = {"require_masks": False, "check_headers": False, **options}
    return load_subjects(data, group_by=group_by, **options)


def covariates(data):
    need = Need(images="all", masks="given", labels="given")
    return find_subjects(data, CHALLENGE_IMAGES, need=need).covariates


def test_columns_of_a_csv_with_a_header_are_covariates(tmp_path):
    (touch(tmp_path, "S0", "S1", "S2") / "cases.csv").write_text("\n".join(ROWS))
    assert covariates(tmp_path) == {
        "S0": {"age": 61.0, "site": "B"},
        "S1": {"age": 62.5, "site": "01"},
    }
    (tmp_path / "cases.csv").write_text("\n".join(ROWS[:-1]) + "\nS2,70,0,A")
    subjects = load(tmp_path, "site")
    assert [(s["label"], s["group"]) for s in subjects] == [(0, "B"), (1, "01"), (0, "A")]
    assert "group" not in load(tmp_path, None)[0]
    assert [s["group"] for s in load(tmp_path, "age")] == ["61", "62.5", "70"]


def test_a_subject_without_a_site_is_named_with_the_columns(tmp_path):
    (touch(tmp_path, "S0", "S1", "S2") / "cases.csv").write_text("\n".join(ROWS))
    with pytest.raises(ValueError, match=r"1 of 3 subjects have no 'site' \(S2\).*age, site"):
        load(tmp_path, "site")
    with pytest.raises(ValueError, match=r"3 of 3 subjects have no 'scanner'"):
        load(tmp_path, "scanner")


def test_a_faulty_line_below_a_header_is_named(tmp_path):
    (touch(tmp_path, "S0", "S1") / "cases.csv").write_text("subject,label,site\nS0,2,A\nS1,1\n")
    with pytest.raises(ValueError, match=r"line 2: label must be.*got '2'(.|\n)*line 3: .*'S1,1'"):
        load(tmp_path, "site")


def test_columns_of_bids_participants_are_covariates(tmp_path):
    for name in ("sub-01", "sub-02"):
        (tmp_path / name / "anat").mkdir(parents=True)
        for stem in ("acq-NM_T1w", "Chimap"):
            (tmp_path / name / "anat" / f"{name}_{stem}.nii.gz").touch()
    rows = ["participant_id\tsite\tage", "sub-01\tLondon\t60", "sub-02\tn/a\t61"]
    (tmp_path / "participants.tsv").write_text("\n".join(rows))
    assert covariates(tmp_path) == {
        "sub-01": {"site": "London", "age": 60.0},
        "sub-02": {"age": 61.0},
    }
    (tmp_path / "labels.csv").write_text("subject,label,site\nsub-01,1,A\nsub-02,0,B\n")
    assert [s["group"] for s in load(tmp_path, "site")] == ["A", "B"]  # the table has the last word


def test_keys_of_a_datalist_are_covariates(tmp_path):
    touch(tmp_path, "a", "b")
    entries = [
        {
            "subject": n,
            "nm": f"{n}/NM.nii.gz",
            "qsm": f"{n}/QSM.nii.gz",
            "label": i,
            "site": 1.0 + i,
        }
        for i, n in enumerate("ab")
    ]
    (tmp_path / "list.json").write_text(json.dumps(entries))
    assert [s["group"] for s in load(tmp_path / "list.json", "site")] == ["1", "2"]


# ---- folds


def subjects_of(sites, count=12):
    return [
        {"subject": f"S{i:03d}", "label": i % 2, "group": sites[(i // 2) % len(sites)]}
        for i in range(count * len(sites))
    ]


def sites_of(subjects, part):
    of = {s["subject"]: s["group"] for s in subjects}
    return {of[name] for name in part}


def test_one_site_is_left_out_at_a_time():
    subjects = subjects_of("BAC")
    folds = split_folds(subjects, num_folds=5)
    assert folds["groups"] == [["A"], ["B"], ["C"]]
    assert [sites_of(subjects, part) for part in folds["folds"]] == [{"A"}, {"B"}, {"C"}]
    assert sorted(name for part in folds["folds"] for name in part) == [
        s["subject"] for s in subjects
    ]
    training = select_fold(subjects, folds, 1, "training")
    assert sites_of(subjects, [s["subject"] for s in training]) == {"A", "C"}
    assert set(training[0]) == {"subject", "label"}  # the cache and batches do not know it


def test_of_many_sites_no_two_folds_share_one():
    subjects = subjects_of([f"site{k}" for k in range(9)], count=6)
    folds = split_folds(subjects, num_folds=3)
    parts = [sites_of(subjects, part) for part in folds["folds"]]
    assert [sorted(part) for part in parts] == folds["groups"]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 9
    assert min(map(len, parts)) >= 2


def test_folds_of_sites_are_kept_and_other_folds_refused(tmp_path):
    subjects = subjects_of("AB")
    path = tmp_path / "folds.json"
    folds = split_folds(subjects, path=path)
    assert split_folds(subjects, path=path) == folds
    plain = [{k: v for k, v in s.items() if k != "group"} for s in subjects]
    assert len(split_folds(plain, num_folds=2, path=path)["folds"]) == 2
    split_folds(plain, num_folds=2, path=tmp_path / "mixed.json")
    with pytest.raises(
        ValueError, match=r"mixed.json has subjects of the group A in folds 0 and 1"
    ):
        split_folds(subjects, path=tmp_path / "mixed.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s | {"group": "A"}, "all subjects have the group A"),
        (lambda s: s | {"person": "P"}, "P have scans in several groups"),
        (lambda s: s | {"label": int(s["group"] == "A")}, "group A lacks a class"),
    ],
)
def test_groups_that_make_no_folds_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        split_folds([change(subject) for subject in subjects_of("AB")])


@pytest.mark.parametrize("column", ["fold", "class", "unlike_training", "prob_pd_calibrated"])
def test_a_column_of_predictions_is_no_group(column):
    with pytest.raises(ValueError, match=f"cannot be grouped by '{column}', which is a column of"):
        give_groups(subjects_of("AB"), {}, column)
