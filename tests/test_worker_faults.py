"""What callers may do to the models' thread, and what an error may keep, without harm to others."""

import pytest

import mtp_mlx
from mtp_mlx.engine.engine import Engine
from tests.api_pairs import loaded
from tests.bad_input.engines import LONG, PROMPTS, SAMPLED, Calls, Fault, read


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
