"""Random schedules of requests that begin alike, in little memory: every row equals its solo run.

Texts are kept, taken up, dropped and kept again while rows come, go and are cancelled; the engine's
invariants, which count every byte that is kept, are checked after each step.
"""

import random
from collections import Counter
from functools import cache

import pytest

from mtp_mlx.engine.engine import Engine
from mtp_mlx.engine.memory import Memory
from mtp_mlx.request import MAX_DRAFT_TOKENS, Finished, Request, Sampling
from tests.exact.pairs import (
    Arrival,
    Outcome,
    Pair,
    embedded_pair,
    golden_pair,
    plain,
    run_schedule,
)
from tests.planners import Moody

QUICK, ALL = 6, 240
PER_PART = 6
NAMES = ("31b", "26b", "31b", "31b", "e2b", "31b", "12b", "tiny")
SAMPLINGS = (Sampling(), Sampling(temperature=1.0, top_k=20, seed=5))
TEXT = 28  # tokens of every solo run, of which requests take a part
PARTS = [
    pytest.param(part, marks=[pytest.mark.slow] if part >= QUICK // PER_PART else [])
    for part in range(ALL // PER_PART)
]


def pair_of(name: str) -> Pair:
    return embedded_pair(name) if name == "tiny" else golden_pair(name)


@cache
def text_of(name: str, prompt: tuple[int, ...], sampling: Sampling) -> tuple[int, ...]:
    """What a request writes alone, plainly, with nothing kept of any other."""
    request = Request(prompt=prompt, sampling=sampling, max_tokens=TEXT)
    return tuple(plain(pair_of(name).target, request).ids)


@cache
def prompts(name: str) -> list[tuple[tuple[int, ...], Sampling]]:
    """A system prompt, what goes on from it, chats that go on from replies, and parts of them."""
    draw = random.Random(name)

    def words(length: int) -> tuple[int, ...]:
        return tuple(draw.randrange(110, 250) for _ in range(length))

    system = (2, *words(29))
    first = [((*system, *words(9)), sampling) for sampling in SAMPLINGS]
    second = [
        ((*prompt, *text_of(name, prompt, sampling)[:24], *words(7)), sampling)
        for prompt, sampling in first
    ]
    parts = [(second[0][0][:length], SAMPLINGS[length % 2]) for length in (8, 32, 47, 56, 64)]
    return [*first, *second, *parts, ((2, *words(40)), SAMPLINGS[0])]


def arrivals(name: str, draw: random.Random) -> list[Arrival]:
    made = []
    for _ in range(draw.randint(8, 14)):
        prompt, sampling = draw.choice(prompts(name))
        request = Request(
            prompt=prompt,
            sampling=sampling,
            max_tokens=draw.choice((1, 4, 12, 20, TEXT)),
            num_draft_tokens=draw.choice((None, 0, 0, 3, MAX_DRAFT_TOKENS)),
            cache=draw.random() < 0.9,
        )
        step = draw.randrange(50)
        made.append(
            Arrival(request, step, step + draw.randrange(30) if draw.random() < 0.2 else None)
        )
    return made


def make(name: str, draw: random.Random, number: int) -> Engine:
    """An engine with room for a few kept texts, or for many; K/V for two rows, or no limit."""
    pair, slots = pair_of(name), draw.randint(1, 4)
    layers, size = pair.target.config.layers, pair.target.dtype.size
    free = Memory(layers, size, slots, None)
    row = free.cost(200)
    limit = draw.choice((None, free.rings + 2 * row))
    planner = Moody(number) if number % 2 else None
    engine = Engine(pair.target, pair.drafter, slots, draw.choice((8, 16)), limit, planner)
    engine.keep_prompts(draw.choice((row // 4, row // 2, row, 1 << 30)))
    return engine


def run(engine: Engine, schedule: list[Arrival], seen: Counter[str]) -> list[Outcome]:
    """The outcomes, and how often kept texts became fewer."""
    kept = 0

    def look() -> None:
        nonlocal kept
        seen["dropped"] += engine.memory.kept < kept
        kept = engine.memory.kept

    return run_schedule(engine, schedule, look)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", PARTS)
def test_rows_that_take_up_earlier_texts_equal_their_solo_runs(part):
    seen = Counter[str]()
    for number in range(part * PER_PART, (part + 1) * PER_PART):
        draw, name = random.Random(f"prefixes {number}"), NAMES[number % len(NAMES)]
        schedule = arrivals(name, draw)
        engine = make(name, draw, number)
        for arrival, outcome in zip(schedule, run(engine, schedule, seen), strict=True):
            asked = arrival.request
            text = text_of(name, asked.prompt, asked.sampling)[: asked.max_tokens]
            assert tuple(outcome.ids) == text[: len(outcome.ids)], (number, arrival)
            assert isinstance(outcome.end, Finished)
            seen[outcome.end.reason] += 1
            if outcome.end.reason == "cancelled":
                assert arrival.cancelled_at is not None
            else:
                assert len(outcome.ids) == len(text)
            check_use(outcome, asked, engine, seen)
        assert engine.memory.reserved == engine.memory.rings
        engine.prefixes.borders.leave(0)
        assert engine.prefixes.borders.bytes == 0
    assert min(seen["hit"], seen["miss"], seen["dropped"], seen["length"]) > 5, seen


def check_use(outcome: Outcome, asked: Request, engine: Engine, seen: Counter[str]) -> None:
    """What was taken up is a border of the prompt, or all of it but its last token."""
    if not outcome.rounds:
        return
    use = outcome.rounds[0].cache_use
    assert use is not None
    length, chunk = len(asked.prompt), engine.chunk
    is_whole = use.cached_tokens == length - 1 and length % chunk == 0
    assert is_whole or (use.cached_tokens < length and use.cached_tokens % chunk == 0)
    assert use.cached_tokens == 0 or asked.cache
    assert use.cached_tokens or use.miss_reason
    seen["hit" if use.cached_tokens else "miss"] += 1
