"""The four forms of input, and the checks of a file."""

import json

import pytest

from mrn_components.app.predict.inputs import find_inputs


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(inputs):
    return {
        case.subject: {key: path.name for key, path in case.files.items()} for case in inputs.cases
    }


def test_one_subject_and_a_folder_of_subjects(tmp_path):
    touch(tmp_path / "B" / "NM.nii.gz", tmp_path / "B" / "QSM.nii", tmp_path / "A" / "QSM.nii.gz")
    touch(tmp_path / "A" / "QSM_mask.nii.gz", tmp_path / "notes" / "T1.nii.gz")
    alone = {"B": {"nm": "NM.nii.gz", "qsm": "QSM.nii"}}
    assert names(find_inputs(tmp_path / "B")) == alone
    inputs = find_inputs(tmp_path)
    assert names(inputs) == {"A": {"qsm": "QSM.nii.gz", "mask_qsm": "QSM_mask.nii.gz"}} | alone
    assert inputs.layout == "a folder of subjects"


def test_a_datalist(tmp_path):
    entries = [{"subject": "S2", "nm": "n.nii", "qsm": "q.nii", "person": 7}]
    entries.append({"subject": "S1", "qsm": "x/q.nii", "mask_qsm": "x/m.nii", "label": 1})
    (tmp_path / "list.json").write_text(json.dumps(entries))
    inputs = find_inputs(tmp_path / "list.json")
    assert [case.subject for case in inputs.cases] == ["S1", "S2"]
    assert inputs.cases[0].files == {
        "qsm": tmp_path / "x/q.nii",
        "mask_qsm": tmp_path / "x/m.nii",
    }
    assert inputs.cases[1].person == "7"


def test_bids(tmp_path):
    anat = tmp_path / "sub-01" / "ses-1" / "anat"
    touch(anat / "sub-01_ses-1_Chimap.nii.gz", anat / "sub-01_ses-1_acq-nm_T1w.nii.gz")
    touch(anat / "sub-01_ses-1_acq-nm_mask.nii.gz", anat / "sub-01_ses-1_T1w.nii.gz")
    touch(tmp_path / "sub-02" / "anat" / "sub-02_Chimap.nii")
    touch(tmp_path / "sub-02" / "anat" / "sub-02_MTw.nii.gz")
    touch(tmp_path / "sub-03" / "anat" / "sub-03_T1w.nii.gz")
    touch(tmp_path / "derivatives" / "qsmxt" / "sub-04" / "anat" / "sub-04_Chimap.nii")
    inputs = find_inputs(tmp_path)
    assert names(inputs) == {
        "sub-01_ses-1": {
            "qsm": "sub-01_ses-1_Chimap.nii.gz",
            "nm": "sub-01_ses-1_acq-nm_T1w.nii.gz",
        },
        "sub-02": {"qsm": "sub-02_Chimap.nii", "nm": "sub-02_MTw.nii.gz"},
    }
    assert "NM by *neuromelanin* or *[_-]NM* or *_MTw*: 2 of 2" in inputs.layout
    assert "1 anat folders have no QSM" in inputs.layout
    chosen = find_inputs(tmp_path, nm_filter="*_T1W.*")
    assert "nm" not in names(chosen)["sub-02"]
    assert "NM by *_T1W.*: 0 of 2" in chosen.layout  # two in sub-01
    assert chosen.cases[0].problem.startswith("2 NM images (sub-01_ses-1_T1w.nii.gz, sub-01")
    assert "narrow --nm_filter, or list one in a JSON datalist" in chosen.cases[0].problem


def test_what_is_no_input_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist; name a subject's folder"):
        find_inputs(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"has no subjects: expected .*SUBJECT"):
        find_inputs(tmp_path)
    touch(tmp_path / "file.nii", tmp_path / "sub-1" / "anat" / "sub-1_T1w.nii")
    with pytest.raises(ValueError, match="is a file; name the subject's folder, or a JSON"):
        find_inputs(tmp_path / "file.nii")
    with pytest.raises(FileNotFoundError, match=r"no \*_Chimap.nii\* in any of its 1 anat"):
        find_inputs(tmp_path)
    touch(tmp_path / "c" / "a b" / "NM.nii.gz")
    with pytest.raises(ValueError, match="subject id must be 1 to 64 letters"):
        find_inputs(tmp_path / "c")
    with pytest.raises(ValueError, match="chooses NM images of a BIDS data set"):
        find_inputs(tmp_path / "c" / "a b", nm_filter="*x*")
    (tmp_path / "list.json").write_text('[{"subject": "S"}]')
    with pytest.raises(ValueError, match="subject 'S' names neither nm nor qsm"):
        find_inputs(tmp_path / "list.json")
    (tmp_path / "list.json").write_text(
        '[{"subject": "S", "nm": "n"}, {"subject": "s", "nm": "n"}]'
    )
    with pytest.raises(ValueError, match="stand there twice"):
        find_inputs(tmp_path / "list.json")
