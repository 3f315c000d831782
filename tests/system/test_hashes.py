"""A bundle is what it was when it was packed, or the difference is named."""

import hashlib
import json

import pytest

from mrn_components.system.hashes import file_hash, verify_hashes, write_hashes


@pytest.fixture
def bundle(tmp_path):
    for name, text in {
        "configs/inference.yaml": "a: 1\n",
        "configs/metadata.json": "{}",
        "models/model.pt": "weights",
        "LICENSE": "Apache-2.0",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_packed_bundle_is_intact_and_every_file_is_named(bundle):
    content = json.loads(write_hashes(bundle).read_text())["sha256"]
    assert content["LICENSE"] == hashlib.sha256(b"Apache-2.0").hexdigest()
    assert sorted(content) == [
        "LICENSE",
        "configs/inference.yaml",
        "configs/metadata.json",
        "models/model.pt",
    ]
    assert verify_hashes(bundle) == {}
    write_hashes(bundle)  # again: the list is not in the list
    assert verify_hashes(bundle) == {}


def test_a_bundle_without_hashes_has_nothing_to_compare(bundle):
    assert verify_hashes(bundle) == {}


def test_changed_missing_and_added_files_are_named(bundle):
    write_hashes(bundle)
    (bundle / "models/model.pt").write_text("Weights")
    (bundle / "LICENSE").unlink()
    (bundle / "configs/more.yaml").touch()
    (bundle / "runs").mkdir()
    (bundle / "runs/own.txt").touch()  # a run of the bundle's own is no intruder
    problems = verify_hashes(bundle)
    assert problems.keys() == {"models/model.pt", "LICENSE", "configs/more.yaml"}
    assert problems["models/model.pt"].startswith("was changed: sha256 ")
    assert problems["LICENSE"] == "is missing"
    assert problems["configs/more.yaml"] == "was added: hashes.json does not name it"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"sha256": 3}'])
def test_an_unreadable_list_is_a_problem(bundle, content):
    (bundle / "hashes.json").write_text(content)
    assert "is no JSON of the form" in verify_hashes(bundle)["hashes.json"]


@pytest.mark.parametrize("name", ["/etc/passwd", "../outside", "configs/../../outside"])
def test_paths_outside_the_bundle_are_not_read(bundle, name):
    (bundle / "hashes.json").write_text(json.dumps({"sha256": {name: "0" * 64}}))
    assert verify_hashes(bundle)[name] == "lies outside the bundle"


def large_file(bundle, **entry):
    (bundle / "large_files.yml").write_text(json.dumps({"large_files": [entry]}))
    return verify_hashes(bundle)


def test_large_files_are_verified_once_they_are_there(bundle):
    name = "models/model.pt"
    for algorithm in ("sha256", "md5"):
        right = {"hash_type": algorithm, "hash_val": file_hash(bundle / name, algorithm)}
        assert large_file(bundle, path=name, **right) == {}
    wrong = large_file(bundle, path=name, hash_val="0" * 64)
    assert wrong[name].startswith("was changed: sha256 ")
    assert large_file(bundle, path="models/later.pt", hash_val="0" * 64) == {}
    assert "has no hash" in large_file(bundle, path=name)[name]
    assert "crc32" in large_file(bundle, path=name, hash_type="crc32", hash_val="0")[name]
    assert large_file(bundle, path="../x", hash_val="0")["../x"] == "lies outside the bundle"
    (bundle / "large_files.yml").write_text("large_files: 3")
    assert "is no YAML of the form" in verify_hashes(bundle)["large_files.yml"]
