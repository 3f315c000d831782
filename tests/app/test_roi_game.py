"""Hidden ROIs replaced by those of reference subjects: an independent game, and its laws."""

from itertools import permutations

import numpy as np
import pytest
import torch
from tiny_late import ROIS, Late

from mrn_components import FoldEnsemble
from mrn_components.app.roi_game import masked_values, roi_shapley, training_spread
from mrn_components.data.target import HC_PD, Score

TARGETS = {"classes": HC_PD, "score": Score(name="updrs", range=[0, 80])}


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
