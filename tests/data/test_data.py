import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import DataLoader, get_track_meta
from monai.transforms import (
    Compose,
    LoadImaged,
    RandShiftIntensityd,
    ScaleIntensityRangePercentilesd,
)
from tiny_cohort import SHAPE, make_subject, write_nifti

from mrn_components.data import (
    DataLeakageError,
    load_subjects,
    select_fold,
    split_folds,
)
from mrn_components.data.dataset import ROIDataset, collate_subjects
from mrn_components.data.tables import read_labels
from mrn_components.data.target import Score
from mrn_components.regions.roi import ROI
from mrn_components.regions.transforms import MergeSidesd, ROICropd

IMAGES = ["nm", "qsm"]
MASKS = ["mask_nm", "mask_qsm"]


@pytest.fixture
def copied(cohort, tmp_path):
    """The cohort, to be changed."""
    return Path(shutil.copytree(cohort, tmp_path / "data"))


class TestLoadSubjects:
    def test_challenge_folders_and_their_csv(self, cohort):
        subjects = load_subjects(cohort)
        assert [s["subject"] for s in subjects] == [f"SUBJ_{i:03d}" for i in range(10)]
        assert [s["label"] for s in subjects] == [0, 1] * 5
        assert set(subjects[0]) == {"subject", "label", *IMAGES, *MASKS}
        assert subjects[3]["mask_qsm"] == str(cohort / "SUBJ_003" / "QSM_mask.nii.gz")

    def test_no_key_starts_with_another_and_an_underscore(self, cohort):
        keys = load_subjects(cohort)[0]  # MONAI's Spacingd 1.6.1 fails on such pairs
        assert not [(a, b) for a in keys for b in keys if b.startswith(f"{a}_")]

    def test_unlabelled_subjects_without_masks(self, copied):
        for path in copied.rglob("*_mask.nii.gz"):
            path.unlink()
        (copied / "train_cases.csv").write_text("not a table")
        subjects = load_subjects(copied, require_labels=False, require_masks=False)
        assert set(subjects[0]) == {"subject", *IMAGES}

    def test_a_byte_order_mark_spaces_and_blank_lines_are_read_over(self, copied):
        table = copied / "train_cases.csv"
        rows = table.read_text().replace(",", " , ").replace("\n", "\r\n\r\n")
        table.write_bytes(b"\xef\xbb\xbf" + rows.encode())
        assert load_subjects(copied) == load_subjects(copied, labels=table.name)

    def test_the_third_column_names_the_person(self, copied):
        table = copied / "train_cases.csv"
        rows = [f"{row},P{i // 2}" for i, row in enumerate(table.read_text().split())]
        table.write_text("\n".join(rows))
        assert [s["person"] for s in load_subjects(copied)][:4] == ["P0", "P0", "P1", "P1"]

    @pytest.mark.parametrize("section", [None, "training"])
    def test_a_json_datalist_says_the_same_as_the_folders(self, copied, section):
        expected = load_subjects(copied)
        entries = [
            {k: os.path.relpath(v, copied) if k in IMAGES + MASKS else v for k, v in s.items()}
            for s in reversed(expected)
        ]
        table = copied / "list.json"
        table.write_text(json.dumps({section: entries} if section else entries))
        assert load_subjects(table) == expected
        assert load_subjects(copied, labels="list.json") == expected
        assert set(load_subjects(table, require_labels=False, require_masks=False)[0]) == {
            "subject",
            *IMAGES,
        }

    def test_labels_alone_need_no_images(self, copied):
        expected = {subject["subject"]: subject["label"] for subject in load_subjects(copied)}
        assert read_labels(copied / "train_cases.csv") == expected
        entries = [{"subject": name, "label": label} for name, label in expected.items()]
        (copied / "labels.json").write_text(json.dumps(entries))
        assert read_labels(copied / "labels.json") == expected
        (copied / "empty.csv").write_text("\n")
        with pytest.raises(ValueError, match=r"empty\.csv has no line `case_id,label`"):
            read_labels(copied / "empty.csv")

    def test_a_missing_data_set_says_what_to_type(self):
        message = "does not exist; name a folder of subjects.*mrn phantom data/none --subjects 40"
        with pytest.raises(FileNotFoundError, match=message):
            load_subjects("data/none")

    def test_an_empty_folder_says_what_to_type(self, tmp_path):
        with pytest.raises(
            FileNotFoundError, match=r"has no subjects: expected .*/SUBJECT/\{NM,QSM\}"
        ):
            load_subjects(tmp_path)

    def test_a_file_that_is_no_datalist_is_refused(self, cohort):
        with pytest.raises(ValueError, match=r"is a file and no \.json datalist"):
            load_subjects(cohort / "train_cases.csv")

    def test_all_missing_files_are_listed_at_once(self, copied):
        (copied / "SUBJ_001" / "NM.nii.gz").unlink()
        (copied / "SUBJ_004" / "QSM_mask.nii.gz").unlink()
        message = r"(?s)2 faults.*SUBJ_001 NM\.nii\.gz: no NM image.*SUBJ_004 QSM_mask.*no QSM mask"
        with pytest.raises(ValueError, match=message):
            load_subjects(copied)

    def test_the_csv_must_be_the_only_one_or_named(self, copied):
        shutil.copy(copied / "train_cases.csv", copied / "val_cases.csv")
        with pytest.raises(ValueError, match=r"train_cases\.csv, val_cases\.csv.*--labels"):
            load_subjects(copied)
        assert len(load_subjects(copied, labels="val_cases.csv")) == 10
        with pytest.raises(
            FileNotFoundError, match=r"labels 'nothing\.csv' are neither there nor at"
        ):
            load_subjects(copied, labels="nothing.csv")

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("SUBJ_003,0", r"line 11: subject 'SUBJ_003' stands already on line 4"),
            ("subj_003,0", r"line 11: subject 'subj_003' stands already on line 4"),
            ("SUBJ_010,2", r"line 11: label must be 0 \(HC\) or 1 .* got '2'"),
            ("SUBJ_010,ill", r"line 11: label must be 0 .* got 'ill'"),
            ("SUBJ_010;1", r"line 11: expected case_id,label on every line.*got 'SUBJ_010;1'"),
            ("SUBJ_010,1,P1", r"line 11: expected case_id,label on every line"),
            ("SUBJ_010,", r"line 11: expected case_id,label on every line"),
            ("SUBJ_010,1", r"subject 'SUBJ_010' has no images in"),
            ("../SUBJ_010,1", r"line 11: subject id must be .* got '\.\./SUBJ_010'"),
            ("Käthe,1", r"line 11: subject id must be"),
            ("-x,1", r"line 11: subject id must be"),
            (f"{'x' * 65},1", r"line 11: subject id must be 1 to 64"),
        ],
    )
    def test_a_faulty_line_is_named(self, copied, line, message):
        with (copied / "train_cases.csv").open("a") as file:
            file.write(line + "\n")
        with pytest.raises(ValueError, match=message):
            load_subjects(copied)

    def test_a_header_is_named(self, copied):
        table = copied / "train_cases.csv"
        table.write_text("case_id,label\n" + table.read_text())
        with pytest.raises(ValueError, match=r"line 1: .*got 'label'\. The table has no header"):
            load_subjects(copied)

    def test_a_folder_without_a_line_is_named(self, copied):
        table = copied / "train_cases.csv"
        table.write_text("\n".join(table.read_text().split()[:-1]))
        with pytest.raises(ValueError, match=r"SUBJ_009 train_cases\.csv: no label"):
            load_subjects(copied)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ({"testing": []}, r'expected a list of subjects, or \{"training"'),
            (
                [{"subject": "A"}],
                r"(?s)A list\.json: no NM image.*no QSM image.*no NM mask.*no QSM mask.*no label",
            ),
            ([{"subject": "a/b"}], r"a/b list\.json: an id with '/'; expected 1 to 64"),
            ([{"subject": "A", "label": 3}], r"entry 1: label must be 0 \(HC\) or 1 \(PD\), got 3"),
            (
                [{"subject": "A"}, {"subject": "a"}],
                "the ids A, a; expected ids that differ by more",
            ),
        ],
    )
    def test_a_faulty_datalist_is_named(self, tmp_path, content, message):
        if isinstance(content, list) and "no label" not in message:
            files = dict.fromkeys(IMAGES + MASKS, "x.nii.gz")
            content = [files | {"label": 0} | entry for entry in content]
        table = tmp_path / "list.json"
        table.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=message):
            load_subjects(table)

    def test_a_datalist_that_is_no_json_is_named(self, tmp_path):
        (tmp_path / "list.json").write_text("[{")
        with pytest.raises(ValueError, match=r"list\.json is no valid JSON: .*line 1"):
            load_subjects(tmp_path / "list.json")

    def test_a_missing_datalist_is_named(self, cohort):
        with pytest.raises(FileNotFoundError, match=r"labels 'none\.json' are neither there nor"):
            load_subjects(cohort, labels="none.json")


@pytest.mark.parametrize(
    "name", ["..", "../../x", "-x", "=cmd()", "a b", "<script>", "ä", "x" * 65, ".hidden", "a\nb"]
)
def test_ids_that_files_cannot_be_named_after_are_refused(name, tmp_path):
    if "." in name:  # hidden folders are passed over
        (tmp_path / "list.json").write_text(f'[{{"subject": "{name}", "nm": "a", "qsm": "b"}}]')
        root = tmp_path / "list.json"
    else:
        make_subject(tmp_path / name, label=0, seed=0)
        root = tmp_path
    with pytest.raises(ValueError, match=r"an id (with|of|that starts).*expected 1 to 64"):
        load_subjects(root, require_labels=False, require_masks=False)


def people(count, label=lambda i: i % 2, person=None):
    rows = [{"subject": f"S{i:02d}", "label": label(i)} for i in range(count)]
    return [row | ({"person": person(i)} if person else {}) for i, row in enumerate(rows)]


class TestFolds:
    def test_folds_are_disjoint_cover_all_and_are_balanced(self):
        subjects = people(40)
        folds = split_folds(subjects)
        assert sorted(i for fold in folds["folds"] for i in fold) == [
            s["subject"] for s in subjects
        ]
        for fold in range(5):
            training = select_fold(subjects, folds, fold, "training")
            validation = select_fold(subjects, folds, fold, "validation")
            assert (len(training), len(validation)) == (32, 8)
            assert sum(s["label"] for s in validation) == 4
            assert not [s for s in training if s in validation]

    def test_the_seed_decides(self):
        assert split_folds(people(40), seed=1) == split_folds(people(40), seed=1)
        assert split_folds(people(40), seed=1) != split_folds(people(40), seed=2)

    def test_the_scans_of_a_person_stay_together(self):
        subjects = people(40, label=lambda i: i // 2 % 2, person=lambda i: f"P{i // 2}")
        folds = split_folds(subjects)
        for fold in folds["folds"]:
            assert len(fold) == 8
            for i in range(0, 40, 2):
                assert (f"S{i:02d}" in fold) == (f"S{i + 1:02d}" in fold)

    def test_folds_are_kept_in_a_file(self, tmp_path):
        path = tmp_path / "new" / "folds.json"
        folds = split_folds(people(20), path=path)
        assert json.loads(path.read_text()) == folds
        assert list(path.parent.iterdir()) == [path]
        shuffled = {"seed": 1, "folds": folds["folds"][::-1]}
        path.write_text(json.dumps(shuffled))
        assert split_folds(people(20), path=path) == shuffled

    @pytest.mark.parametrize(
        ("count", "arguments"), [(22, {}), (18, {}), (20, {"seed": 2}), (20, {"num_folds": 4})]
    )
    def test_a_file_for_another_split_is_refused(self, tmp_path, count, arguments):
        path = tmp_path / "folds.json"
        split_folds(people(20), path=path)
        with pytest.raises(ValueError, match="5 folds of 20 subjects with seed 1; asked for are"):
            split_folds(people(count), path=path, **arguments)

    def test_a_fold_without_a_class_is_refused(self):
        with pytest.raises(ValueError, match=r"but 4 people have label 1.*fewer folds"):
            split_folds(people(20, label=lambda i: int(i < 4)))
        scans = people(20, label=lambda i: int(i < 5), person=lambda i: "P0" if i < 4 else f"P{i}")
        with pytest.raises(ValueError, match=r"but 2 people have label 1"):
            split_folds(scans)

    @pytest.mark.parametrize(
        ("fold", "part", "message"),
        [(5, "training", "fold must be 0 to 4, got 5"), (0, "test", "part must be 'training' or")],
    )
    def test_a_part_that_does_not_exist_is_refused(self, fold, part, message):
        with pytest.raises(ValueError, match=message):
            select_fold(people(20), split_folds(people(20)), fold, part)

    def test_a_subject_outside_the_folds_is_refused(self):
        with pytest.raises(ValueError, match=r"subjects \['S20'\] are in none of the folds"):
            select_fold(people(21), split_folds(people(20)), 0, "training")

    def test_shares_of_the_training_part_are_nested_and_keep_the_classes(self):
        subjects = people(60, label=lambda i: int(i % 3 == 0))
        folds = split_folds(subjects)
        parts = [
            select_fold(subjects, folds, 0, "training", share=share) for share in (0.25, 0.5, 1)
        ]
        counts = [(len(part), sum(s["label"] for s in part)) for part in parts]
        assert counts == [(12, 4), (24, 8), (48, 16)]
        names = [{s["subject"] for s in part} for part in parts]
        assert names[0] < names[1] < names[2]
        everyone = select_fold(subjects, folds, 0, "validation")
        assert select_fold(subjects, folds, 0, "validation", share=0.25) == everyone
        other = select_fold(subjects, folds | {"seed": 2}, 0, "training", share=0.25)
        assert {s["subject"] for s in other} != names[0]

    def test_shares_of_scores_hold_each_quarter_and_people_stay_together(self):
        subjects = people(80, label=lambda i: float(i // 2), person=lambda i: f"P{i // 2}")
        score = Score(range=(0, 40))
        folds = split_folds(subjects, target=score)
        part = select_fold(subjects, folds, 0, "training", share=0.25, target=score)
        assert len({s["person"] for s in part}) == len(part) / 2 == 8
        quarters = np.searchsorted([10, 20, 30], [s["label"] for s in part], side="right")
        assert np.bincount(quarters).min() >= 2

    @pytest.mark.parametrize("share", [0, 1.5, -1])
    def test_a_share_is_one(self, share):
        with pytest.raises(ValueError, match=r"share of the training subjects must be in \(0, 1\]"):
            select_fold(people(20), split_folds(people(20)), 0, "training", share=share)

    @pytest.mark.parametrize("part", ["training", "validation"])
    def test_shared_subjects_and_people_are_leakage(self, part):
        folds = split_folds(people(20))
        folds["folds"][1].append(folds["folds"][0][0])
        with pytest.raises(DataLeakageError, match=f"fold 0 share .*{folds['folds'][0][0]}"):
            select_fold(people(20), folds, 0, part)
        twins = people(20, person=lambda i: f"P{i % 10}")
        with pytest.raises(DataLeakageError, match=r"share \['P"):
            select_fold(twins, split_folds(people(20)), 0, part)


def make_dataset(root, cache_dir, *, margin_mm=4.0, upper=99.5, random=(), size=224):
    rois = {"nm": ROI(image="nm", nuclei=["SN"], margin_mm=margin_mm, size=size)}
    keys = ("subject", "label", "nm", "mask_nm")
    return ROIDataset(
        data=[{key: subject[key] for key in keys} for subject in load_subjects(root)[:2]],
        transform=[
            LoadImaged(["nm", "mask_nm"], image_only=True, ensure_channel_first=True),
            ScaleIntensityRangePercentilesd("nm", 0.5, upper, 0.0, 1.0, clip=True),
            ROICropd(rois=rois),
            MergeSidesd(rois=rois),
            *random,
        ],
        cache_dir=cache_dir,
    )


def entries(cache_dir):
    return sorted(cache_dir.glob("*.pt"))


class TestROIDataset:
    def test_the_cache_gives_what_reading_gives(self, cohort, tmp_path):
        plain = make_dataset(cohort, None)[0]
        for _ in range(2):
            cached = make_dataset(cohort, tmp_path)[0]
            assert set(cached) == set(plain) == {"subject", "label", "nm", "mask_nm"}
            assert torch.equal(cached["nm"].as_subclass(torch.Tensor), plain["nm"].as_tensor())
            assert torch.equal(
                cached["mask_nm"].as_subclass(torch.Tensor), plain["mask_nm"].as_tensor()
            )
        assert len(entries(tmp_path)) == 1

    def test_a_hit_reads_no_volume(self, copied, tmp_path, monkeypatch):
        expected = make_dataset(copied, tmp_path)[0]
        monkeypatch.setattr(LoadImaged, "__call__", None)
        monkeypatch.setattr("hashlib.file_digest", None)
        assert torch.equal(make_dataset(copied, tmp_path)[0]["nm"], expected["nm"])

    def test_a_replaced_file_is_never_served_stale(self, copied, tmp_path):
        before = make_dataset(copied, tmp_path)[0]
        write_nifti(copied / "SUBJ_000" / "NM.nii.gz", np.random.default_rng(9).random(SHAPE))
        after = make_dataset(copied, tmp_path)[0]
        assert not torch.equal(before["nm"], after["nm"])
        assert torch.equal(after["nm"], make_dataset(copied, None)[0]["nm"])

    def test_a_changed_label_is_never_served_stale(self, copied, tmp_path):
        assert make_dataset(copied, tmp_path)[0]["label"] == 0
        table = copied / "train_cases.csv"
        table.write_text(table.read_text().replace("SUBJ_000,0", "SUBJ_000,1"))
        assert make_dataset(copied, tmp_path)[0]["label"] == 1

    def test_a_moved_data_set_stays_cached(self, copied, tmp_path):
        make_dataset(copied, tmp_path / "cache")[0]
        make_dataset(copied.rename(tmp_path / "moved"), tmp_path / "cache")[0]
        assert len(entries(tmp_path / "cache")) == 1

    @pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
    def test_a_damaged_entry_is_rebuilt(self, cohort, tmp_path, damage, caplog):
        expected = make_dataset(cohort, tmp_path)[0]
        (entry,) = entries(tmp_path)
        content = bytearray(entry.read_bytes())
        content[len(content) // 2] ^= 1
        entry.write_bytes({"cut": content[:-100], "flip": content, "empty": b""}[damage])
        rebuilt = make_dataset(cohort, tmp_path)[0]
        assert torch.equal(rebuilt["nm"], expected["nm"])
        make_dataset(cohort, tmp_path)[0]  # without a warning
        assert caplog.text.count("is damaged; rebuilding it") == 1

    def test_settings_of_cached_transforms_have_entries_of_their_own(self, cohort, tmp_path):
        variants = [{}, {"margin_mm": 5.0}, {"size": 112}, {"upper": 99.0}]
        hashes = [make_dataset(cohort, tmp_path, **v).transform_hash for v in variants]
        assert len(set(hashes)) == len(variants)
        random = make_dataset(cohort, tmp_path, random=[RandShiftIntensityd("nm", 0.1)])
        assert random.transform_hash == hashes[0]
        nested = ROIDataset(data=[], transform=Compose([random.transform]), cache_dir=tmp_path)
        assert nested.transform_hash == hashes[0]

    @pytest.mark.slow
    def test_entries_are_found_by_another_process(self, cohort, tmp_path):
        code = (
            "import sys; sys.path[:0] = sys.argv[1:3]; from test_data import make_dataset; "
            "print(make_dataset(*sys.argv[3:]).transform_hash)"
        )
        arguments = [
            sys.executable,
            "-c",
            code,
            str(Path(__file__).parent),
            str(Path(__file__).parent.parent),
            str(cohort),
            str(tmp_path),
        ]
        done = subprocess.run(arguments, check=True, capture_output=True, text=True)
        assert done.stdout.split()[-1] == make_dataset(cohort, tmp_path).transform_hash

    def test_an_error_names_the_subject_and_the_reason(self, copied, tmp_path):
        file = copied / "SUBJ_001" / "NM.nii.gz"
        file.write_bytes(file.read_bytes()[:4000])
        with pytest.raises(RuntimeError, match=r"subject SUBJ_001: .*end-of-stream"):
            make_dataset(copied, tmp_path)[1]

    def test_other_data_leaves_the_cache_alone(self, cohort, tmp_path):
        dataset = make_dataset(cohort, tmp_path)
        dataset[0]
        dataset.set_data(load_subjects(cohort)[4:6])
        assert dataset[1]["subject"] == "SUBJ_005"
        assert len(entries(tmp_path)) == 2

    def test_random_transforms_get_plain_tensors_and_tracking_is_restored(self, cohort, tmp_path):
        random = [RandShiftIntensityd("nm", 0.1, prob=1.0)]
        dataset = make_dataset(cohort, tmp_path, random=random)
        assert get_track_meta()
        dataset[0]
        first, second = dataset[0], dataset[0]
        assert get_track_meta()
        assert type(first["nm"]) is torch.Tensor
        assert not torch.equal(first["nm"], second["nm"])

    def test_it_goes_through_workers_and_pickles(self, cohort, tmp_path):
        dataset = pickle.loads(pickle.dumps(make_dataset(cohort, tmp_path)))
        loader = DataLoader(dataset, batch_size=2, num_workers=1, collate_fn=collate_subjects)
        (batch,) = loader
        assert batch["subject"] == ["SUBJ_000", "SUBJ_001"]
        assert batch["label"].tolist() == [0, 1]
