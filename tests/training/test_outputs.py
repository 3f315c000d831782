"""A network's output as columns of tables and as stock metrics, of each kind of target."""

import numpy as np
import pytest
import torch
from monai.engines import SupervisedEvaluator
from scipy.stats import pearsonr
from sklearn.metrics import accuracy_score, f1_score, log_loss, roc_auc_score

from mrn_components import Classes, DiagnosisOutputd, Score, additional_metrics, key_metric

THREE = Classes(names=["HC", "PD", "MSA"])
SWAPPED = Classes(names=["PD", "HC"])
UPDRS = Score(name="updrs", range=[0, 100])


@pytest.mark.parametrize("shape", [(2,), (3, 2)])
def test_outputs_become_probabilities_batched_or_not(shape):
    logits = torch.randn(shape)
    label = torch.ones(shape[:-1], dtype=torch.int64)
    d = DiagnosisOutputd()({"pred": {"logits": logits}, "label": {"label": label, "masks": {}}})
    assert torch.equal(d["pred"], logits.softmax(-1))
    assert torch.equal(d["prob_pd"], d["pred"][..., 1])
    assert torch.equal(d["label"], label)


def test_outputs_without_labels_pass():
    d = DiagnosisOutputd()({"pred": {"logits": torch.zeros(1, 2)}, "label": {"masks": {}}})
    assert d["prob_pd"].tolist() == [0.5]


def test_outputs_of_plain_logits_become_probabilities():
    d = DiagnosisOutputd()({"pred": torch.zeros(1, 2)})  # as MONAI Deploy hands them over
    assert d["pred"].tolist() == [[0.5, 0.5]]


def test_three_classes_have_a_probability_each_of_folds_too():
    logits = {"logits": torch.randn(4, 3), "fold_logits": torch.randn(4, 5, 3)}
    d = DiagnosisOutputd(target=THREE)({"pred": logits})
    found = torch.stack([d[f"prob_{name}"] for name in ("hc", "pd", "msa")], dim=-1)
    assert torch.equal(found, logits["logits"].softmax(-1))
    assert torch.equal(d["prob_msa_folds"], logits["fold_logits"].softmax(-1)[..., 2])


def test_a_score_is_in_its_unit_and_its_range_and_nothing_hides_that_it_is_no_number():
    outputs = torch.tensor([[-0.25], [-0.6], [0.8], [float("nan")], [float("inf")]])
    d = DiagnosisOutputd(target=Score(name="updrs", range=[20, 60]))({"pred": outputs})
    assert d["updrs"][:3].tolist() == [30, 20, 60]
    assert d["updrs"][3:].isnan().all()


def validate(target, outputs, labels):
    """MONAI's evaluator on outputs of a network, in batches of two."""
    data = [
        {"image": outputs[i : i + 2], "label": labels[i : i + 2]} for i in range(0, len(labels), 2)
    ]
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=data,
        network=torch.nn.Identity(),
        prepare_batch=lambda batch, *_, **__: (batch["image"], {"label": batch["label"]}),
        postprocessing=DiagnosisOutputd(target=target),
        key_val_metric=key_metric(target=target),
        additional_metrics=additional_metrics(target=target),
        decollate=False,
    )
    evaluator.run()
    return evaluator.state.metrics


@pytest.mark.parametrize("target", [Classes(), SWAPPED, THREE])
def test_metrics_of_classes_are_those_of_scikit_learn(target):
    count = len(target.names)
    labels = torch.arange(24) % count
    outputs = torch.randn(24, count, generator=torch.Generator().manual_seed(1))
    prob, found = outputs.softmax(1).numpy(), outputs.argmax(1).numpy()
    truth = labels.numpy()
    auc = roc_auc_score(truth, prob if count > 2 else prob[:, 1], multi_class="ovr")
    assert validate(target, outputs, labels) == pytest.approx(
        {
            "roc_auc": auc,
            "validation_loss": log_loss(truth, prob.astype(float)),
            "accuracy": accuracy_score(truth, found),
            "f1_macro": f1_score(truth, found, average="macro"),
        }
    )


def test_metrics_of_a_score_are_those_of_scipy():
    labels = torch.linspace(0, 100, 24)
    outputs = labels[:, None] / 200 + 0.1 * torch.rand(24, 1) - 0.4
    values = 100 * (0.5 + outputs[:, 0].numpy())
    metrics = validate(UPDRS, outputs, labels)
    assert metrics["pearson"] == pytest.approx(pearsonr(values, labels.numpy())[0], abs=1e-4)
    squared = np.square(values - labels.numpy())
    assert metrics["validation_loss"] == pytest.approx(squared.mean(), rel=1e-5)
    assert metrics["mae"] == pytest.approx(np.abs(values - labels.numpy()).mean(), rel=1e-5)


def test_a_probability_that_rounded_to_zero_has_a_finite_loss():
    metrics = validate(Classes(), torch.tensor([[200.0, 0.0]] * 2), torch.tensor([0, 1]))
    assert 40 < metrics["validation_loss"] < 50
