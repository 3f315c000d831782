"""The references that weights hold, and the pages that compare a subject with them."""

import base64
import io
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_late import ROIS, Late
from tiny_run import make_datalist, make_run, read_rows

from mrn_components import FoldEnsemble
from mrn_components.app.predict import predict
from mrn_components.app.predict.references import read_references
from mrn_components.app.report.attention import attention_image, is_even
from mrn_components.app.report.region_bars import is_nothing, region_bars
from mrn_components.data.target import HC_PD, Classes, Score
from mrn_components.data.weight_records import REFERENCES, append_record


def carrying(folder, rois=ROIS, subjects=None):
    """A weight file with references of three ROIs of two features."""
    file = folder / "model.pt"
    torch.save({}, file)
    subjects = {"HC": [[0.5] * 6] * 2, "PD": [[1.0] * 6]} if subjects is None else subjects
    append_record(file, REFERENCES, {"rois": rois, "subjects": subjects})
    return file


def test_references_are_those_of_the_weights_or_none(tmp_path):
    file, network = carrying(tmp_path), Late()
    (found,) = read_references([file], network, HC_PD)
    shapes = {name: tuple(tokens.shape) for name, tokens in found.items()}
    assert shapes == {"HC": (2, 6), "PD": (1, 6)}
    assert (
        read_references([file], SimpleNamespace(rois=("a", "b"), patient_channels=4), HC_PD) == []
    )
    assert read_references([file], torch.nn.Linear(1, 1), HC_PD) == []  # a network without ROIs
    old = tmp_path / "old.pt"
    torch.save({}, old)
    assert read_references([old], network, HC_PD) == []
    two = FoldEnsemble(network=network, num_folds=2)
    assert len(read_references([file, file], two, HC_PD)) == 2
    assert read_references([file, old], two, HC_PD) == []


@pytest.mark.parametrize(
    "subjects",
    [
        *({}, {"HC": []}, {"HC": [[1, 2], [3]]}, {"HC": "os"}, [1], {"HC": [[1.0] * 6]}),
        {"HC": [[1.0] * 6], "<i>PD": [[1.0] * 6]},
        {"HC": [[1.0] * 6], "PD": [[float("nan")] * 6]},
        {"HC": [[1.0] * 5], "PD": [[1.0] * 5]},
    ],
)
def test_damaged_references_are_named(subjects, tmp_path):
    with pytest.raises(ValueError, match=r"model.pt: what it says of its training is damaged"):
        read_references([carrying(tmp_path, subjects=subjects)], Late(), HC_PD)


def test_bars_stand_beside_the_training():
    spread = {"a": {"HC": [-0.4, -0.2, 0.0], "PD": [0.0, 0.1, 0.2]}}
    first, second = region_bars({"shapley": {"a": 0.1, "b": -0.2}, "spread": spread}, HC_PD)
    assert (first.style, first.left, first.width) == ("up", 50, 12.5)  # 0.4 is half of a bar
    assert (second.style, second.left, second.width) == ("down", 25, 25)
    assert [tuple(reach) for reach in first.training] == [
        ("HC", "hc", -0.4, 0.0, 0, 50),
        ("PD", "pd", 0.0, 0.2, 50, 25),
    ]
    assert second.training == []
    three = Classes(names=["HC", "PD", "MSA"], positive="MSA")
    cases = [(three, "PD", "hc"), (three, "MSA", "pd"), (Score(), "all", "both")]
    for target, group, style in cases:
        content = {"shapley": {"a": 0.0}, "spread": {"a": {group: [0, 0, 0]}}}
        assert region_bars(content, target)[0].training[0].style == style
    assert is_nothing([0.0004, -0.0004], HC_PD)
    assert not is_nothing([0.0, -0.0006], HC_PD)
    assert is_nothing([0.03], Score(range=[0, 100]))


def test_a_page_compares_with_the_training_or_says_that_it_cannot(cohort, tmp_path):
    data, run = make_datalist(cohort, tmp_path / "two.json", count=2), make_run(tmp_path / "run", 0)

    def look(out, **more):
        options = {"num_workers": 0, "device": "cpu", "report": True, **more}
        rows = read_rows(predict(data, str(out), bundle=str(run), **options))
        folder = out / "subjects" / rows[0]["subject"]
        found = json.loads((folder / "explanation.json").read_text())
        total = found["prob_pd"] - found["baseline"]
        assert sum(found["shapley"].values()) == pytest.approx(total, abs=1e-6)
        html = re.sub(r"<[^>]+>", " ", (folder / "report.html").read_text())
        return rows, found, " ".join(html.split())

    old, _, page = look(tmp_path / "old")
    assert "Hidden regions are zeros, which the network never saw" in page
    draw = np.random.default_rng(0)
    subjects = {group: draw.normal(size=(3, 128)).tolist() for group in ("HC", "PD")}
    record = {"rois": ("nm", "qsm1", "qsm2", "qsm3"), "subjects": subjects}
    append_record(run / "models" / "model.pt", REFERENCES, record)
    assert "There are no occlusion maps" not in page
    new, found, page = look(tmp_path / "new", occlusion=False)
    assert "There are no occlusion maps: --occlusion False left them out." in page
    assert "attention map" in page
    assert (set(found["attention"]), found["occlusion"]) == (set(record["rois"]), {})
    assert new == old  # what is predicted does not change
    assert "The references are subjects of the training set: 3 HC, 3 PD." in page
    assert re.search(r"training: HC [+−]0\.\d+ to [+−]0\.\d+ · PD ", page)
    assert "which the network never saw: such" not in page
    assert found["references"] == {"HC": 3, "PD": 3}
    assert set(found["spread"]) == set(found["shapley"])
    again, found, _ = look(tmp_path / "new", resume=True)
    assert again == new
    assert set(found["occlusion"]) == set(record["rois"])


def test_an_attention_map_is_a_picture_and_says_when_it_is_even():
    def opacity(cells):
        address = attention_image(cells)
        with Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))) as picture:
            assert picture.size == (2, 2)
            return np.asarray(picture)[..., 3].tolist()

    strong, even = [[0.0, 0.1], [3.0, 0.9]], [[1.2, 1.0], [1.0, 0.8]]
    assert opacity(strong) == [[0, 0], [178, 0]]
    assert opacity(even) == [[36, 0], [0, 0]]
    assert not is_even(strong)
    assert is_even(even)
