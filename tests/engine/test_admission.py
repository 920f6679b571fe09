"""How long a request waits beside seven that decode, and how soon a cancelled row is free.

Counted in the engine's steps, of which each does one round of all rows and one prompt chunk.
"""

import random
from dataclasses import dataclass, field, replace

import pytest

from mtp_mlx.engine.engine import Engine
from mtp_mlx.engine.invariants import check_invariants
from mtp_mlx.request import Finished, Progress, Request, Sampling, Tokens
from tests.api_pairs import engine_of, loaded, prompt_ids
from tests.exact.pairs import Run, golden_pair
from tests.golden import recipe
from tests.law.scripted import (
    VOCAB_SIZE,
    ScriptedDrafter,
    ScriptedTarget,
    draft_table,
    target_table,
)

SLOTS, CHUNK = 8, 5
TRIALS = 200
# Rounds that the others may do beyond those beside the newcomer's own chunks.
EXTRA_ROUNDS = 2


def request(draw: random.Random, length: int, new: int) -> Request:
    return Request(
        prompt=tuple(
            int(token) for token in recipe.prompt(length, draw.randrange(1 << 20)) % VOCAB_SIZE
        ),
        sampling=draw.choice((Sampling(), Sampling(temperature=5.0, seed=draw.randrange(99)))),
        max_tokens=new,
        num_draft_tokens=draw.choice((0, 0, 3)),
    )


@dataclass
class Crowd:
    """An engine in which seven requests decode, whatever has ended."""

    engine: Engine
    draw: random.Random
    run: Run = field(init=False)

    def __post_init__(self) -> None:
        self.run = Run(self.engine)

    def fill(self) -> None:
        """Until exactly seven decode and nobody waits."""
        while len(self.engine.sequences) < SLOTS - 1:
            self.run.submit(request(self.draw, self.draw.randint(1, CHUNK), 60))
            self.step()
        while not all(sequence.is_running for sequence in self.engine.sequences):
            self.step()
        if len(self.engine.sequences) < SLOTS - 1:  # one ended meanwhile
            self.fill()

    def step(self) -> list:
        events = [e for e in self.run.step() if not isinstance(e, Progress)]
        check_invariants(self.engine)
        return events


def scripted() -> Engine:
    """A pair without layers, which is quick: who takes part in which step does not depend on it."""
    table = target_table(1, VOCAB_SIZE)
    drafter = ScriptedDrafter(draft_table("close", table, Sampling()))
    return Engine(ScriptedTarget(table), drafter, SLOTS, chunk=CHUNK)


def golden() -> Engine:
    pair = golden_pair("31b")  # six layers, the cheapest
    return Engine(pair.target, pair.drafter, SLOTS, chunk=CHUNK)


@pytest.mark.parametrize(
    ("engine", "trials"),
    [(scripted, TRIALS), (golden, 10), pytest.param(golden, TRIALS, marks=pytest.mark.slow)],
)
def test_a_request_beside_seven_others_is_answered_soon_and_leaves_at_once(engine, trials):
    crowd = Crowd(engine(), random.Random("admission"))
    draw = crowd.draw
    for trial in range(trials):
        crowd.fill()
        length = draw.randint(1, 4 * CHUNK)
        chunks = -(-length // CHUNK)
        newcomer = crowd.run.submit(request(draw, length, 40))
        stays_for = draw.randint(0, chunks + 2)  # steps, in prefill or after it
        steps, first = 0, None
        while first is None or steps < stays_for:
            if steps == stays_for and trial % 2:
                break  # cancelled in prefill
            steps += 1
            others = decoding(crowd.engine) - {newcomer}
            heard = {event.request_id for event in crowd.step()}
            assert heard >= others, "someone missed a round"
            if newcomer in heard and first is None:
                first = steps
        assert first is None or first <= chunks + EXTRA_ROUNDS, (trial, length)
        check_cancel(crowd, newcomer)


def decoding(engine: Engine) -> set[int]:
    """The requests that take part in every round; one that has just begun may miss one that was
    launched before it did."""
    return {s.id for s in engine.sequences if s.is_running and s.num_emitted > 1}


def check_cancel(crowd: Crowd, request_id: int) -> None:
    """The row is free before the next step, and serves the next request in it."""
    [row] = [s for s in crowd.engine.sequences if s.id == request_id] or [None]
    crowd.run.cancel(request_id)
    end = crowd.run.outcomes[request_id].end
    assert isinstance(end, Finished) and end.reason == "cancelled"
    check_invariants(crowd.engine)
    if row is None:
        return  # cancelled before it was admitted
    assert crowd.engine.slots[row.slot] is None
    following = crowd.run.submit(request(crowd.draw, 1, 2))
    events = crowd.step()
    assert any(isinstance(e, Tokens) and e.request_id == following for e in events)


def test_a_request_that_waits_for_a_slot_has_it_in_the_step_after_one_ends():
    crowd = Crowd(scripted(), random.Random("slots"))
    draw = crowd.draw
    for _ in range(20):
        crowd.fill()
        newcomers = [crowd.run.submit(request(draw, 3, 40)) for _ in range(2)]
        crowd.step()
        assert [request_id for request_id, _ in crowd.engine.waiting] == newcomers[1:]
        leaving = draw.choice(crowd.engine.sequences).id
        crowd.run.cancel(leaving)
        crowd.step()
        assert not crowd.engine.waiting
        for request_id in newcomers:
            crowd.run.cancel(request_id)


@pytest.mark.parametrize("count", [20, pytest.param(TRIALS, marks=pytest.mark.slow)])
def test_a_stream_that_is_cancelled_is_gone_after_the_step_under_way(monkeypatch, count):
    llm = loaded()
    kind = type(engine_of(llm))
    step, cancel = kind.step, kind.cancel
    steps, ended_at = [0], []

    def counted_step(engine):
        steps[0] += 1
        return step(engine)

    def counted_cancel(engine, request_id):
        ended_at.append(steps[0])
        return cancel(engine, request_id)

    monkeypatch.setattr(kind, "step", counted_step)
    monkeypatch.setattr(kind, "cancel", counted_cancel)
    options = {"max_tokens": 2000, "temperature": 0, "num_draft_tokens": 0}
    others = [llm.stream([2, 9 + index], **options) for index in range(2)]
    for trial in range(count):
        stream = llm.stream(prompt_ids(), **options)
        for _ in range(trial % 4):
            next(stream)
        asked_at = steps[0]
        stream.cancel()
        assert stream.reply.finish_reason == "cancelled"
        # One may end and one begin between reading the counter and sending the command.
        assert ended_at[-1] - asked_at <= 2
    for other in others:
        other.cancel()
    assert llm.stats().is_idle


def test_one_long_prompt_stops_no_round_of_the_others():
    crowd = Crowd(golden(), random.Random("long"))
    crowd.fill()
    long = crowd.run.submit(replace(request(crowd.draw, 60, 2), num_draft_tokens=0))
    for _ in range(60 // CHUNK):
        others = decoding(crowd.engine)
        assert {event.request_id for event in crowd.step()} >= others
    assert crowd.run.outcomes[long].ids
