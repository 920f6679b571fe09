"""D8: what is allocated never exceeds what was reserved, at any budget, whatever rows do."""

import gc
import random
from dataclasses import replace
from functools import cache

import mlx.core as mx
import pytest

from mtp_mlx.engine.engine import Engine
from mtp_mlx.engine.invariants import check_invariants
from mtp_mlx.engine.memory import Memory
from mtp_mlx.errors import DoesNotFit
from mtp_mlx.model.batch import Batch, Row
from mtp_mlx.model.cache import Cache
from mtp_mlx.request import MAX_DRAFT_TOKENS, Failed, Finished, Request, Sampling
from tests.exact.pairs import Outcome, Run, golden_pair, plain
from tests.golden import recipe
from tests.memory.long_context import DEEP, SMALL, Shape, make_pair

MAX_BLOCK = MAX_DRAFT_TOKENS + 1
SLOTS = 4
LENGTHS = (1, 40, 60, 64, 130)
SAMPLINGS = (Sampling(), Sampling(temperature=5.0, seed=3))
NEW = (1, 6, 12, 20)
CHUNK = 32
# Steps in which requests arrive, and in which all must have ended.
ARRIVALS, ALL = 30, 300
# Rings that outweigh all else: fifteen sliding layers.
ACTIVATIONS = 1 << 20  # of four tokens of those models
WIDE = replace(DEEP, pattern="SSSSSF" * 3, window=1 << 10, head_dim=64, full_head_dim=16)


class Broken(Exception):
    """What a request's own code raises."""


def request(draw: random.Random) -> Request:
    length = draw.choice(LENGTHS)
    return Request(
        prompt=tuple(int(token) for token in recipe.prompt(length, length)),
        sampling=draw.choice(SAMPLINGS),
        max_tokens=draw.choice(NEW),
        num_draft_tokens=draw.choice((0, 3, 7)),
    )


@cache
def solo(variant: str, prompt: tuple[int, ...], sampling: Sampling) -> list[int]:
    """The longest reply, of which all others are the beginning."""
    asked = Request(prompt=prompt, sampling=sampling, max_tokens=max(NEW))
    return plain(golden_pair(variant).target, asked, CHUNK).ids


def failing(asked: Request, after: int) -> Request:
    left = [after]

    def is_end(token: int) -> bool:
        left[0] -= 1
        if left[0] < 0:
            raise Broken
        return False

    return replace(asked, is_end=is_end)


def ledger(variant: str, budget: int | None = None) -> Memory:
    target = golden_pair(variant).target
    return Memory(target.config.layers, target.dtype.size, SLOTS, budget)


def held_bytes(engine: Engine) -> int:
    """What all buffers of the cache take."""
    rings = [b for ring in engine.cache.window.values() for b in (ring.keys, ring.values)]
    rows = sum(engine.cache.full_bytes(slot) for slot in range(SLOTS))
    return rows + sum(buffer.nbytes for buffer in rings)


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2))])
@pytest.mark.parametrize("variant", ["31b", pytest.param("e2b", marks=pytest.mark.slow)])
def test_a_tight_budget_is_never_exceeded_and_changes_no_text(variant, seed):
    draw = random.Random(f"{variant} {seed}")
    pair, free = golden_pair(variant), ledger(variant)
    largest = max(LENGTHS) + max(NEW) + MAX_BLOCK
    budget = free.rings + free.cost(largest) + draw.choice((0, free.cost(80)))
    engine = Engine(pair.target, pair.drafter, SLOTS, chunk=CHUNK, kv_budget=budget)
    run, asked, waited = Run(engine), {}, 0
    for step in range(ALL):
        if step < ARRIVALS and draw.random() < 0.5:
            one = request(draw)
            fails = draw.random() < 0.15
            asked[run.submit(failing(one, draw.randrange(4)) if fails else one)] = one
        if engine.sequences and draw.random() < 0.05:
            run.cancel(draw.choice(engine.sequences).id)
        run.step()
        check_invariants(engine)
        assert held_bytes(engine) <= engine.memory.reserved <= budget
        waited += bool(engine.waiting) and None in engine.slots
        if step >= ARRIVALS and engine.is_idle:
            break
    assert engine.is_idle and waited, "memory was never short"
    assert engine.memory.reserved == engine.memory.rings
    assert held_bytes(engine) <= engine.memory.rings
    for request_id, one in asked.items():
        want = solo(variant, one.prompt, one.sampling)[: one.max_tokens]
        check_end(run.outcomes[request_id], want)


def check_end(seen: Outcome, want: list[int]) -> None:
    """A row that was cancelled or failed has the first tokens of its text, any other all."""
    assert seen.end is not None
    assert seen.ids == want[: len(seen.ids)]
    match seen.end:
        case Finished(_, "cancelled") | Failed():
            return
    assert seen.text[:2] == (want, "length")


@pytest.mark.parametrize("most", [64, 300, 1000, 3000])
def test_a_row_that_grows_to_its_limit_holds_no_more_than_was_reserved_while_it_moves(most):
    config = golden_pair("31b").target.config
    allowed = ledger("31b").cost(most)
    held = Cache(config.layers, 1, MAX_BLOCK, mx.float32)
    held.limit(0, most)
    buffers: list[mx.array | None] = [None]
    [full, *_] = held.full.values()
    moves = 0
    for length in range(most - MAX_BLOCK + 1):
        held.begin((Row(0, length, MAX_BLOCK),), is_chunk=False)
        held.commit(0, 1)
        old, buffers[0] = buffers[0], full.keys[0]
        moving = 0 if old is None or old is buffers[0] else 2 * old.nbytes  # keys and values
        moves += moving > 0
        assert held.full_bytes(0) + moving <= allowed
    assert moves == {64: 0, 300: 1, 1000: 3}.get(most, moves)


def reserved_and_peak(shape: Shape, *, is_chunk: bool) -> tuple[int, int]:
    """Bytes reserved for a row and the most that MLX had in use for it, activations aside, in the
    forward in which all its full layers move to their last size."""
    target, _ = make_pair(shape)
    most, count = 9216, 64 if is_chunk else 1
    memory = Memory(target.config.layers, target.dtype.size, 1, None)
    assert memory.reserve(0, most)
    held = target.new_cache(1, MAX_BLOCK)
    held.limit(0, most)
    held.begin((Row(0, 0, 8192),), is_chunk=True)
    held.commit(0, 8192)
    mx.eval([b for full in held.full.values() for b in (*full.keys, *full.values)])
    mx.eval([(ring.keys, ring.values) for ring in held.window.values()])
    rings = sum(ring.keys.nbytes + ring.values.nbytes for ring in held.window.values())
    level = mx.get_active_memory() - held.full_bytes(0) - rings

    def peak() -> int:
        gc.collect()
        mx.clear_cache()
        mx.reset_peak_memory()
        row = Row(0, held.lengths[0], count)
        tokens = mx.array([5] * count)
        hidden = target(Batch.of((row,), tokens, is_chunk=is_chunk), held)
        mx.eval(hidden)
        held.commit(0, count)
        return mx.get_peak_memory() - level

    moving, settled = peak(), peak()
    activations = max(settled - held.full_bytes(0) - rings, 0)
    assert moving > settled, "nothing moved"
    return memory.reserved, moving - activations


@pytest.mark.parametrize("is_chunk", [False, True], ids=["round", "chunk"])
@pytest.mark.parametrize("shape", [SMALL, DEEP], ids=["small", "30 layers"])
def test_memory_in_use_while_full_layers_move_is_within_the_reservation(shape, is_chunk):
    reserved, peak = reserved_and_peak(shape, is_chunk=is_chunk)
    assert peak <= reserved


@pytest.mark.parametrize("slots", [2, 5, 8])
def test_memory_in_use_while_rings_move_is_within_the_reservation(slots):
    target, _ = make_pair(WIDE)
    memory = Memory(target.config.layers, target.dtype.size, slots, None)
    held = target.new_cache(slots, MAX_BLOCK)
    gc.collect()
    mx.clear_cache()
    level, peaks = mx.get_active_memory(), []
    for slot in range(slots):
        gc.collect()
        mx.clear_cache()
        mx.reset_peak_memory()
        batch = Batch.of((Row(slot, 0, 4),), mx.array([5, 6, 7, 8]), is_chunk=True)
        mx.eval(target(batch, held))
        mx.eval([(ring.keys, ring.values) for ring in held.window.values()])
        held.commit(slot, 4)
        peaks.append(mx.get_peak_memory() - level)
    full = sum(held.full_bytes(slot) for slot in range(slots))
    assert 0.8 * memory.rings < max(peaks) <= memory.rings + full + ACTIVATIONS


def test_a_budget_is_exact_to_the_byte():
    free, pair = ledger("31b"), golden_pair("31b")
    prompt = tuple(int(token) for token in recipe.prompt(100, 1))
    asked = Request(prompt=prompt, sampling=Sampling(), max_tokens=20, num_draft_tokens=7)
    budget = free.rings + free.cost(100 + 20 + MAX_BLOCK)
    Engine(pair.target, pair.drafter, SLOTS, kv_budget=budget).submit(asked)
    with pytest.raises(DoesNotFit, match="max_tokens") as caught:
        Engine(pair.target, pair.drafter, SLOTS, kv_budget=budget - 1).submit(asked)
    assert (caught.value.status, caught.value.code) == (503, "insufficient_memory")
