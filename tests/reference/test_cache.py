"""The twin's cache: what it refuses, and what it keeps apart."""

from dataclasses import replace

import numpy as np
import pytest

from mtp_mlx.config import LayerSpec, RopeSpec
from mtp_mlx.reference.batch import Batch, Row
from mtp_mlx.reference.cache import Cache
from mtp_mlx.reference.view import draft_view, target_view

FULL = LayerSpec(
    index=0, window=None, heads=1, kv_heads=1, head_dim=2, rope=RopeSpec(2, 1e4, 1, 1.0),
    reads_from=0, owns_cache=True, keys_are_values=False, ffn_dim=2, experts=None,
)  # fmt: skip
SLIDING = replace(FULL, index=1, window=3, reads_from=1)
READER = replace(SLIDING, index=2, owns_cache=False)


def write(cache: Cache, slot: int, start: int, values: list[float]) -> None:
    """Stores a block whose value at each position is a number, under keys that all score alike."""
    row = Row(slot, start, len(values))
    view = target_view(cache, Batch.of((row,), np.zeros(len(values), dtype=np.int32)))
    stored = np.repeat(np.array(values, dtype=np.float32), 2).reshape(-1, 1, 2)
    for layer in (0, 1):
        view.write(layer, np.zeros_like(stored), stored)


def seen(cache: Cache, slot: int, layer: int, extra_keys: int = 0) -> float:
    """Mean of the values that the drafter sees."""
    view = draft_view(cache, (slot,), extra_keys)
    return float(view.attend(layer, np.zeros((1, 1, 2), dtype=np.float32))[0, 0])


@pytest.fixture
def cache() -> Cache:
    return Cache((FULL, SLIDING, READER), 2, 4, np.dtype(np.float32))


def test_the_drafter_sees_the_committed_tokens_and_of_those_the_window(cache):
    write(cache, 0, 0, [1, 2, 3, 4])
    cache.commit(0, 4)
    write(cache, 0, 4, [6, 100, 100])
    cache.commit(0, 1)
    assert seen(cache, 0, 0) == pytest.approx((1 + 2 + 3 + 4 + 6) / 5)
    assert seen(cache, 0, 1) == pytest.approx((3 + 4 + 6) / 3)
    assert seen(cache, 0, 1, extra_keys=1) == pytest.approx((2 + 3 + 4 + 6) / 4)


def test_layers_that_own_nothing_store_nothing(cache):
    assert cache.keys.keys() == cache.values.keys() == {0, 1}


def test_a_copy_goes_its_own_way(cache):
    write(cache, 0, 0, [1, 2])
    cache.commit(0, 2)
    cache.copy(0, 1)
    write(cache, 1, 2, [9])
    cache.commit(1, 1)
    write(cache, 0, 2, [3])
    cache.commit(0, 1)
    assert (seen(cache, 0, 0), seen(cache, 1, 0)) == (2.0, 4.0)
    cache.release(0)
    assert cache.lengths == [0, 3]
    assert seen(cache, 1, 0) == 4.0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ((Row(1, 0, 1), Row(0, 1, 1)), "is committed already"),
        ((Row(1, 0, 1), Row(0, 3, 1)), "nothing lies before"),
        ((Row(1, 0, 1), Row(0, 2, 5)), "a block of 5 tokens"),
    ],
)
def test_forwards_that_do_not_continue_a_row_are_refused_and_change_nothing(cache, rows, message):
    write(cache, 0, 0, [1, 2])
    cache.commit(0, 2)
    with pytest.raises(ValueError, match=message):
        cache.begin(rows, is_chunk=False)
    with pytest.raises(ValueError, match="commit of 1 tokens"):
        cache.commit(1, 1)


@pytest.mark.parametrize("count", [-1, 2])
def test_only_tokens_of_the_latest_forward_are_committed(cache, count):
    write(cache, 0, 0, [1, 2, 3, 4])
    cache.commit(0, 1)
    write(cache, 0, 1, [5])
    with pytest.raises(ValueError, match="slot 0"):
        cache.commit(0, count)
    assert cache.lengths == [1, 0]
