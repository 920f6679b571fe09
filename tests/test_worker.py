"""The models' thread: anyone may ask, a fault harms its own request, nobody waits for ever."""

import asyncio
import gc
import multiprocessing
import os
import subprocess
import sys
import threading
import weakref
from fractions import Fraction

import numpy as np
import pytest

import mtp_mlx
from mtp_mlx import worker as module
from mtp_mlx.api import LLM
from tests.api_pairs import engine_of, folders, loaded, prompt_ids, scripted
from tests.bad_input.engines import wait_for_threads
from tests.oracle import agreeing

SAMPLED = {"temperature": 1.0, "top_k": 8, "seed": 11, "max_tokens": 16}
PROMPTS = ([2, 9, 7], [2, *range(110, 140)], [2, 44])
LONG = {"max_tokens": 2000, "seed": 1}
SOON_S = 30.0  # of a machine that is busy; what must come takes milliseconds


def own(max_num_seqs: int = 8) -> LLM:
    """A pair that the test may break."""
    target, drafter = folders()
    return mtp_mlx.load(target, draft_model=drafter, max_num_seqs=max_num_seqs)


def in_threads(calls) -> list:
    """What each call returned or raised, all run at once, each on a thread of its own."""
    results: list = [None] * len(calls)

    def run(index: int) -> None:
        try:
            results[index] = calls[index]()
        except mtp_mlx.MtpError as error:
            results[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON_S)
        assert not thread.is_alive(), "a call waits for ever"
    return results


def test_any_thread_may_generate_and_each_gets_its_own_text():
    llm = loaded()
    expected = [llm.generate(prompt, **SAMPLED) for prompt in PROMPTS]
    calls = [lambda prompt=prompt: llm.generate(prompt, **SAMPLED) for prompt in PROMPTS * 3]
    replies = in_threads(calls)
    assert [r.token_ids for r in replies] == [e.token_ids for e in expected * 3]
    assert llm.stats().is_idle


def test_a_stream_goes_on_while_nobody_reads_it():
    llm = loaded()
    stream = llm.stream(prompt_ids(), **SAMPLED)
    stream._job.wait()
    assert stream.reply.token_ids == llm.generate(prompt_ids(), **SAMPLED).token_ids
    assert len(list(stream)) > 1
    assert list(stream) == []


def test_async_streams_join_to_the_same_replies():
    llm = loaded()
    expected = [llm.generate(prompt, **SAMPLED) for prompt in PROMPTS]

    async def read(prompt) -> tuple[str, mtp_mlx.Reply]:
        stream = llm.astream(prompt, **SAMPLED)
        return "".join([chunk.text async for chunk in stream]), stream.reply

    async def read_all():
        return await asyncio.gather(*(read(prompt) for prompt in PROMPTS))

    for (text, reply), full in zip(asyncio.run(read_all()), expected, strict=True):
        assert (text, reply.token_ids) == (full.text, full.token_ids)


def test_leaving_an_async_stream_cancels_its_request():
    llm = loaded()

    async def leave() -> mtp_mlx.Reply:
        async with llm.astream(prompt_ids(), **LONG) as stream:
            async for _ in stream:
                break
        return stream.reply

    assert asyncio.run(leave()).finish_reason == "cancelled"
    assert llm.stats().is_idle


def test_a_cancelled_task_cancels_its_request():
    llm = loaded()

    async def read() -> None:
        async with llm.astream(prompt_ids(), **LONG) as stream:
            async for _ in stream:
                pass

    async def cancel() -> None:
        task = asyncio.create_task(read())
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert llm.stats().is_idle


def test_a_loop_that_has_gone_harms_nobody():
    llm = loaded()

    async def leave() -> mtp_mlx.AsyncStream:
        return llm.astream(prompt_ids(), **SAMPLED)

    stream = asyncio.run(leave())
    stream._job.wait()
    assert stream.reply.finish_reason == "length"


def test_two_hundred_cancelled_streams_leave_nothing():
    llm = loaded("12b", max_num_seqs=3)
    expected = llm.generate(PROMPTS[0], **SAMPLED)
    for trial in range(50):  # three run and one waits
        streams = [
            llm.stream(PROMPTS[row % 3], num_draft_tokens=(trial + row) % 3, **LONG)
            for row in range(4)
        ]
        for row, stream in enumerate(streams):
            for _ in range((trial + row) % 4):
                next(stream)
            stream.cancel()
            assert stream.reply.finish_reason == "cancelled"
    assert llm.stats().is_idle
    assert llm.generate(PROMPTS[0], **SAMPLED).token_ids == expected.token_ids


def test_a_deadline_ends_a_reply_and_frees_its_row():
    llm = loaded()
    with pytest.raises(mtp_mlx.TimedOut, match=r"0\.2 s"):
        llm.generate(prompt_ids(), timeout=0.2, **LONG)
    stream = llm.stream(prompt_ids(), timeout=0.2, **LONG)
    with pytest.raises(mtp_mlx.TimedOut):
        list(stream)
    assert stream.reply.finish_reason == "error"
    assert 0 < len(stream.reply.token_ids) < LONG["max_tokens"]
    assert llm.stats().is_idle
    full = llm.generate(prompt_ids(), **SAMPLED)
    assert llm.generate(prompt_ids(), timeout=600, **SAMPLED).token_ids == full.token_ids


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "5", True, 1e9])
def test_a_bad_deadline_is_named(value):
    with pytest.raises(mtp_mlx.RequestError, match="timeout") as caught:
        loaded().generate([2], timeout=value)
    assert caught.value.param == "timeout"


@pytest.mark.parametrize("value", [np.float32(600), np.int64(600), np.float64(600), Fraction(600)])
def test_a_deadline_may_be_any_number(value):
    assert loaded().generate([2], max_tokens=1, timeout=value).finish_reason == "length"


def break_engine(llm: LLM, monkeypatch, at: int, error: BaseException, *, forever=False) -> None:
    """The model's engine raises in its step number `at`; `forever`: in all later ones too."""
    running = engine_of(llm)
    kind = type(running)
    step, counts = kind.step, {"steps": 0}

    def failing(self):
        if forever or self is running:
            counts["steps"] += 1
            if counts["steps"] == at or (forever and counts["steps"] > at):
                raise error
        return step(self)

    monkeypatch.setattr(kind, "step", failing)


def test_a_step_that_fails_ends_all_streams_with_the_reason_and_the_model_goes_on(monkeypatch):
    with own() as llm:
        expected = llm.generate(prompt_ids(), **SAMPLED)
        streams = [llm.stream(prompt, **LONG) for prompt in PROMPTS]
        break_engine(llm, monkeypatch, 3, ArithmeticError("cosmic ray"))
        for stream in streams:
            with pytest.raises(mtp_mlx.EngineStopped, match="cosmic ray"):
                list(stream)
            assert stream.reply.finish_reason == "error"
        assert llm.stats().is_idle
        assert llm.generate(prompt_ids(), **SAMPLED).token_ids == expected.token_ids


def test_an_engine_that_fails_again_and_again_is_stopped(monkeypatch):
    llm = own()
    break_engine(llm, monkeypatch, 1, ArithmeticError("broken"), forever=True)
    faults = []
    for _ in range(module.MAX_FAILURES + 1):
        with pytest.raises(mtp_mlx.EngineStopped) as caught:
            llm.generate([2, 9], max_tokens=4)
        faults.append(str(caught.value))
    assert f"{module.MAX_FAILURES} times" in faults[-1]
    with pytest.raises(mtp_mlx.EngineStopped):
        llm.stats()
    llm.close()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError(), SystemExit(3)], ids=repr)
def test_whatever_ends_the_thread_ends_every_stream(monkeypatch, error):
    llm = own()
    streams = [llm.stream(prompt, **LONG) for prompt in PROMPTS]
    break_engine(llm, monkeypatch, 2, error, forever=True)
    for stream in streams:
        with pytest.raises(mtp_mlx.EngineStopped, match=type(error).__name__):
            list(stream)
    llm.close()


def test_a_reply_that_cannot_be_decoded_fails_alone(monkeypatch):
    llm = loaded()
    expected = llm.generate(PROMPTS[0], **SAMPLED)
    bad, good = llm.stream(PROMPTS[1], **LONG), llm.stream(PROMPTS[0], **SAMPLED)

    monkeypatch.setattr(bad._job._parts, "push", None)  # every later token fails in is_end
    list(good)
    assert good.reply.token_ids == expected.token_ids
    with pytest.raises(mtp_mlx.MtpError):
        list(bad)
    assert bad.reply.finish_reason == "error"
    assert llm.stats().is_idle


def test_closing_ends_open_streams_and_later_calls_say_so():
    llm = own()
    stream = llm.stream(prompt_ids(), **LONG)
    next(stream)
    llm.close()
    llm.close()
    with pytest.raises(mtp_mlx.EngineStopped, match="closed"):
        list(stream)
    stream.cancel()
    for call in (lambda: llm.generate([2]), lambda: llm.logits([2]), llm.stats):
        with pytest.raises(mtp_mlx.EngineStopped, match="closed; load it again"):
            call()


def test_a_model_that_is_dropped_ends_its_thread():
    llm = own()
    thread, gone = llm._worker._thread, weakref.ref(llm)
    del llm
    gc.collect()
    thread.join(SOON_S)
    assert gone() is None
    assert not thread.is_alive()


def test_a_stream_outlives_its_model():
    stream = own().stream(prompt_ids(), **SAMPLED)
    gc.collect()
    assert "".join(chunk.text for chunk in stream) == stream.reply.text
    assert stream.reply.finish_reason == "length"


def test_calls_and_closing_from_many_threads_at_once():
    llm = own()
    calls = [lambda: llm.generate(PROMPTS[0], **SAMPLED), llm.stats, llm.close, llm.close]
    for result in in_threads(calls * 4):
        assert result is None or isinstance(
            result, mtp_mlx.Reply | mtp_mlx.EngineStats | mtp_mlx.EngineStopped
        )


def _use_in_child(llm: LLM, answers) -> None:
    try:
        llm.generate([2], max_tokens=2)
    except mtp_mlx.EngineStopped as error:
        answers.put(str(error))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_gets_a_clear_error():
    llm = loaded()
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    child = context.Process(target=_use_in_child, args=(llm, answers))
    child.start()
    child.join(SOON_S)
    assert child.exitcode == 0
    assert "spawn" in answers.get()
    llm.generate([2], max_tokens=2)


LEAVING = """
import sys, mtp_mlx
llm = mtp_mlx.load(sys.argv[1], draft_model=sys.argv[2])
streams = [llm.stream([2, 9 + i], max_tokens=2000, seed=i) for i in range(4)]
next(streams[0])
"""


@pytest.mark.parametrize("count", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_a_process_that_ends_with_open_streams_ends_well(count):
    for _ in range(count):
        arguments = [sys.executable, "-c", LEAVING, *map(str, folders())]
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=SOON_S)
        assert (done.returncode, done.stderr) == (0, "")


def test_a_model_that_does_not_load_raises_where_it_was_asked_for(tmp_path):
    before = threading.active_count()
    with pytest.raises(mtp_mlx.ModelNotFound):
        mtp_mlx.load(tmp_path / "absent")
    with pytest.raises(mtp_mlx.RequestError, match="dtype"):
        mtp_mlx.load(folders()[0], dtype="float8")
    wait_for_threads(before)


def test_batches_join_the_engine_together():
    full = [loaded().generate(prompt, num_draft_tokens=0, **SAMPLED) for prompt in PROMPTS]
    llm = scripted([reply.token_ids for reply in full], agreeing(0.7, 4))
    replies = llm.batch(list(PROMPTS), num_draft_tokens=3, **SAMPLED)
    assert [r.token_ids for r in replies] == [f.token_ids for f in full]
    assert llm.stats().accepted == sum(reply.spec.accepted for reply in replies)
