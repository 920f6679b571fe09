"""How many different experts a forward reads, by its own router."""

import mlx.core as mx
import numpy as np
import pytest

from mtp_mlx.model.routes import Routes


def test_experts_are_counted_once_a_layer():
    routes = Routes()
    routes.add(mx.array([[0, 1], [1, 2], [3, 0]], mx.uint32), 4)
    routes.add(mx.array([[5, 1], [5, 1], [5, 1]], mx.uint32), 6)
    assert routes.distinct([0, 1, 2]).tolist() == [4 + 2, 4 + 2]
    assert routes.distinct([0]).tolist() == [2 + 2, 4 + 2]
    assert routes.distinct([0, 2]).tolist() == [3 + 2, 4 + 2]


@pytest.mark.parametrize("seed", range(5))
def test_counts_are_those_of_sets(seed):
    dice = np.random.default_rng(seed)
    routes, layers = Routes(), [dice.integers(0, 16, (9, 3)) for _ in range(4)]
    for ids in layers:
        routes.add(mx.array(ids), 16)
    pending = [0, 4, 5]
    expected = [sum(len(set(ids[rows].flat)) for ids in layers) for rows in (pending, slice(None))]
    assert routes.distinct(pending).tolist() == expected
