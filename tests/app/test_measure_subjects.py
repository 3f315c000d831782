"""``mrn biomarkers``: a row a subject, whatever happens to the others."""

import csv
import shutil

import pytest
from tiny_cohort import read_biomarkers

from mrn_components.app import cli
from mrn_components.app.biomarkers import measure_subjects
from mrn_components.biomarkers import columns_of, measure_nuclei
from mrn_components.images.volume import read_volume
from mrn_components.system.errors import FailedSubjectsError

COLUMNS = columns_of()


@pytest.fixture
def subjects(cohort, tmp_path):
    for name in ("SUBJ_000", "SUBJ_001", "SUBJ_002"):
        shutil.copytree(cohort / name, tmp_path / "in" / name)
    return tmp_path / "in"


def test_every_subject_is_a_row_of_what_the_component_measures(subjects, tmp_path):
    path = measure_subjects(subjects, tmp_path / "out")
    assert path == tmp_path / "out" / "biomarkers.csv"
    table = read_biomarkers(path.parent)
    assert list(table) == ["SUBJ_000", "SUBJ_001", "SUBJ_002"]
    files = {"nm": "NM", "qsm": "QSM", "mask_nm": "NM_mask", "mask_qsm": "QSM_mask"}
    folder = subjects / "SUBJ_001"
    values = measure_nuclei(
        {key: read_volume(folder / f"{name}.nii.gz") for key, name in files.items()}
    )
    assert table["SUBJ_001"] == pytest.approx(values, rel=1e-5)
    assert path.with_suffix(".md").is_file()


def test_absent_images_are_empty_cells_and_failures_are_rows(subjects, tmp_path, monkeypatch):
    for name in ("NM.nii.gz", "NM_mask.nii.gz"):
        (subjects / "SUBJ_000" / name).unlink()
    damaged = subjects / "SUBJ_001" / "QSM.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:500])
    (subjects / "SUBJ_003").mkdir()
    shutil.copy(subjects / "SUBJ_002" / "NM.nii.gz", subjects / "SUBJ_003")
    (subjects / ".PHAN.partial").mkdir()
    shutil.copy(subjects / "SUBJ_002" / "NM.nii.gz", subjects / ".PHAN.partial")
    monkeypatch.setattr("sys.argv", ["mrn", "biomarkers", str(subjects), str(tmp_path / "out")])
    monkeypatch.setattr("sys.excepthook", None)  # main replaces it
    with pytest.raises(FailedSubjectsError, match=r"2 of 4 subjects failed.*\n  SUBJ_001: "):
        cli.main()
    with (tmp_path / "out" / "biomarkers.csv").open(newline="") as file:
        rows = {row["subject"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["SUBJ_000", "SUBJ_001", "SUBJ_002", "SUBJ_003"]
    empty = {column for column in COLUMNS if not rows["SUBJ_000"][column]}
    assert empty == {column for column in COLUMNS if "nm_" in column}
    assert "a gzip stream that stops" in rows["SUBJ_001"]["error"]
    assert "no NM mask" in rows["SUBJ_003"]["error"]
    assert "no QSM mask" in rows["SUBJ_003"]["error"]
    assert not any(rows["SUBJ_001"][column] for column in COLUMNS)
    assert all(rows["SUBJ_002"][column] for column in COLUMNS)


def test_no_subjects_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no subjects: expected .*/SUBJECT/\{NM,QSM\}"):
        measure_subjects(tmp_path, tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        measure_subjects(tmp_path / "nowhere", tmp_path / "out")
