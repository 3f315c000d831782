"""Whether a site can be told from numbers, against shuffled sites."""

import numpy as np

from mrn_components.checks.groups import tell_groups


def cohort(shift, seed=0, count=60):
    rng = np.random.default_rng(seed)
    groups = np.array(list("AB"))[rng.integers(2, size=count)]
    labels = (rng.random(count) < np.where(groups == "A", 0.2, 0.8)).astype(int)  # confounded
    values = rng.normal(size=(count, 3)) + 2 * labels[:, None] * [1, 0, 0]
    values[:, 1] += shift * (groups == "B")
    values[::9, 2] = np.nan
    return values, groups.tolist(), labels.tolist(), [f"P{i}" for i in range(count)]


def test_a_site_that_shifts_numbers_is_told():
    found = tell_groups(*cohort(shift=3.0))
    assert found.accuracy > 0.85
    assert found.p == 0.01  # of 99 shuffles and itself
    assert str(found).startswith("can be told: balanced accuracy")


def test_a_disease_that_is_more_frequent_at_a_site_does_not_make_it_told():
    found = [tell_groups(*cohort(shift=0.0, seed=seed)) for seed in range(3)]
    assert min(one.p for one in found) > 0.05
    assert found[0].shuffled > 0.6  # chance, given the labels


def test_scans_of_a_person_count_once_and_too_few_are_no_test():
    values, groups, labels, _ = cohort(shift=3.0)
    people = [f"P{i // 20}" for i in range(60)]
    found = tell_groups(values, groups, labels, people)
    assert found.accuracy is None
    assert str(found) == "no test: needs two groups of 5 people at least"
