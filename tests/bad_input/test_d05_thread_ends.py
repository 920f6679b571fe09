"""D5: whatever ends the models' thread, everyone who waits for it hears so within two seconds."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

import mtp_mlx
from mtp_mlx import worker as module
from mtp_mlx.engine.engine import Engine
from mtp_mlx.engine.runtime import MlxRuntime
from mtp_mlx.errors import contained
from mtp_mlx.worker import Inbox, Worker
from tests.api_pairs import OracleRuntime, engine_of, folders, loaded
from tests.bad_input.engines import (
    LONG,
    PROMPTS,
    SAMPLED,
    SOON_S,
    Calls,
    Fault,
    own,
    read,
    streams,
    wait_for_threads,
)
from tests.constraints import words

LIMIT_S = 2.0


class Fatal(BaseException):
    """No Exception, as the end of a thread may be."""


ENDINGS = [Fatal("gone"), SystemExit(3), KeyboardInterrupt(), GeneratorExit()]


class Stuck:
    """A step of the engine that waits until it may raise."""

    def __init__(self, llm: mtp_mlx.LLM, error: BaseException, monkeypatch) -> None:
        self.inside, self._go = threading.Event(), threading.Event()

        def step(engine):
            self.inside.set()
            assert self._go.wait(SOON_S)
            raise error

        monkeypatch.setattr(type(engine_of(llm)), "step", step)

    def release(self) -> None:
        self._go.set()


class Sent:
    """Counts the commands that wait for the thread."""

    def __init__(self, monkeypatch) -> None:
        self._count = threading.Semaphore(0)
        send = Inbox.send

        def counted(inbox, command):
            send(inbox, command)
            self._count.release()

        monkeypatch.setattr(Inbox, "send", counted)

    def wait(self, count: int) -> None:
        for _ in range(count):
            assert self._count.acquire(timeout=SOON_S)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(
    ("error", "backend"),
    [*((error, "mlx") for error in ENDINGS), (ENDINGS[0], "numpy")],
    ids=repr,
)
def test_every_kind_of_call_hears_that_the_thread_has_ended(monkeypatch, error, backend):
    llm = own(backend)
    stuck, sent = Stuck(llm, error, monkeypatch), Sent(monkeypatch)
    open_streams = streams(llm)
    sent.wait(1)
    assert stuck.inside.wait(SOON_S)

    async def read_async() -> None:
        async for _ in llm.astream(PROMPTS[0], **LONG):
            pass

    waiting = [
        lambda: llm.generate(PROMPTS[0], **LONG),
        lambda: [reply.error for reply in llm.batch(list(PROMPTS), **LONG)],
        lambda: read(llm.stream(PROMPTS[1], **LONG)),
        lambda: asyncio.run(read_async()),
        lambda: llm.logits([2, 9]),
        llm.stats,
        open_streams[0].cancel,
    ]
    reading = [lambda s=stream: read(s) for stream in open_streams]
    calls = Calls(*waiting, *reading)
    sent.wait(len(waiting))
    begun = module.time.monotonic()
    stuck.release()
    ends = calls.ends()
    assert max(end.at for end in ends) - begun < LIMIT_S
    generated, batched, streamed, streamed_async, logits, stats, cancelled, *read_ = ends
    for end in (generated, streamed_async, logits, stats):
        assert isinstance(end.error, mtp_mlx.EngineStopped)
        assert type(error).__name__ in str(end.error)
    assert all(type(error).__name__ in reason for reason in batched.result)
    assert cancelled.error is None
    for end in (streamed, *read_):
        assert isinstance(end.result.error, mtp_mlx.EngineStopped)
        assert end.result.ends == ["error"]
    with pytest.raises(mtp_mlx.EngineStopped, match=type(error).__name__):
        llm.stats()
    llm.close()


class Panicking:
    """A constraint, and a test of the end, that raise what is no Exception at the third token."""

    def __init__(self, place: str, vocab_size: int, is_end: Callable[[int], bool]) -> None:
        self._place, self._vocab_size, self._left = place, vocab_size, 2
        self._is_end = is_end

    def masks(self, drafts) -> np.ndarray:
        if self._place == "masks" and self._left <= 0:
            raise Fatal("gone")
        return words(np.ones((len(drafts) + 1, self._vocab_size), dtype=bool))

    def take(self, tokens) -> None:
        self._left -= len(tokens)
        if self._place == "take" and self._left < 0:
            raise Fatal("gone")

    def is_end(self, token: int) -> bool:
        if self._place == "is_end" and self._left <= 0:
            raise Fatal("gone")
        return self._is_end(token)


@pytest.mark.parametrize(("backend", "drafts"), [("mlx", 0), ("mlx", 3), ("numpy", 0)])
@pytest.mark.parametrize("place", ["masks", "take", "is_end"])
def test_a_panic_of_a_requests_own_code_ends_its_reply_alone(backend, place, drafts):
    """As of a native library, whose panics are no Exceptions."""
    llm = loaded(backend=backend)
    expected = llm.generate(PROMPTS[0], **SAMPLED).token_ids
    job, other = llm._job(PROMPTS[1], SAMPLED), llm._job(PROMPTS[0], SAMPLED)
    own_code = Panicking(place, llm.config.vocab_size, job.request.is_end)
    job.request = replace(
        job.request, constraint=own_code, is_end=own_code.is_end, num_draft_tokens=drafts
    )
    llm._worker.submit(job, other)
    reply = job.reply()
    assert reply.finish_reason == "error" and "Fatal: gone" in (reply.error or "")
    assert other.reply().token_ids == expected
    assert llm.stats().is_idle and llm.snapshot().stopped is None


@pytest.mark.parametrize("error", ENDINGS, ids=repr)
def test_what_comes_from_outside_a_requests_code_is_not_its_fault(error):
    if isinstance(error, Fatal):
        found = contained(error)
        assert type(found) is mtp_mlx.MtpError and found.__cause__ is error
    else:
        with pytest.raises(type(error)):
            contained(error)
    fault = ValueError("its own")
    assert contained(fault) is fault


def test_requests_that_the_thread_had_read_when_it_ended_have_ended(monkeypatch):
    llm = own()
    Fault(Engine, "submit", monkeypatch).plan(2, Fatal("gone"))
    for end in Calls(*(lambda s=s: read(s) for s in streams(llm))).ends():
        assert isinstance(end.result.error, mtp_mlx.EngineStopped)
        assert end.result.ends == ["error"]
    llm.close()


def test_memory_that_runs_out_in_a_step_ends_the_streams_alone(monkeypatch):
    with own() as llm:
        expected = llm.generate(PROMPTS[0], **LONG | {"max_tokens": 8}).token_ids
        Fault(Engine, "step", monkeypatch).plan(4, MemoryError("no bytes"))
        for end in Calls(*(lambda s=s: read(s) for s in streams(llm))).ends():
            assert "no bytes" in str(end.result.error)
        assert llm.generate(PROMPTS[0], **LONG | {"max_tokens": 8}).token_ids == expected


def test_a_second_engine_that_cannot_be_made_ends_the_thread_with_its_reason(monkeypatch):
    llm = own()
    Fault(Engine, "step", monkeypatch).plan(4)
    Fault(MlxRuntime, "new_engine", monkeypatch).plan(1, MemoryError("no bytes"))
    for end in Calls(*(lambda s=s: read(s) for s in streams(llm))).ends():
        assert "cosmic ray" in str(end.result.error)
    llm._worker._thread.join(SOON_S)
    with pytest.raises(mtp_mlx.EngineStopped, match="no bytes"):
        llm.stats()
    llm.close()


@pytest.mark.parametrize("name", ["__init__", "new_engine"])
@pytest.mark.parametrize("error", [MemoryError("no bytes"), Fatal("gone")], ids=repr)
def test_a_load_that_fails_on_the_thread_raises_where_it_was_asked_for(monkeypatch, name, error):
    Fault(MlxRuntime, name, monkeypatch).plan(1, error)
    target, drafter = folders()
    before = threading.active_count()
    [end] = Calls(lambda: mtp_mlx.load(target, draft_model=drafter)).ends()
    assert type(end.error) is type(error)
    wait_for_threads(before)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_models_that_cannot_be_freed_keep_nobody_waiting(monkeypatch):
    llm = own()
    Fault(MlxRuntime, "close", monkeypatch).plan(1)
    opened = streams(llm)
    Calls(llm.close).ends()
    for stream in opened:
        assert isinstance(read(stream).error, mtp_mlx.EngineStopped)
    with pytest.raises(mtp_mlx.EngineStopped, match="closed"):
        llm.stats()


def test_a_runtime_without_an_engine_is_closed_again(monkeypatch):
    closed = threading.Event()

    class Runtime(OracleRuntime):
        def __init__(self) -> None:
            pass

        def new_engine(self):
            raise ArithmeticError("cosmic ray")

        def close(self) -> None:
            closed.set()

    with pytest.raises(ArithmeticError, match="cosmic ray"):
        Worker(Runtime)
    assert closed.is_set()
