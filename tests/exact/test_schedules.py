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
from mtp_mlx.engine.invariants import check_invariants
from mtp_mlx.engine.memory import Memory
from mtp_mlx.request import MAX_DRAFT_TOKENS, Failed, Finished, Request, Sampling
from tests.exact.pairs import Outcome, Pair, Run, embedded_pair, golden_pair, plain
from tests.golden import recipe

QUICK, ALL = 30, 500
PER_PART = 10
WINDOWS = {**dict.fromkeys(recipe.VARIANTS, 8), **dict.fromkeys(NAMES, 24)}
PAIRS = tuple(WINDOWS)
# Few different prompts and samplings, so that their solo texts are computed once.
NUM_PROMPTS = 12
MAX_STEPS = 600
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


def pair_of(name: str) -> Pair:
    return embedded_pair(name) if name in NAMES else golden_pair(name)


@cache
def prompts(name: str) -> list[tuple[int, ...]]:
    draw = random.Random(name)
    vocab = pair_of(name).vocab_size
    lengths = [1, 2, *(draw.randint(3, 3 * WINDOWS[name]) for _ in range(NUM_PROMPTS - 2))]
    return [(2, *(draw.randrange(110, vocab) for _ in range(n - 1))) for n in lengths]


@cache
def solo(name: str, request: Request, chunk: int) -> Outcome:
    return plain(pair_of(name).target, request, chunk)


def fates(name: str, draw: random.Random) -> list[Fate]:
    made = []
    for _ in range(draw.choice((3, 4, 5, 6, 12))):
        request = Request(
            prompt=draw.choice(prompts(name)),
            sampling=draw.choice(SAMPLINGS),
            max_tokens=draw.choice((1, 2, 5, 8, 14)),
            num_draft_tokens=draw.randint(0, MAX_DRAFT_TOKENS),
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


def run(engine: Engine, schedule: list[Fate]) -> list[Outcome]:
    """The outcomes in the order of the schedule, invariants checked on the way."""
    running = Run(engine)
    ids: dict[int, int] = {}
    for step in range(MAX_STEPS):
        for index, fate in enumerate(schedule):
            if fate.arrives == step:
                asked = fate.request
                if fate.fails_after is not None:
                    asked = failing(asked, fate.fails_after)
                ids[index] = running.submit(asked)
            if fate.cancelled_at == step and index in ids:
                running.cancel(ids[index])
        running.step()
        check_invariants(engine)
        if len(ids) == len(schedule) and engine.is_idle:
            return [running.outcomes[ids[index]] for index in range(len(schedule))]
    raise AssertionError(f"not idle after {MAX_STEPS} steps")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", PARTS)
def test_every_row_of_a_random_schedule_equals_its_solo_run(part):
    ends = Counter[str]()
    for number in range(part * PER_PART, (part + 1) * PER_PART):
        draw = random.Random(f"schedule {number}")
        name = PAIRS[number % len(PAIRS)]
        pair, chunk = pair_of(name), draw.choice((PREFILL_CHUNK, 5))
        slots, schedule = draw.randint(1, 8), fates(name, random.Random(f"fates {number}"))
        engine = Engine(pair.target, pair.drafter, slots, chunk, budget(pair, draw, slots))
        for fate, seen in zip(schedule, run(engine, schedule), strict=True):
            want = solo(name, replace(fate.request, num_draft_tokens=0), chunk)
            assert seen.ids == want.ids[: len(seen.ids)], (number, fate)
            ends[type(seen.end).__name__] += 1
            match seen.end:
                case Finished(_, "cancelled"):
                    assert fate.cancelled_at is not None
                    ends["cancelled"] += 1
                case Finished():
                    assert seen.text == want.text, (number, fate)
                    assert fate.fails_after is None or fate.fails_after >= len(want.ids)
                case Failed(_, error):
                    assert isinstance(error, Broken) and len(seen.ids) <= (fate.fails_after or 0)
                case None:
                    raise AssertionError(f"schedule {number}: {fate} never ended")
        assert engine.memory.reserved == engine.memory.rings
    assert ends["Finished"] > ends["cancelled"] > 0


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
                kinds["greedy"] += fate.request.sampling.is_greedy
                kinds[f"{fate.request.num_draft_tokens} drafts"] += 1
                if fate.fails_after is not None:
                    kinds["failed"] += fate.fails_after < fate.request.max_tokens
        drafts = [f"{number} drafts" for number in range(MAX_DRAFT_TOKENS + 1)]
        for kind in (*PAIRS, *drafts, "cancelled", "failed", "late", "long", "greedy"):
            assert kinds[kind] >= count // 4, f"{kind}: {kinds[kind]}"


def budget(pair: Pair, draw: random.Random, slots: int) -> int | None:
    """No limit, or memory for a row or two of the longest at a time."""
    if draw.random() < 0.5:
        return None
    layers = pair.target.config.layers
    free = Memory(layers, pair.target.dtype.size, slots, None)
    longest = 3 * max(WINDOWS.values()) + 14 + MAX_DRAFT_TOKENS + 1
    return free.rings + draw.randint(1, 2) * free.cost(longest)
