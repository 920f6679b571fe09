"""What the engine's thread shows: exact at idle, fresh at work, there for anyone without asking."""

import dataclasses
import threading
import time

import pytest

import mtp_mlx
from mtp_mlx import board as module
from mtp_mlx.board import PERIOD_S, Board
from mtp_mlx.engine.engine import Engine
from mtp_mlx.job import Job
from mtp_mlx.reply import EngineStats
from mtp_mlx.request import Tokens
from mtp_mlx.snapshot import REASONS, EngineStatus, RoundStats, RowStatus, kind_of
from tests.api_pairs import engine_of, folders, loaded, prompt_ids
from tests.bad_input.engines import own

LONG = {"max_tokens": 2000, "seed": 1}
SOON_S = 30.0  # of a machine that is busy; what must come takes milliseconds
NONE = {"decision", "costs", "experts_per_layer", "expert_overlap_rows", "expert_overlap_drafts"}
EMPTY = EngineStats(
    **{each.name: None if each.name in NONE else 0 for each in dataclasses.fields(EngineStats)}
)
NO_ROUNDS = RoundStats({}, (), (), ())


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def standing(*rows: RowStatus) -> EngineStatus:
    return EngineStatus(dataclasses.replace(EMPTY, running=len(rows)), rows, NO_ROUNDS)


def row(tokens: int, number: int = 1) -> RowStatus:
    return RowStatus(number, 0, "decode", 5, 5, tokens)


def emitted(count: int) -> list:
    return [Tokens(1, (7,) * count, ("plain",) * count, (), 0)]


def test_it_is_due_four_times_a_second_and_when_work_begins_or_ends():
    clock = Clock()
    board = Board(clock)
    board.show(standing(), 1, 2)
    clock.now += 10
    assert not board.is_due(is_idle=True) and board.is_due(is_idle=False)
    board.show(standing(row(0)), 1, 2)
    clock.now += PERIOD_S / 2
    assert not board.is_due(is_idle=False) and board.is_due(is_idle=True)
    clock.now += PERIOD_S / 2
    assert board.is_due(is_idle=False)


def test_speeds_are_those_of_the_last_seconds():
    clock = Clock()
    board = Board(clock)
    board.show(standing(), 1, 2)
    board.show(standing(row(1)), 1, 2)
    assert (board.snapshot.tokens_per_s, board.snapshot.rows[0].tokens_per_s) == (0.0, None)
    for second in range(1, 21):  # 4 tokens a second, then 40
        board.step(emitted(1 if second <= 8 else 10))
        clock.now += 0.25
        total = min(second, 8) + 10 * max(second - 8, 0)
        board.show(standing(row(1 + total), row(50, 2)), 1, 2)
    last = board.snapshot
    assert (last.steps, last.tokens) == (20, 128)
    assert last.tokens_per_s == pytest.approx(40.0)
    assert [each.tokens_per_s for each in last.rows] == pytest.approx([40.0, 0.0])
    clock.now += 0.25
    board.show(standing(), 1, 2)
    assert board.snapshot.tokens_per_s == 0.0 and board.snapshot.rows == ()


def test_a_stuck_engine_is_told_from_an_idle_one():
    clock = Clock()
    board = Board(clock)
    board.show(standing(), 1, 2)
    clock.now += 1000
    assert board.snapshot.stalled_s(clock.now) == 0.0
    board.show(standing(row(0)), 1, 2)  # work begins, and the first step never ends
    clock.now += 31
    assert board.snapshot.stalled_s(clock.now) == pytest.approx(31.0)
    board.step(emitted(1))
    board.show(standing(row(1)), 1, 2)
    assert board.snapshot.stalled_s(clock.now) == 0.0


def test_the_end_leaves_no_row():
    board = Board(Clock())
    board.show(standing(row(3)), 1, 2)
    board.end("cosmic ray")
    assert board.snapshot.stopped == "cosmic ray"
    assert board.snapshot.rows == () and board.snapshot.stats.is_idle


def test_every_known_reason_has_a_kind_of_its_own():
    assert len({kind_of(f"{words}: 3x") for words in REASONS}) == len(REASONS)
    assert kind_of("by the test") == "other"


@pytest.mark.parametrize("backend", ["mlx", "numpy"])
def test_after_a_reply_it_is_exact_at_once(backend):
    llm = loaded(backend=backend)
    before = llm.snapshot()
    replies = [
        llm.generate(prompt_ids(), max_tokens=4, num_draft_tokens=count) for count in (0, 2, 3)
    ]
    after = llm.snapshot()
    assert after.stats == llm.stats() and after.stats.is_idle and after.rows == ()
    assert after.tokens - before.tokens == sum(len(reply.token_ids) for reply in replies)
    drafted = sum(after.rounds.drafted_per_position) - sum(before.rounds.drafted_per_position)
    assert drafted == sum(reply.spec.drafted for reply in replies) > 0
    assert after.peak_bytes > 0
    assert (after.active_bytes is None) == (backend == "numpy")


@pytest.mark.parametrize("backend", ["mlx", "numpy"])
def test_a_reply_tells_its_times_and_its_prompt(backend):
    llm = loaded(backend=backend)
    with llm.stream(prompt_ids(72), max_tokens=5, num_draft_tokens=0) as stream:
        chunks = list(stream)
    reply, timings = stream.reply, stream.reply.timings
    assert stream.progress is not None
    assert (stream.progress.done, stream.progress.total) == (72, 72)
    assert timings.prompt_s > 0 <= timings.queue_s
    assert timings.queue_s + timings.prompt_s == pytest.approx(timings.first_token_s)
    assert sum(stream.gaps) == pytest.approx(timings.generation_s)
    assert len(stream.gaps) == reply.spec.rounds == 4
    assert [chunk.round for chunk in chunks] == [0, 1, 2, 3, 4, 4]


def test_who_waits_for_a_row_is_in_the_queue_until_then():
    target, drafter = folders()
    with mtp_mlx.load(target, draft_model=drafter, max_num_seqs=1) as llm:
        with llm.stream([2, 9, 7], **LONG) as first:
            next(first)
            with llm.stream([2, 9], max_tokens=2) as second:
                wait_until(lambda: len(llm.snapshot().rows) == 2)
                assert second.progress is None
                shown = llm.snapshot()
                assert [each.state for each in shown.rows] == ["decode", "queued"]
                assert [each.id for each in shown.rows] == [first.request_id, second.request_id]
                assert shown.rows[0].tokens > 0 and shown.tokens_per_s >= 0
                time.sleep(0.05)
                assert second.silent_s > 0.05
                first.cancel()
                list(second)
        assert second.reply.timings.queue_s > 0.05 > second.reply.timings.prompt_s
    assert llm.snapshot().stopped == "the model is closed; load it again"


@pytest.mark.parametrize(("owner", "method"), [(Engine, "step"), (Job, "feed")])
def test_it_is_exact_after_a_failure(monkeypatch, owner, method):
    def broken(*_: object) -> None:
        raise ArithmeticError("cosmic ray")

    with own() as llm:
        stream = llm.stream(prompt_ids(), **LONG)
        next(stream)
        wait_until(lambda: llm.snapshot().rows)
        monkeypatch.setattr(owner, method, broken)
        with pytest.raises(mtp_mlx.MtpError, match="cosmic ray"):
            list(stream)
        wait_until(lambda: llm.snapshot().stats.is_idle)
        assert llm.snapshot().rows == ()


def test_looking_neither_waits_for_the_engine_nor_disturbs_its_clock(monkeypatch):
    llm, inside, go = loaded(), threading.Event(), threading.Event()
    engine = engine_of(llm)
    disturbed = []
    monkeypatch.setattr(module, "PERIOD_S", 0.0)
    with llm.stream(prompt_ids(), **LONG) as stream:
        for _ in range(3):
            next(stream)
        monkeypatch.setattr(engine, "disturb", lambda: disturbed.append(1))
        steps = {llm.snapshot().steps}
        for _ in range(20):
            next(stream)
            steps.add(llm.snapshot().steps)
        assert len(steps) > 5 and not disturbed
        held = threading.Thread(
            target=lambda: llm._worker.call(lambda *_: (inside.set(), go.wait(SOON_S)))
        )
        held.start()
        assert inside.wait(SOON_S)  # the engine's thread answers nobody now
        assert llm.snapshot().stalled_s(time.monotonic() + 60) > 60
        go.set()
        held.join(SOON_S)
        assert disturbed
    assert llm.snapshot().stats.is_idle


def wait_until(is_so) -> None:
    end = time.monotonic() + SOON_S
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.005)
