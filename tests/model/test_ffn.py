"""The mixture layer against other people's definitions: mlx-lm's SwitchGLU and plain NumPy."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from mtp_mlx.config import ExpertSpec
from mtp_mlx.model.ffn import SORT_FROM, Experts, Router, geglu, gelu_tanh

WIDTH, INSIDE, NUM_EXPERTS, TOP_K = 64, 96, 8, 2
GROUP = 32
EPS = 1e-6
SPEC = ExpertSpec(NUM_EXPERTS, TOP_K, INSIDE)
# Both forms call the same kernels; only their gelu and the order of the weighted sum may differ.
ATOL = 2e-6
# Values of order one, over 64 products, in float32.
ROUTER_ATOL = 2e-6

# Tokens of one forward: fewer and more (token, expert) pairs than are worth sorting.
UNSORTED, SORTED = SORT_FROM // TOP_K - 1, SORT_FROM // TOP_K + 5


def draw(seed: int, *shape: int) -> mx.array:
    return mx.random.normal(shape, key=mx.random.key(seed))


def make_experts() -> Experts:
    experts = Experts(WIDTH, SPEC)
    glu = experts.switch_glu
    glu.gate_proj.weight = draw(1, NUM_EXPERTS, INSIDE, WIDTH) * WIDTH**-0.5
    glu.up_proj.weight = draw(2, NUM_EXPERTS, INSIDE, WIDTH) * WIDTH**-0.5
    glu.down_proj.weight = draw(3, NUM_EXPERTS, WIDTH, INSIDE) * INSIDE**-0.5
    return experts


def as_mlx_lm(experts: Experts) -> nn.Module:
    """mlx-lm's expert layer with the same weights."""
    from mlx_lm.models.switch_layers import SwitchGLU  # imports transformers, which takes seconds

    class GeGLU(nn.Module):
        def __call__(self, x: mx.array, gate: mx.array) -> mx.array:
            return nn.gelu_approx(gate) * x

    theirs = SwitchGLU(WIDTH, INSIDE, NUM_EXPERTS, activation=GeGLU())
    for name in ("gate_proj", "up_proj", "down_proj"):
        getattr(theirs, name).weight = getattr(experts.switch_glu, name).weight
    return theirs


def choices(num_tokens: int) -> tuple[mx.array, mx.array, mx.array]:
    """Tokens [N, D], distinct expert ids [N, top_k] and their weights."""
    ids = np.argsort(np.array(draw(5, num_tokens, NUM_EXPERTS)), axis=-1)[:, :TOP_K]
    return draw(4, num_tokens, WIDTH), mx.array(ids), mx.softmax(draw(6, num_tokens, TOP_K), -1)


@pytest.mark.parametrize("bits", [None, 4, 8])
@pytest.mark.parametrize("num_tokens", [1, UNSORTED, SORTED])
def test_experts_compute_what_mlx_lm_computes(num_tokens: int, bits: int | None) -> None:
    ours, (x, ids, weights) = make_experts(), choices(num_tokens)
    theirs = as_mlx_lm(ours)
    if bits is not None:
        nn.quantize(ours, GROUP, bits)
        nn.quantize(theirs, GROUP, bits)
    expected = (theirs(x, ids) * weights[..., None]).sum(axis=-2)
    assert np.allclose(np.array(ours(x, ids, weights)), np.array(expected), rtol=0, atol=ATOL)


@pytest.mark.parametrize("bits", [None, 4, 8])
def test_sorting_by_expert_changes_no_bit(bits: int | None) -> None:
    experts, (x, ids, weights) = make_experts(), choices(SORTED)
    if bits is not None:
        nn.quantize(experts, GROUP, bits)
    together = np.array(experts(x, ids, weights))
    for row in range(SORTED):
        part = slice(row, row + 1)
        alone = np.array(experts(x[part], ids[part], weights[part]))
        assert np.array_equal(alone[0], together[row])


def test_experts_follow_their_formula() -> None:
    experts, (x, ids, weights) = make_experts(), choices(5)
    glu = experts.switch_glu
    gate, up, down = (np.array(m.weight) for m in (glu.gate_proj, glu.up_proj, glu.down_proj))
    found = np.array(experts(x, ids, weights))
    for token, chosen, share, row in zip(*map(np.array, (x, ids, weights)), found, strict=True):
        expected = np.zeros(WIDTH)
        for expert, weight in zip(chosen, share, strict=True):
            z = gate[expert] @ token
            bent = 0.5 * z * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))
            expected += weight * (down[expert] @ (bent * (up[expert] @ token)))
        assert np.allclose(row, expected, rtol=0, atol=1e-5)


def test_the_activation_is_that_of_mlx() -> None:
    x = draw(9, 4, 1000) * 4
    assert np.allclose(np.array(gelu_tanh(x)), np.array(nn.gelu_approx(x)), rtol=0, atol=ATOL)


def test_in_bfloat16_the_activation_is_rounded_once() -> None:
    """As the reference does it; one rounding an operation makes two numbers in five differ."""
    gate, up = (draw(seed, 40, 512).astype(mx.bfloat16) for seed in (9, 10))
    expected = nn.gelu_approx(gate.astype(mx.float32)).astype(mx.bfloat16) * up
    found = geglu(gate, up)
    assert found.dtype == mx.bfloat16
    assert (
        np.array(found.astype(mx.float32)) != np.array(expected.astype(mx.float32))
    ).mean() < 0.01


@pytest.mark.parametrize("num_tokens", [1, 7, 64])
def test_the_router_keeps_the_best_experts_and_weighs_them(num_tokens: int) -> None:
    router = Router(WIDTH, SPEC, EPS)
    router.scale = 1 + 0.3 * draw(10, WIDTH)
    router.per_expert_scale = 1 + 0.3 * draw(11, NUM_EXPERTS)
    router.proj.weight = draw(12, NUM_EXPERTS, WIDTH)
    x = draw(13, num_tokens, WIDTH) * 3
    ids, weights = (np.array(part) for part in router(x))
    tokens = np.array(x, dtype=np.float64)
    normed = tokens / np.sqrt((tokens**2).mean(axis=-1, keepdims=True) + EPS)
    scores = (normed * np.array(router.scale) * WIDTH**-0.5) @ np.array(router.proj.weight).T
    for row in range(num_tokens):
        best = np.argsort(-scores[row])[:TOP_K]
        assert set(ids[row].tolist()) == set(best.tolist())
        powers = np.exp(scores[row, ids[row]] - scores[row].max())
        expected = powers / powers.sum() * np.array(router.per_expert_scale)[ids[row]]
        assert np.allclose(weights[row], expected, rtol=0, atol=ROUTER_ATOL)
