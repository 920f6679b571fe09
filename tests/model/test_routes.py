"""How many different experts a forward reads, by its own router."""

import mlx.core as mx
import numpy as np
import pytest

from mtp_mlx.model.routes import Routes
from mtp_mlx.reference.routes import Routes as Twin
from tests import tiny_configs
from tests.both_forms import BothCaches, both_models


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
    routes, twin = Routes(), Twin()
    layers = [dice.integers(0, 16, (9, 3)) for _ in range(4)]
    for ids in layers:
        routes.add(mx.array(ids), 16)
        twin.add(ids, 16)
    pending = [0, 4, 5]
    expected = [sum(len(set(ids[rows].flat)) for ids in layers) for rows in (pending, slice(None))]
    assert routes.distinct(pending).tolist() == twin.distinct(pending).tolist() == expected


def test_both_forms_of_a_model_choose_the_same_experts():
    ours, _, theirs, _ = both_models(tiny_configs.pair("26b", seed=1))
    caches = BothCaches(ours.config.layers, 3)
    routes, twin = Routes(), Twin()
    batch, np_batch = caches.batches({0: 4, 1: 2}, ours.config.vocab_size)
    ours(batch, caches.ours, routes)
    theirs(np_batch, caches.theirs, twin)
    few, every = routes.distinct([0, 4]).tolist()
    assert twin.distinct([0, 4]).tolist() == [few, every]
    assert 0 < few < every
