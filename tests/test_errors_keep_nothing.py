"""An error that somebody keeps does not keep the models, the engine or its K/V."""

import gc
import weakref

import pytest

import mtp_mlx
from mtp_mlx.engine.engine import Engine
from mtp_mlx.errors import without_frames
from mtp_mlx.request import Failed, Request, Sampling
from tests.api_pairs import engine_of
from tests.bad_input.engines import LONG, PROMPTS, Fault, own, read, streams
from tests.exact.pairs import golden_pair


class Large:
    """Stands for what a frame holds."""


def failing(held: Large) -> None:
    try:
        raise KeyError("cause")
    except KeyError as cause:
        raise ArithmeticError("cosmic ray") from cause


def test_an_error_without_frames_holds_nothing_and_says_where_it_came_from():
    held = Large()
    gone = weakref.ref(held)
    with pytest.raises(ArithmeticError) as caught:
        failing(held)
    error = without_frames(caught.value)
    del held, caught
    gc.collect()
    assert gone() is None
    for each in (error, error.__cause__):
        assert each is not None and each.__traceback__ is None
        assert any("in failing" in note for note in each.__notes__)
    assert str(without_frames(error)) == "cosmic ray" and len(error.__notes__) == 1


@pytest.mark.parametrize("place", ["step", "submit", "cancel"])
def test_a_stream_that_failed_keeps_no_engine(monkeypatch, place):
    fault = Fault(Engine, place, monkeypatch)
    with own() as llm:
        engine = weakref.ref(engine_of(llm))
        fault.plan(1)
        [stream] = streams(llm, PROMPTS[:1], **LONG)
        if place == "cancel":
            stream.cancel()
        error = read(stream).error
        assert "cosmic ray" in str(error)
        if place == "submit":  # this engine goes on; the next failure ends it
            fault_in_step = Fault(Engine, "step", monkeypatch)
            fault_in_step.plan(1)
            with pytest.raises(mtp_mlx.EngineStopped):
                llm.generate(PROMPTS[0])
        assert llm.stats().is_idle
        gc.collect()
        assert engine() is None
    assert stream.reply.error


def test_a_row_that_failed_by_its_own_code_keeps_no_engine():
    def is_end(token: int) -> bool:
        raise ArithmeticError("cosmic ray")

    engine = Engine(golden_pair("31b").target, None, max_num_seqs=1)
    engine.submit(Request(prompt=(2, 3), sampling=Sampling(), max_tokens=4, is_end=is_end))
    [*_, failed] = engine.step()
    gone = weakref.ref(engine)
    del engine
    gc.collect()
    assert isinstance(failed, Failed) and "cosmic ray" in str(failed.error)
    assert gone() is None
