"""What follows a layer's attention: compiled once, with the weights that there are."""

import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import mlx.core as mx
import numpy as np
import pytest

from mtp_mlx.model import backend, tail
from mtp_mlx.model.linear import Linear
from mtp_mlx.model.norm import RMSNorm
from mtp_mlx.model.target import DecoderLayer
from tests.exact.pairs import golden_pair

NAMES = ["e2b", "26b", "31b"]  # with per-layer inputs, with experts, with neither
LENGTHS = [5, 1, 9]  # the first is the one that is traced
# The forms may differ in the order of a few roundings.
ATOL = 2e-5


def draw(seed: int, *shape: int) -> mx.array:
    return mx.random.normal(shape, key=mx.random.key(seed))


def by_parts(layer: DecoderLayer, x: mx.array, attended: mx.array, per_layer) -> mx.array:
    """The layer's own modules, one after the other."""
    residual = x + layer.post_attention_layernorm(attended)
    fed = layer.mlp(layer.pre_feedforward_layernorm(residual))
    if layer.has_experts:
        own = layer.post_feedforward_layernorm_1(fed)
        routed = layer.experts(layer.pre_feedforward_layernorm_2(residual), *layer.router(residual))
        fed = own + layer.post_feedforward_layernorm_2(routed)
    out = residual + layer.post_feedforward_layernorm(fed)
    if per_layer is not None:
        gated = plain_geglu(layer.per_layer_input_gate(out), per_layer)
        out = out + layer.post_per_layer_input_norm(layer.per_layer_projection(gated))
    return out * layer.layer_scalar


def plain_geglu(gate: mx.array, up: mx.array) -> mx.array:
    return 0.5 * gate * (1 + mx.tanh(0.7978845608 * (gate + 0.044715 * gate**3))) * up


class Still:
    """In place of a layer's attention: gives back what it is told to."""

    def __init__(self, attended: mx.array) -> None:
        self.attended = attended

    def __call__(self, x: mx.array, view: object) -> mx.array:
        return self.attended


@pytest.mark.parametrize("name", NAMES)
def test_a_compiled_tail_is_its_parts_at_every_length(name):
    config = golden_pair(name).target.config
    layer = golden_pair(name).target.layers[0]
    attention = layer.self_attn
    try:
        for length in LENGTHS:
            x, attended = draw(1, length, config.hidden_size), draw(2, length, config.hidden_size)
            dim = config.per_layer_dim
            per_layer = draw(3, length, dim) if dim else None
            layer.self_attn = Still(attended)
            found = layer(x, None, per_layer)
            expected = by_parts(layer, x, attended, per_layer)
            assert found.shape == x.shape
            assert np.allclose(np.array(found), np.array(expected), rtol=0, atol=ATOL)
    finally:
        layer.self_attn = attention


def kept() -> tuple[tail.Kept, Linear, RMSNorm]:
    line, norm = Linear(8, 8), RMSNorm(8, 1e-6)
    return tail.Kept(lambda x: norm(line(x)), line, norm), line, norm


@pytest.mark.parametrize("which", ["line", "norm"])
def test_a_new_weight_counts_from_the_next_call(which):
    function, line, norm = kept()
    x = draw(1, 3, 8)
    before = np.array(function(x))
    changed = {"line": line, "norm": norm}[which]
    changed.weight = changed.weight + draw(2, *changed.weight.shape)
    after = np.array(function(x))
    assert np.allclose(after, np.array(norm(line(x))), rtol=0, atol=1e-6)
    assert not np.allclose(after, before, atol=1e-2)


def test_it_is_compiled_once_for_all_lengths(monkeypatch):
    made = []
    monkeypatch.setattr(tail, "compiled", lambda each: made.append(each) or backend.compiled(each))
    function, *_ = kept()
    for length in (3, 1, 7):
        assert function(draw(1, length, 8)).shape == (length, 8)
    assert len(made) == 1


def test_what_one_thread_compiled_runs_in_another():
    """Streams are a thread's own: what is left to compute in a compiled graph would be lost."""
    function, line, norm = kept()
    line.weight, norm.weight = line.weight * 2, norm.weight * 3
    mx.eval(line.weight, norm.weight)
    found = []

    def run() -> None:
        found.append(np.array(function(mx.ones((2, 8)))))
        mx.clear_streams()

    for _ in range(2):
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    found.append(np.array(function(mx.ones((2, 8)))))
    assert len(found) == 3
    assert all(np.array_equal(each, found[0]) for each in found)


def test_a_new_weight_counts_in_every_thread():
    """Each thread keeps what it compiled: one that met the old weight must not go on with it."""
    function, line, norm = kept()
    x = mx.ones((2, 8))
    mx.eval(x, function(x))

    def run() -> None:
        mx.eval(function(x))
        line.weight = line.weight + draw(3, 8, 8)
        mx.eval(line.weight, function(x))
        mx.clear_streams()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert np.allclose(np.array(function(x)), np.array(norm(line(x))), rtol=0, atol=1e-6)


@pytest.fixture
def threads() -> Iterator[list[Callable]]:
    """Ways to call a function: in this thread, and in one that stays."""
    with ThreadPoolExecutor(1) as pool:

        def elsewhere(function: Callable) -> object:
            return pool.submit(function).result()

        yield [lambda function: function(), elsewhere]
        pool.submit(mx.clear_streams).result()


@pytest.mark.parametrize("which", ["line", "norm"])
def test_many_new_weights_count_in_every_thread(which, threads):
    """A function that MLX was given may leave its address to the next one."""
    function, line, norm = kept()
    changed = {"line": line, "norm": norm}[which]
    x = draw(1, 2, 8)
    for count in range(20):
        changed.weight = draw(2 + count, *changed.weight.shape)
        mx.eval(x, changed.weight)
        right = np.array(norm(line(x)))
        for call in threads:
            found = call(lambda: np.array(function(x)))
            assert np.allclose(found, right, rtol=0, atol=1e-5), f"weight {count}"


def test_a_new_layer_is_not_taken_for_a_freed_one(threads):
    config = golden_pair("31b").target.config
    width = config.hidden_size
    x, attended = draw(1, 3, width), draw(2, 3, width)
    mx.eval(x, attended)

    def check(seed: int) -> None:
        layer = DecoderLayer(config.layers[0], width, 1e-6)
        layer.post_attention_layernorm.weight = draw(seed, width)
        mx.eval(layer.parameters())
        layer.self_attn = Still(attended)
        right = np.array(by_parts(layer, x, attended, None))
        for call in threads:
            found = call(lambda: np.array(layer(x, None)))
            assert np.allclose(found, right, rtol=0, atol=1e-4)

    for count in range(10):
        check(3 + count)
        gc.collect()
