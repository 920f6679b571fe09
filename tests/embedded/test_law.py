"""The exactness law on the trained pairs, whose drafts are often right: tokens compared with ==."""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest

from mtp_mlx.engine.engine import PREFILL_CHUNK, Engine
from mtp_mlx.request import MAX_DRAFT_TOKENS, Request, Sampling
from tests.embedded import held_out
from tests.exact.pairs import embedded_pair, plain, run_together

# Rows per pair: part 0 is for `make test`, both pairs together 300; all parts 2,000.
PARTS = (150, 170, 170, 170, 170, 170)
MAX_TOKENS = 40
STOP_IDS = frozenset((1, 50, 106))
CALLS_PER_REQUEST = 4
BATCH_SIZES = (8, 1, 5, 3, 7, 2, 6, 4)
LAW_PARTS = [
    pytest.param(name, part, marks=[pytest.mark.slow] if part else [])
    for part in range(len(PARTS))
    for name in held_out.NAMES
]


def requests(name: str, part: int) -> list[Request]:
    """Held-out prompts with all kinds of sampling, decoded plainly."""
    draw = random.Random(f"{name}/{part}")
    count = PARTS[part] // CALLS_PER_REQUEST
    return [
        Request(
            prompt=tuple(held_out.writer(name).prompt(example)),
            sampling=sampling(draw),
            max_tokens=draw.randint(4, MAX_TOKENS),
            stop_ids=STOP_IDS,
        )
        for example in held_out.examples(count, 1000 + part)
    ]


def sampling(draw: random.Random) -> Sampling:
    if draw.random() < 0.3:
        return Sampling()
    return Sampling(
        temperature=draw.choice((0.5, 0.7, 1.0, 1.5)),
        top_k=draw.choice((0, 8, 64)),
        top_p=draw.choice((1.0, 0.95, 0.7)),
        min_p=draw.choice((0.0, 0.0, 0.05)),
        seed=draw.randrange(1 << 40),
    )


def calls(name: str, part: int) -> Iterator[tuple[list[Request], list[int], int]]:
    """Requests with their drafts, steps of arrival, and slots of the engine."""
    draw = random.Random(f"calls/{name}/{part}")
    pool, count, index = requests(name, part), PARTS[part], part
    while count:
        size = min(count, BATCH_SIZES[index % len(BATCH_SIZES)])
        chosen = draw.sample(pool, size)
        depths = [draw.randint(0, MAX_DRAFT_TOKENS) for _ in chosen]
        arrivals = sorted(draw.choice((0, 0, 3, 9)) for _ in chosen)
        rows = [replace(r, num_draft_tokens=d) for r, d in zip(chosen, depths, strict=True)]
        yield rows, arrivals, draw.choice((size, 8, max(1, size - 2)))
        count -= size
        index += 1


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("name", "part"), LAW_PARTS)
def test_a_trained_drafter_never_changes_a_row(name, part, record_property):
    pair = embedded_pair(name)
    expected = {}
    tally, mismatches = Counter[str](), []
    for rows, arrivals, slots in calls(name, part):
        engine = Engine(pair.target, pair.drafter, slots, PREFILL_CHUNK)
        for row, seen in zip(rows, run_together(engine, rows, arrivals), strict=True):
            bare = replace(row, num_draft_tokens=0)
            if bare not in expected:
                expected[bare] = plain(pair.target, bare)
            if seen.text != expected[bare].text:
                mismatches.append((row, seen.text, expected[bare].text))
            tally["cases"] += 1
            tally["tokens"] += len(seen.ids)
            tally["accepted by trained"] += sum(seen.accepted)
            tally["drafted by trained"] += sum(event.drafted for event in seen.rounds)
    tally["mismatches"] = len(mismatches)
    record_property("exactness", dict(tally))
    assert not mismatches, f"{len(mismatches)} of {tally['cases']}, the first: {mismatches[0]}"
    assert tally["cases"] == PARTS[part]
    assert tally["accepted by trained"] > 0.25 * tally["drafted by trained"]


def test_the_parts_make_three_hundred_and_two_thousand_rows():
    assert PARTS[0] * len(held_out.NAMES) == 300
    assert sum(PARTS) * len(held_out.NAMES) == 2000
