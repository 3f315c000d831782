"""The score of a subject that is unlike the training: from weights to tables and pages."""

import numpy as np
import pytest
import torch
from tiny_run import make_datalist, make_run, read_rows

from mrn_components.app.ensemble import save_ensemble
from mrn_components.app.predict import predict
from mrn_components.app.predict.unlike import Unlike, flag_unlike
from mrn_components.data.weight_records import (
    REPRESENTATION,
    append_record,
    copy_records,
    read_record,
)
from mrn_components.metrics.spread import Spread

WIDTH = 4 * 32  # regions and features of the tiny network


def record(level):
    """Statistics of a standard normal distribution; subjects outside have distances e^level."""
    vectors = np.random.default_rng(0).normal(size=(300, WIDTH))
    content = Spread.fit(vectors).to_record()
    return content | {"level": level, "deviation": 0.1, "count": 50}


@pytest.fixture
def two(cohort, tmp_path):
    return make_datalist(cohort, tmp_path / "two.json", count=2)


def test_tables_flags_and_pages_tell_it_of_one_network_and_of_an_ensemble(two, tmp_path):
    runs = [make_run(tmp_path / f"run{seed}", seed) for seed in (0, 1)]
    options = {"num_workers": 0, "device": "cpu", "report": True}
    rows = read_rows(predict(two, str(tmp_path / "none"), bundle=str(runs[0]), **options))
    assert "unlike_training" not in rows[0]  # weights that do not say
    plain = [row["prob_pd"] for row in rows]
    for run, level in zip(runs, (50.0, -50.0), strict=True):
        append_record(run / "models" / "model.pt", REPRESENTATION, record(level))
    shares = []
    for number, run in enumerate(runs):
        out = tmp_path / f"out{number}"
        rows = read_rows(predict(two, str(out), bundle=str(run), **options))
        shares.append([float(row["unlike_training"]) for row in rows])
        page = (out / "subjects" / rows[0]["subject"] / "report.html").read_text()
        assert "Unlike the training" in page
        assert ("unlike the training: 100.0%" in page) == bool(number)
        assert all(("unlike the training" in row["flags"]) == bool(number) for row in rows)
        if number == 0:
            assert [row["prob_pd"] for row in rows] == plain
    assert shares == [[0, 0], [1, 1]]
    both = save_ensemble(runs, tmp_path / "both")
    rows = read_rows(predict(two, str(tmp_path / "out"), bundle=str(both), **options))
    assert [float(row["unlike_training"]) for row in rows] == [0.5, 0.5]
    assert not any("unlike" in row["flags"] for row in rows)


def test_the_score_is_that_of_the_vectors(tmp_path):
    file = make_run(tmp_path / "run", 0) / "models" / "model.pt"
    append_record(file, REPRESENTATION, record(np.log(WIDTH)))
    spread = Spread.from_record(read_record(file, REPRESENTATION))
    vectors = torch.randn(1, 2, WIDTH, generator=torch.Generator().manual_seed(0))
    one, two = (Unlike.of(files) for files in ([file], [file, file]))
    expected = spread.share_nearer(vectors[0].numpy())
    assert one.score({"patient": vectors[:, 0]})["unlike_training"] == pytest.approx(expected[0])
    found = two.score({"logits": None, "fold_patient": vectors})
    assert found["unlike_training"] == pytest.approx(expected.mean())
    assert one.score({"logits": vectors}) == {}  # a network without representation
    assert one.score({"patient": vectors[0, :, :9]}) == {}  # of other regions
    copied = tmp_path / "copy.pt"
    torch.save({}, copied)
    copy_records(file, copied)
    assert read_record(copied, REPRESENTATION) == read_record(file, REPRESENTATION)


def test_damaged_statistics_are_named(tmp_path):
    file = make_run(tmp_path / "run", 0) / "models" / "model.pt"
    append_record(file, REPRESENTATION, record(0.0) | {"mean": "os.system"})
    with pytest.raises(ValueError, match=r"model.pt: what it says of its training is damaged"):
        Unlike.of([file])


def test_the_flag_begins_above_the_99th_percentile():
    assert flag_unlike({"unlike_training": 0.99}) == flag_unlike({}) == []
    assert "99.1% of subjects" in flag_unlike({"unlike_training": 0.991})[0]
