"""The models outside a generation: teacher-forced logits, and drafts for a given prefix."""

from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from mtp_mlx.model.backend import read_ints
from mtp_mlx.model.batch import Batch, Row
from mtp_mlx.model.cache import Cache
from mtp_mlx.model.choose import Choice, choose
from mtp_mlx.model.drafter import Drafts
from mtp_mlx.model.target import Target
from mtp_mlx.model.view import draft_view
from mtp_mlx.request import MAX_DRAFT_TOKENS, Sampling


def prefill(
    target: Target, cache: Cache, ids: Sequence[int], chunk: int, slot: int = 0
) -> list[mx.array]:
    """Run `ids` through an empty slot of a cache; the hidden states [T, D] of each chunk."""
    states = []
    for start in range(0, len(ids), chunk):
        part = list(ids[start : start + chunk])
        batch = Batch.of((Row(slot, start, len(part)),), mx.array(part), is_chunk=True)
        hidden = target(batch, cache)
        mx.eval(hidden)
        cache.commit(slot, len(part))
        states.append(hidden)
    return states


def logits(target: Target, ids: Sequence[int], chunk: int) -> np.ndarray:
    """Teacher-forced logits [L, V] float32 of the target: row i predicts token i + 1."""
    cache = target.new_cache(1, MAX_DRAFT_TOKENS + 1)
    states = prefill(target, cache, ids, chunk)
    return np.concatenate([np.array(target.logits(hidden)) for hidden in states])


def drafts(
    target: Target, drafter: Drafts, ids: Sequence[int], count: int, chunk: int
) -> list[int]:
    """The drafter's greedy tokens after ids[-1], which is pending (position L - 1)."""
    cache = target.new_cache(1, MAX_DRAFT_TOKENS + 1)
    hidden = prefill(target, cache, ids[:-1], chunk)[-1][-1:]
    view = draft_view(cache, (0,))
    token = mx.array([ids[-1]])
    drafted = []
    for depth in range(count):
        scores, hidden = drafter.step(target.embed(token), hidden, view)
        token = choose(scores, Choice([Sampling()], [len(ids) + depth]))
        drafted.append(token)
    return read_ints(mx.concatenate(drafted))
