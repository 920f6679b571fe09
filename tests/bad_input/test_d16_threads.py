"""D16: many threads and event loops, a closed model, streams that nobody reads to their end."""

import asyncio
import gc
import random
from functools import partial

import pytest

import mtp_mlx
from mtp_mlx.api import LLM
from mtp_mlx.engine.engine import Engine
from mtp_mlx.engine.invariants import check_invariants
from tests.api_pairs import engine_of, loaded
from tests.bad_input.engines import LONG, PROMPTS, SAMPLED, Calls, Reading, own, read

DRAFTS = (0, 3, 7)


def expected(llm: LLM) -> list[tuple[int, ...]]:
    return [llm.generate(prompt, **SAMPLED).token_ids for prompt in PROMPTS]


async def text_of(llm: LLM, index: int) -> tuple[int, ...]:
    stream = llm.astream(PROMPTS[index], num_draft_tokens=DRAFTS[index], **SAMPLED)
    async for _ in stream:
        pass
    return stream.reply.token_ids


def by_loop(llm: LLM, index: int) -> tuple[int, ...]:
    return asyncio.run(text_of(llm, index))


def by_stream(llm: LLM, index: int) -> tuple[int, ...]:
    stream = llm.stream(PROMPTS[index], num_draft_tokens=DRAFTS[index], **SAMPLED)
    assert read(stream).error is None
    return stream.reply.token_ids


def by_call(llm: LLM, index: int) -> tuple[int, ...]:
    return llm.generate(PROMPTS[index], num_draft_tokens=DRAFTS[index], **SAMPLED).token_ids


def by_batch(llm: LLM, index: int) -> tuple[int, ...]:
    [reply, cut] = llm.batch([PROMPTS[index]] * 2, each=[{}, {"max_tokens": 3}], **SAMPLED)
    assert reply.token_ids[:3] == cut.token_ids
    return reply.token_ids


def by_leaving(llm: LLM, index: int) -> tuple[int, ...]:
    """Two that are left, one cancelled and one dropped, then a whole one."""
    with llm.stream(PROMPTS[0], **LONG) as stream:
        next(stream)
    next(llm.stream(PROMPTS[0], **LONG))
    return by_call(llm, index)


WAYS = (by_loop, by_stream, by_call, by_batch, by_leaving)


@pytest.mark.parametrize("slots", [2, pytest.param(8, marks=pytest.mark.slow)])
def test_threads_and_loops_of_all_kinds_at_once_each_get_their_own_text(slots, monkeypatch):
    llm = loaded(max_num_seqs=slots)
    texts, step = expected(llm), Engine.step

    def checked(engine):
        events = step(engine)
        check_invariants(engine)
        return events

    monkeypatch.setattr(Engine, "step", checked)
    chosen = [(way, index) for way in WAYS for index in range(len(PROMPTS))]
    random.Random(slots).shuffle(chosen)
    ends = Calls(*(lambda w=way, i=index: w(llm, i) for way, index in chosen)).ends()
    for (way, index), end in zip(chosen, ends, strict=True):
        assert end.error is None, (way, end.error)
        assert end.result == texts[index], way
    gc.collect()
    stats = llm.stats()
    assert stats.is_idle
    assert stats.kv_reserved_bytes == engine_of(llm).memory.rings


def test_an_abandoned_generator_cancels_its_request():
    llm = loaded()
    chunks = (chunk.text for chunk in llm.stream(PROMPTS[0], **LONG))
    next(chunks)
    assert llm.stats().running == 1
    del chunks
    gc.collect()
    assert llm.stats().is_idle  # asked behind the cancel, so no step is waited for


def test_an_abandoned_async_generator_cancels_its_request():
    llm = loaded()

    async def abandon() -> None:
        stream = llm.astream(PROMPTS[0], **LONG)
        async for _ in stream:
            break
        waiting = asyncio.create_task(read_all(stream))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    async def read_all(stream: mtp_mlx.AsyncStream) -> None:
        async for _ in stream:
            pass

    asyncio.run(abandon())
    gc.collect()
    assert llm.stats().is_idle


def test_a_request_that_waits_for_a_slot_is_cancelled_when_it_is_dropped():
    llm = loaded(max_num_seqs=1)
    first, waiting = llm.stream(PROMPTS[0], **LONG), llm.stream(PROMPTS[1], **LONG)
    next(first)
    assert llm.stats().waiting == 1
    del waiting
    gc.collect()
    assert llm.stats().waiting == 0
    first.cancel()
    assert llm.stats().is_idle


def test_an_async_stream_where_no_loop_runs_is_refused_and_leaves_no_request():
    llm = loaded()
    with pytest.raises(RuntimeError, match="no running event loop"):
        llm.astream(PROMPTS[0], **LONG)
    gc.collect()
    assert llm.stats().is_idle


@pytest.mark.parametrize("is_read", [True, False])
def test_an_async_stream_in_another_loop_is_an_error_at_once_and_may_be_left(is_read):
    llm = loaded()

    async def begin() -> mtp_mlx.AsyncStream:
        return llm.astream(PROMPTS[0], **LONG)

    async def use(stream: mtp_mlx.AsyncStream) -> None:
        await (anext(stream) if is_read else stream.aclose())

    def in_two_loops() -> None:
        stream = asyncio.run(begin())
        asyncio.run(use(stream))

    [end] = Calls(in_two_loops).ends()
    assert isinstance(end.error, RuntimeError) and "event loop" in str(end.error)
    end.error = None  # it holds the stream
    gc.collect()
    assert llm.stats().is_idle


def test_one_slow_reader_delays_nobody():
    llm = loaded()
    texts = expected(llm)

    async def both() -> list[tuple[int, ...]]:
        slow = llm.astream(PROMPTS[0], **LONG)  # its chunks are not taken
        texts = await asyncio.gather(*(text_of(llm, index) for index in range(len(PROMPTS))))
        await slow.aclose()
        return texts

    assert asyncio.run(both()) == texts
    assert llm.stats().is_idle


def test_a_closed_model_refuses_everything_and_ends_what_is_open():
    llm = own()
    first, second = llm.stream(PROMPTS[0], **LONG), llm.stream(PROMPTS[1], **LONG)

    async def read_through_the_end() -> None:
        stream = llm.astream(PROMPTS[2], **LONG)
        await anext(stream)
        await asyncio.get_running_loop().run_in_executor(None, llm.close)
        async for _ in stream:
            pass

    async def begin() -> None:
        llm.astream(PROMPTS[0])

    with pytest.raises(mtp_mlx.EngineStopped, match="closed"):
        asyncio.run(read_through_the_end())
    for stream in (first, second):
        assert "closed" in str(read(stream).error)
        stream.cancel()
    calls = (
        lambda: llm.generate(PROMPTS[0]),
        lambda: llm.chat([{"role": "user", "content": "sky"}]),
        lambda: llm.batch(list(PROMPTS)),
        lambda: llm.stream(PROMPTS[0]),
        lambda: asyncio.run(begin()),
        lambda: llm.logits([2, 9]),
        lambda: llm.propose([2, 9], 2),
        llm.stats,
        llm.peak_memory_bytes,
    )
    for end in Calls(*calls).ends():
        assert isinstance(end.error, mtp_mlx.EngineStopped)
        assert "closed; load it again" in str(end.error)


def test_submitting_from_threads_while_another_closes_ends_every_request_once():
    for seed in range(5):
        llm, draw = own(), random.Random(seed)
        prompts = [draw.choice(PROMPTS) for _ in range(6)]
        calls = [partial(read_new, llm, prompt) for prompt in prompts]
        calls.insert(draw.randrange(len(calls)), llm.close)
        for call, end in zip(calls, Calls(*calls).ends(), strict=True):
            if call == llm.close:
                assert end.error is None
            else:
                error = end.error or end.result.error
                assert isinstance(error, mtp_mlx.EngineStopped) and "closed" in str(error)


def read_new(llm: LLM, prompt: list[int]) -> Reading:
    return read(llm.stream(prompt, **LONG))
