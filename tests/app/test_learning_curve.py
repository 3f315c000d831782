"""``mrn crossval --learning_curve``: a cross-validation a share, and the curve."""

import csv
import json

import pytest

from mrn_components.app.crossval import crossval
from mrn_components.app.learning_curve import learn
from mrn_components.metrics import diagnosis_metrics
from mrn_components.system.files import write_json


def cross_validate(output, training_share, **overrides):
    """Write what ``mrn crossval`` does of 40 subjects: more are right after more training."""
    labels = [0, 1] * 20
    right = int(40 * (0.5 + training_share / 3))
    prob = [0.8 if (label == 1) == (i < right) else 0.3 for i, label in enumerate(labels)]
    overall = json.loads(json.dumps(diagnosis_metrics(prob, labels)))
    content = {"num_subjects": 40, "folds": [{}] * 5, "overall": overall, "options": overrides}
    write_json(output / "crossval.json", content)
    return output


def test_each_share_is_cross_validated_and_stands_in_the_curve(tmp_path, capsys):
    assert learn(cross_validate, tmp_path, [100, 25, 50], {"epochs": 3}) == tmp_path
    rows = list(csv.DictReader((tmp_path / "learning_curve.csv").open()))
    assert [row["percent"] for row in rows] == ["25", "50", "100"]
    assert [row["training_subjects"] for row in rows] == ["8", "16", "32"]
    accuracy = [float(row["accuracy"]) for row in rows]
    assert accuracy == sorted(accuracy)
    assert accuracy[0] < accuracy[-1]
    assert float(rows[0]["accuracy_low"]) < accuracy[0] < float(rows[0]["accuracy_high"])
    options = json.loads((tmp_path / "share025" / "crossval.json").read_text())["options"]
    assert options == {"epochs": 3, "cache_dir": str(tmp_path / "cache")}
    assert (tmp_path / "learning_curve.png").stat().st_size > 1000
    assert "Training subjects of a fold" in (tmp_path / "learning_curve.svg").read_text()
    assert "25 % of the training subjects" in capsys.readouterr().out


def test_folds_that_are_not_all_done_have_no_point(tmp_path):
    learn(lambda output, **_: output, tmp_path, [50], {})
    assert not list(tmp_path.glob("learning_curve*"))


@pytest.mark.parametrize("percents", [[0], [50, 101], [-5]])
def test_percents_are_percents(tmp_path, percents):
    with pytest.raises(ValueError, match=r"percents above 0 and at most 100, got \["):
        crossval(tmp_path, tmp_path / "cv", learning_curve=percents)
