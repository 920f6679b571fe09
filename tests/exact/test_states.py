"""The law below the tokens: states and logits of a block are those of its tokens one at a time.

Equality is of every bit: tokens alone would hide a difference until two logits come close.
"""

import random

import mlx.core as mx
import pytest

from mtp_mlx.engine.forced import prefill
from mtp_mlx.model.batch import Batch, Row
from mtp_mlx.model.cache import Cache
from mtp_mlx.model.target import Target
from mtp_mlx.request import MAX_DRAFT_TOKENS
from tests.exact.pairs import golden_pair
from tests.golden import recipe
from tests.memory.long_context import Shape, make_pair

MAX_BLOCK = MAX_DRAFT_TOKENS + 1
# Around the window of 8, its ring of 16, and the step of 64 in which full layers are read.
PROMPT_LENGTHS = (1, 2, 7, 8, 9, 15, 16, 17, 23, 57, 63, 64, 65)


def prefilled(target: Target, prompts: list[list[int]]) -> Cache:
    """A cache with one prompt a slot."""
    cache = target.new_cache(len(prompts), MAX_BLOCK)
    for slot, prompt in enumerate(prompts):
        row = Row(slot, 0, len(prompt))
        mx.eval(target(Batch.of((row,), mx.array(prompt), is_chunk=True), cache))
        cache.commit(slot, len(prompt))
    return cache


def one_at_a_time(target: Target, prompt: list[int], block: list[int]) -> mx.array:
    """States [T, D] of `block` after `prompt`, each token in a forward of its own, row alone."""
    cache = prefilled(target, [prompt])
    states = []
    for token in block:
        row = Row(0, cache.lengths[0], 1)
        states.append(target(Batch.of((row,), mx.array([token])), cache))
        mx.eval(states[-1])
        cache.commit(0, 1)
    return mx.concatenate(states)


def draw(seed: int, lengths: list[int]) -> list[list[int]]:
    random_ = random.Random(seed)
    return [[random_.randrange(256) for _ in range(length)] for length in lengths]


@pytest.mark.parametrize("variant", recipe.VARIANTS)
def test_a_ragged_block_has_the_states_of_its_tokens_one_at_a_time(variant):
    target = golden_pair(variant).target
    sizes = random.Random(variant)
    # Eight ragged rows, then eight whole blocks: 64 tokens, where experts sort their rows.
    for first, smallest in ((0, 1), (len(PROMPT_LENGTHS) - 8, MAX_BLOCK)):
        lengths = list(PROMPT_LENGTHS[first : first + 8])
        prompts = draw(first, lengths)
        blocks = draw(first + 100, [sizes.randint(smallest, MAX_BLOCK) for _ in lengths])
        cache = prefilled(target, prompts)
        rows = tuple(
            Row(slot, length, len(block))
            for slot, (length, block) in enumerate(zip(lengths, blocks, strict=True))
        )
        tokens = [token for block in blocks for token in block]
        packed = target(Batch.of(rows, mx.array(tokens)), cache)
        logits = target.logits(packed)
        offset = 0
        for prompt, block in zip(prompts, blocks, strict=True):
            part = slice(offset, offset + len(block))
            alone = one_at_a_time(target, prompt, block)
            assert mx.array_equal(packed[part], alone), f"{len(prompt)} + {len(block)} tokens"
            each = [target.logits(state[None]) for state in alone]
            assert mx.array_equal(logits[part], mx.concatenate(each))
            offset += len(block)


def in_blocks(target: Target, ids: list[int]) -> mx.array:
    """States [T, D] of `ids`, a block at a time, which reads the rings in place."""
    cache, states = target.new_cache(1, MAX_BLOCK), []
    for start in range(0, len(ids), MAX_BLOCK):
        block = ids[start : start + MAX_BLOCK]
        states.append(target(Batch.of((Row(0, start, len(block)),), mx.array(block)), cache))
        mx.eval(states[-1])
        cache.commit(0, len(block))
    return mx.concatenate(states)


def assert_chunks_change_no_bit(target: Target, ids: list[int], chunks: tuple[int, ...]) -> None:
    expected = in_blocks(target, ids)
    for chunk in chunks:
        states = mx.concatenate(prefill(target, target.new_cache(1, MAX_BLOCK), ids, chunk))
        assert mx.array_equal(states, expected), f"chunks of {chunk}"


@pytest.mark.parametrize("variant", recipe.VARIANTS)
def test_a_prompt_has_the_same_states_in_chunks_of_any_size_and_in_blocks(variant):
    [ids] = draw(7, [60])  # four laps of the ring, cut inside, at their borders and over several
    assert_chunks_change_no_bit(golden_pair(variant).target, ids, (5, 16, 23, 60))


@pytest.mark.parametrize("window", [5, 12, 100])
def test_the_same_holds_for_windows_of_odd_sizes(window):
    target, _ = make_pair(Shape("31b", "SSF", window, 4, 2, 2, 32, 64))
    ids = [token % target.config.vocab_size for token in draw(window, [3 * window + 30])[0]]
    assert_chunks_change_no_bit(target, ids, (7, 64, len(ids)))


@pytest.mark.parametrize("variant", recipe.VARIANTS)
@pytest.mark.parametrize("length", [3, 8, 14])
def test_rejected_tokens_leave_the_next_states_as_they_are(variant, length):
    target = golden_pair(variant).target
    [prompt], [right], [wrong] = (
        draw(seed, [size]) for seed, size in ((0, length), (1, 12), (2, 8))
    )
    cache = prefilled(target, [prompt])
    states = []
    for kept in (1, 3, 0, 5, 2, 1):  # of each block of eight, the rest is rejected
        start = cache.lengths[0]
        ahead = right[start - length : start - length + kept]
        block = (ahead + wrong)[:MAX_BLOCK]
        states.append(target(Batch.of((Row(0, start, MAX_BLOCK),), mx.array(block)), cache)[:kept])
        mx.eval(states[-1])
        cache.commit(0, kept)
    assert mx.array_equal(mx.concatenate(states), one_at_a_time(target, prompt, right))
