"""A budget of thinking is a rule of the text: any drafter, depth and neighbours give the same."""

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import pytest

from mtp_mlx.engine.engine import PREFILL_CHUNK, Engine
from mtp_mlx.errors import RequestError
from mtp_mlx.request import MAX_DRAFT_TOKENS, NO_BUDGET, Request, Sampling, Thinking
from tests.exact.pairs import golden_pair, oracle_engine, plain, run_together
from tests.golden import recipe
from tests.oracle import agreeing, always

VARIANT = "e2b"
LENGTH = 16
ROWS = 6


def base(index: int) -> Request:
    """A request without a budget; hot, so that its text holds many different tokens."""
    prompt = tuple(int(token) for token in recipe.prompt(3 + 5 * index, 70 + index))
    sampling = Sampling(temperature=5.0, seed=index) if index % 4 else Sampling()
    return Request(prompt=prompt, sampling=sampling, max_tokens=LENGTH)


@cache
def budgeted() -> tuple[Request, ...]:
    """Requests whose thoughts begin and end at tokens that their own texts hold, or never end."""
    target = golden_pair(VARIANT).target
    made = []
    for index in range(ROWS):
        asked = base(index)
        text = plain(target, asked).ids
        opens = text[index % 3]
        closes = (set(range(256)) - set(text)).pop() if index % 2 else text[9]
        is_open = index == 5
        thinking = Thinking(opens=opens, closes=closes, left=index % 5, is_open=is_open)
        made.append(replace(asked, thinking=thinking))
    return tuple(made)


@cache
def texts() -> list[list[int]]:
    """What they write alone and never a round ahead: drafts that are wrong see to it."""
    target = golden_pair(VARIANT).target
    found = []
    for asked in budgeted():
        drafting = replace(asked, num_draft_tokens=1)
        engine, _ = oracle_engine(target, [[0] * LENGTH], always("wrong"), 1, PREFILL_CHUNK)
        found.append(run_together(engine, [drafting])[0].ids)
    return found


def spent(ids: Sequence[int], rule: Thinking) -> int:
    """How often the budget decided; asserts that it did where it had to."""
    is_open, used, forced = rule.is_open, 0, 0
    for token in ids:
        if is_open and used == rule.left:
            assert token == rule.closes
            forced += 1
        if token == rule.opens:
            is_open = True
        elif token == rule.closes:
            is_open = False
        else:
            used += is_open
    return forced


def test_a_spent_budget_ends_the_thought_and_nothing_before_it_changes():
    target, forced = golden_pair(VARIANT).target, 0
    for index, (asked, ids) in enumerate(zip(budgeted(), texts(), strict=True)):
        count = spent(ids, asked.thinking)
        free = plain(target, base(index)).ids
        pairs = zip(ids, free, strict=True)
        changed = [own for own, other in pairs if own != other]
        assert not changed or changed[0] == asked.thinking.closes
        assert count or ids == free
        forced += count
    assert forced >= ROWS // 2


def test_plain_rounds_that_run_ahead_keep_to_the_budget():
    target = golden_pair(VARIANT).target
    engine = Engine(target, None, max_num_seqs=ROWS)
    together = run_together(engine, budgeted())
    assert [outcome.ids for outcome in together] == texts()
    assert [plain(target, asked).ids for asked in budgeted()] == texts()


@pytest.mark.parametrize("agreement", [0.0, 0.7, 1.0])
def test_no_draft_changes_a_budgeted_text(agreement):
    target, draw = golden_pair(VARIANT).target, random.Random(agreement)
    expected, accepted = texts(), 0
    for slots in (ROWS, 3, 1):
        depths = [draw.randint(1, MAX_DRAFT_TOKENS) for _ in range(ROWS)]
        rows = [
            replace(asked, num_draft_tokens=depth)
            for asked, depth in zip(budgeted(), depths, strict=True)
        ]
        engine, _ = oracle_engine(target, expected, agreeing(agreement, 3), slots, PREFILL_CHUNK)
        outcomes = run_together(engine, rows)
        assert [outcome.ids for outcome in outcomes] == expected
        accepted += sum(sum(outcome.accepted) for outcome in outcomes)
    assert bool(accepted) == bool(agreement)


def test_neighbours_without_a_budget_are_not_touched():
    pair = golden_pair(VARIANT)
    free = [base(index) for index in range(ROWS)]
    rows = [each for both in zip(budgeted(), free, strict=True) for each in both]
    rows = [replace(row, num_draft_tokens=index % 4) for index, row in enumerate(rows)]
    engine = Engine(pair.target, pair.drafter, max_num_seqs=5)
    found = [outcome.ids for outcome in run_together(engine, rows)]
    assert found[::2] == texts()
    assert found[1::2] == [plain(pair.target, each).ids for each in free]


def test_no_budget_is_the_rule_that_changes_nothing():
    assert base(0).thinking == NO_BUDGET
    state = NO_BUDGET
    for token in (0, 1, 255):
        assert (state.choice(token), state.after(token)) == (token, NO_BUDGET)


def test_a_budget_of_tokens_that_are_none_is_refused():
    engine = Engine(golden_pair(VARIANT).target, None, max_num_seqs=1)
    for rule in (
        Thinking(opens=256, closes=1, left=1),
        Thinking(opens=1, closes=-1, left=1),
        Thinking(opens=1, closes=2, left=-1),
        Thinking(opens=1, closes=2, left=1, calls=256),
    ):
        with pytest.raises(RequestError, match="thinking"):
            engine.submit(replace(base(0), thinking=rule))
