"""``mrn predict --atlas`` and ``mrn segment``: from images alone to masks, P(PD) and pages."""

import json
import re
import shutil
from importlib.metadata import version

import nibabel
import numpy as np
import pytest
from tiny_cohort import AFFINE, SHAPE, make_mask, make_subject, write_nifti
from tiny_run import make_run, read_rows

from mrn_components.app.evaluate_masks import evaluate_masks
from mrn_components.app.predict import predict
from mrn_components.app.records import read_record
from mrn_components.app.segment import segment
from mrn_components.images import registration
from mrn_components.images.alignment import Alignment
from mrn_components.images.image import CHALLENGE_IMAGES
from mrn_components.phantom.cohort import make_cohort
from mrn_components.segmentation import atlas as module
from mrn_components.system import versions
from mrn_components.system.errors import FailedSubjectsError

QSM, NM = CHALLENGE_IMAGES["qsm"], CHALLENGE_IMAGES["nm"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return str(make_run(tmp_path_factory.mktemp("atlas") / "run", 0))


@pytest.fixture
def data(tmp_path):
    """Two subjects: one with its masks, and the same one without any."""
    make_subject(tmp_path / "data" / "A", 1, 1)
    shutil.copytree(tmp_path / "data" / "A", tmp_path / "data" / "B")
    for path in (tmp_path / "data" / "B").glob("*_mask*"):
        path.unlink()
    return tmp_path / "data"


@pytest.fixture
def atlas(tmp_path):
    folder = tmp_path / "atlas"
    folder.mkdir()
    for stem, voxels in (("T1", np.ones(SHAPE, np.float32)), ("labels", make_mask("qsm"))):
        write_nifti(folder / f"{stem}.nii.gz", voxels, AFFINE)
    rows = [f"{number},{nucleus},{side}\n" for number, (nucleus, side) in QSM.ids.items()]
    (folder / "nuclei.csv").write_text("".join(["id,nucleus,side\n", *rows]))
    return folder


@pytest.fixture(autouse=True)
def laid(monkeypatch, request):
    """Lay an atlas as it is, but in slow tests."""
    if request.node.get_closest_marker("slow"):
        return None
    seen = []
    monkeypatch.setattr(module, "_ants", lambda: None)
    known = {"antspyx": "0"}  # which has no wheel for every Python
    monkeypatch.setattr(versions, "version", lambda name: known.get(name) or version(name))
    monkeypatch.setattr(
        module.Atlas, "lay", lambda atlas, shown: seen.append(sorted(shown)) or atlas.nuclei.ids
    )
    return seen


@pytest.fixture(autouse=True)
def place(monkeypatch):
    """Where the search finds NM in QSM's world: to begin with, where its file says."""
    matrix = np.eye(4)
    found = Alignment(matrix=matrix, cost_before=-0.1, cost_after=-0.3)
    monkeypatch.setattr(registration, "align", lambda *_, **__: found)
    return matrix


def mask_of(folder, image):
    path = folder / "subjects" / "B" / f"{image.mask}.nii.gz"
    return np.asanyarray(nibabel.load(path).dataobj)


def test_images_alone_become_masks_probabilities_and_pages(run, data, atlas, laid, tmp_path):
    shutil.copyfile(data / "B" / "QSM.nii.gz", data / "B" / "T1.nii.gz")
    out = tmp_path / "out"
    rows = read_rows(predict(data, out, bundle=run, atlas=atlas, report=True))
    assert [row["mask_source"] for row in rows] == ["given", "atlas"]
    assert [row["status"] for row in rows] == ["ok", "ok"]
    assert laid == [["QSM", "T1"]]
    # The masks that were drawn: NM's substantia nigra is the one of QSM here.
    assert rows[0]["prob_pd"] == rows[1]["prob_pd"]
    np.testing.assert_array_equal(mask_of(out, QSM), make_mask("qsm"))
    np.testing.assert_array_equal(mask_of(out, NM), make_mask("nm"))
    record = read_record(out, "B")
    assert record["mask_source"] == {"nm": "atlas", "qsm": "atlas"}
    assert set(record["inputs"]) == {"nm", "qsm", "t1"}
    assert "which come from an atlas" in (out / "subjects/B/report.html").read_text()
    manifest = json.loads((out / "manifest.json").read_text())
    assert list(manifest["segmentation"]) == ["T1.nii.gz", "labels.nii.gz", "nuclei.csv"]
    assert manifest["settings"]["segmentation"] == "atlas"
    assert "antspyx" in manifest["versions"]


def test_nm_has_the_nuclei_where_it_is_aligned_to(run, data, atlas, place, tmp_path):
    path = data / "B" / "NM.nii.gz"
    volume = nibabel.load(path)
    affine = volume.affine.copy()
    affine[:3, 3] += (0, 6 * AFFINE[1, 1], 0)
    write_nifti(path, np.asanyarray(volume.dataobj), affine)
    place[1, 3] = -6 * AFFINE[1, 1]
    out = tmp_path / "out"
    rows = read_rows(predict(data, out, bundle=run, atlas=atlas))
    assert rows[0]["prob_pd"] == rows[1]["prob_pd"]
    np.testing.assert_array_equal(mask_of(out, NM), make_mask("nm"))
    assert read_record(out, "B")["alignment"]["nm"]["applied"]
    assert rows[1]["flags"].count("was aligned to QSM") == 1


def test_another_atlas_is_another_run(run, data, atlas, tmp_path, capsys):
    out = tmp_path / "out"
    predict(data, out, bundle=run, atlas=atlas)
    predict(data, out, bundle=run, atlas=atlas, resume=True)
    assert "2 subjects are done" in capsys.readouterr().out
    write_nifti(atlas / "T1.nii.gz", np.full(SHAPE, 2, np.float32), AFFINE)
    predict(data, out, bundle=run, atlas=atlas, resume=True)
    assert "1 subjects are done; left: 1 with other weights" in capsys.readouterr().out


def test_a_folder_that_is_no_atlas_is_refused_before_anything(run, data, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is no atlas: it has no labels"):
        predict(data, tmp_path / "out", bundle=run, atlas=data)


def test_segment_makes_the_masks_that_predict_makes(run, data, atlas, tmp_path):
    shutil.copyfile(data / "B" / "QSM.nii.gz", data / "B" / "T1.nii.gz")
    made, out = tmp_path / "made", tmp_path / "out"
    assert segment(data, made, atlas=atlas) == made
    predict(data, out, bundle=run, atlas=atlas)
    for image in (NM, QSM):
        name = f"subjects/B/{image.mask}.nii.gz"
        assert (made / name).read_bytes() == (out / name).read_bytes()
    rows = read_rows(made / "segmentation.csv")
    # A has drawn masks, which are not looked at.
    assert [(row["subject"], row["status"]) for row in rows] == [("A", "ok"), ("B", "ok")]
    assert {row["mask_qsm"] for row in rows} == {row["mask_nm"] for row in rows} == {"atlas"}
    manifest = json.loads((made / "manifest.json").read_text())
    assert list(manifest["segmentation"]) == ["T1.nii.gz", "labels.nii.gz", "nuclei.csv"]
    assert "antspyx" in manifest["versions"]
    assert manifest["subjects"] == {"ok": 2, "abstained": 0, "failed": 0}
    record = json.loads((made / "subjects/B/segmentation.json").read_text())
    assert set(record["inputs"]) == {"nm", "qsm", "t1"}
    # Other verbs take the folder.
    scores = evaluate_masks(made, data / "A", output=tmp_path / "scores") / "masks.csv"
    assert {row["dice"] for row in read_rows(scores)} == {"1"}
    given = read_rows(predict(data, tmp_path / "given", bundle=run, masks=made))
    assert [row["mask_source"] for row in given] == ["given", "given"]


def test_segment_names_the_subjects_that_fail_and_goes_on(data, atlas, tmp_path):
    (data / "A" / "QSM.nii.gz").unlink()
    (data / "C").mkdir()
    write_nifti(data / "C" / "QSM.nii.gz", np.zeros(SHAPE, np.float32), AFFINE)
    stale = tmp_path / "made" / "subjects" / "A" / "NM_mask.nii.gz"
    stale.parent.mkdir(parents=True)
    stale.touch()
    with pytest.raises(FailedSubjectsError, match="2 of 3 subjects failed") as caught:
        segment(data, tmp_path / "made", atlas=atlas)
    assert "A: there is no NM mask, and an atlas makes it of the one of QSM" in str(caught.value)
    assert re.search(r"C: .*QSM\.nii\.gz", str(caught.value))
    rows = read_rows(tmp_path / "made" / "segmentation.csv")
    assert [row["status"] for row in rows] == ["failed", "ok", "failed"]
    assert not stale.exists()


def test_segment_writes_into_no_folder_of_predictions(run, data, atlas, tmp_path):
    predict(data, tmp_path / "out", bundle=run, atlas=atlas)
    with pytest.raises(ValueError, match="holds predictions; name another folder"):
        segment(data, tmp_path / "out", atlas=atlas)
    with pytest.raises(ValueError, match="holds the images"):
        segment(data, data, atlas=atlas)


def test_an_nm_without_qsm_needs_its_mask(run, data, atlas, tmp_path):
    (data / "B" / "QSM.nii.gz").unlink()
    with pytest.raises(FailedSubjectsError, match="an atlas makes it of the one of QSM"):
        predict(data, tmp_path / "out", bundle=run, atlas=atlas)


@pytest.mark.slow
def test_an_atlas_of_phantoms_finds_the_nuclei_of_another(tmp_path):
    pytest.importorskip("ants")
    make_cohort(tmp_path / "atlas", view="midbrain", template=True)
    make_cohort(tmp_path / "data", view="midbrain", subjects=2, seed=77, workers=1)
    out = segment(tmp_path / "data", tmp_path / "out", atlas=tmp_path / "atlas", align="off")
    scores = evaluate_masks(out, tmp_path / "data", output=tmp_path / "scores")
    dice = {"SN": [], "CN": [], "PUT": [], "GP": [], "TH": []}
    for row in read_rows(scores / "masks.csv"):
        if row["image"] == "qsm" and row["nucleus"] in dice:
            dice[row["nucleus"]].append(float(row["dice"]))
    means = {nucleus: np.mean(values) for nucleus, values in dice.items()}
    assert means["SN"] > 0.75, means
    assert min(means.values()) > 0.8, means
