"""Every weight of the embedded pairs matters, and every expert works."""

import re
from collections import Counter

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten

from mtp_mlx.engine.forced import logits, prefill
from mtp_mlx.model.batch import Batch, Row
from mtp_mlx.model.ffn import Router
from mtp_mlx.model.view import draft_view
from tests.embedded import held_out
from tests.exact.pairs import Pair, embedded_pair, fresh_embedded_pair

CHUNK = 1024
SEED = 31
NUM_TEXTS = 60
LENGTH = 64  # of the text that is scored: beyond both windows
NUM_EXPERTS = 16
BUSIEST = 4.0


def neutral(name: str, value: mx.array) -> mx.array:
    """What a tensor is replaced by: ones for a scale, zeros for a matrix."""
    is_scale = "norm" in name or name.endswith(("scalar", "scale"))
    return mx.ones_like(value) if is_scale else mx.zeros_like(value)


def with_neutral(module, name: str, value: mx.array):
    module.update(tree_unflatten([(name, value)]))


def draft_scores(pair: Pair, ids: list[int]) -> np.ndarray:
    """The drafter's scores after ids[-1], and the state it hands on."""
    cache = pair.target.new_cache(1, 8)
    hidden = prefill(pair.target, cache, ids[:-1], CHUNK)[-1][-1:]
    view = draft_view(cache, (0,))
    embedded = pair.target.embed(mx.array(ids[-1:]))
    scores, state = pair.drafter.step(embedded, hidden, view)
    return np.concatenate([np.array(scores.scores).ravel(), np.array(state).ravel()])


def target_scores(pair: Pair, ids: list[int]) -> np.ndarray:
    return logits(pair.target, ids, CHUNK)


def of_each_kind(tensors: list[tuple[str, mx.array]]) -> list[tuple[str, mx.array]]:
    """The first and the last tensor of every name, layer numbers apart.

    Without integers: the centroid head's ordering has a test of its own.
    """
    kinds: dict[str, list[tuple[str, mx.array]]] = {}
    for key, value in tensors:
        if mx.issubdtype(value.dtype, mx.floating):
            kinds.setdefault(re.sub(r"\d+", "#", key), []).append((key, value))
    return [found[at] for found in kinds.values() for at in sorted({0, len(found) - 1})]


@pytest.mark.parametrize("name", held_out.NAMES)
@pytest.mark.parametrize("role", ["target", "drafter"])
def test_each_kind_of_tensor_changes_the_scores(name, role):
    pair = fresh_embedded_pair(name)
    module, scores = {
        "target": (pair.target, target_scores),
        "drafter": (pair.drafter, draft_scores),
    }[role]
    ids = held_out.writer(name).text(held_out.examples(1, SEED, ["stories"])[0]).ids[:LENGTH]
    before = scores(pair, ids)
    idle = []
    for key, value in of_each_kind(tree_flatten(module.parameters())):
        with_neutral(module, key, neutral(key, value))
        after = scores(pair, ids)
        if np.array_equal(before, after, equal_nan=True):
            idle.append(key)
        with_neutral(module, key, value)
    assert not idle
    assert np.array_equal(before, scores(pair, ids), equal_nan=True)


def test_the_ordering_of_the_centroid_head_is_no_identity():
    ordering = np.array(embedded_pair("tiny").drafter.masked_embedding.token_ordering)
    assert sorted(ordering) == list(range(len(ordering)))
    assert (ordering != np.arange(len(ordering))).mean() > 0.9


def test_all_experts_of_all_layers_work(monkeypatch):
    target = embedded_pair("tiny-moe").target
    counts: dict[int, Counter[int]] = {}
    route = Router.__call__

    def recorded(self, x):
        ids, weights = route(self, x)
        counts.setdefault(id(self), Counter()).update(np.array(ids).ravel().tolist())
        return ids, weights

    monkeypatch.setattr(Router, "__call__", recorded)
    for example in held_out.examples(NUM_TEXTS, SEED):
        ids = held_out.writer("tiny-moe").text(example).ids
        cache = target.new_cache(1, 8)
        target(Batch.of((Row(0, 0, len(ids)),), mx.array(ids), is_chunk=True), cache)
    assert len(counts) == len(target.layers)
    for layer, uses in enumerate(counts.values()):
        assert len(uses) == NUM_EXPERTS, f"layer {layer} uses {sorted(uses)}"
        mean = sum(uses.values()) / NUM_EXPERTS
        assert max(uses.values()) <= BUSIEST * mean, f"layer {layer}: {uses.most_common(1)}"
