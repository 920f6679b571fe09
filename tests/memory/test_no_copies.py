"""A round writes the keys and values of its new tokens and copies no buffer, at any context.

MLX writes in place only while nothing else holds the buffer: neither a name in Python nor an
operation that was queued and has not finished. Otherwise it copies the whole buffer, and says
nothing. Two things give a copy away: memory in use rises by a buffer, and the buffer has moved.
"""

from collections.abc import Callable
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest

from mtp_mlx.engine.engine import Airborne, Engine
from mtp_mlx.engine.sequence import MAX_DRAFTER_FAULTS
from mtp_mlx.model.cache import FullLayer, WindowLayer
from mtp_mlx.request import Request, Sampling, Tokens
from tests.memory.long_context import (
    DEEP,
    SMALL,
    WIDE_WINDOW,
    Shape,
    addresses,
    engine_at,
    largest_buffer_bytes,
    make_pair,
    peak_growth_bytes,
)

# A copy adds a whole buffer; scores and activations of these models are below a sixth of one.
ALLOWANCE = 0.5
STEPS = 3
DRAFTS = {"rounds": 3, "pipelined plain steps": 0}
LENGTHS = {"8k": 8 << 10, "64k": 64 << 10}
SHAPES = {"small": SMALL, "30 layers": DEEP}

Cases = list[tuple[Shape, int]]


def _share_of_a_buffer(engine: Engine) -> float:
    """Peak growth over some rounds, as a share of the largest buffer."""
    return peak_growth_bytes(engine, STEPS) / largest_buffer_bytes(engine)


@pytest.mark.parametrize("mode", DRAFTS)
@pytest.mark.parametrize("context", LENGTHS)
@pytest.mark.parametrize("model", SHAPES)
def test_rounds_need_no_memory_for_a_second_buffer(model: str, context: str, mode: str) -> None:
    engine = engine_at(*make_pair(SHAPES[model]), (LENGTHS[context],), DRAFTS[mode])
    assert _share_of_a_buffer(engine) < ALLOWANCE


@pytest.mark.parametrize("mode", DRAFTS)
@pytest.mark.parametrize("lengths", [(40 << 10,), (20 << 10, 8 << 10)], ids=["one row", "two rows"])
def test_rounds_need_no_memory_for_a_second_ring(lengths: tuple[int, ...], mode: str) -> None:
    engine = engine_at(*make_pair(WIDE_WINDOW), lengths, DRAFTS[mode])
    assert _share_of_a_buffer(engine) < ALLOWANCE


@pytest.mark.parametrize("mode", DRAFTS)
@pytest.mark.parametrize("model", SHAPES)
def test_no_buffer_moves_while_rows_run(model: str, mode: str) -> None:
    engine = engine_at(*make_pair(SHAPES[model]), (4096, 70), DRAFTS[mode])
    before = addresses(engine)
    for _ in range(STEPS):  # two copies may lead back to the old place, three may not
        engine.step()
        assert addresses(engine) == before


def test_plain_steps_run_ahead_in_this_measurement() -> None:
    engine = engine_at(*make_pair(SMALL), (1024,), 0)
    engine.step()
    assert isinstance(engine._air, Airborne)


def _plain_behind_drafts(shape: Shape, length: int) -> Engine:
    """One row that drafts in its first round and is parked when it lands."""
    engine = engine_at(*make_pair(shape), (length,), 3)
    engine.sequences[0].drafter_faults = MAX_DRAFTER_FAULTS
    return engine


def _drafting_beside_plain(shape: Shape, length: int) -> Engine:
    """Two rows, the first of which drafts."""
    engine = engine_at(*make_pair(shape), (length, length), 3)
    plain = engine.sequences[1]
    plain.request = replace(plain.request, num_draft_tokens=0)
    return engine


# How an engine starts, and what each row drafts in every round.
MIXED = {
    "a plain step behind drafts": (_plain_behind_drafts, [[3], [0], [0]]),
    "a drafting beside a plain row": (_drafting_beside_plain, [[3, 0]] * STEPS),
}


@pytest.mark.parametrize("mode", MIXED)
@pytest.mark.parametrize("model", SHAPES)
def test_mixed_rounds_need_no_memory_for_a_second_buffer(model: str, mode: str) -> None:
    engine = MIXED[mode][0](SHAPES[model], LENGTHS["64k"])
    assert _share_of_a_buffer(engine) < ALLOWANCE


@pytest.mark.parametrize("mode", MIXED)
@pytest.mark.parametrize("model", SHAPES)
def test_no_buffer_moves_in_mixed_rounds(model: str, mode: str) -> None:
    start, drafts = MIXED[mode]
    engine = start(SHAPES[model], LENGTHS["64k"])
    before = addresses(engine)
    for drafted in drafts:
        events = engine.step()
        assert [event.drafted for event in events if isinstance(event, Tokens)] == drafted
        assert addresses(engine) == before


Write = Callable[..., None]


def _held_for_undo(write: Write, held: list[mx.array]) -> Write:
    """Keeps the state before the write, so that a rejection could restore it."""

    def naive(layer: FullLayer | WindowLayer, where: object, keys: mx.array, values: mx.array):
        held[:] = [mx.array(buffer) for buffer in _own(layer)]
        write(layer, where, keys, values)

    return naive


def _read_just_before(write: Write, held: list[mx.array]) -> Write:
    """Reads the buffer and writes at once what depends on it: the donation trap."""

    def naive(layer: FullLayer | WindowLayer, where: object, keys: mx.array, values: mx.array):
        seen = sum(buffer.sum() for buffer in _own(layer))
        write(layer, where, keys + 0 * seen, values + 0 * seen)

    return naive


def _rebuilt(write: Write, held: list[mx.array]) -> Write:
    """Makes new buffers of the old and the new rows."""

    def naive(layer: FullLayer | WindowLayer, where: object, keys: mx.array, values: mx.array):
        if isinstance(layer, FullLayer):
            layer.keys = [mx.concatenate([b[:, :1], b[:, 1:]], axis=1) for b in layer.keys]
        else:
            layer.keys = mx.concatenate([layer.keys[:1], layer.keys[1:]])
        write(layer, where, keys, values)

    return naive


def _own(layer: FullLayer | WindowLayer) -> list[mx.array]:
    if isinstance(layer, FullLayer):
        return [b for b in (*layer.keys, *layer.values) if b is not None]
    return [layer.keys, layer.values]


@pytest.mark.parametrize("mode", DRAFTS)
@pytest.mark.parametrize("mistake", [_held_for_undo, _read_just_before, _rebuilt])
@pytest.mark.parametrize(
    ("layer", "shape"), [(FullLayer, SMALL), (WindowLayer, WIDE_WINDOW)], ids=["full", "window"]
)
def test_a_copy_of_a_buffer_is_found(
    layer: type, shape: Shape, mistake: Callable[..., Write], mode: str, monkeypatch
) -> None:
    monkeypatch.setattr(layer, "write", mistake(layer.write, []))
    engine = engine_at(*make_pair(shape), (8 << 10,), DRAFTS[mode])
    assert _share_of_a_buffer(engine) > ALLOWANCE


def test_zeroing_a_reused_slot_copies_no_ring() -> None:
    engine = Engine(*make_pair(WIDE_WINDOW), max_num_seqs=2)
    places, grown = [], []
    for _ in range(3):
        for _ in range(2):
            engine.submit(Request(prompt=(2, 3, 4), sampling=Sampling(), max_tokens=1))
        grown.append(peak_growth_bytes(engine, 2))
        assert engine.is_idle
        places.append(addresses(engine))
    assert places[1:] == places[:1] * 2
    assert max(grown[1:]) < ALLOWANCE * largest_buffer_bytes(engine)


KEPT = 1 << 40  # bytes: all that is asked for


def _near_border(shape: Shape, drafts: int) -> Engine:
    """A row that is about to pass a chunk border in its reply; all before it is kept already."""
    engine = engine_at(*make_pair(shape), ((64 << 10) - 2,), drafts)
    engine.keep_prompts(KEPT)
    [row] = engine.sequences
    made = engine.prefixes.copy(row, (63 << 10) - 1, 63 << 10)
    assert made is not None
    mx.eval(made.arrays)
    engine.prefixes.keep((made,))
    return engine


@pytest.mark.parametrize("mode", DRAFTS)
@pytest.mark.parametrize("shape", [SMALL, WIDE_WINDOW], ids=["small", "window"])
def test_keeping_a_reply_moves_no_buffer(shape: Shape, mode: str) -> None:
    engine = _near_border(shape, DRAFTS[mode])
    before, kept = addresses(engine), engine.prefixes.borders.bytes
    for _ in range(5):
        engine.step()
        assert addresses(engine) == before
    assert engine.prefixes.borders.bytes > kept


@pytest.mark.parametrize("mode", DRAFTS)
def test_keeping_a_reply_takes_a_chunk_and_a_window_of_memory(mode: str) -> None:
    engine = _near_border(SMALL, DRAFTS[mode])
    kept = engine.prefixes.borders.bytes
    growth = peak_growth_bytes(engine, 5)
    copied = engine.prefixes.borders.bytes - kept
    assert copied > 0
    assert growth - copied < ALLOWANCE * largest_buffer_bytes(engine)


@pytest.mark.parametrize("shape", [SMALL, WIDE_WINDOW], ids=["small", "window"])
def test_taking_up_a_text_moves_no_buffer_of_the_rows_that_run(shape: Shape) -> None:
    engine = engine_at(*make_pair(shape), ((40 << 10) + 5, 1 << 10), 0)
    engine.keep_prompts(KEPT)
    long, short = engine.sequences
    made = engine.prefixes.copy(long, (40 << 10) - 1, 40 << 10)
    assert made is not None
    mx.eval(made.arrays)
    engine.prefixes.keep((made,))
    engine.cancel(short.id)
    found = engine.prefixes.borders.find(long.tokens)
    assert found.window is not None and found.border == 40 << 10
    before = _rings_and_rows(engine, [long.slot])
    engine.step()
    assert isinstance(engine._air, Airborne)  # reads the rings while the text is taken up
    held = mx.get_active_memory()
    mx.reset_peak_memory()
    engine.cache.restore(1, found.spans, found.window, found.border, found.border)
    growth = mx.get_peak_memory() - held
    assert _rings_and_rows(engine, [long.slot]) == before
    assert growth - engine.cache.full_bytes(1) < ALLOWANCE * largest_buffer_bytes(engine)


def _rings_and_rows(engine: Engine, slots: list[int]) -> list[int]:
    """Where the rings of all rows lie, and the full layers of some."""
    cache = engine.cache
    found = [
        b[slot] for full in cache.full.values() for b in (full.keys, full.values) for slot in slots
    ]
    found += [b for ring in cache.window.values() for b in (ring.keys, ring.values)]
    return [np.asarray(buffer).ctypes.data for buffer in found]


def test_prompts_that_no_round_follows_leave_no_memory_behind() -> None:
    engine = Engine(*make_pair(SMALL), max_num_seqs=1)
    request = Request(prompt=(2, 3, 4, 5) * 100, sampling=Sampling(), max_tokens=1)
    levels = []
    for _ in range(4):
        mx.clear_cache()  # a larger buffer that another test left would count in full
        engine.submit(request)
        while not engine.is_idle:
            engine.step()
        mx.synchronize()
        levels.append(mx.get_active_memory())
    assert levels[1:] == levels[:1] * 3


def test_growing_a_full_layer_keeps_every_key() -> None:
    engine = engine_at(*make_pair(SMALL), (64,), 0)
    layer = engine.cache.full[2]
    before = np.array(layer.keys[0])
    layer.reserve(0, 5000, 5000)
    after = np.array(layer.keys[0])
    assert after.shape[1] >= 5000
    assert np.array_equal(after[:, : before.shape[1]], before)
    assert not after[:, before.shape[1] :].any()
