"""Checks of data beyond the rows of ``faults.yaml``."""

import gzip
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import faults_data
import nibabel
import numpy as np
import pytest
from monai.bundle import ConfigParser

from mrn_components.app.check import check
from mrn_components.checks import check_headers, examine_subject
from mrn_components.checks.cohort import (
    class_findings,
    confound_baseline,
    confound_findings,
    geometry_baseline,
)
from mrn_components.checks.masks import REGIONS
from mrn_components.data import load_subjects
from mrn_components.images.masks import corner_shift_mm
from mrn_components.images.volume import Volume, read_volume
from mrn_components.phantom import make_cohort
from mrn_components.regions.roi import ROI

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    root = tmp_path_factory.mktemp("sound")
    faults_data.make_sound_cohort(root, 10)
    return root


@pytest.fixture
def copied(sound, tmp_path):
    return Path(shutil.copytree(sound, tmp_path / "data"))


def test_phantoms_have_no_faults(tmp_path):
    root = make_cohort(tmp_path / "phantoms", subjects=2, view="midbrain", workers=1)
    report = check(root, workers=1)
    assert [finding.id for finding in report.findings] == ["few-people"]
    assert report.exit_code == 0


def test_regions_are_the_bundles():
    parser = ConfigParser(
        ConfigParser.load_config_file(str(ROOT / "bundles/mrn/configs/train.yaml"))
    )
    assert parser.get_parsed_content("rois") == REGIONS
    assert all(isinstance(roi, ROI) for roi in REGIONS.values())


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_voxels_are_nibabels(tmp_path, suffix, kind):
    image = kind(np.arange(-30, 30, dtype=">i2").reshape(3, 4, 5), faults_data.AFFINE)
    image.header.set_slope_inter(0.1, 2)
    path = tmp_path / f"image{suffix}"
    nibabel.save(image, path)
    volume = read_volume(path)
    loaded = nibabel.load(path)
    assert np.array_equal(volume.voxels, np.asarray(loaded.dataobj, np.float32))
    assert np.array_equal(volume.affine, loaded.affine)


def test_gzip_of_several_members_and_padding_is_read(copied):
    path = faults_data.path(copied)
    content = gzip.decompress(path.read_bytes())
    expected = read_volume(path).voxels
    path.write_bytes(gzip.compress(content[:999]) + gzip.compress(content[999:]) + bytes(512))
    assert np.array_equal(read_volume(path).voxels, expected)


def hash_of(voxels, affine):
    return Volume(path=Path("memory"), stored=voxels, affine=affine).voxel_hash


def test_the_hash_does_not_depend_on_the_axes():
    voxels = np.random.default_rng(1).random((3, 4, 5)).astype(np.float32)
    expected = hash_of(voxels, faults_data.AFFINE)
    image = nibabel.Nifti1Image(voxels, faults_data.AFFINE)
    for flips in np.ndindex(2, 2, 2):
        for axes in ((0, 1, 2), (2, 0, 1), (1, 2, 0), (0, 2, 1)):
            turn = [[axis, 1 - 2 * flip] for axis, flip in zip(axes, flips, strict=True)]
            turned = image.as_reoriented(turn)
            assert hash_of(np.asarray(turned.dataobj), turned.affine) == expected
    assert hash_of(voxels[::-1], faults_data.AFFINE) != expected


def test_corners_of_a_turned_box_move_by_the_law_of_cosines():
    turn = np.eye(4)
    angle = math.radians(3)
    turn[:2, :2] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    shift = corner_shift_mm((10, 20, 30), np.eye(4), turn)
    assert shift == pytest.approx(2 * math.hypot(10, 20) * math.sin(angle / 2))


def test_all_faults_of_a_subject_are_found_at_once(copied):
    faults_data.forms_disagree(copied)
    faults_data.infinite_outside(copied)
    faults_data.label_255(copied)
    faults_data.stray_voxel(copied)
    (subject, *_) = load_subjects(copied, require_labels=False, check_headers=False)
    found = {finding.id for finding in examine_subject(subject, deep=True).findings}
    assert found == {"forms-disagree", "non-finite", "unknown-labels", "stray-component"}
    cheap = examine_subject(subject, deep=False).findings
    assert {finding.id for finding in cheap} == {"forms-disagree", "non-finite"}
    assert {finding.subject for finding in cheap} == {"SUBJ_000"}


def test_a_subject_may_lack_an_image_and_masks(copied):
    subject = {"subject": "A", "nm": str(faults_data.path(copied, "NM"))}
    assert examine_subject(subject, deep=True).findings == []


def test_the_cheap_part_passes_the_tests_cohort(cohort):
    for subject in load_subjects(cohort):
        assert examine_subject(subject, deep=False).findings == []


def test_headers_alone_find_what_needs_no_voxels(copied):
    faults_data.four_dimensions(copied)
    faults_data.zeros(copied.parent / "data")  # a sound header again, of an image of zeros
    assert check_headers(load_subjects(copied)) == []
    faults_data.huge_header(copied)
    subjects = load_subjects(copied, check_headers=False)
    (finding,) = check_headers(subjects)
    assert (finding.id, finding.subject) == ("header-size", "SUBJ_000")
    with pytest.raises(ValueError, match=r"(?s)1 faults of the data set .*`mrn check`.*20000"):
        load_subjects(copied)


def test_the_json_says_what_the_table_says(copied, tmp_path):
    faults_data.flip_a_bit(copied)
    report = check(copied, json=tmp_path / "new" / "report.json", workers=1)
    content = json.loads((tmp_path / "new" / "report.json").read_text())
    assert content["exit_code"] == report.exit_code == 1
    assert content["counts"] == {
        "subjects": 10,
        "HC": 5,
        "PD": 5,
        "unlabelled": 0,
        "with_errors": 1,
    }
    (finding,) = content["findings"]
    assert finding["subject"] == "SUBJ_000"
    assert finding["file"] == str(faults_data.path(copied))
    assert all(finding[key] in str(report) for key in ("id", "found", "expected", "fix"))
    assert content["confounds"]["auc"] < 0.65
    assert content["geometry"]["reason"] == "all subjects are alike"  # copies of one mask
    assert f"sizes and places of the crops alone: {report.geometry}" in str(report)
    assert content["research_use_only"] is True


def test_many_faults_of_a_kind_are_cut_short_for_people_only(copied):
    for number in range(12):
        shutil.copytree(copied / "SUBJ_000", copied / f"MORE_{number:02d}")
        (copied / f"MORE_{number:02d}" / "NM.nii.gz").write_bytes(b"")
    report = check(copied, workers=1)
    assert "  MORE_09 NM.nii.gz" in str(report)
    assert "  MORE_10 NM.nii.gz" not in str(report)
    assert "  ... and 2 more (--json FILE)" in str(report)
    assert report.to_json().count('"not-nifti"') == 12


def test_processes_find_the_same(copied):
    faults_data.flip_a_bit(copied)
    assert check(copied, workers=2).to_json() == check(copied, workers=1).to_json()


def test_a_process_that_dies_costs_its_subject_alone(copied, monkeypatch):
    def examine(subject, *regions, **options):
        if subject["subject"] == "SUBJ_003":
            os.kill(os.getpid(), signal.SIGKILL)
        return examine_subject(subject, *regions, **options)

    monkeypatch.setattr("mrn_components.app.check.examine_subject", examine)
    report = check(copied, workers=2)
    assert [(f.subject, f.id) for f in report.findings] == [("SUBJ_003", "no-memory")]


def test_workers_are_counted(copied):
    with pytest.raises(ValueError, match="workers must be >= 1 or None for one a CPU, got 0"):
        check(copied, workers=0)


class TestConfounds:
    labels = (0, 1) * 20

    def test_noise_is_no_confound(self):
        rng = np.random.default_rng(3)
        fields = [{"x": float(value)} for value in rng.normal(size=40)]
        assert list(confound_findings(confound_baseline(fields, self.labels), self.labels)) == []

    def test_chance_of_few_subjects_is_no_confound(self):
        labels = (0, 1) * 5
        confounds = confound_baseline([{"x": 0.0}] * 10, labels)
        assert confounds.auc == 0.5
        for auc, count in ((0.7, 0), (0.9, 1)):
            object.__setattr__(confounds, "auc", auc)
            assert len(list(confound_findings(confounds, labels))) == count

    def test_words_and_numbers_are_taken(self):
        fields = [{"site": "AB"[label], "age": 60.0 + n} for n, label in enumerate(self.labels)]
        confounds = confound_baseline(fields, self.labels)
        assert confounds.auc == 1.0
        assert confounds.fields["site=A"] == 1.0
        (finding,) = confound_findings(confounds, self.labels)
        assert finding.severity == "warning"

    def test_sizes_and_places_of_crops_are_a_baseline(self):
        boxes = [
            {"nm": ((0, 0, 0), (9 + label, 9, 9)), "qsm2": ((n, 0, 0), (n + 9, 9, 9))}
            for n, label in enumerate(self.labels)
        ]
        found = geometry_baseline(boxes, self.labels)
        assert found.auc == 1.0
        assert str(found) == "AUC 1.00 (3 fields that differ between subjects)"
        assert list(found.fields)[:2] == ["nm place x", "nm size x"]
        del boxes[3]["nm"]
        boxes[4] = {}
        assert str(geometry_baseline(boxes, self.labels)).endswith("subjects; 2 left out)")
        assert geometry_baseline([{}] * 40, self.labels) is None
        assert str(geometry_baseline(boxes[:4], (0, 1, 0, 1))).startswith("AUC undefined (fewer")

    def test_a_rare_class_has_no_baseline(self):
        confounds = confound_baseline([{"x": 1.0}] * 4, (0, 1, 0, 1))
        assert confounds.auc is None
        assert confounds.reason == "fewer than 5 of a class"
        assert list(confound_findings(confounds, (0, 1, 0, 1))) == []


def test_checks_need_no_torch():
    """So that the processes of a check start at once."""
    code = "import sys, mrn_components.checks; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"

    def test_of_several_classes_each_is_told_from_the_rest(self):
        labels = tuple(n % 3 for n in range(45))
        fields = [{"site": "ABC"[label], "age": 60.0 + n} for n, label in enumerate(labels)]
        confounds = confound_baseline(fields, labels)
        assert confounds.auc == 1.0
        assert len(list(confound_findings(confounds, labels))) == 1


def test_classes_are_counted_by_their_names():
    people = [(f"P{number}", number % 3) for number in range(10)]
    (finding,) = class_findings(people, ("HC", "PD", "MSA"))
    assert finding.id == "few-people"
    assert finding.found == "4 people with HC, 3 with PD and 3 with MSA"
    (finding,) = class_findings([(name, 1) for name, _ in people])
    assert (finding.id, finding.found) == ("one-class", "0 people with HC and 10 with PD")
