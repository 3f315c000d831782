"""The four forms of input, and the checks of a file."""

import gzip
import json

import nibabel
import numpy as np
import pytest

from mrn_components.app.predict.inputs import find_inputs
from mrn_components.app.predict.preflight import check_file

SHAPE = (12, 10, 8)


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


@pytest.fixture
def volume(tmp_path):
    """Write an array; its path."""

    def write(array, name="v.nii.gz", kind=nibabel.Nifti1Image, edit=None):
        image = kind(array, np.eye(4))
        content = image.to_bytes()
        if edit is not None:
            content = edit(content)
        path = tmp_path / name
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return path

    return write


NOISE = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


@pytest.mark.parametrize("name", ["v.nii.gz", "v.nii"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize(
    "array", [NOISE, NOISE.astype(">f4"), (NOISE * 9).astype(np.int16)[..., None]]
)
def test_whole_volumes_pass(array, kind, name, volume):
    assert len(check_file(volume(array, name, kind), "v")) == 64


def nothing(shape=SHAPE, value=0.0, dtype=np.float32):
    return np.full(shape, value, dtype)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            np.zeros((*SHAPE, 2), np.float32),
            r"has the shape \(12, 10, 8, 2\), expected one 3D volume",
        ),
        (NOISE[..., 0], r"has the shape \(12, 10\), expected one 3D volume"),
        (nothing((1030, 1, 1)), r"\(1030, 1, 1\), expected at most 1024 voxels a side"),
        (NOISE.astype(np.complex64), "voxels of the type complex64, expected one number each"),
        (nothing(value=np.nan), "holds no finite voxel"),
        (nothing(value=3.0), "shows nothing: every voxel is 3; is it the right file"),
    ],
)
def test_volumes_of_another_kind_are_refused(array, message, volume):
    with pytest.raises(ValueError, match=f"S0/NM.nii.gz {message}|S0/NM.nii.gz has .*{message}"):
        check_file(volume(array), "S0/NM.nii.gz")


def test_a_mask_may_be_empty(volume):
    assert check_file(volume(nothing(dtype=np.uint8)), "m", is_mask=True)


def test_damage_is_found(volume, tmp_path):
    path = volume(NOISE)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-6] ^= 1  # in the check sum, which nothing that decodes voxels reads
    path.write_bytes(flipped)
    with pytest.raises(ValueError, match=r"v is damaged \(CRC check failed"):
        check_file(path, "v")
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        ValueError, match="v is truncated: its gzip stream ends early; copy it again"
    ):
        check_file(path, "v")
    path.write_bytes(whole[:60])
    with pytest.raises(ValueError, match="v is no NIfTI image"):
        check_file(path, "v")
    path.write_bytes(b"\x1f\x8bnonsense" * 9)
    with pytest.raises(ValueError, match="v is damaged"):
        check_file(path, "v")
    path.write_bytes(b"text")
    with pytest.raises(ValueError, match=r"v is no gzip file though its name ends in .gz"):
        check_file(path, "v")
    plain = volume(NOISE, "v.nii", edit=lambda content: content[:-8])
    with pytest.raises(
        ValueError, match="v is truncated: its header promises 4192 bytes, found 4184"
    ):
        check_file(plain, "v")
    plain.write_bytes(b"text")
    with pytest.raises(ValueError, match="v is no NIfTI image: it starts with b'text'"):
        check_file(plain, "v")
    with pytest.raises(FileNotFoundError, match="v is not there; add it, or correct its path"):
        check_file(tmp_path / "nowhere.nii", "v")


def test_a_stream_that_goes_on_is_stopped(volume):
    path = volume(NOISE, edit=lambda content: content + bytes(3 << 20))
    with pytest.raises(ValueError, match=r"holds more than the .* bytes that its header promises"):
        check_file(path, "v")


def test_a_header_of_nonsense_is_named(volume):
    def edit(content):
        return content[:70] + b"\xff\x7f" + content[72:]  # no such data type

    with pytest.raises(ValueError, match=r"v has a faulty NIfTI header|expected one number each"):
        check_file(volume(NOISE, edit=edit), "v")
