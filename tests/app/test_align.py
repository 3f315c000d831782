"""``mrn predict --align``: where the images are looked at, what follows, and what never changes."""

import json
import shutil

import nibabel
import numpy as np
import pytest
from tiny_cohort import make_subject, read_biomarkers, write_nifti
from tiny_run import make_run, read_rows

from mrn_components.app.predict import predict
from mrn_components.app.report.reports import write_reports
from mrn_components.images import registration
from mrn_components.images.alignment import Alignment

MOVED = np.array([0.0, 6.0, 0.0])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return str(make_run(tmp_path_factory.mktemp("align") / "run", 0))


@pytest.fixture
def data(tmp_path):
    """A subject, and the same one with NM and its mask 6 mm further in front."""
    make_subject(tmp_path / "data" / "A", 1, 1)
    shutil.copytree(tmp_path / "data" / "A", tmp_path / "data" / "B")
    for path in (tmp_path / "data" / "B").glob("NM*"):
        volume = nibabel.load(path)
        affine = volume.affine.copy()
        affine[:3, 3] += MOVED
        write_nifti(path, np.asanyarray(volume.dataobj), affine)
    return tmp_path / "data"


class Search:
    """In place of the search: answers that NM belongs ``back`` mm further back."""

    def __init__(self):
        self.asked, self.back, self.costs = [], MOVED, (-0.1, -0.3)
        self.through = MOVED, -0.29  # back by this, and the cost, through another image

    def __call__(self, moving, _fixed, through=None, **_):
        self.asked.append((moving.path.parent.name, None if through is None else through.path.name))
        before, after = self.costs
        back, cost = (self.back, after) if through is None else self.through
        matrix = np.eye(4)
        matrix[:3, 3] -= back
        return Alignment(matrix=matrix, cost_before=before, cost_after=cost)


@pytest.fixture
def search(monkeypatch):
    search = Search()
    monkeypatch.setattr(registration, "align", search)
    return search


def record(folder, subject):
    return json.loads((folder / "subjects" / subject / "prediction.json").read_text())


def test_an_image_elsewhere_is_aligned_and_one_in_place_is_not_looked_at(
    run, data, search, tmp_path
):
    out = tmp_path / "out"
    rows = read_rows(predict(data, out, bundle=run, report=True))
    assert search.asked == [("B", None)]
    assert record(out, "A")["alignment"] == {}
    found = record(out, "B")["alignment"]["nm"]
    assert (found["to"], found["applied"], found["why"]) == ("qsm", True, None)
    assert (found["cost_before"], found["cost_after"]) == search.costs
    assert found["moved_mm"] == pytest.approx(6)
    assert found["apart_mm_before"] == pytest.approx(6, abs=0.01)
    assert found["apart_mm_after"] == pytest.approx(0, abs=0.01)
    assert np.array(found["matrix"])[:3, 3].tolist() == (-MOVED).tolist()
    assert "NM was aligned to QSM: the head had moved by 6.0 mm" in rows[1]["flags"]
    # A crop is that of each image, and what is measured across both is as if nothing had moved.
    assert rows[0]["prob_pd"] == rows[1]["prob_pd"]
    assert record(out, "A")["boxes"] == record(out, "B")["boxes"]
    assert read_biomarkers(out)["A"] == pytest.approx(read_biomarkers(out)["B"], nan_ok=True)
    assert "as aligned" in (out / "subjects/B/report.html").read_text()
    assert "as aligned" not in (out / "subjects/A/report.html").read_text()
    page = (out / "subjects/B/report.html").read_text()
    write_reports(out, data)  # which reads the files anew
    again = (out / "subjects/B/report.html").read_text()
    start = page.index("<h3>NM aligned to QSM")
    assert page[start : start + 50_000] == again[again.index("<h3>NM aligned") :][:50_000]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"costs": (-0.3, -0.3)}, "agree no better"),
        ({"back": -MOVED}, "nuclei would lie 12.0 mm apart instead of 6.0"),
        ({"back": MOVED / 2}, "moved by 3.0 mm, less than 3.5 mm"),
    ],
)
def test_what_does_not_help_is_not_applied(change, why, run, data, search, tmp_path):  # noqa: PLR0917
    vars(search).update(change)
    predict(data, tmp_path / "out", bundle=run)
    found = record(tmp_path / "out", "B")["alignment"]["nm"]
    assert not found["applied"]
    assert why in found["why"]
    assert not [flag for flag in record(tmp_path / "out", "B")["flags"] if "aligned" in flag]


def test_off_and_always(run, data, search, tmp_path):
    rows = {}
    for mode in ("off", "auto", "always"):
        search.asked.clear()
        rows[mode] = read_rows(predict(data, tmp_path / mode, bundle=run, align=mode))
        asked = {"off": [], "auto": ["B"], "always": ["A", "B"]}
        assert [subject for subject, _ in search.asked] == asked[mode]
    assert {row["prob_pd"] for mode in rows.values() for row in mode} == {rows["off"][0]["prob_pd"]}
    assert not record(tmp_path / "always", "A")["alignment"]["nm"]["applied"]  # it would be worse


def test_a_t1_stands_between_and_a_damaged_one_does_not(run, data, search, tmp_path, capsys):
    shutil.copy(data / "B" / "QSM.nii.gz", data / "B" / "T1.nii.gz")
    predict(data, tmp_path / "out", bundle=run)
    assert search.asked == [("B", "T1.nii.gz"), ("B", None)]  # and from there on alone
    known = record(tmp_path / "out", "B")
    assert known["alignment"]["nm"]["through"] == "T1.nii.gz"
    assert known["alignment"]["nm"]["doubt"] is None
    assert known["inputs"]["t1"]["path"] == "B/T1.nii.gz"
    predict(data, tmp_path / "out", bundle=run, resume=True)
    assert "resume: 2 subjects are done" in capsys.readouterr().out
    (data / "B" / "T1.nii.gz").write_bytes(b"no image")
    predict(data, tmp_path / "out", bundle=run, resume=True)
    assert "1 with other files" in capsys.readouterr().out
    assert search.asked[-1] == ("B", None)
    known = record(tmp_path / "out", "B")
    assert known["alignment"]["nm"]["applied"]
    assert known["alignment"]["nm"]["through"] is None
    assert any("; T1 was left out: T1.nii.gz: " in flag for flag in known["flags"])


@pytest.mark.parametrize(("cost", "word"), [(-0.05, "fits less and was left"), (-0.4, "counts")])
def test_a_t1_that_leads_elsewhere_is_told(cost, word, run, data, search, tmp_path):  # noqa: PLR0917
    search.through = MOVED + np.array([0, 0, 4]), cost
    shutil.copy(data / "B" / "QSM.nii.gz", data / "B" / "T1.nii.gz")
    predict(data, tmp_path / "out", bundle=run, align="always")
    known = record(tmp_path / "out", "B")
    (flag,) = [flag for flag in known["flags"] if "T1.nii.gz" in flag]
    assert "through T1.nii.gz it would lie 4.0 mm from where the images alone lead" in flag
    assert word in flag
    left = word != "counts"
    assert known["alignment"]["nm"]["through"] == (None if left else "T1.nii.gz")
    assert known["alignment"]["nm"]["matrix"][2][3] == (0 if left else -4)


def test_images_that_cannot_be_compared_are_told(run, data, monkeypatch, tmp_path):
    def search(*_, **__):
        raise ValueError("NM.nii.gz and QSM.nii.gz cannot be aligned")

    monkeypatch.setattr(registration, "align", search)
    rows = read_rows(predict(data, tmp_path / "out", bundle=run))
    assert rows[1]["status"] == "ok"
    assert "NM was not aligned to QSM: NM.nii.gz and QSM.nii.gz cannot" in rows[1]["flags"]
