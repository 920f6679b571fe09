"""Both forms of the model side by side: their caches, batches and models, and random histories."""

from collections.abc import Callable
from typing import Protocol

import mlx.core as mx
import numpy as np

from mtp_mlx.config import LayerSpec
from mtp_mlx.model import batch, cache, drafter, target
from mtp_mlx.reference import batch as np_batch
from mtp_mlx.reference import cache as np_cache
from mtp_mlx.reference import drafter as np_drafter
from mtp_mlx.reference import target as np_target
from tests.tiny_configs import TinyPair

MAX_BLOCK = 4
NUM_SLOTS = 4


class Forward(Protocol):
    """Feeds blocks[slot] random tokens to each slot of both forms and compares what comes out."""

    def __call__(self, blocks: dict[int, int], *, is_chunk: bool = False) -> None: ...


def random_array(seed: int, *shape: int) -> np.ndarray:
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)


def distance(ours: mx.array, theirs: np.ndarray) -> float:
    """Largest difference of an MLX array and its twin, which must have one shape and type."""
    found = np.array(ours)
    assert found.shape == theirs.shape
    assert found.dtype == theirs.dtype
    return float(np.abs(found - theirs).max()) if found.size else 0.0


class BothCaches:
    """The MLX cache and its twin, put through the same history."""

    def __init__(self, layers: tuple[LayerSpec, ...], seed: int) -> None:
        self.layers = layers
        self.random = np.random.RandomState(seed)
        self.ours = cache.Cache(layers, NUM_SLOTS, MAX_BLOCK, mx.float32)
        self.theirs = np_cache.Cache(layers, NUM_SLOTS, MAX_BLOCK, np.float32)
        self.ahead = [0] * NUM_SLOTS  # provisional tokens of a row

    @property
    def lengths(self) -> list[int]:
        assert self.ours.lengths == self.theirs.lengths
        return self.theirs.lengths

    def batches(
        self, blocks: dict[int, int], vocab: int, *, is_chunk: bool = False
    ) -> tuple[batch.Batch, np_batch.Batch]:
        """Both forms of a batch of random tokens: blocks maps a slot to the tokens it gets."""
        starts = [length + ahead for length, ahead in zip(self.lengths, self.ahead, strict=True)]
        rows = [(slot, starts[slot], blocks[slot]) for slot in sorted(blocks)]
        tokens = self.random.randint(0, vocab, sum(blocks.values())).astype(np.int32)
        ours = tuple(batch.Row(*row) for row in rows)
        theirs = tuple(np_batch.Row(*row) for row in rows)
        for slot, count in blocks.items():
            self.ahead[slot] += count
        return (
            batch.Batch.of(ours, mx.array(tokens), is_chunk=is_chunk),
            np_batch.Batch.of(theirs, tokens, is_chunk=is_chunk),
        )

    def settle(self, slot: int) -> None:
        """Keep a random part of what is provisional, as a round does: at least one token."""
        count = self.random.randint(1, self.ahead[slot] + 1)
        self.commit(slot, count)

    def commit(self, slot: int, count: int) -> None:
        self.ours.commit(slot, count)
        self.theirs.commit(slot, count)
        self.ahead[slot] = 0

    def release(self, slot: int) -> None:
        self.ours.release(slot)
        self.theirs.release(slot)

    def copy(self, source: int, target: int) -> None:
        self.ours.copy(source, target)
        self.theirs.copy(source, target)

    def some(self, slots: list[int]) -> list[int]:
        """A random part of `slots`, not empty, in order."""
        count = self.random.randint(1, len(slots) + 1)
        return sorted(self.random.choice(slots, size=count, replace=False).tolist())


def run_history(
    both: BothCaches,
    forward: Forward,
    draft: Callable[[tuple[int, ...]], None],
    num_events: int,
) -> None:
    """Random prefills, blocks with rejects, releases and copies; `forward` and `draft` compare."""
    for _ in range(num_events):
        live = [slot for slot in range(NUM_SLOTS) if both.lengths[slot]]
        event = both.random.choice(["chunk", "block", "block", "block", "ahead", "release", "copy"])
        if event == "chunk" or not live:
            slot = int(both.random.randint(NUM_SLOTS))
            count = int(both.random.choice([1, 2, 5, 13, 30]))
            forward({slot: count}, is_chunk=True)
            both.commit(slot, count)
        elif event == "block":
            slots = both.some(live)
            draft(tuple(slots))
            forward({slot: int(both.random.randint(1, MAX_BLOCK + 1)) for slot in slots})
            for slot in slots:
                both.settle(slot)
        elif event == "ahead":  # plain steps behind each other, settled late
            for _ in range(2):
                forward({live[0]: 1})
            both.commit(live[0], 2)
        elif event == "release":
            both.release(live[-1])
        else:
            both.copy(live[0], (live[0] + 1) % NUM_SLOTS)


def both_models(
    pair: TinyPair,
) -> tuple[target.Target, drafter.Drafter, np_target.Target, np_drafter.Drafter]:
    """Target and drafter of a pair in MLX, then in NumPy."""
    arrays = [
        {key: mx.array(array) for key, array in weights.items()}
        for weights in (pair.target_weights, pair.drafter_weights)
    ]
    return (
        target.Target(pair.target_config, arrays[0]),
        drafter.Drafter(pair.drafter_config, arrays[1]),
        np_target.Target(pair.target_config, pair.target_weights),
        np_drafter.Drafter(pair.drafter_config, pair.drafter_weights),
    )
