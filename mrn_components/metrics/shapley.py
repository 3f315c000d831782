"""Shapley values: a sum shared fairly among those who made it."""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations


def shapley_values(
    value: Mapping[frozenset[str], float], players: Sequence[str]
) -> dict[str, float]:
    """Compute the Shapley value of each player of a cooperative game, exactly.

    A player's value is its marginal contribution, averaged over the orders in which the players
    may join. They sum to the ``value`` of the set of all players less that of the empty one.
    """
    n = len(players)
    result = {}
    for player in players:
        others = [other for other in players if other != player]
        result[player] = sum(
            (value[frozenset((*joined, player))] - value[frozenset(joined)])
            / (n * math.comb(n - 1, size))
            for size in range(n)
            for joined in combinations(others, size)
        )
    return result


def masked_states(rois: Sequence[str]) -> list[tuple[str, ...]]:
    """The subsets of ROIs to mask, in the order of Table 4: none, one, two, ..., all."""
    return [masked for count in range(len(rois) + 1) for masked in combinations(rois, count)]
