"""What callers, callbacks and texts that break may do to the models' thread: no harm to others."""

import asyncio
import threading
from concurrent.futures import Future

import pytest

import mtp_mlx
from mtp_mlx.engine.engine import Engine
from mtp_mlx.worker import Call
from tests.api_pairs import engine_of, loaded, scripted
from tests.bad_input.engines import LONG, PROMPTS, SAMPLED, SOON_S, Calls, Fault, own, read
from tests.oracle import always
from tests.planners import Moody


def broken(*_: object, **__: object) -> str:
    raise ArithmeticError("cosmic ray")


def no_more(stream: mtp_mlx.Stream) -> None:
    stream._worker.cancel(stream._job)


@pytest.mark.parametrize(("end", "options"), [(None, {"timeout": 0.2}), (no_more, {})])
def test_a_reply_that_cannot_take_its_own_end_fails_alone(monkeypatch, end, options):
    llm = loaded()
    expected = llm.generate(PROMPTS[1], **SAMPLED).token_ids
    bad, good = llm.stream(PROMPTS[0], **LONG, **options), llm.stream(PROMPTS[1], **LONG)
    monkeypatch.setattr(bad._job._parts, "finish", broken)
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
    monkeypatch.setattr(job._parts, "finish", broken)
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


def test_callers_in_a_loop_get_one_call_between_two_steps():
    llm, inside, go = loaded(), threading.Event(), threading.Event()
    rounds: list[int] = []
    with llm.stream(PROMPTS[0], **LONG) as stream:
        next(stream)
        held = Calls(lambda: llm._worker.call(lambda *_: (inside.set(), go.wait(SOON_S))))
        assert inside.wait(SOON_S)
        asked: list[Future] = [Future() for _ in range(5)]
        for answer in asked:  # all of them wait when the thread looks again
            count = Call(lambda _, engine: rounds.append(engine.counters.rounds), answer)
            llm._worker._inbox.send(count)
        go.set()
        for answer in asked:
            answer.result(SOON_S)
    assert len(set(rounds)) == len(rounds) == len(asked)
    assert [end.error for end in held.ends()] == [None]


def test_a_deadline_is_met_while_others_call_in_a_loop():
    llm, is_over = loaded(), threading.Event()

    def calling() -> None:
        while not is_over.is_set():
            llm.logits(PROMPTS[1])

    callers = Calls(calling, calling, calling)
    try:
        with pytest.raises(mtp_mlx.TimedOut):
            llm.generate(PROMPTS[0], timeout=0.2, **LONG)
    finally:
        is_over.set()
    assert [end.error for end in callers.ends()] == [None] * 3


def test_the_time_of_a_call_is_no_time_of_a_round():
    llm = scripted([], always("wrong"))
    planner = Moody(0)
    engine_of(llm).planner = planner
    plain = LONG | {"max_tokens": 400}
    with llm.stream(PROMPTS[0], **plain) as stream:
        for _ in range(8):
            next(stream)
        before = llm._worker.call(lambda *_: len(planner.told))
        while len(planner.told) < before + 3:
            next(stream)
    timings = [timing for _, _, timing, _ in planner.told]
    assert before >= 6 and all(timing.is_clean for timing in timings[2:before])
    assert [timing.is_clean for timing in timings[before : before + 3]] == [False, True, True]
