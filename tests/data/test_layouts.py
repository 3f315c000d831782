"""Every layout that subjects are found in, and every fault that is found with them."""

import json
import re
import shutil

import nibabel
import numpy as np
import pytest
import SimpleITK
from tiny_cohort import make_subject

from mrn_components.checks import check_headers
from mrn_components.data.layouts import Need, filters_of, find_subjects
from mrn_components.data.subjects import add_masks, load_subjects
from mrn_components.data.tables import files_of
from mrn_components.images.image import CHALLENGE_IMAGES, Image
from mrn_components.images.volume import read_volume

ANY = Need(images="some", masks="given", labels="none")


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(found):
    return {
        subject["subject"]: {key: path.name for key, path in files_of(subject).items()}
        for subject in found.subjects
    }


def find(data, images=CHALLENGE_IMAGES, need=ANY, **options):
    return find_subjects(data, images, need=need, **options)


def test_one_subject_and_a_folder_of_subjects(tmp_path):
    touch(tmp_path / "B" / "NM.nii.gz", tmp_path / "B" / "QSM.nii", tmp_path / "A" / "QSM.nii.gz")
    touch(tmp_path / "A" / "QSM_mask.nii", tmp_path / "notes" / "T1.nii.gz")
    touch(tmp_path / ".hidden" / "NM.nii.gz")
    alone = {"B": {"nm": "NM.nii.gz", "qsm": "QSM.nii"}}
    assert names(find(tmp_path / "B")) == alone
    assert find(tmp_path / "B").layout == "one subject"
    found = find(tmp_path)
    assert names(found) == {"A": {"qsm": "QSM.nii.gz", "mask_qsm": "QSM_mask.nii"}} | alone
    assert found.layout == "a folder of subjects"
    assert found.problems == {}
    assert [str(finding) for finding in found.of("A")] == [
        "A NM.nii.gz: no NM image; expected a NIfTI file. Add it, or take the subject out."
    ]
    every = find(
        tmp_path, need=Need(images="some", masks="given", every_folder=True, labels="none")
    )
    assert list(names(every)) == ["A", "B", "notes"]
    assert "no NM image" in every.problems["notes"]


def test_a_linked_folder_has_its_own_name(tmp_path, monkeypatch):
    touch(tmp_path / "store" / "2024-x1" / "NM.nii.gz")
    (tmp_path / "data").mkdir()
    link = tmp_path / "data" / "S1"
    link.symlink_to(tmp_path / "store" / "2024-x1")
    assert list(names(find(tmp_path / "data"))) == ["S1"]
    assert list(names(find(link))) == ["S1"]
    monkeypatch.chdir(tmp_path / "store" / "2024-x1")
    assert list(names(find("."))) == ["2024-x1"]


def test_a_stray_folder_is_a_fault_of_its_own(tmp_path):
    touch(*(tmp_path / name / "NM.nii.gz" for name in ("S1", "case 2", "s3", "S3")))
    found = find(tmp_path)
    assert list(names(found)) == ["S1", "S3", "case 2", "s3"]
    assert found.problems.keys() == {"case 2", "S3", "s3"}
    assert found.problems["case 2"].startswith("case 2: an id with ' '; expected 1 to 64 letters")
    assert "the ids S3, s3" in found.problems["s3"]
    found.require_some()
    with pytest.raises(ValueError, match=r"(?s)3 faults of the data set.*case 2"):
        found.require_all()


def test_two_files_for_one_are_a_fault_of_their_subject(tmp_path):
    touch(tmp_path / "A" / "NM.nii.gz", tmp_path / "A" / "NM.nii", tmp_path / "B" / "NM.nii")
    found = find(tmp_path)
    assert "2 files (NM.nii, NM.nii.gz); expected one file" in found.problems["A"]
    assert "B" not in found.problems


@pytest.mark.parametrize("suffix", ["mgz", "mgh", "nrrd", "mha"])
@pytest.mark.parametrize("key", ["NM", "NM_mask"])
def test_other_formats_are_refused_with_a_command_that_converts(tmp_path, monkeypatch, suffix, key):
    folder = tmp_path / "data" / "A"
    make_subject(folder, 0, 0)
    image = nibabel.load(folder / f"{key}.nii.gz")
    voxels = image.get_fdata(dtype=np.float32)
    (folder / f"{key}.nii.gz").unlink()
    path = folder / f"{key}.{suffix}"
    if suffix.startswith("mg"):
        nibabel.save(nibabel.MGHImage(voxels, image.affine), path)
    else:
        nibabel.save(nibabel.Nifti1Image(voxels, image.affine), folder / "copy.nii")
        SimpleITK.WriteImage(SimpleITK.ReadImage(folder / "copy.nii"), path)
    found = find(tmp_path / "data", need=Need(labels="none"))
    with pytest.raises(ValueError, match=rf"A {key}\.{suffix}: .*Convert it to NIfTI") as caught:
        found.require_all(check_headers(found.subjects))
    (code,) = re.findall('type python -c "(.*)"', str(caught.value))
    monkeypatch.chdir(folder)
    exec(code)
    read = read_volume(folder / f"{key}.nii.gz")
    np.testing.assert_array_equal(read.voxels, voxels)
    np.testing.assert_allclose(read.affine, image.affine, atol=1e-5)


def test_a_datalist(tmp_path):
    entries = [{"subject": "S2", "nm": "n.nii", "qsm": "q.nii", "person": 7, "age": 60}]
    entries.append({"subject": "S1", "qsm": "x/q.nii", "mask_qsm": "x/m.nii", "label": 1})
    entries += [
        {"nm": "n.nii"},
        {"subject": "S4"},
        {"subject": "S5", "nm": "n.nii", "mask_nm": "o"},
    ]
    (tmp_path / "list.json").write_text(json.dumps(entries))
    touch(
        tmp_path / "n.nii", tmp_path / "q.nii", tmp_path / "x" / "q.nii", tmp_path / "x" / "m.nii"
    )
    found = find(tmp_path / "list.json")
    first, second = found.subjects[:2]
    assert first == {
        "subject": "S1",
        "qsm": str(tmp_path / "x/q.nii"),
        "mask_qsm": str(tmp_path / "x/m.nii"),
    }
    assert second["person"] == "7"
    assert found.covariates == {"S2": {"age": 60}}
    assert found.problems.keys() == {"entry 3", "S4", "S5"}
    assert "entry 3 has no subject" in found.problems["entry 3"]
    assert "S4 list.json: no NM image" in found.problems["S4"]
    assert "S5 o: no NM mask" in found.problems["S5"]  # named and not there: never made anew


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_labels_are_of_a_table_or_of_the_datalist_itself(tmp_path, kind):
    touch(tmp_path / "A" / "NM.nii", tmp_path / "B" / "NM.nii")
    entries = [{"subject": s, "nm": f"{s}/NM.nii", "label": 0} for s in "AB"]
    (tmp_path / "data.json").write_text(json.dumps(entries))
    labels = [{"subject": s, "label": 1, "person": "P"} for s in "AC"]
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    (tmp_path / "labels.csv").write_text("A,1,P\nC,1,P\n")
    need = Need(images="some", masks="none")
    own = find(tmp_path / "data.json", need=need)
    assert [(s["label"], s.get("person")) for s in own.subjects] == [(0, None)] * 2
    assert not own.problems
    for data in (tmp_path, tmp_path / "data.json"):
        found = find(data, need=need, labels=f"labels.{kind}")
        assert found.subjects[0]["label"] == 1
        assert found.subjects[0]["person"] == "P"
        assert f"B labels.{kind}: no label" in found.problems["B"]
        assert any("subject 'C' has no images" in finding.found for finding in found.findings)
    alone = find(tmp_path / "A", need=need, labels=tmp_path / f"labels.{kind}")
    assert alone.require_all()[0]["label"] == 1
    (tmp_path / "labels.csv").unlink()
    assert find(tmp_path, need=Need(images="some", masks="none", labels="given")).findings
    with pytest.raises(ValueError, match="no labels: no csv; expected one csv of rows"):
        find(tmp_path, need=need).require_all()


def bids(root):
    """Sub-01 in sessions, raw; sub-02 joined with a derivative; sub-03 without any image."""
    anat = root / "sub-01" / "ses-1" / "anat"
    touch(anat / "sub-01_ses-1_Chimap.nii.gz", anat / "sub-01_ses-1_acq-nm_T1w.nii.gz")
    touch(anat / "sub-01_ses-1_acq-nm_dseg.nii.gz", anat / "sub-01_ses-1_T1w.nii.gz")
    touch(anat / "sub-01_ses-1_dseg.nii.gz", anat / "sub-01_ses-1_acq-nm_mask.nii.gz")
    touch(root / "sub-02" / "anat" / "sub-02_MTw.nii.gz")
    touch(root / "sub-03" / "anat" / "sub-03_T1w.nii.gz")
    made = root / "derivatives" / "qsmxt"
    touch(made / "sub-02" / "anat" / "sub-02_Chimap.nii")
    touch(made / "sub-02" / "anat" / "sub-02_desc-paramagnetic_Chimap.nii")
    touch(made / "sub-02" / "anat" / "sub-02_desc-smooth_Chimap.nii")
    touch(made / "sub-02" / "anat" / "sub-02_seg-nuclei_dseg.nii")
    touch(made / "sub-04" / "anat" / "sub-04_desc-diamagnetic_Chimap.nii")
    return root


def test_bids(tmp_path):
    found = find(bids(tmp_path))
    assert names(found) == {
        "sub-01_ses-1": {
            "nm": "sub-01_ses-1_acq-nm_T1w.nii.gz",
            "qsm": "sub-01_ses-1_Chimap.nii.gz",
            "mask_nm": "sub-01_ses-1_acq-nm_dseg.nii.gz",
            "mask_qsm": "sub-01_ses-1_dseg.nii.gz",
        },
        "sub-02": {
            "nm": "sub-02_MTw.nii.gz",
            "qsm": "sub-02_Chimap.nii",
            "mask_qsm": "sub-02_seg-nuclei_dseg.nii",
        },
    }
    assert found.subjects[0]["person"] == "sub-01"
    assert "NM by *neuromelanin* or *[_-]NM* or *_MTw*: 2 of 2" in found.layout
    assert "QSM by *_Chimap.nii*: 2 of 2" in found.layout
    assert "2 anat folders have none" in found.layout
    assert not found.findings
    chosen = find(tmp_path, filters={"nm": "*_T1W.*"})
    assert "nm" not in names(chosen)["sub-02"]
    problem = chosen.problems["sub-01_ses-1"]
    assert "2 files (sub-01_ses-1_T1w.nii.gz, sub-01_ses-1_acq-nm_T1w.nii.gz)" in problem
    assert "list the one in a JSON datalist" in problem
    assert list(chosen.problems) == ["sub-01_ses-1"]


def test_participants_without_images_are_counted_and_named(tmp_path):
    touch(tmp_path / "sub-01" / "anat" / "sub-01_acq-NM_T1w.nii.gz")
    (tmp_path / "sub-02" / "func").mkdir(parents=True)
    assert "; 1 participants have no anat folder and are left out (sub-02)" in find(tmp_path).layout
    rows = ["sex\tparticipant_id", "F\tsub-01", "F\tsub-03", "M\t04", "", "F"]
    (tmp_path / "participants.tsv").write_text("\ufeff" + "\n".join(rows))
    assert "3 participants have no anat folder and are left out (sub-02, sub-03, sub-04)" in (
        find(tmp_path).layout
    )
    (tmp_path / "sub-02" / "func").rmdir()
    (tmp_path / "sub-02").rmdir()
    for text in ("", "id\nsub-03\n", "participant_id\nsub-01\n"):
        (tmp_path / "participants.tsv").write_text(text)
        assert "participants" not in find(tmp_path).layout
    (tmp_path / "participants.tsv").write_text(
        "participant_id\n" + "".join(f"sub-{number}\n" for number in range(20, 40))
    )
    assert "20 participants have no anat folder and are left out (sub-20, " in find(tmp_path).layout
    assert "sub-29, ...)" in find(tmp_path).layout


def test_labels_of_a_bids_subject_hold_for_its_sessions(tmp_path):
    (bids(tmp_path) / "labels.csv").write_text("sub-01,1\nsub-02,0\n")
    found = find(tmp_path, need=Need(images="all", masks="given"))
    assert [subject["label"] for subject in found.require_all()] == [1, 0]


def test_runs_are_subjects_where_every_image_has_them(tmp_path):
    anat = tmp_path / "sub-1" / "anat"
    touch(*(anat / f"sub-1_run-{run}_{kind}.nii" for run in "12" for kind in ("Chimap", "MTw")))
    touch(anat / "sub-1_run-2_desc-QSM_dseg.nii")
    found = find(tmp_path)
    assert list(names(found)) == ["sub-1_run-1", "sub-1_run-2"]
    assert names(found)["sub-1_run-2"] == {
        "nm": "sub-1_run-2_MTw.nii",
        "qsm": "sub-1_run-2_Chimap.nii",
        "mask_qsm": "sub-1_run-2_desc-QSM_dseg.nii",
    }
    assert "mask_qsm" not in names(found)["sub-1_run-1"]
    (anat / "sub-1_run-2_Chimap.nii").unlink()
    (problem,) = find(tmp_path).problems.values()
    assert "2 files (sub-1_run-1_MTw.nii, sub-1_run-2_MTw.nii)" in problem


def test_a_label_map_that_could_be_of_two_images_is_a_fault(tmp_path):
    anat = tmp_path / "sub-1" / "anat"
    touch(anat / "sub-1_MTw.nii", anat / "sub-1_Chimap.nii", anat / "sub-1_dseg.nii")
    assert "could be of nm or qsm" in find(tmp_path).problems["sub-1"]
    (anat / "sub-1_dseg.nii").rename(anat / "sub-1_desc-NM_dseg.nii")
    assert names(find(tmp_path))["sub-1"]["mask_nm"] == "sub-1_desc-NM_dseg.nii"


def test_two_pipelines_are_two_candidates(tmp_path):
    for pipeline in ("qsmxt", "sepia"):
        touch(tmp_path / "derivatives" / pipeline / "sub-1" / "anat" / "sub-1_Chimap.nii")
    problem = find(tmp_path).problems["sub-1"]
    assert "derivatives/qsmxt/sub-1/anat/sub-1_Chimap.nii" in problem
    assert "derivatives/sepia/sub-1/anat/sub-1_Chimap.nii" in problem


def test_a_filter_with_a_slash_chooses_a_pipeline(tmp_path):
    for pipeline in ("qsmxt-9", "sepia"):
        touch(tmp_path / "derivatives" / pipeline / "sub-1" / "anat" / "sub-1_Chimap.nii")
    assert "choose by --nm_filter or --qsm_filter" in find(tmp_path).problems["sub-1"]
    found = find(tmp_path, filters={"qsm": "derivatives/QSMxT*/*_Chimap*"})
    assert "derivatives/qsmxt-9" in found.subjects[0]["qsm"]
    assert not found.problems


def test_a_filter_is_for_the_images_of_a_quantity():
    assert filters_of(CHALLENGE_IMAGES, None, None) == {}
    assert filters_of(CHALLENGE_IMAGES, "a", "b") == {"nm": "a", "qsm": "b"}
    other = {"chi": Image(file="CHI", quantity="susceptibility"), "t1": Image(file="T1")}
    assert filters_of(other, "a", "b") == {"chi": "b"}


def test_a_label_map_that_names_the_image_goes_before_others(tmp_path):
    anat = tmp_path / "sub-1" / "anat"
    touch(anat / "sub-1_Chimap.nii", anat / "sub-1_dseg.nii", anat / "sub-1_space-orig_dseg.nii")
    assert "2 files" in find(tmp_path).problems["sub-1"]
    touch(anat / "sub-1_desc-QSM_dseg.nii")
    found = find(tmp_path)
    assert not found.problems
    assert names(found)["sub-1"]["mask_qsm"] == "sub-1_desc-QSM_dseg.nii"


@pytest.mark.parametrize(
    "part", ["desc-paramagnetic", "desc-diamagnetic", "desc-chipos", "desc-chiNeg", "desc-dia"]
)
def test_a_part_of_the_susceptibility_is_no_map(tmp_path, part):
    anat = tmp_path / "sub-1" / "anat"
    touch(anat / "sub-1_MTw.nii", anat / f"sub-1_{part}_Chimap.nii")
    assert names(find(tmp_path)) == {"sub-1": {"nm": "sub-1_MTw.nii"}}


def test_the_unit_of_a_map_is_bids_or_the_nearest_json(tmp_path):
    anat = tmp_path / "derivatives" / "qsmxt" / "sub-1" / "anat"
    touch(anat / "sub-1_Chimap.nii", anat / "sub-1_MTw.nii")
    found = find(tmp_path)
    assert found.subjects[0]["factor_qsm"] == 1000.0
    assert "factor_nm" not in found.subjects[0]
    assert "QSM times 1000" in found.layout
    (anat.parent / "sub-1_Chimap.json").write_text('{"Units": "ppb"}')
    assert "factor_qsm" not in find(tmp_path).subjects[0]
    (anat / "sub-1_Chimap.json").write_text('{"Units": "ppm"}')
    assert find(tmp_path).subjects[0]["factor_qsm"] == 1000.0
    ppm = {"qsm": Image(file="QSM", quantity="susceptibility", unit="ppm")}
    assert "factor_qsm" not in find(tmp_path, ppm).subjects[0]
    (anat / "sub-1_Chimap.json").write_text('{"Units": "Hz"}')
    problem = find(tmp_path).problems["sub-1"]
    assert "the unit 'Hz'; expected ppb or ppm. Convert the map" in problem


def test_a_file_unit_counts_in_bids_where_no_json_file_tells(tmp_path):
    anat = tmp_path / "sub-1" / "anat"
    touch(anat / "sub-1_QSM.nii", anat / "sub-1_chimap.nii")
    sidecar = anat / "sub-1_QSM.json"

    def factor(stem, **unit):
        images = {"qsm": Image(file="QSM", quantity="susceptibility", **unit)}
        found = find(tmp_path, images, filters={"qsm": f"*_{stem}.nii"})
        return found.subjects[0].get("factor_qsm")

    assert factor("QSM") is None
    assert factor("QSM", file_unit="ppm") == 1000.0
    sidecar.write_text('{"Units": null}')
    assert factor("QSM", file_unit="ppm") == 1000.0
    sidecar.write_text('{"Units": "ppb"}')
    assert factor("QSM", file_unit="ppm") is None
    assert factor("chimap") == 1000.0
    assert factor("chimap", file_unit="ppb") is None


def test_a_datalist_tells_a_factor(tmp_path):
    touch(tmp_path / "q.nii")
    entries = [
        {"subject": f"S{i}", "qsm": "q.nii", "factor_qsm": f} for i, f in enumerate([1000, "x", 1])
    ]
    (tmp_path / "list.json").write_text(json.dumps(entries))
    found = find(tmp_path / "list.json")
    assert [subject.get("factor_qsm") for subject in found.subjects] == [1000.0, None, None]
    assert "factor_qsm 'x'; expected a number above 0, such as 1000" in found.problems["S1"]
    assert not found.covariates
    ppm = {"qsm": Image(file="QSM", quantity="susceptibility", file_unit="ppm")}
    found = find(tmp_path / "list.json", ppm)
    assert "factor_qsm" not in found.subjects[2]  # 1 is told, and comes first
    entries[2]["factor_qsm"] = True
    (tmp_path / "list.json").write_text(json.dumps(entries))
    assert "factor_qsm True" in find(tmp_path / "list.json").problems["S2"]


@pytest.mark.parametrize("form", ["folders", "pred", "predicted", "one"])
def test_masks_elsewhere(tmp_path, form):
    data, masks = tmp_path / "data", tmp_path / "masks"
    touch(data / "A" / "NM.nii", data / "A" / "NM_mask.nii")
    stem = "NM_pred" if form == "pred" else "NM_mask"
    folder = {"predicted": masks / "subjects" / "A", "one": masks}.get(form, masks / "A")
    with pytest.raises(FileNotFoundError, match=r"masks .* lacks the masks of all 1 subjects"):
        find(data, masks=masks)
    touch(folder / f"{stem}.nii.gz")
    (subject,) = find(data, masks=masks).subjects
    assert subject["mask_nm"] == str(folder / f"{stem}.nii.gz")


def test_masks_elsewhere_in_bids_or_not_at_all(tmp_path):
    masks = tmp_path / "masks"
    touch(masks / "sub-01" / "ses-1" / "anat" / "sub-01_ses-1_acq-nm_desc-drawn_dseg.nii.gz")
    found = find(bids(tmp_path / "data"), masks=masks)
    first, second = names(found).values()
    assert first["mask_nm"] == "sub-01_ses-1_acq-nm_desc-drawn_dseg.nii.gz"
    assert "mask_qsm" not in first | second  # those beside the images are left out
    needed = find(tmp_path / "data", masks=masks, need=Need(labels="none"))
    assert (
        "no QSM mask; expected a NIfTI file. Add it, name the folder" in needed.problems["sub-02"]
    )


def test_only_the_named_images_are_needed(tmp_path):
    images = {"r2star": Image(file="R2star"), "nm": CHALLENGE_IMAGES["nm"]}
    touch(tmp_path / "A" / "NM.nii", tmp_path / "A" / "NM_mask.nii", tmp_path / "A" / "R2star.nii")
    (subject,) = find(tmp_path, images, need=Need(labels="none")).require_all()
    assert set(subject) == {"subject", "nm", "r2star", "mask_nm"}


def test_what_is_no_data_set_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist; name a folder of subjects"):
        find(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"has no subjects: expected .*SUBJECT"):
        find(tmp_path)
    touch(tmp_path / "file.nii", tmp_path / "sub-1" / "anat" / "sub-1_T1w.nii")
    with pytest.raises(ValueError, match=r"is a file and no \.json datalist"):
        find(tmp_path / "file.nii")
    with pytest.raises(FileNotFoundError, match=r"QSM by \*_Chimap.nii\*: 0 of 0; 1 anat folders"):
        find(tmp_path)
    touch(tmp_path / "c" / "a" / "NM.nii.gz")
    with pytest.raises(ValueError, match="chooses images of a BIDS data set"):
        find(tmp_path / "c", filters={"nm": "*x*"})


def test_results_are_never_written_between_the_images(tmp_path):
    touch(tmp_path / "A" / "NM.nii")
    found = find(tmp_path)
    for folder in (tmp_path, tmp_path / "A"):
        with pytest.raises(ValueError, match="holds the images, and results are never written"):
            found.refuse_output(folder)
    found.refuse_output(tmp_path / "out")


def test_training_sees_subjects_once_more_by_other_masks(cohort, tmp_path, rois):
    subjects = load_subjects(cohort)
    for name in ("SUBJ_003", "SUBJ_007"):
        (tmp_path / name).mkdir()
        for mask in ("NM", "QSM"):
            shutil.copy(
                cohort / name / f"{mask}_mask.nii.gz", tmp_path / name / f"{mask}_pred.nii.gz"
            )
    training = subjects[:5]
    assert add_masks(training, None, dataset_dir=cohort, rois=rois) == training
    seen = add_masks(training, tmp_path, dataset_dir=cohort, rois=rois)
    assert seen[:5] == training
    (again,) = seen[5:]  # SUBJ_007 is not trained on
    assert again["label"] == training[3]["label"]
    assert again["nm"] == training[3]["nm"]
    assert again["mask_qsm"] == str(tmp_path / "SUBJ_003" / "QSM_pred.nii.gz")
