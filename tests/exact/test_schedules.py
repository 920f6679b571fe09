"""Random schedules: rows come, go, fail and are cancelled, and every row equals its solo run.

The engine's invariants are checked after each step, and every request ends exactly once.
"""

import random
from collections import Counter
from dataclasses import dataclass, replace
from functools import cache

import pytest

from mtp_mlx.embedded import NAMES
from mtp_mlx.engine.engine import PREFILL_CHUNK, Engine
from mtp_mlx.engine.memory import Memory
from mtp_mlx.model.target import Target
from mtp_mlx.request import MAX_DRAFT_TOKENS, Failed, Finished, Request, Sampling
from tests.exact.pairs import Arrival, Pair, Run, embedded_pair, golden_pair, run_schedule
from tests.golden import recipe
from tests.planners import Moody

QUICK, ALL = 60, 500
PER_PART = 10
WINDOWS = {**dict.fromkeys(recipe.VARIANTS, 8), **dict.fromkeys(NAMES, 24)}
# Every pair in ten schedules, the cheapest more than once.
PAIRS = ("12b", "e4b", "tiny-moe", "e2b", "12b", "26b", "e4b", "31b", "12b", "tiny")
# Few different prompts, each with two samplings, so that their solo texts are computed once.
NUM_PROMPTS = 8
LENGTHS = (1, 2, 5, 8, 14)
STOP_EVERY = 10  # of all tokens, one in ten ends a row that heeds it
PARTS = [
    pytest.param(part, marks=[pytest.mark.slow] if part >= QUICK // PER_PART else [])
    for part in range(ALL // PER_PART)
]


class Broken(Exception):
    """What a request's own test raises, to fail its row."""


@dataclass(frozen=True)
class Fate:
    """When a request arrives, and how it ends if not by itself: at a step, or after some tokens."""

    request: Request
    arrives: int
    cancelled_at: int | None
    fails_after: int | None

    def arrival(self) -> Arrival:
        """As an engine is to see it."""
        asked = self.request
        if self.fails_after is not None:
            asked = failing(asked, self.fails_after)
        return Arrival(asked, self.arrives, self.cancelled_at)


def pair_of(name: str) -> Pair:
    return embedded_pair(name) if name in NAMES else golden_pair(name)


@cache
def prompts(name: str) -> list[tuple[int, ...]]:
    draw = random.Random(name)
    vocab = pair_of(name).vocab_size
    lengths = [1, 2, *(draw.randint(3, 3 * WINDOWS[name]) for _ in range(NUM_PROMPTS - 2))]
    return [(2, *(draw.randrange(110, vocab) for _ in range(n - 1))) for n in lengths]


class Alone:
    """The tokens of a request decoded alone and plainly, no further than they are asked for."""

    def __init__(self, target: Target, request: Request, chunk: int) -> None:
        self._run = Run(Engine(target, None, 1, chunk))
        self._ids = self._run.outcomes[self._run.submit(request)].ids

    def __getitem__(self, index: int) -> int:
        while index >= len(self._ids):
            assert not self._run.engine.is_idle, "the text has ended"
            self._run.step()
        return self._ids[index]


@cache
def alone(name: str, prompt: tuple[int, ...], sampling: Sampling, chunk: int) -> Alone:
    request = Request(prompt=prompt, sampling=sampling, max_tokens=max(LENGTHS))
    return Alone(pair_of(name).target, request, chunk)


def solo(name: str, request: Request, chunk: int) -> tuple[list[int], str]:
    """The text of a request, and why it ends."""
    text, ids = alone(name, request.prompt, request.sampling, chunk), list[int]()
    for index in range(request.max_tokens):
        ids.append(text[index])
        if ids[-1] in request.stop_ids:
            return ids, "stop"
    return ids, "length"


def fates(name: str, draw: random.Random) -> list[Fate]:
    made = []
    for _ in range(draw.choice((3, 4, 4, 5, 5, 6, 12))):
        which, is_free = draw.randrange(NUM_PROMPTS), draw.random() < 0.3
        first = draw.randrange(STOP_EVERY)
        stops = range(first, pair_of(name).vocab_size, STOP_EVERY) if draw.random() < 0.3 else ()
        request = Request(
            prompt=prompts(name)[which],
            sampling=SAMPLINGS[(which + draw.randrange(2)) % len(SAMPLINGS)],
            max_tokens=draw.choice(LENGTHS),
            stop_ids=frozenset(stops),
            num_draft_tokens=None if is_free else draw.randint(0, MAX_DRAFT_TOKENS),
        )
        end = draw.random()
        made.append(
            Fate(
                request,
                arrives=draw.choice((0, 0, draw.randrange(15))),
                cancelled_at=draw.randrange(1, 20) if end < 0.2 else None,
                fails_after=draw.randrange(8) if 0.2 <= end < 0.35 else None,
            )
        )
    return made


SAMPLINGS = (
    Sampling(),
    Sampling(temperature=0.7, seed=5),
    Sampling(temperature=1.0, top_k=8, seed=9),
    Sampling(temperature=1.2, top_p=0.9, min_p=0.02, seed=1 << 40),
)


def failing(request: Request, after: int) -> Request:
    """The request, its own test raising when it has seen `after` tokens."""
    seen = Counter[str]()

    def is_end(token: int) -> bool:
        seen["tokens"] += 1
        if seen["tokens"] > after:
            raise Broken(f"after {after}")
        return False

    return replace(request, is_end=is_end)


def is_moody(number: int) -> bool:
    """Does a planner that changes its mind run this schedule? Every other one, of every pair."""
    return bool((number + number // len(PAIRS)) % 2)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", PARTS)
def test_every_row_of_a_random_schedule_equals_its_solo_run(part):
    ends = Counter[str]()
    for number in range(part * PER_PART, (part + 1) * PER_PART):
        draw = random.Random(f"schedule {number}")
        name = PAIRS[number % len(PAIRS)]
        pair, chunk = pair_of(name), draw.choice((PREFILL_CHUNK, 5))
        slots, schedule = draw.randint(1, 8), fates(name, random.Random(f"fates {number}"))
        limit, planner = budget(pair, draw, slots), Moody(number) if is_moody(number) else None
        engine = Engine(pair.target, pair.drafter, slots, chunk, limit, planner)
        outcomes = run_schedule(engine, [fate.arrival() for fate in schedule])
        for fate, seen in zip(schedule, outcomes, strict=True):
            ids, reason = solo(name, fate.request, chunk)
            assert seen.ids == ids[: len(seen.ids)], (number, fate)
            ends[type(seen.end).__name__] += 1
            match seen.end:
                case Finished(_, "cancelled"):
                    assert fate.cancelled_at is not None
                    ends["cancelled"] += 1
                case Finished():
                    assert seen.text[:2] == (ids, reason), (number, fate)
                    assert fate.fails_after is None or fate.fails_after >= len(ids)
                    ends[reason] += 1
                case Failed(_, error):
                    assert isinstance(error, Broken) and len(seen.ids) <= (fate.fails_after or 0)
                case None:
                    raise AssertionError(f"schedule {number}: {fate} never ended")
        assert engine.memory.reserved == engine.memory.rings
    assert ends["Finished"] > ends["cancelled"]
    # Ten schedules without one that is cancelled in time do occur, but not among the quick ones.
    assert ends["cancelled"] > 0 or part >= QUICK // PER_PART
    assert ends["length"] > ends["stop"] > 0


def test_the_schedules_have_rows_of_every_kind():
    for count in (QUICK, ALL):
        kinds = Counter[str]()
        for number in range(count):
            draw, name = random.Random(f"fates {number}"), PAIRS[number % len(PAIRS)]
            for fate in fates(name, draw):
                kinds[name] += 1
                kinds["cancelled"] += fate.cancelled_at is not None
                kinds["late"] += fate.arrives > 0
                kinds["long"] += len(fate.request.prompt) > WINDOWS[name]
                kinds["stops"] += bool(fate.request.stop_ids)
                kinds["moody"] += is_moody(number)
                kinds["greedy"] += fate.request.sampling.is_greedy
                kinds[f"{fate.request.num_draft_tokens} drafts"] += 1
                if fate.fails_after is not None:
                    kinds["failed"] += fate.fails_after < fate.request.max_tokens
        drafts = [f"{number} drafts" for number in range(MAX_DRAFT_TOKENS + 1)]
        ends = ("cancelled", "failed", "late", "long", "greedy", "stops", "moody", "None drafts")
        assert set(PAIRS) == set(WINDOWS)
        for kind in (*PAIRS, *drafts, *ends):
            assert kinds[kind] >= count // 4, f"{kind}: {kinds[kind]}"


def budget(pair: Pair, draw: random.Random, slots: int) -> int | None:
    """No limit, or memory for a row or two of the longest at a time."""
    if draw.random() < 0.5:
        return None
    layers = pair.target.config.layers
    free = Memory(layers, pair.target.dtype.size, slots, None)
    longest = 3 * max(WINDOWS.values()) + 14 + MAX_DRAFT_TOKENS + 1
    return free.rings + draw.randint(1, 2) * free.cost(longest)
