"""Records in weight files: written beside the tensors, read by name, copied whole."""

import pytest
import torch

from mrn_components.data.weight_records import RECORDS, append_record, copy_records, read_record


@pytest.fixture
def weights(tmp_path):
    """Two files of weights without records."""
    paths = tmp_path / "one.pt", tmp_path / "other.pt"
    for path in paths:
        torch.save({"x": torch.ones(2)}, path)
    return paths


def test_records_lie_beside_the_tensors_and_are_copied(weights):
    one, other = weights
    for number, name in enumerate(RECORDS):
        append_record(one, name, {"number": number})
    copy_records(one, other)
    assert [read_record(other, name) for name in RECORDS] == [{"number": n} for n in range(5)]
    assert torch.equal(torch.load(other, weights_only=True)["x"], torch.ones(2))


def test_what_carries_none_says_nothing(weights, tmp_path):
    (tmp_path / "no.pt").write_bytes(b"0123")
    assert [read_record(path, RECORDS[0]) for path in (weights[0], tmp_path / "no.pt")] == [
        None
    ] * 2


def test_a_damaged_record_is_named_with_its_file(weights):
    append_record(weights[0], RECORDS[0], [1])
    with pytest.raises(ValueError, match=rf"one.pt: what it says in {RECORDS[0]} .*holds list"):
        read_record(weights[0], RECORDS[0])
