"""What is wrong with values, masks and places is the same in every verb."""

import json
import shutil
from contextlib import suppress
from pathlib import Path

import faults_data
import nibabel
import numpy as np
import pytest
from tiny_cohort import make_subject, read_biomarkers
from tiny_run import make_run, read_rows

from mrn_components.app.biomarkers import measure_subjects
from mrn_components.app.challenge import challenge
from mrn_components.app.check import check
from mrn_components.app.contributions import contributions
from mrn_components.app.predict import predict
from mrn_components.app.records import read_record
from mrn_components.system.errors import FailedSubjectsError

WRONG = {"flipped": "sign_flipped", "strong": "times_nine", "elsewhere": "slab_elsewhere"}
DOUBTFUL = {
    "shifted": "another_reference",
    "binary": "one_label_for_both_sides",
    "away": "slab_away",
    "dark": "crus_drawn",
}
SOUND = {"plain": "sound", "slab": "slab"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return str(make_run(tmp_path_factory.mktemp("values") / "run", 0, implausible="error"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A subject a fault, each of the same voxels."""
    root = tmp_path_factory.mktemp("data")
    made = faults_data.FIRST
    for name, builder in {**WRONG, **DOUBTFUL, **SOUND}.items():
        faults_data.make_sound_subject(root / made, 0)
        getattr(faults_data, builder)(root)
        (root / made).rename(root / name)
    return root


@pytest.fixture(scope="module")
def checked(data):
    """{subject: [findings]} of ``mrn check``."""
    findings = [f for f in check(data, workers=1).findings if "duplicate" not in f.id]
    return {name: [f for f in findings if f.subject == name] for name in WRONG | DOUBTFUL | SOUND}


def test_check_finds_each(checked):
    severities = {name: {f.severity for f in found} for name, found in checked.items()}
    assert all("error" in severities[name] for name in WRONG)
    assert all(severities[name] == {"warning"} for name in DOUBTFUL)
    assert all(not severities[name] for name in SOUND)


@pytest.mark.parametrize("verb", [predict, contributions])
def test_prediction_fails_and_flags_the_same(verb, run, data, checked, tmp_path):
    with pytest.raises(FailedSubjectsError, match=f"{len(WRONG)} of {len(checked)}"):
        verb(data, tmp_path, bundle=run)
    for name, findings in checked.items():
        record = read_record(tmp_path, name)
        assert record["status"] == ("failed" if name in WRONG else "ok")
        told = [record["error"]] if name in WRONG else record["flags"]
        severity = "error" if name in WRONG else "warning"
        for found in (f for f in findings if f.severity == severity):
            assert any(f"{found.found}; expected {found.expected}" in text for text in told)
        told = [text for text in record["flags"] if "; expected " in text]
        assert name in WRONG or len(told) == len(findings)  # each once, and no others


def test_biomarkers_of_the_wrong_ones_are_errors(data, checked, tmp_path, capsys):
    with pytest.raises(FailedSubjectsError, match=f"{len(WRONG)} of {len(checked)}"):
        measure_subjects(data, tmp_path)
    assert set(read_biomarkers(tmp_path)) == DOUBTFUL.keys() | SOUND.keys()
    printed = capsys.readouterr().out
    for name in DOUBTFUL:
        assert all(str(found) in printed for found in checked[name])
    assert not any(name in printed for name in SOUND)


def test_the_challenge_answers_the_wrong_ones_with_0_and_says_so(run, data, tmp_path):
    with pytest.raises(FailedSubjectsError, match=r"flipped: .*a mean of -\d+ ppb"):
        challenge(data, tmp_path, bundle=run)
    assert all((tmp_path / name / "PD_pred.txt").read_text() == "0" for name in WRONG)
    one, two = (
        np.asarray(nibabel.load(tmp_path / name / "NM_pred.nii.gz").dataobj)
        for name in ("binary", "plain")
    )
    assert np.array_equal(one, two)  # split, as the organisers want it


def probabilities(folder):
    return {row["subject"]: row["prob_pd"] for row in read_rows(folder / "predictions.csv")}


def test_a_mask_of_one_label_is_predicted_as_that_of_two(run, data, tmp_path):
    with suppress(FailedSubjectsError):
        predict(data, tmp_path, bundle=run)
    found = probabilities(tmp_path)
    assert found["binary"] == found["plain"]
    assert found["binary"] != found["shifted"]


def test_a_table_of_nuclei_is_taken_and_recorded(run, data, tmp_path):
    for name in ("plain", "other"):
        shutil.copytree(data / "plain", tmp_path / "in" / name)
    faults = tmp_path / "in" / faults_data.FIRST
    (tmp_path / "in" / "other").rename(faults)
    faults_data.large_ids_with_a_table(tmp_path / "in")
    table = tmp_path / "in" / "nuclei.csv"
    shutil.rmtree(tmp_path / "in" / "plain")
    predict(tmp_path / "in", tmp_path / "out", bundle=run, nuclei=table)
    predict(data / "plain", tmp_path / "plain", bundle=run)
    assert [*probabilities(tmp_path / "out").values()] == [
        *probabilities(tmp_path / "plain").values()
    ]
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["images"]["qsm"]["drawn_as"]["SN"] == [1005, 1005]
    challenge(tmp_path / "in", tmp_path / "answers", bundle=run, nuclei=table)
    answer = nibabel.load(tmp_path / "answers" / faults_data.FIRST / "QSM_pred.nii.gz")
    plain = nibabel.load(data / "plain" / "QSM_mask.nii.gz")
    assert np.array_equal(answer.dataobj, plain.dataobj)
    measure_subjects(tmp_path / "in", tmp_path / "measured", nuclei=table)
    measure_subjects(data / "plain", tmp_path / "measured_plain")
    assert [*read_biomarkers(tmp_path / "measured").values()] == [
        *read_biomarkers(tmp_path / "measured_plain").values()
    ]


@pytest.mark.parametrize("verb", [predict, challenge, measure_subjects, check])
@pytest.mark.parametrize("row", ["t1,SN,1,2", "qsm,LC,1,2"])
def test_a_table_of_others_is_refused_by_file_and_line(verb, row, run, data, tmp_path):
    table = tmp_path / "nuclei.csv"
    table.write_text(f"image,nucleus,right,left\n{row}\n")
    places = {check: {}, measure_subjects: {"output": tmp_path}}.get(
        verb, {"bundle": run, "outputs" if verb is challenge else "output": tmp_path}
    )
    with pytest.raises(ValueError, match=rf"{table} line 2: the (image 't1'|nucleus 'LC' of qsm)"):
        verb(data / "plain", nuclei=table, **places)


@pytest.mark.parametrize("reference", ["TH", "mean"])
def test_a_reference_takes_the_shift_out_and_is_recorded(run, data, tmp_path, reference):
    some = tmp_path / "in"
    for name in ("plain", "shifted"):
        shutil.copytree(data / name, some / name)
    options = {"bundle": run, "images#qsm#reference": reference}
    predict(some, tmp_path / "out", **options, report=True)
    found = probabilities(tmp_path / "out")
    assert float(found["plain"]) == pytest.approx(float(found["shifted"]), abs=2e-3)
    shifts = {name: read_record(tmp_path / "out", name)["reference_shift"] for name in found}
    # What lay outside the brain, at 0, is shifted in this file too, and stays where it was.
    assert shifts["shifted"]["qsm"] - shifts["plain"]["qsm"] == pytest.approx(100, abs=2)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["images"]["qsm"]["reference"] == reference
    table = read_biomarkers(tmp_path / "out")
    iron = [table[name]["qsm_mean_ppb_GP_left"] for name in ("plain", "shifted")]
    assert iron[0] == pytest.approx(iron[1], abs=2)
    assert not any("shift of" in text for text in read_record(tmp_path / "out", "shifted")["flags"])


def test_a_map_in_ppm_is_read_by_its_unit(run, data, tmp_path):
    """Its reference is taken out once, in ppb."""
    shutil.copytree(data / "plain", tmp_path / "in" / faults_data.FIRST)
    faults_data.parts_per_million(tmp_path / "in")
    for reference in ("none", "TH"):
        options = {"bundle": run, "images#qsm#reference": reference}
        predict(data / "plain", tmp_path / f"plain{reference}", **options)
        options |= {"images#qsm#file_unit": "ppm"}
        predict(tmp_path / "in", tmp_path / f"ppm{reference}", **options)
        (ppm,) = probabilities(tmp_path / f"ppm{reference}").values()
        (plain,) = probabilities(tmp_path / f"plain{reference}").values()
        assert float(ppm) == pytest.approx(float(plain), abs=2e-6)
    manifest = json.loads((tmp_path / "ppmTH" / "manifest.json").read_text())
    assert manifest["images"]["qsm"]["file_unit"] == "ppm"


def test_nothing_is_shifted_unasked(run, tmp_path):
    make_subject(tmp_path / "in" / "S0", 0, 0)
    predict(tmp_path / "in", tmp_path / "out", bundle=run)
    assert read_record(tmp_path / "out", "S0")["reference_shift"] == {}


def test_masks_may_be_scaled_in_every_verb(run, data, tmp_path):
    shutil.copytree(data / "plain", tmp_path / "in" / faults_data.FIRST)
    faults_data.scaled_mask(tmp_path / "in")
    assert check(tmp_path / "in", workers=1).findings == []
    predict(tmp_path / "in", tmp_path / "out", bundle=run)
    predict(data / "plain", tmp_path / "plain", bundle=run)
    assert [*probabilities(tmp_path / "out").values()] == [
        *probabilities(tmp_path / "plain").values()
    ]
    assert Path(tmp_path / "out" / "biomarkers.csv").is_file()
