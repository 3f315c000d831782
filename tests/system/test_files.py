"""Files appear whole or not at all."""

import os

import pytest
import torch

from mrn_components.system import files
from mrn_components.system.errors import DamagedFileError, ResourceError, UnwritableError
from mrn_components.system.files import (
    check_digest,
    csv_cell,
    digest_path,
    file_hash,
    remove_unfinished,
    replacing,
    replacing_hashed,
    weights_hash,
    write_text,
)


def write_half(path):
    with replacing(path) as temporary:
        temporary.write_text("half")
        raise OSError(28, "No space left on device")


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path):
    path = tmp_path / "folder" / "table.csv"
    write_text(path, "whole")
    with pytest.raises(ResourceError, match=r"table.csv cannot be written \(No space left .*Free"):
        write_half(path)
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_the_temporary_file_keeps_the_suffix_and_the_folder(tmp_path):
    with replacing(tmp_path / "image.nii.gz") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.endswith(".nii.gz")
        temporary.touch()


def test_files_are_readable_as_the_umask_says(tmp_path):
    old = os.umask(0o027)
    try:
        write_text(tmp_path / "model.pt", "")
    finally:
        os.umask(old)
    assert (tmp_path / "model.pt").stat().st_mode & 0o777 == 0o640


def test_leftovers_of_killed_processes_are_removed(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / ".unfinished.12.epoch_0001.pt").touch()
    (tmp_path / "model.pt").touch()
    remove_unfinished(tmp_path)
    assert [path.name for path in tmp_path.rglob("*.pt")] == ["model.pt"]


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "elsewhere.csv").write_text("kept")
    (tmp_path / "predictions.csv").symlink_to(tmp_path / "elsewhere.csv")
    with pytest.raises(FileExistsError, match=r"predictions.csv is a symbolic link \(to .*remove"):
        write_text(tmp_path / "predictions.csv", "new")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError, match="is a symbolic link"):
        write_text(tmp_path / "dangling", "new")
    # A link under the temporary name, which can be guessed.
    (tmp_path / f".unfinished.{os.getpid()}.a.csv").symlink_to(tmp_path / "elsewhere.csv")
    write_text(tmp_path / "a.csv", "new")
    assert (tmp_path / "elsewhere.csv").read_text() == "kept"
    assert not (tmp_path / "a.csv").is_symlink()
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("text", ["=cmd()", "+1", "-1", "@x", "\t=1", "\r=1"])
def test_a_formula_becomes_text_in_a_spreadsheet(text):
    assert csv_cell(text) == f"'{text}"


@pytest.mark.parametrize("value", ["SUBJ_1", "a=1", "", -0.5, 3, None])
def test_other_cells_stay(value):
    assert csv_cell(value) is value


# ---- digests


def write_hashed(path, text):
    with replacing_hashed(path) as temporary:
        temporary.write_text(text)


def test_a_changed_file_does_not_pass(tmp_path):
    path = tmp_path / "model.pt"
    write_hashed(path, "weights")
    check_digest(path)
    path.write_text("Weights")
    with pytest.raises(DamagedFileError, match=r"model.pt is damaged: its SHA-256 begins with \w+"):
        check_digest(path)
    digest_path(path).write_text("")
    with pytest.raises(DamagedFileError, match="says nothing"):
        check_digest(path)
    digest_path(path).unlink()
    check_digest(path)


def test_a_flipped_bit_in_weights_is_found_without_a_digest(tmp_path, caplog):
    """Torch looks at no checksum of its archives: it would load other numbers."""
    path = tmp_path / "model.pt"
    torch.save({"weight": torch.ones(1000)}, path)
    check_digest(path)
    content = bytearray(path.read_bytes())
    content[content.index(torch.ones(8).numpy().tobytes()) + 100] ^= 1
    path.write_bytes(content)
    assert not torch.equal(torch.load(path)["weight"], torch.ones(1000))
    with pytest.raises(DamagedFileError, match=r"model.pt is damaged: the checksum of \S+data/0"):
        check_digest(path)
    torch.save({}, path, _use_new_zipfile_serialization=False)
    check_digest(path)
    assert "has no checksums" in caplog.text


def test_a_new_file_never_stands_beside_an_old_digest(tmp_path, monkeypatch):
    """Wherever the process is killed, the file passes."""
    path = tmp_path / "model.pt"
    write_hashed(path, "old")

    def killed(*_):
        raise KeyboardInterrupt

    for step in ("write_text", "_flush_folder"):
        with monkeypatch.context() as patch:
            patch.setattr(f"mrn_components.system.files.{step}", killed)
            with pytest.raises(KeyboardInterrupt):
                write_hashed(path, f"new {step}")
        assert path.read_text() == f"new {step}"
        check_digest(path)


# ---- places


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (PermissionError(13, "Permission denied"), "Permission denied"),
        (OSError(30, "Read-only file system"), "Read-only file system"),
    ],
)
def test_a_place_that_cannot_be_written_to_is_named(tmp_path, monkeypatch, error, text):
    def refuse(*_args, **_options):
        raise error

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    message = rf"{tmp_path}/out/a.csv cannot be written \({text}\); name another folder"
    with pytest.raises(UnwritableError, match=message):
        write_text(tmp_path / "out" / "a.csv", "")


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "out").touch()
    for folder in ("out", "out/below"):
        with pytest.raises(UnwritableError, match=r"be written \((File exists|Not a direct)"):
            write_text(tmp_path / folder / "a.csv", "")


def test_weights_are_hashed_once_until_they_change(tmp_path, monkeypatch):
    path, opened = tmp_path / "model.pt", []
    with replacing_hashed(path) as temporary:
        temporary.write_bytes(b"weights")
    original = files.hashlib.file_digest
    monkeypatch.setattr(
        files.hashlib, "file_digest", lambda *of: (opened.append(of), original(*of))[1]
    )
    for _ in range(2):
        check_digest(path)
        assert weights_hash(path) == file_hash(path)
    assert len(opened) == 1 + 2  # file_hash reads whenever it is asked
    path.write_bytes(b"other weights")
    assert weights_hash(path) == file_hash(path)
    with pytest.raises(DamagedFileError):
        check_digest(path)
