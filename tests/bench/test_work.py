"""What rounds move and compute, beside figures worked out by hand for a toy."""

from dataclasses import replace

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from bench.models import Choice, configs
from bench.random_models import random_drafter, random_target
from bench.work import EXPERTS, PER_LAYER_TABLE, TABLE, Pair, Work
from mtp_mlx.config import read_drafter, read_target
from mtp_mlx.pair_names import SIZES
from tests import tiny_configs

ROWS, CONTEXT, BYTES = 2, 20, 4


def toy(variant: str) -> Pair:
    target = read_target(tiny_configs.target_dict(variant), variant)
    drafter = read_drafter(tiny_configs.drafter_dict(variant), variant).paired_with(target)
    return Pair(target, drafter, BYTES)


# Of the toy 26b: width 32, 4 heads, sliding layers 2 x 8 and full ones 1 x 16 keys, MLP 48,
# 8 experts of width 16, 2 of them chosen, vocabulary 64, window 8, layers SSFSSF.
SLIDING_MATRICES = 32 * (4 * 8 + 2 * 8 + 2 * 8 + 4 * 8 + 3 * 48 + 8)  # q, k, v, o, MLP, router
FULL_MATRICES = 32 * (4 * 16 + 1 * 16 + 4 * 16 + 3 * 48 + 8)
NORMS = 7 * 32 + 1 + 32 + 8  # seven norms, layer scalar, the router's scales
DENSE = 4 * (SLIDING_MATRICES + NORMS + 16) + 2 * (FULL_MATRICES + NORMS + 32) + 32
ALL_EXPERTS = 6 * 8 * 3 * 16 * 32


def test_a_forward_by_hand():
    found = toy("26b").forward(ROWS, 3, CONTEXT)
    distinct = 8 * (1 - 0.75**6)
    attention = 4 * 4 * 4 * 8 * (8 + 8 + 8) + 2 * 4 * 4 * 16 * (21 + 22 + 23)
    chosen = 6 * 2 * (2 * 3 * 16 * 32)
    matrices = 2 * (4 * SLIDING_MATRICES + 2 * FULL_MATRICES)
    assert found == Work(
        dense=BYTES * (DENSE + 6 * 32),
        experts=pytest.approx(distinct / 8 * ALL_EXPERTS * BYTES),
        head=BYTES * 64 * 32,
        kv=ROWS * BYTES * (4 * (7 + 3) * 2 * 2 * 8 + 2 * (20 + 3) * 2 * 16),
        operations=6 * (matrices + chosen + 2 * 64 * 32) + ROWS * attention,
    )


def test_experts_that_were_counted_take_the_place_of_the_expected_ones():
    assert toy("26b").forward(1, 1, CONTEXT, distinct=4).experts == BYTES * ALL_EXPERTS / 2


def test_a_draft_by_hand():
    # Width 16 over 32, MLP 24, layers SSSF that own no keys.
    sliding, full = 16 * (4 * 8 + 4 * 8 + 3 * 24), 16 * (4 * 16 + 4 * 16 + 3 * 24)
    matrices = 16 * 64 + 32 * 16 + 3 * sliding + full
    norms = 4 * (4 * 16 + 1) + 3 * 8 + 16 + 16
    keys = 3 * 8 * 2 * 2 * 8 + 20 * 2 * 16
    attention = 3 * 4 * 4 * 8 * 8 + 4 * 4 * 16 * 20
    assert toy("26b").draft_step(ROWS, CONTEXT) == Work(
        drafter=BYTES * (matrices + norms + 64 * 16 + ROWS * (32 + keys)),
        operations=ROWS * (2 * matrices + 2 * 64 * 16 + attention),
    )


def test_a_centroid_head_reads_the_clusters_that_it_scores():
    pair = toy("e2b")
    dense, scored = pair.drafter_weights.dense, 3 * 64 // 8
    keys = (3 * 8 * 8 + 20 * 16) * 2
    expected = dense + ROWS * (scored * 16 + scored + 32 + keys) * BYTES
    assert pair.draft_step(ROWS, CONTEXT).drafter == expected
    # Of all rows together no more than the whole table.
    most = pair.draft_step(8, CONTEXT).drafter - dense
    assert most == BYTES * (64 * 16 + 8 * (scored + 32 + keys))


def test_a_round_is_its_drafts_and_one_forward():
    pair = toy("12b")
    drafts, forward = pair.draft_step(ROWS, CONTEXT), pair.forward(ROWS, 3, CONTEXT)
    found = pair.round(ROWS, 2, CONTEXT)
    assert found == drafts + drafts + forward
    assert found.seconds(1e6) == found.bytes / 1e6 == (2 * drafts.bytes + forward.bytes) / 1e6


@pytest.mark.parametrize(
    ("size", "gigabytes"),
    # 4 bits in groups of 64 are 0.5625 bytes; of 26b, of which 8 experts are read, the dense MLP
    # has 8 bits. The head is in it, keys are not; of e2b, no per-layer table.
    [("12b", 6.699), ("31b", 17.269), ("26b", 2.424), ("e2b", 1.283)],
)
def test_a_plain_step_of_the_published_pairs(size, gigabytes):
    found = Pair(*configs(Choice(size)), 2).forward(1, 1, CONTEXT)
    assert (found.bytes - found.kv) / 1e9 == pytest.approx(gigabytes, abs=1e-3)


@pytest.mark.parametrize("size", SIZES)
def test_what_is_counted_is_what_a_model_holds(size):
    target, drafter = configs(Choice(size, "4bit", "8bit", shrink=64))
    target = replace(target, layers=target.layers[:1])
    pair = Pair(target, drafter, BYTES)
    for model, weights in (
        (random_target(target, mx.float32), pair.weights),
        (random_drafter(drafter, mx.float32), pair.drafter_weights),
    ):
        held = {key: each.nbytes for key, each in tree_flatten(model.parameters())}
        assert sum(held.values()) == weights.total
        parts = {TABLE: weights.table, PER_LAYER_TABLE: weights.per_layer_table}
        for part, counted in (parts | {EXPERTS: weights.experts}).items():
            assert sum(size for key, size in held.items() if part in key) == counted
