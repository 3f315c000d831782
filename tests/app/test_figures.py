"""Figures of an evaluation: what they say, and that nothing odd breaks them."""

import sys
import warnings
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from mrn_components.app.figures import Scored, write_figures
from mrn_components.data.target import HC_PD, Classes, Score
from mrn_components.metrics import diagnosis_metrics


def scored(name, prob, truth):
    prob, truth = np.array(prob), np.array(truth)
    return Scored(name, prob, diagnosis_metrics(prob, truth), HC_PD.confusion(prob, truth))


def texts(path):
    return [
        "".join(element.itertext())
        for element in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")
    ]


@pytest.fixture
def models():
    rng = np.random.default_rng(9)
    truth = np.arange(60) % 2
    probs = [np.clip(rng.normal(0.35 + 0.3 * truth, 0.2), 0, 1) for _ in range(2)]
    return [scored(name, prob, truth) for name, prob in zip("AB", probs, strict=True)], truth


def test_every_figure_says_what_it_shows(models, tmp_path):
    models, truth = models
    write_figures(models, truth, tmp_path)
    for name, title in [("roc", "ROC"), ("reliability", "Reliability"), ("confusion", "Confusion")]:
        words = texts(tmp_path / f"{name}.svg")
        assert f"{title}, 60 subjects, 30 PD" in words
        assert "Research use only" in words
        with Image.open(tmp_path / f"{name}.png") as image:
            assert min(image.size) >= 600
            assert np.asarray(image.convert("L")).std() > 10  # something is drawn
    auc = models[0].metrics["roc_auc"]
    interval = f"{auc['low']:.3f} to {auc['high']:.3f}"
    assert f"A: AUC {auc['value']:.3f} (DeLong 95%: {interval})" in texts(tmp_path / "roc.svg")
    assert any(word.startswith("B: ECE 0.") for word in texts(tmp_path / "reliability.svg"))
    words = texts(tmp_path / "confusion.svg")
    count = models[1].confusion["true_pd"]
    assert {str(count), f"{count / 30:.0%}", "HC", "PD", "Label", "Prediction"} <= set(words)


def test_of_three_classes_each_has_a_curve(tmp_path):
    target = Classes(names=["HC", "PD", "MSA"])
    truth = np.arange(30) % 3
    prob = np.random.default_rng(0).dirichlet([1, 1, 1], 30)
    own = {"confusion": target.confusion(prob, truth), "calibrated": prob[:, ::-1]}
    write_figures([Scored("A", prob, target.metrics(prob, truth), **own)], truth, tmp_path, target)
    for name in ("roc", "reliability"):
        words = " ".join(texts(tmp_path / f"{name}.svg"))
        assert all(f"{each}: " in words or f"{each} against" in words for each in target.names)
    assert "Reliability of A, calibrated, 30 subjects, 10 HC, 10 PD, 10 MSA" in words
    assert str(own["confusion"]["msa_as_pd"]) in texts(tmp_path / "confusion.svg")


def test_of_a_score_errors_have_limits_of_agreement(tmp_path):
    target = Score(name="updrs", unit="points", range=[0, 60])
    truth = np.arange(20.0)
    score = truth + np.where(truth % 2, 3, 1)  # errors of 2 on average, their SD is 1.026
    write_figures([Scored("A", score, target.metrics(score, truth), {})], truth, tmp_path, target)
    assert "A: +2, 95% within 2.01 of it" in texts(tmp_path / "difference.svg")
    assert not (tmp_path / "roc.svg").exists()


@pytest.mark.parametrize(
    ("prob", "truth", "word"),
    [
        ([0.2, 0.7, 0.9], [1, 1, 1], "Undefined: the subjects are of one class"),
        ([0.2], [0], "Undefined: the subjects are of one class"),
        ([0.0, 0.1, 0.9, 1.0], [0, 0, 1, 1], "x: AUC 1.000"),
        ([0.5] * 6, [0, 1] * 3, "x: AUC 0.500"),
    ],
)
def test_the_limits_are_drawn_without_a_warning(prob, truth, word, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_figures([scored("x", prob, truth)], np.array(truth), tmp_path)
    assert word in texts(tmp_path / "roc.svg")


def test_names_that_matplotlib_would_read_otherwise_are_shown(tmp_path):
    name = "_$a_{ & <b> " + "long" * 10
    model = scored(name, [0.1, 0.4, 0.3, 0.9], [0, 1, 0, 1])
    write_figures([model], np.array([0, 1, 0, 1]), tmp_path)
    assert any(word.startswith("$a_{ & <b> longlong") for word in texts(tmp_path / "roc.svg"))
    assert "…" in model.label


def test_no_figure_stays_open(models, tmp_path):
    write_figures(*models, tmp_path)
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()
