"""The search: exact, in bounds, indifferent to order, and monotone where theory says so."""

import itertools
from dataclasses import replace
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtp_mlx.engine.policy import search
from tests.engine.policy.scenes import candidate, prices

# Three in a row survive often enough to be scored at all.
RATES = st.floats(0.3, 0.985)
# Two sums of the same terms in another order.
ROUNDING = 1e-9


@st.composite
def scenes(draw, max_rows: int = 3, max_depth: int = 3):
    """Rows of known acceptance, and non-decreasing costs of every number of drafts."""
    num_rows = draw(st.integers(1, max_rows))
    depth = draw(st.integers(1, max_depth))
    rows = tuple(
        candidate(*draw(st.lists(RATES, min_size=depth, max_size=depth))) for _ in range(num_rows)
    )
    steps = draw(
        st.lists(
            st.one_of(st.just(0.0), st.floats(0, 1.5)),
            min_size=num_rows * depth,
            max_size=num_rows * depth,
        )
    )
    forward = itertools.accumulate([1.0, *steps])
    return rows, prices(*forward, depth_s=draw(st.floats(0, 0.2)), token_s=draw(st.floats(0, 0.1)))


def every_plan(rows, costs):
    """All prefix plans of the rows, priced."""
    depths = [range(len(row.survival) + 1) for row in rows]
    return [search.priced(rows, lengths, costs) for lengths in itertools.product(*depths)]


@settings(max_examples=300, deadline=None)
@given(scenes())
def test_the_search_finds_the_best_of_all_plans(scene):
    rows, costs = scene
    found = search.best(rows, costs, search.UNLIMITED)
    best = max(plan.rate for plan in every_plan(rows, costs))
    assert found.rate == pytest.approx(best, rel=ROUNDING)


@settings(max_examples=100, deadline=None)
@given(scenes(), st.randoms())
def test_permuting_the_rows_permutes_the_plan(scene, dice):
    rows, costs = scene
    order = list(range(len(rows)))
    dice.shuffle(order)
    found = search.best(rows, costs, search.UNLIMITED)
    shuffled = search.best(tuple(rows[i] for i in order), costs, search.UNLIMITED)
    assert shuffled.rate == pytest.approx(found.rate, rel=ROUNDING)
    if len(set(rows)) == len(rows) and len({s for r in rows for s in r.survival}) == sum(
        len(r.survival) for r in rows
    ):
        assert shuffled.lengths == tuple(found.lengths[i] for i in order)


@settings(max_examples=100, deadline=None)
@given(scenes(), st.integers(0, 5))
def test_no_plan_exceeds_the_budget(scene, room):
    rows, costs = scene
    kept = len(costs.forward[: room + 1])
    small = replace(costs, forward=costs.forward[:kept], doubt=costs.doubt[:kept])
    found = search.best(rows, small, search.UNLIMITED)
    assert sum(found.lengths) <= room
    assert all(k <= len(row.survival) for k, row in zip(found.lengths, rows, strict=True))


@settings(max_examples=100, deadline=None)
@given(scenes(), st.integers(0, 2), st.integers(0, 2), st.floats(0, 1))
def test_a_better_row_never_lowers_the_rate(scene, row, position, lift):
    rows, costs = scene
    row, position = row % len(rows), position % len(rows[0].survival)
    values = rows[row].survival
    rates = [b / a for a, b in itertools.pairwise((1.0, *values))]
    rates[position] += lift * (1 - rates[position])
    better = (*rows[:row], candidate(*rates), *rows[row + 1 :])
    before = search.best(rows, costs, search.UNLIMITED)
    after = search.best(better, costs, search.UNLIMITED)
    assert after.rate >= before.rate * (1 - ROUNDING)
    if len(rows) == 1:
        assert after.lengths >= before.lengths


@settings(max_examples=100, deadline=None)
@given(scenes())
def test_a_row_better_at_every_position_drafts_at_least_as_deep(scene):
    rows, costs = scene
    lengths = search.best(rows, costs, search.UNLIMITED).lengths
    for (good, deep), (poor, shallow) in itertools.permutations(zip(rows, lengths, strict=True), 2):
        if all(a > b for a, b in zip(good.survival, poor.survival, strict=True)):
            assert deep >= shallow


def test_nothing_is_drafted_where_a_draft_costs_a_plain_token():
    row = candidate(1.0, 1.0, 1.0)
    for batch in (1, 2, 4):
        forward = tuple(batch + n for n in range(3 * batch + 1))
        assert (
            search.best((row,) * batch, prices(*forward), search.UNLIMITED).lengths == (0,) * batch
        )


def test_the_search_jumps_a_cliff():
    row = candidate(*(0.95,) * 7)
    costs = prices(1.0, *(3.0,) * 7)
    assert search.best((row,), costs, search.UNLIMITED).lengths == (7,)


def test_a_plan_that_the_credit_does_not_cover_is_not_taken():
    row = search.Candidate((0.9, 0.8), (0.0, 0.0), (0.95, 0.9))
    costs = prices(1.0, 1.2, 1.4)
    assert search.best((row,), costs, 0.1).lengths == (0,)
    assert search.best((row,), costs, 0.25).lengths == (1,)
    assert search.best((row,), costs, 0.45).lengths == (2,)


@settings(max_examples=300, deadline=None)
@given(scenes(), st.floats(-0.1, 0.4), st.floats(0, 1), st.floats(0, 0.2), st.booleans())
def test_what_is_not_asked_would_not_have_been_covered(scene, credit, caution, doubt, commanded):
    rows, costs = scene
    rows = tuple(replace(r, cautious=tuple(caution * s for s in r.survival)) for r in rows)
    if commanded:
        rows = (replace(rows[0], command=len(rows[0].survival)), *rows[1:])
    costs = replace(costs, draft_doubt=doubt, doubt=tuple(doubt * s for s in costs.forward))
    found = search.best(rows, costs, credit)
    with patch.object(search, "ROUNDING", search.UNLIMITED):  # all are asked
        assert search.best(rows, costs, credit) == found


def test_luck_is_borne_by_the_credit_or_by_many_rows():
    row, costs = candidate(0.5), prices(1.0, 1.3)  # the mean gains 0.2 s
    bad = 0.3 - (0.5 - 0.5 * search.LUCK)  # what a round of bad luck loses, in seconds
    room = search.LUCK_ROOM
    assert search.best((row,), costs, bad - room - 0.01).lengths == (0,)
    assert search.best((row,), costs, bad - room + 0.01).lengths == (1,)
    eight = prices(1.0, *(1 + 0.3 * n / 8 for n in range(1, 9)))
    assert search.best((row,) * 8, eight, 0.0).lengths == (1,) * 8


def test_what_drafting_may_cost_more_must_be_covered_too():
    row, costs = candidate(0.9), prices(1.0, 1.1, depth_s=0.4)
    assert search.best((row,), costs, 0.0).lengths == (1,)
    doubtful = replace(costs, draft_doubt=1.2)
    assert search.best((row,), doubtful, 0.0).lengths == (0,)
    assert search.best((row,), doubtful, 0.5).lengths == (1,)


def test_a_command_is_obeyed_and_the_others_are_planned_around_it():
    commanded = search.Candidate((0.1, 0.01), (0.1, 0.01), (0.1, 0.01), command=2)
    rows = (commanded, candidate(0.9, 0.8))
    found = search.best(rows, prices(1.0, 1.1, 1.2, 1.3, 1.4), search.UNLIMITED)
    assert found.lengths == (2, 2)
    steep = prices(1.0, 3.0, 5.0, 9.0, 13.0)
    assert search.best(rows, steep, search.UNLIMITED).lengths == (2, 0)


def test_beside_a_prefill_a_draft_pays_only_its_own_cost():
    rows = (candidate(*(0.9,) * 7), candidate(0.05, 0.05))
    costs = prices(*(1.0 + n for n in range(10)))
    found = search.beside_prefill(rows, costs, rate=1.0, row_s=0.1)
    assert found.lengths == (search.PREFILL_DEPTH, 0)
    assert search.beside_prefill(rows, costs, rate=1.0, row_s=2.0).lengths == (0, 0)
