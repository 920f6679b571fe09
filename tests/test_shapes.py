"""The published shapes: parameters as counted by hand, sizes by a direct count, names as typed."""

import math

import pytest

from mtp_mlx import shapes
from mtp_mlx.checkpoint import open_drafter, open_target
from mtp_mlx.config import TargetConfig
from mtp_mlx.fit import ring_bytes, row_bytes, weight_bytes
from mtp_mlx.pair_names import SIZES
from mtp_mlx.shapes import drafter_shapes, published, target_shapes
from tests.golden import recipe

BF16 = 2


def pair(name: str) -> shapes.Published:
    found = published(name)
    assert found is not None
    return found


def parameters(found: dict) -> int:
    return sum(math.prod(shape) for shape in found.values())


# The text parameters and those of the drafters as the publisher's tables give them.
COUNTED = {
    "e2b": (4.629e9, 77.99e6),
    "e4b": (7.463e9, 78.78e6),
    "12b": (11.907e9, 422.9e6),
    "26b": (25.233e9, 419.7e6),
    "31b": (30.697e9, 469.5e6),
}


@pytest.mark.parametrize("size", SIZES)
def test_parameters_are_those_that_were_published(size):
    target, drafter = COUNTED[size]
    assert parameters(target_shapes(pair(size).target)) == pytest.approx(target, rel=2e-4)
    assert parameters(drafter_shapes(pair(size).drafter)) == pytest.approx(drafter, rel=2e-4)


def direct_count(config: TargetConfig) -> int:
    """The parameters of a target, layer by layer, not by way of its tensors."""
    width, count = config.hidden_size, len(config.layers)
    total = config.vocab_size * width + width
    if config.per_layer_dim:
        inputs = config.per_layer_dim * count
        total += inputs * (config.vocab_size + width) + config.per_layer_dim
        total += count * (2 * config.per_layer_dim * width + width)
    for layer in config.layers:
        queries, keys = layer.heads * layer.head_dim, layer.kv_heads * layer.head_dim
        total += 2 * width * queries + 3 * width * layer.ffn_dim + 4 * width + layer.head_dim + 1
        if layer.owns_cache:
            total += keys * width * (1 if layer.keys_are_values else 2) + layer.head_dim
        if layer.experts is not None:
            own = layer.experts
            total += own.num_experts * (3 * own.width * width + width + 1) + 4 * width
    return total


@pytest.mark.parametrize("size", SIZES)
def test_weight_bytes_are_a_direct_count_times_two(size):
    found = pair(size)
    direct = direct_count(found.target)
    assert weight_bytes(found.target_tensors, BF16) == BF16 * direct
    assert parameters(target_shapes(found.target)) == direct


# 4 bits in groups of 64 are 4.5 bits a weight, 8 bits 8.5; of 26b the router and the dense MLP of
# a 4-bit checkpoint have 8 bits. Norms and scalars stay as they are.
@pytest.mark.parametrize(
    ("name", "gigabytes"),
    [
        ("e2b-4bit", 2.604),
        ("e4b-4bit", 4.199),
        ("12b-4bit", 6.699),
        ("26b-4bit", 14.468),
        ("31b-4bit", 17.269),
        ("31b-8bit", 32.617),
        ("12b", 23.815),
    ],
)
def test_sizes_of_checkpoints(name, gigabytes):
    assert weight_bytes(pair(name).target_tensors, BF16) / 1e9 == pytest.approx(gigabytes, abs=1e-3)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("size", SIZES)
def test_a_quantised_size_is_so_many_bits_a_weight(size, bits):
    found = pair(f"{size}-{bits}bit")
    named = target_shapes(found.target)
    matrices = sum(math.prod(shape) for shape in named.values() if len(shape) > 1)
    kept = (
        "router.proj.weight",
        "mlp.gate_proj.weight",
        "mlp.up_proj.weight",
        "mlp.down_proj.weight",
    )
    wide = sum(math.prod(s) for key, s in named.items() if size == "26b" and key.endswith(kept))
    rest = parameters(named) - matrices
    expected = (matrices - wide) * (bits + 0.5) / 8 + wide * 8.5 / 8 + BF16 * rest
    assert weight_bytes(found.target_tensors, BF16) == expected


def as_published(found: shapes.Shapes) -> shapes.Shapes:
    """With the experts as Transformers writes them: gate and up in one tensor."""
    written = {}
    for key, shape in found.items():
        if key.endswith("switch_glu.gate_proj.weight"):
            count, inner, width = shape
            fused = key.replace("switch_glu.gate_proj.weight", "gate_up_proj")
            written[fused] = (count, 2 * inner, width)
        elif key.endswith("switch_glu.down_proj.weight"):
            written[key.replace("switch_glu.down_proj.weight", "down_proj")] = shape
        elif "switch_glu" not in key:
            written[key] = shape
    return written


@pytest.mark.parametrize("variant", recipe.VARIANTS)
def test_shapes_are_those_that_transformers_writes(variant, tmp_path):
    folders = recipe.write_pair(tmp_path, variant)
    target = open_target(folders[0])
    drafter = open_drafter(folders[1], target.config)
    for opened, found in (
        (target, as_published(target_shapes(target.config))),
        (drafter, drafter_shapes(drafter.config)),
    ):
        assert {key: info.shape for key, info in opened.tensors.items()} == found


@pytest.mark.parametrize(
    ("size", "ring", "token"),
    [
        # Sliding owners · 2 · (window + 8) · heads · 256, full owners · 2 · heads · 512; bfloat16.
        ("e2b", 12 * 2 * 520 * 1 * 256, 3 * 2 * 1 * 512),
        ("e4b", 20 * 2 * 520 * 2 * 256, 4 * 2 * 2 * 512),
        ("12b", 40 * 2 * 1032 * 8 * 256, 8 * 2 * 1 * 512),
        ("26b", 25 * 2 * 1032 * 8 * 256, 5 * 2 * 2 * 512),
        ("31b", 50 * 2 * 1032 * 16 * 256, 10 * 2 * 4 * 512),
    ],
)
def test_keys_and_values_by_hand(size, ring, token):
    layers = pair(size).target.layers
    assert ring_bytes(layers, 8, BF16) == BF16 * ring
    assert row_bytes(layers, 8192, BF16) == BF16 * 8192 * token


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("e4b", "e4b-bf16"),
        ("E4B-4bit", "e4b-4bit"),
        ("gemma-4-12b-it-8bit", "12b-8bit"),
        ("gemma-4-26b-a4b-it-mxfp4", "26b-mxfp4"),
        ("31b-bf16", "31b-bf16"),
    ],
)
def test_names(typed, meant):
    assert pair(typed).name == meant


@pytest.mark.parametrize(
    "typed", ["tiny", "e4b-7bit", "e4b-", "e3b", "org/e4b-4bit", "", "12b-affine"]
)
def test_what_is_no_name(typed):
    assert published(typed) is None
