"""A chunk of a prompt of which the last state alone is wanted: as if every layer had run it all."""

import mlx.core as mx
import numpy as np
import pytest

from mtp_mlx.model.batch import Batch, Row
from mtp_mlx.model.cache import Cache
from tests.exact.pairs import embedded_pair, golden_pair
from tests.golden import recipe

# Of two chunks: a token, less than a window, several laps of a ring with parts of laps around them.
LENGTHS = [(1, 1), (5, 90), (150, 1), (40, 200)]


def stored(cache: Cache) -> list[np.ndarray]:
    rings = [a for ring in cache.window.values() for a in (ring.keys, ring.values)]
    full = [b for each in cache.full.values() for b in (each.keys[0], each.values[0])]
    return [np.array(array) for array in (*rings, *full)]


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("variant", [*recipe.VARIANTS, "tiny", "tiny-moe"])
def test_the_last_state_and_the_keys_are_those_of_the_whole_forward(variant, lengths):
    pair = embedded_pair(variant) if variant.startswith("tiny") else golden_pair(variant)
    target = pair.target
    whole, short = (target.new_cache(1, 8) for _ in range(2))
    ids = np.random.RandomState(3).randint(3, 200, sum(lengths)).astype(np.int32)
    for start, length in zip((0, lengths[0]), lengths, strict=True):
        row = (Row(0, start, length),)
        batch = Batch.of(row, mx.array(ids[start : start + length]), is_chunk=True)
        expected = target(batch, whole)[-1:]
        found, below = target.prefill(batch, short)
        assert below.shape == (length, target.config.hidden_size)
        assert np.array_equal(np.array(found), np.array(expected))
        whole.commit(0, length)
        short.commit(0, length)
    for one, other in zip(stored(whole), stored(short), strict=True):
        assert np.array_equal(one, other)


def test_tokens_of_a_prompt_do_not_run_in_layers_that_only_read():
    """e2b's pattern: the states are as wide as the prompt up to the last layer that owns K/V."""
    target = golden_pair("e2b").target
    owning = [layer.self_attn.spec.owns_cache for layer in target.layers]
    assert not all(owning)
    widths = []

    class Counting:
        def __init__(self, layer):
            self.layer = layer

        def __call__(self, x, *rest):
            widths.append(x.shape[0])
            return self.layer(x, *rest)

    layers = target.layers
    target.layers = [Counting(layer) for layer in layers]
    try:
        batch = Batch.of((Row(0, 0, 30),), mx.arange(3, 33), is_chunk=True)
        target.prefill(batch, target.new_cache(1, 8))
    finally:
        target.layers = layers
    assert widths == [30 if owns else 1 for owns in owning]
