"""A full engine: 64 rows in every round, with prompts whose keys end around a step of the cache.

All prompts are read before the first round, so that rounds begin with every row. Full layers read
keys in steps of `KEY_STEP`: a row at the edge of a step shares its round with rows on either side.
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import cycle, islice

import pytest

from mtp_mlx.engine.engine import PREFILL_CHUNK, Engine
from mtp_mlx.model.cache import KEY_STEP
from mtp_mlx.request import MAX_DRAFT_TOKENS, Request, Sampling
from tests.exact.pairs import Outcome, Run, golden_pair, oracle_engine, plain
from tests.golden import recipe
from tests.oracle import agreeing

NUM_ROWS = 64
MAX_TOKENS = 16
AGREEMENT = 0.8
# Those nearest to a step come first.
LENGTHS = sorted(
    (
        *range(1, 4),
        *range(KEY_STEP - 4, KEY_STEP + 7),
        *range(2 * KEY_STEP - 8, 2 * KEY_STEP + 13),
    ),
    key=lambda length: min(length % KEY_STEP, -length % KEY_STEP),
)
SAMPLINGS = (
    Sampling(),
    Sampling(temperature=1.0),
    Sampling(temperature=5.0),  # a real drafter with random weights agrees in the noise alone
    Sampling(temperature=0.7, top_k=8, top_p=0.95),
    Sampling(temperature=1.0, top_p=0.6, min_p=0.05),
)
# Different texts in an engine; rows of one text differ in their drafts.
FEW_TEXTS, MANY_TEXTS = 10, 64
CASES = [
    ("26b", "oracle", FEW_TEXTS),
    ("26b", "real", FEW_TEXTS),
    *(
        pytest.param(variant, drafter, MANY_TEXTS, marks=pytest.mark.slow)
        for variant in recipe.VARIANTS
        for drafter in ("oracle", "real")
    ),
]


@cache
def requests(num_texts: int) -> tuple[Request, ...]:
    """One a row, the same at every run."""
    texts = [
        Request(
            prompt=tuple(int(token) for token in recipe.prompt(length, seed)),
            sampling=replace(SAMPLINGS[seed % len(SAMPLINGS)], seed=seed),
            max_tokens=MAX_TOKENS + seed % 3,
        )
        for seed, length in enumerate(islice(cycle(LENGTHS), num_texts))
    ]
    drafts = list(islice(cycle(range(MAX_DRAFT_TOKENS + 1)), NUM_ROWS))
    random.Random("many rows").shuffle(drafts)
    rows = zip(islice(cycle(texts), NUM_ROWS), drafts, strict=True)
    return tuple(replace(text, num_draft_tokens=count) for text, count in rows)


@cache
def plain_outcomes(variant: str, num_texts: int) -> list[Outcome]:
    """Every row alone, without drafts."""
    target, rows = golden_pair(variant).target, requests(num_texts)
    texts = [plain(target, row) for row in rows[:num_texts]]
    return list(islice(cycle(texts), NUM_ROWS))


def run_full(engine: Engine, rows: Sequence[Request]) -> list[Outcome]:
    """The rows' outcomes when none starts before all prompts are read."""
    run = Run(engine)
    for request in rows:
        run.submit(request)
    engine._admit()
    while not all(sequence.is_running for sequence in engine.sequences):
        for event in engine._prefill():
            run.outcomes[event.request_id].feed(event)
    assert len(engine.sequences) == NUM_ROWS
    run.finish()
    return list(run.outcomes.values())


@pytest.mark.parametrize(("variant", "drafter", "num_texts"), CASES)
def test_each_of_64_rows_equals_the_row_alone_without_drafts(variant, drafter, num_texts):
    pair, rows = golden_pair(variant), requests(num_texts)
    expected = plain_outcomes(variant, num_texts)
    if drafter == "oracle":
        texts = [outcome.ids for outcome in expected]
        script = agreeing(AGREEMENT, seed=1)
        engine, _ = oracle_engine(pair.target, texts, script, NUM_ROWS, PREFILL_CHUNK)
    else:
        engine = Engine(pair.target, pair.drafter, NUM_ROWS)
    seen = run_full(engine, rows)
    pairs = zip(seen, expected, strict=True)
    wrong = [row for row, (one, other) in enumerate(pairs) if one.text != other.text]
    assert not wrong, f"rows {wrong} differ, the first: {rows[wrong[0]]}"
    assert all(len(outcome.ids) >= MAX_TOKENS for outcome in expected)
    assert sum(sum(outcome.accepted) for outcome in seen) > 0
