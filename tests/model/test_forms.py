"""The same function in several forms: compiled or not, as a GPU computes it or as a CPU does."""

import json
import os
import subprocess
import sys
from collections.abc import Callable

import mlx.core as mx
import numpy as np
import pytest

from mtp_mlx.config import RopeSpec
from mtp_mlx.model import backend, ffn, head, linear, norm, rope, view

WIDTH, EPS = 32, 1e-6
# The forms differ in the order of a few roundings.
ATOL = 2e-5
SPECS = [RopeSpec(WIDTH, 1e4, WIDTH // 2, 1.0), RopeSpec(WIDTH, 1e6, 4, 8.0)]
SHAPES = [(1, 1), (1, 4), (9, 3)]


def draw(seed: int, *shape: int) -> mx.array:
    return mx.random.normal(shape, key=mx.random.key(seed))


@pytest.fixture
def as_gpu(monkeypatch) -> Callable[[], None]:
    """Makes the model's functions take their GPU form from then on."""

    def change() -> None:
        for module in (ffn, norm, rope, backend):
            monkeypatch.setattr(module, "on_gpu", lambda: True)

    return change


def make_norm(seed: int) -> norm.RMSNorm:
    made = norm.RMSNorm(WIDTH, EPS)
    made.weight = 1.0 + draw(seed, WIDTH)
    return made


def functions(spec: RopeSpec, tokens: int, heads: int) -> dict[str, Callable[[], mx.array]]:
    x, other = draw(1, tokens, heads, WIDTH) * 3, draw(2, tokens, heads, WIDTH)
    positions = mx.arange(1000, 1000 + tokens)
    weightless = norm.RMSNorm(WIDTH, EPS, has_weight=False)
    return {
        "norm": lambda: make_norm(3)(x),
        "norm without weight": lambda: weightless(x),
        "norm behind a residual": lambda: make_norm(3).add(other, x),
        "the same, scaled": lambda: make_norm(3).add(other, x, mx.array([0.7])),
        "norm and turn": lambda: make_norm(3).turn(x, rope.Angles(spec, positions)),
        "turn": lambda: rope.rotate(x, rope.Angles(spec, positions)),
        "geglu": lambda: ffn.geglu(x, other),
        "softcap": lambda: head.softcap(20 * x, 30.0),
    }


NAMES = list(functions(SPECS[0], 1, 1))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize(("tokens", "heads"), SHAPES)
def test_a_gpu_computes_the_same(as_gpu, name, spec, tokens, heads):
    expected = np.array(functions(spec, tokens, heads)[name]())
    as_gpu()
    found = np.array(functions(spec, tokens, heads)[name]())
    assert np.allclose(found, expected, rtol=0, atol=ATOL)


EDGES = [0.0, 1e-30, 1e-3, 0.5, 3.0, 12.0, 100.0, 1e4, 1e30, float("inf")]


def test_a_gelu_of_powers_of_two_is_as_near_as_it_should_be():
    x = np.array(EDGES + [-each for each in EDGES], dtype=np.float32)
    with np.errstate(invalid="ignore"):
        wide = x.astype(np.float64)
        u = 0.7978845608028654 * (wide + 0.044715 * wide**3)
        gelu = 0.5 * wide * (1 + np.tanh(u))
    found = np.array(ffn.geglu(mx.array(x), mx.ones(x.shape)))
    assert np.allclose(found[:-1], gelu[:-1], rtol=2e-6, atol=1e-6)
    assert np.isnan(found[-1]) and np.isnan(gelu[-1])


def without_compiler() -> dict[str, list[float]]:
    """What each function gives here, of one small case."""
    return {
        name: np.array(function()).reshape(-1).tolist()
        for name, function in functions(SPECS[1], 2, 3).items()
    }


@pytest.mark.parametrize("compiler", [None, "#!/bin/sh\nexit 1\n"])
def test_without_a_compiler_the_same_is_computed(tmp_path, compiler):
    """No g++, or one that does not even tell its version."""
    if compiler is not None:
        (tmp_path / "g++").write_text(compiler)
        (tmp_path / "g++").chmod(0o755)
    code = "import json; from tests.model.test_forms import without_compiler; "
    code += "print(json.dumps(without_compiler()))"
    there = {"PATH": str(tmp_path), "TMPDIR": str(tmp_path)}
    ran = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | there, capture_output=True, text=True
    )
    found = json.loads(ran.stdout)
    assert not (tmp_path / "mlx").exists(), "kernels were made"
    for name, values in without_compiler().items():
        assert np.allclose(found[name], values, rtol=0, atol=ATOL), name


@pytest.mark.parametrize("length", [1, 5, view.SHORT_BLOCK, view.SHORT_BLOCK + 1, 40])
@pytest.mark.parametrize("rows", [None, 3])
def test_attention_is_that_of_mlx(rows, length):
    heads, groups, keys = 4, 2, 50
    batch = () if rows is None else (rows,)
    queries = draw(1, *batch, heads, length, WIDTH)
    stored = [draw(seed, *batch, groups, keys, WIDTH) for seed in (2, 3)]
    seen = mx.random.bernoulli(0.5, (*batch, 1, length, keys), key=mx.random.key(4))
    seen[..., 0] = True
    mask = view.Mask(seen)
    found = np.array(view.attend(queries, *stored, mask))
    expected = np.array(view._attend_fused(queries, *stored, mask))
    assert np.allclose(found, expected, rtol=0, atol=ATOL)


def test_a_new_weight_counts_from_the_next_call():
    """What is kept of a weight in another form is dropped with it."""
    x = draw(1, 2, WIDTH)
    normed, line = norm.RMSNorm(WIDTH, EPS), linear.Linear(WIDTH, 5)
    first = np.array(normed(x)), np.array(line(x))
    normed.weight, line.weight = normed.weight * 2, line.weight * 2
    for found, before in zip((normed(x), line(x)), first, strict=True):
        assert np.allclose(np.array(found), 2 * before, rtol=1e-6)
