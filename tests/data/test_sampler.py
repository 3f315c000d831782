"""BalancedSampler."""

from collections import Counter

import torch
from torch.utils.data import DataLoader

from mrn_components import BalancedSampler

LABELS = [0] * 5 + [1] * 9 + [2] * 3
SUBJECTS = [{"subject": f"s{i}", "label": label} for i, label in enumerate(LABELS)]


def test_batches_hold_the_classes_in_equal_numbers():
    loader = DataLoader(LABELS, batch_size=6, sampler=BalancedSampler(subjects=SUBJECTS))
    for batch in loader:
        assert len(set(Counter(batch.tolist()).values())) == 1


def test_everybody_comes_and_those_of_rarer_classes_more_often():
    sampler = BalancedSampler(subjects=SUBJECTS)
    counts = Counter(sampler)
    assert counts.total() == len(sampler) == 27
    assert set(counts) == set(range(len(LABELS)))
    assert {counts[i] for i in range(5, 14)} == {1}
    assert {counts[i] for i in range(5)} == {1, 2}
    assert {counts[i] for i in range(14, 17)} == {3}


def test_the_order_follows_from_the_global_seed():
    sampler = BalancedSampler(subjects=SUBJECTS)
    orders = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        orders.append(list(sampler))
    assert orders[0] == orders[1] != orders[2]


def test_subjects_of_a_score_come_once():
    sampler = BalancedSampler(subjects=[{"label": label} for label in (0.5, 2.0, 3.5)])
    assert sorted(sampler) == [0, 1, 2]
