"""D4: a step that fails ends all open streams, once each and within a second; the model goes on.

Three failures within a minute end it for good, with the reason in every later call.
"""

from types import SimpleNamespace

import pytest

import mtp_mlx
from mtp_mlx import worker as module
from mtp_mlx.engine.engine import Engine
from mtp_mlx.model.target import Target
from tests.api_pairs import engine_of
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
)

LIMIT_S = 1.0
# Calls of each that the three prompts and some rounds make; the fault is in one of them.
PLACES = [
    *((Engine, "step", at) for at in (1, 2, 4, 12)),
    *((Target, "prefill", at) for at in (1, 2)),
    *((Target, "__call__", at) for at in (1, 2, 5, 6)),
    *((Target, "logits", at) for at in (1, 5)),
]


@pytest.fixture
def unlimited(monkeypatch):
    """An engine may fail as often as it likes."""
    monkeypatch.setattr(module, "FAILURE_WINDOW_S", 0.0)


@pytest.mark.usefixtures("unlimited")
def test_a_step_that_fails_anywhere_ends_every_stream_once_and_soon(monkeypatch):
    with own() as llm:
        expected = [llm.generate(prompt, **SAMPLED).token_ids for prompt in PROMPTS]
        faults = {(kind, name): Fault(kind, name, monkeypatch) for kind, name, _ in PLACES}
        for kind, name, at in PLACES:
            fault = faults[kind, name]
            fault.plan(at)
            calls = Calls(*(lambda s=s: read(s) for s in streams(llm)))
            for end in calls.ends():
                assert end.error is None, end.error
                assert isinstance(end.result.error, mtp_mlx.EngineStopped)
                assert "cosmic ray" in str(end.result.error)
                assert end.result.ends == ["error"]
                assert end.at - fault.raised_at < LIMIT_S
            fault.at = None
            assert llm.stats().is_idle
        replies = llm.batch(list(PROMPTS), **SAMPLED)
        assert [reply.token_ids for reply in replies] == expected


@pytest.mark.usefixtures("unlimited")
@pytest.mark.parametrize("backend", ["mlx", "numpy"])
def test_a_cancel_that_fails_ends_the_streams_and_not_the_model(monkeypatch, backend):
    with own(backend) as llm:
        expected = llm.generate(PROMPTS[0], **SAMPLED).token_ids
        fault = Fault(type(engine_of(llm)), "cancel", monkeypatch)
        first, *others = streams(llm)
        fault.plan(1)
        Calls(first.cancel).ends()
        for stream in (first, *others):
            reading = read(stream)
            assert isinstance(reading.error, mtp_mlx.EngineStopped)
            assert reading.ends == ["error"]
        assert llm.generate(PROMPTS[0], **SAMPLED).token_ids == expected


@pytest.mark.usefixtures("unlimited")
def test_a_deadline_in_an_engine_that_fails_to_cancel_ends_the_reply_too(monkeypatch):
    with own() as llm:
        Fault(Engine, "cancel", monkeypatch).plan(1)
        [stream] = streams(llm, PROMPTS[:1], timeout=0.1, **LONG)
        [end] = Calls(lambda: read(stream)).ends()
        assert isinstance(end.result.error, mtp_mlx.EngineStopped)
        assert llm.generate(PROMPTS[0], **SAMPLED).finish_reason == "length"


def test_a_request_that_the_engine_cannot_take_fails_alone(monkeypatch):
    with own() as llm:
        fault = Fault(Engine, "submit", monkeypatch)
        fault.plan(2)
        readings = [read(stream) for stream in streams(llm, **SAMPLED)]
        assert [reading.ends for reading in readings] == [["length"], ["error"], ["length"]]
        assert "cosmic ray" in str(readings[1].error)


@pytest.mark.usefixtures("unlimited")
def test_a_reply_that_can_take_no_event_ends_in_an_engine_that_fails(monkeypatch):
    with own() as llm:
        opened = streams(llm)
        fault = Fault(Engine, "step", monkeypatch)
        monkeypatch.setattr(opened[0]._job, "feed", None)
        monkeypatch.setattr(Engine, "cancel", None)
        fault.plan(1)
        for end in Calls(*(lambda s=s: read(s) for s in opened)).ends():
            assert isinstance(end.result.error, mtp_mlx.MtpError)


class Clock:
    """Seconds on the monotonic clock, as the test says."""

    def __init__(self, monkeypatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now))


def failure(llm: mtp_mlx.LLM) -> str:
    """Fail a request in its first step, and what it says."""
    with pytest.raises(mtp_mlx.EngineStopped) as caught:
        llm.generate(PROMPTS[0], max_tokens=4)
    assert (caught.value.status, caught.value.exit_code) == (503, 70)
    return str(caught.value)


def test_failures_far_apart_end_nothing_and_three_in_a_minute_do(monkeypatch):
    clock, llm = Clock(monkeypatch), own()
    fault = Fault(Engine, "step", monkeypatch)
    for clock.now in (0.0, 30.0, 60.0, 100.0, 120.5):  # never three within sixty seconds
        fault.plan(1)
        assert "cosmic ray" in failure(llm)
        assert llm.generate(PROMPTS[0], **SAMPLED).finish_reason == "length"
    clock.now = 159.9
    fault.plan(1)
    assert "cosmic ray" in failure(llm)
    llm._worker._thread.join(SOON_S)
    assert not llm._worker._thread.is_alive()
    later = [
        lambda: llm.generate(PROMPTS[0]),
        lambda: llm.batch([PROMPTS[0]]),
        lambda: llm.stream(PROMPTS[0]),
        lambda: llm.logits([2, 9]),
        lambda: llm.propose([2, 9], 2),
        llm.stats,
    ]
    for end in Calls(*later).ends():
        assert isinstance(end.error, mtp_mlx.EngineStopped)
        assert "3 times in 60 s" in str(end.error) and "cosmic ray" in str(end.error)
    llm.close()
