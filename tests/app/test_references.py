"""Hidden ROIs replaced by those of reference subjects: an independent game, and its laws."""

import base64
import io
import json
import re
from itertools import permutations
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_run import make_datalist, make_run, read_rows

from mrn_components import FoldEnsemble
from mrn_components.app.predict import predict
from mrn_components.app.predict.references import read_references
from mrn_components.app.report.attention import attention_image, is_even
from mrn_components.app.report.explanation import masked_values, roi_shapley, training_spread
from mrn_components.app.report.region_bars import is_nothing, region_bars
from mrn_components.data.target import HC_PD, Classes, Score
from mrn_components.data.weight_records import REFERENCES, append_record

ROIS = ("a", "b", "c")
TARGETS = {"classes": HC_PD, "score": Score(name="updrs", range=[0, 80])}


class Late(torch.nn.Module):
    """ROI tokens of two features, joined by a head that multiplies and looks away from "c"."""

    masked_rois = frozenset()

    def __init__(self, seed=0, outputs=2):
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.rois, self.patient_channels = ROIS, 6
        self.first = torch.nn.Parameter(torch.randn(8, 6, generator=draw))
        self.second = torch.nn.Parameter(torch.randn(outputs, 8, generator=draw))
        self.first.data[:, 4:] = 0

    def forward(self, images):
        tokens = [
            torch.stack([torch.stack([crop.mean(), crop.std()]) for crop in images[roi]])
            for roi in self.rois
        ]
        patient = torch.cat(tokens, 1)
        return {"patient": patient, "logits": self.classify(patient)}

    def classify(self, patient):
        return torch.tanh(patient @ self.first.T) @ self.second.T


@pytest.fixture
def images():
    return {roi: [torch.rand(1, 2, 4, 4 + i) * (1 + i)] for i, roi in enumerate(ROIS)}


def references(seed, **counts):
    draw = torch.Generator().manual_seed(seed)
    return {name: torch.randn(count, 6, generator=draw) for name, count in counts.items()}


def oracle(network, images, groups, value):
    """Average, over all orders and references, what each ROI adds as it joins: numpy alone."""
    own = network(images)["patient"][0].detach().numpy()
    first, second = (each.detach().double().numpy() for each in (network.first, network.second))

    def ask(vector):
        logits = second @ np.tanh(first @ vector)
        return value(logits)

    shapley, baseline = dict.fromkeys(ROIS, 0.0), 0.0
    for tokens in groups.values():
        for other in tokens.numpy():
            share = 1 / (len(groups) * len(tokens))
            baseline += share * ask(other)
            for order in permutations(range(len(ROIS))):
                vector = other.astype(float)
                for roi in order:
                    before = ask(vector)
                    vector[2 * roi : 2 * roi + 2] = own[2 * roi : 2 * roi + 2]
                    shapley[ROIS[roi]] += share * (ask(vector) - before) / 6
    return shapley, baseline


def prob(logits):
    return 1 / (1 + np.exp(logits[0] - logits[1]))


def score(logits):
    return 80 * (0.5 + logits[0])


@pytest.mark.parametrize("kind", TARGETS)
def test_values_are_those_of_every_order_and_reference(kind, images):
    target = TARGETS[kind]
    network = Late(outputs=target.num_outputs).eval()
    if kind == "score":
        network.second.data *= 0.01  # within the range
    groups = references(1, HC=5, PD=3) if kind == "classes" else references(1, all=4)
    options = {"target": target, "mask_mode": "reference", "references": [groups]}
    states = masked_values(network, images, **options)[target.lead]
    expected, baseline = oracle(network, images, groups, prob if kind == "classes" else score)
    scale = target.span[1]
    assert states[-1] == pytest.approx(baseline, abs=1e-6 * scale)
    found = roi_shapley(states, ROIS)
    assert found == pytest.approx(expected, abs=1e-6 * scale)
    assert sum(found.values()) == pytest.approx(states[0] - baseline, abs=1e-6 * scale)
    with torch.no_grad():
        shown = float(target.values(network(images)["logits"])[target.lead])
    assert states[0] == pytest.approx(shown, abs=1e-9 * scale)
    # What the head does not look at adds nothing, whoever lends it.
    assert found["c"] == pytest.approx(0, abs=1e-7 * scale)
    assert abs(found["a"]) > 1e-3 * scale


def test_a_subject_that_is_the_only_reference_is_explained_by_nothing(images):
    network = Late().eval()
    groups = {"HC": network(images)["patient"].detach()}
    states = masked_values(
        network, images, target=HC_PD, mask_mode="reference", references=[groups]
    )
    assert roi_shapley(states["prob_pd"], ROIS) == pytest.approx(dict.fromkeys(ROIS, 0), abs=1e-6)


def test_each_network_of_an_ensemble_has_its_own_references(images):
    ensemble = FoldEnsemble(network=Late(), num_folds=2).eval()
    ensemble.folds[1].load_state_dict(Late(seed=1).state_dict())
    both = [references(2, HC=3, PD=2), references(3, HC=2, PD=4)]
    options = {"target": HC_PD, "mask_mode": "reference"}
    each = [
        masked_values(fold, images, references=[own], **options)["prob_pd"]
        for fold, own in zip(ensemble.folds, both, strict=True)
    ]
    found = masked_values(ensemble, images, references=both, **options)["prob_pd"]
    assert found == pytest.approx(np.mean(each, axis=0), abs=1e-6)
    assert np.abs(np.subtract(*each)).max() > 0.01


def test_the_spread_is_of_references_without_themselves(images):
    network, groups = Late().eval(), references(4, HC=4, PD=1)
    spread = training_spread(network, [groups])
    assert set(spread) == set(ROIS)
    assert set(spread["a"]) == {"HC"}  # one subject of PD has no spread
    values = []
    for i in range(4):
        others = {"HC": torch.cat([groups["HC"][:i], groups["HC"][i + 1 :]]), "PD": groups["PD"]}
        network.forward = lambda _images, i=i: {"patient": groups["HC"][i : i + 1]}
        values.append(oracle(network, images, others, prob)[0]["a"])
    assert spread["a"]["HC"] == pytest.approx(np.quantile(values, [0.1, 0.5, 0.9]), abs=1e-6)


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
    assert "the mean over training subjects (3 HC, 3 PD), whose regions take" in page
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
