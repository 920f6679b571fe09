"""Bitwise promises of MLX on CPU that exactness rests on: a row's result is a function of the row.

Not tests of this project. Text is the same drafted or not, alone or among neighbours, because these
kernels give a row the same bits whatever else is computed beside it. When a new MLX breaks that, a
test here fails under the kernel's name.
"""

from collections.abc import Callable

import mlx.core as mx
import numpy as np
import pytest

from mtp_mlx.model.cache import KEY_STEP
from mtp_mlx.model.choose import gumbel
from mtp_mlx.model.ffn import gelu_own, gelu_tanh
from mtp_mlx.model.view import Mask, attend

ROWS = (2, 3, 4, 5, 7, 8, 12, 16, 24, 31, 32, 33, 64)
MOST = max(ROWS)
EXPERTS, TOP_K = 8, 2

RowFunction = Callable[[mx.array], mx.array]


def draw(seed: int, *shape: int) -> mx.array:
    return mx.random.normal(shape, key=mx.random.key(seed))


def same_bits(left: mx.array, right: mx.array) -> bool:
    return np.array_equal(np.array(left), np.array(right), equal_nan=False)


def assert_rows_stand_alone(function: RowFunction, x: mx.array) -> None:
    """function(x)[i] == function(x[i:i+1])[0], to the bit, in batches of many sizes."""
    alone = mx.concatenate([function(x[i : i + 1]) for i in range(MOST)])
    for num_rows in ROWS:
        for start in (0, MOST - num_rows):
            part = slice(start, start + num_rows)
            assert same_bits(function(x[part]), alone[part]), f"{num_rows} rows from {start}"


SHAPES = [(32, 64), (64, 256), (96, 33), (256, 1000), (640, 2048)]


@pytest.mark.parametrize(("inputs", "outputs"), SHAPES)
def test_matmul(inputs: int, outputs: int) -> None:
    weight = draw(1, outputs, inputs)
    assert_rows_stand_alone(lambda x: x @ weight.T, draw(2, MOST, inputs))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(("inputs", "outputs"), [(64, 256), (256, 1000), (640, 2048)])
def test_quantized_matmul(inputs: int, outputs: int, bits: int) -> None:
    packed = mx.quantize(draw(1, outputs, inputs), 64, bits)

    def product(x: mx.array) -> mx.array:
        return mx.quantized_matmul(x, *packed, transpose=True, group_size=64, bits=bits)

    assert_rows_stand_alone(product, draw(2, MOST, inputs))


def test_batched_matrix_vector_product() -> None:
    table = draw(1, MOST, 48, 64)
    hidden = draw(2, MOST, 64)
    together = (table @ hidden[:, :, None])[..., 0]
    for row in range(MOST):
        part = slice(row, row + 1)
        assert same_bits((table[part] @ hidden[part, :, None])[..., 0], together[part])


@pytest.mark.parametrize("width", [16, 64, 250, 2816])
@pytest.mark.parametrize("has_weight", [True, False])
def test_rms_norm(width: int, has_weight: bool) -> None:
    weight = draw(1, width) if has_weight else None
    assert_rows_stand_alone(lambda x: mx.fast.rms_norm(x, weight, 1e-6), draw(2, MOST, width))
    heads = draw(3, MOST, 4, width)
    assert_rows_stand_alone(lambda x: mx.fast.rms_norm(x, weight, 1e-6), heads)


ROW_FUNCTIONS: dict[str, RowFunction] = {
    "softmax": lambda x: mx.softmax(x, axis=-1),
    "sum": lambda x: x.sum(axis=-1),
    "max": lambda x: x.max(axis=-1),
    "argmax": lambda x: mx.argmax(x, axis=-1),
    "sort": lambda x: mx.sort(x, axis=-1),
    "sorted topk": lambda x: mx.sort(mx.topk(x, 7, axis=-1), axis=-1),
    "argpartition": lambda x: mx.argpartition(-x, kth=TOP_K - 1, axis=-1)[:, :TOP_K],
    "cumsum": lambda x: mx.cumsum(x, axis=-1),
    "exp": mx.exp,
    "tanh": mx.tanh,
    "log": lambda x: mx.log(mx.abs(x)),
    "log1p": lambda x: mx.log1p(mx.abs(x)),
    "cos": mx.cos,
    "sin": mx.sin,
    "gelu": gelu_tanh,
    "gelu of powers": gelu_own,
}


@pytest.mark.parametrize("name", ROW_FUNCTIONS)
@pytest.mark.parametrize("width", [8, 37, 256, 1001])
def test_row_function(name: str, width: int) -> None:
    assert_rows_stand_alone(ROW_FUNCTIONS[name], draw(1, MOST, width) * 3)


def test_noise() -> None:
    keys = mx.random.randint(0, 1 << 30, (MOST, 2), mx.uint32, key=mx.random.key(1))
    assert_rows_stand_alone(lambda k: gumbel(k, mx.arange(1001)), keys)


@pytest.mark.parametrize("bits", [None, 4, 8])
def test_product_by_expert(bits: int | None) -> None:
    """gather_mm and gather_qmm, rows in any order or sorted by expert."""
    weight, x = draw(1, EXPERTS, 96, 64), draw(2, MOST, 1, 64)
    ids = mx.random.randint(0, EXPERTS, (MOST,), key=mx.random.key(3))

    def product(rows: mx.array, *, is_sorted: bool = False) -> mx.array:
        if bits is None:
            flipped, chosen = weight.swapaxes(-1, -2), ids[rows]
            return mx.gather_mm(x[rows], flipped, rhs_indices=chosen, sorted_indices=is_sorted)
        packed = mx.quantize(weight, 32, bits)
        return mx.gather_qmm(
            x[rows],
            *packed,
            rhs_indices=ids[rows],
            transpose=True,
            group_size=32,
            bits=bits,
            sorted_indices=is_sorted,
        )

    assert_rows_stand_alone(product, mx.arange(MOST))
    order = mx.argsort(ids)
    assert same_bits(product(order, is_sorted=True), product(mx.arange(MOST))[order])


# Query heads, K/V heads and head size.
HEADS = [(4, 1, 8), (4, 2, 16), (8, 8, 32), (8, 2, 64)]
MAX_BLOCK = 8


def causal(last: list[int], keys: int) -> Mask:
    """Mask of queries at these positions."""
    return Mask((mx.arange(keys)[None] <= mx.array(last)[:, None])[None, None])


@pytest.mark.parametrize(("heads", "kv_heads", "size"), HEADS)
@pytest.mark.parametrize("length", [1, 60, 64, 127, 700, 2100])
def test_attention_of_one_query_or_a_block(
    heads: int, kv_heads: int, size: int, length: int
) -> None:
    """Over a long full layer, as verify and plain decode read it: other queries and masked keys
    behind the own change nothing."""
    queries = draw(1, 1, heads, MAX_BLOCK, size)
    capacity = -(-(length + MAX_BLOCK) // KEY_STEP) * KEY_STEP + 2 * KEY_STEP
    keys, values = draw(2, 1, kv_heads, capacity, size), draw(3, 1, kv_heads, capacity, size)
    last = [length - 1 + place for place in range(MAX_BLOCK)]
    for place in range(MAX_BLOCK):
        shown = -(-(last[place] + 1) // KEY_STEP) * KEY_STEP
        mask = causal(last[place : place + 1], shown)
        query = queries[:, :, place : place + 1]
        alone = attend(query, keys[:, :, :shown], values[:, :, :shown], mask)
        for block in range(place + 1, MAX_BLOCK + 1):
            for more in (shown, shown + KEY_STEP, shown + 2 * KEY_STEP):
                if more <= last[block - 1]:
                    continue
                mask = causal(last[:block], more)
                part = attend(queries[:, :, :block], keys[:, :, :more], values[:, :, :more], mask)
                assert same_bits(part[:, :, place : place + 1], alone), (place, block, more)


@pytest.mark.parametrize(("heads", "kv_heads", "size"), HEADS)
@pytest.mark.parametrize("capacity", [12, 72, 520])
def test_attention_over_rings_of_many_rows(
    heads: int, kv_heads: int, size: int, capacity: int
) -> None:
    """A row's ring gives the same read alone or as one of many, padded to any block."""
    num_rows = 8
    queries = draw(1, num_rows, heads, MAX_BLOCK, size)
    keys, values = (draw(s, num_rows, kv_heads, capacity, size) for s in (2, 3))
    mask = mx.random.bernoulli(0.7, (num_rows, 1, MAX_BLOCK, capacity), key=mx.random.key(4))
    together = attend(queries, keys, values, Mask(mask))
    for row in range(num_rows):
        part = slice(row, row + 1)
        for block in (1, 2, 4, 5, MAX_BLOCK):
            own = queries[part, :, :block], keys[part], values[part], Mask(mask[part, :, :block])
            assert same_bits(attend(*own), together[part, :, :block]), (row, block)
