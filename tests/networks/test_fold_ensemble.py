import pytest
import torch

from mrn_components import FoldEnsemble
from mrn_components.networks.ensemble import folds_of, merge_logits


@pytest.fixture
def ensemble(tiny_mrn):
    """Three folds with unequal weights, in inference."""
    network = FoldEnsemble(network=tiny_mrn(dpt=None), num_folds=3)
    for fold in network.folds:
        with torch.no_grad():
            fold.classifier[-1].weight.normal_(std=5)
    return network.eval()


def test_the_probability_is_the_mean_of_the_folds(ensemble, images, close):
    output = ensemble(images)
    alone = [fold(images)["logits"] for fold in ensemble.folds]
    close(output["fold_logits"], torch.stack(alone, 1), 0)
    mean = torch.stack([logits.softmax(-1) for logits in alone]).mean(0)
    close(output["logits"].softmax(-1), mean, 1e-6)
    of_mean_logits = torch.stack(alone).mean(0).softmax(-1)
    assert (of_mean_logits - mean).abs().max() > 1e-3  # probabilities, not logits, are averaged


def test_one_fold_is_the_network_itself(tiny_mrn, images, close):
    network = tiny_mrn(dpt=None).eval()
    expected = network(images)["logits"].softmax(-1)
    close(FoldEnsemble(network=network, num_folds=1)(images)["logits"].softmax(-1), expected, 1e-6)


def test_a_network_is_its_own_only_fold(ensemble):
    assert folds_of(ensemble) == list(ensemble.folds)
    assert folds_of(ensemble.folds[0]) == [ensemble.folds[0]]


def test_folds_share_no_parameter(ensemble):
    parameters = [id(parameter) for parameter in ensemble.parameters()]
    assert len(parameters) == 3 * len(list(ensemble.folds[0].parameters()))


def test_certain_folds_stay_finite():
    class Certain(torch.nn.Module):
        def forward(self, _images):
            return {"logits": torch.tensor([[-1e4, 1e4]])}

    output = FoldEnsemble(network=Certain(), num_folds=2)(None)
    assert output["logits"].softmax(-1).tolist() == [[0.0, 1.0]]


@pytest.mark.parametrize("outputs", [1, 2, 3])
def test_a_fold_that_is_not_a_number_is_not_hidden(outputs):
    good, bad = torch.zeros(2, outputs), torch.zeros(2, outputs)
    bad[1, 0] = torch.nan
    merged = merge_logits([good, bad, good], "members")["logits"]
    assert merged.isfinite().all(-1).tolist() == [True, False]
    assert merged.softmax(-1)[1].isnan().all()


def test_scores_are_averaged():
    merged = merge_logits([torch.tensor([[12.0]]), torch.tensor([[-3.0]])], "members")
    assert merged["logits"].tolist() == [[4.5]]
    assert merged["members"].tolist() == [[[12.0], [-3.0]]]


def test_at_least_one_fold(tiny_mrn):
    with pytest.raises(ValueError, match="num_folds must be at least 1, got 0"):
        FoldEnsemble(network=tiny_mrn(), num_folds=0)
