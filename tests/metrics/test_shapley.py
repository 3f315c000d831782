"""Shapley values against the definition, the axioms and captum."""

from itertools import chain, combinations, permutations

import numpy as np
import pytest
import torch
from captum.attr import ShapleyValues

from mrn_components.metrics.shapley import shapley_values

PLAYERS = ["a", "b", "c", "d"]


def subsets(players):
    return chain.from_iterable(combinations(players, n) for n in range(len(players) + 1))


@pytest.fixture
def game():
    rng = np.random.default_rng(0)
    return {frozenset(s): float(rng.random()) for s in subsets(PLAYERS)}


def test_they_equal_captum(game):
    def value(visible):
        teams = [{p for p, on in zip(PLAYERS, row, strict=True) if on} for row in visible]
        return torch.tensor([game[frozenset(team)] for team in teams], dtype=torch.float64)

    ones = torch.ones(1, len(PLAYERS), dtype=torch.float64)
    expected = ShapleyValues(value).attribute(ones, baselines=0.0)[0]
    got = shapley_values(game, PLAYERS)
    np.testing.assert_allclose([got[player] for player in PLAYERS], expected, atol=1e-7)


def test_they_are_the_mean_over_orders(game):
    got = shapley_values(game, PLAYERS)
    orders = list(permutations(PLAYERS))
    for player in PLAYERS:
        gains = [
            game[frozenset(order[: order.index(player) + 1])]
            - game[frozenset(order[: order.index(player)])]
            for order in orders
        ]
        assert got[player] == pytest.approx(sum(gains) / len(orders), abs=1e-12)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_they_sum_to_all_less_none(game, count):
    players = PLAYERS[:count]
    total = sum(shapley_values(game, players).values())
    assert total == pytest.approx(game[frozenset(players)] - game[frozenset()], abs=1e-12)


def test_an_additive_game_gives_each_its_own():
    own = {"a": 0.5, "b": -0.25, "c": 0.0}
    game = {frozenset(s): 0.1 + sum(own[p] for p in s) for s in subsets(own)}
    assert shapley_values(game, list(own)) == pytest.approx(own, abs=1e-12)
