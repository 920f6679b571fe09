"""What callers, callbacks and texts that break may do to the models' thread: no harm to others."""

import asyncio
import threading

import pytest

import mtp_mlx
from mtp_mlx.engine.engine import Engine
from tests.api_pairs import loaded
from tests.bad_input.engines import LONG, PROMPTS, SAMPLED, SOON_S, Calls, Fault, own, read


def broken(*_: object, **__: object) -> str:
    raise ArithmeticError("cosmic ray")


def no_more(stream: mtp_mlx.Stream) -> None:
    stream._worker.cancel(stream._job)


@pytest.mark.parametrize(("end", "options"), [(None, {"timeout": 0.2}), (no_more, {})])
def test_a_reply_that_cannot_take_its_own_end_fails_alone(monkeypatch, end, options):
    llm = loaded()
    expected = llm.generate(PROMPTS[1], **SAMPLED).token_ids
    bad, good = llm.stream(PROMPTS[0], **LONG, **options), llm.stream(PROMPTS[1], **LONG)
    monkeypatch.setattr(bad._job._transcript, "finish", broken)
    if end is not None:
        Calls(lambda: end(bad)).ends()
    [ended] = Calls(lambda: read(bad)).ends()
    assert "cosmic ray" in str(ended.result.error)
    assert next(good).finish_reason is None
    good.cancel()
    assert good.reply.finish_reason == "cancelled"
    assert llm.generate(PROMPTS[1], **SAMPLED).token_ids == expected
    assert llm.stats().is_idle


def test_a_request_that_the_engine_refuses_and_that_cannot_say_so_fails_alone(monkeypatch):
    llm = loaded()
    good, job = llm.stream(PROMPTS[1], **LONG), llm._job(PROMPTS[0], {})
    next(good)
    Fault(Engine, "submit", monkeypatch).plan(1)
    monkeypatch.setattr(job._transcript, "finish", broken)
    llm._worker.submit(job)
    [ended] = Calls(job.reply).ends()
    assert ended.result.finish_reason == "error"
    good.cancel()
    assert good.reply.finish_reason == "cancelled"


def test_the_models_own_thread_may_not_wait_for_itself():
    llm = loaded()
    opened = llm.stream(PROMPTS[0], **LONG)

    async def read_async() -> None:
        await anext(llm.astream(PROMPTS[0]))

    uses = (
        llm.stats,
        llm.close,
        lambda: llm.logits([2, 9]),
        lambda: llm.generate(PROMPTS[0]),
        lambda: llm.batch(list(PROMPTS)),
        lambda: llm.stream(PROMPTS[0]),
        lambda: asyncio.run(read_async()),
        lambda: next(opened),
        opened.cancel,
    )
    calls = [lambda use=use: llm._worker.call(lambda *_: use()) for use in uses]
    for end in Calls(*calls).ends():
        assert isinstance(end.error, RuntimeError) and "its own thread" in str(end.error)
    opened.cancel()
    assert llm.stats().is_idle


def test_whoever_closes_second_waits_for_the_end_too():
    llm = own()
    inside, go = threading.Event(), threading.Event()
    held = Calls(lambda: llm._worker.call(lambda *_: (inside.set(), go.wait(SOON_S))))
    assert inside.wait(SOON_S)
    thread, finalizer = llm._worker._thread, llm._worker._finalizer
    first = Calls(llm.close)
    while finalizer.alive:  # the first call has begun
        pass

    def close_second() -> bool:
        llm.close()
        return thread.is_alive()

    second = Calls(close_second)
    second._threads[0].join(0.2)  # time enough to come back too early
    go.set()
    assert [end.result for end in second.ends()] == [False]
    assert [end.error for calls in (held, first) for end in calls.ends()] == [None, None]
