"""The policy through its functions: what it chooses, learns, may spend, and says."""

import random
from dataclasses import replace

import pytest

from mtp_mlx.engine import policy
from mtp_mlx.engine.policy import acceptance, decision, ledger, search
from tests.engine.policy.scenes import (
    CLIFF,
    FLAT,
    K_MAX,
    MAX_TOKENS,
    STEEP,
    calibration,
    limits,
    played,
    rows,
    shadowed,
    start,
    taught,
)

ROUNDS = 300


def settled(state: policy.State, count: int, accepted: tuple[int, ...]) -> policy.Allocation:
    """The allocation after many rounds with the same outcome."""
    for _ in range(ROUNDS):
        allocation = policy.allocate(state, rows(count), limits())
        state = played(state, allocation, accepted)
    return policy.allocate(state, rows(count), limits())


def test_a_steep_machine_never_drafts_even_what_is_always_right():
    state = start(STEEP)
    for _ in range(ROUNDS):
        allocation = policy.allocate(state, rows(2), limits())
        assert allocation.lengths == (0, 0)
        assert allocation.drafts == (0, 0)
        state = played(state, allocation, (K_MAX, K_MAX))


def test_a_flat_machine_drafts_deep_what_is_always_right():
    assert settled(start(FLAT), 2, (K_MAX, K_MAX)).lengths == (K_MAX, K_MAX)


def test_rows_that_differ_get_lengths_that_differ():
    allocation = settled(start(FLAT), 2, (K_MAX, 0))
    assert allocation.lengths[0] > allocation.lengths[1]


def test_a_row_that_is_never_right_is_parked():
    assert settled(start(calibration(1.0, 1.2, 1.4)), 1, (0,)).lengths == (0,)


@pytest.mark.parametrize("max_tokens", [4, 5, 9, 64])
def test_no_round_exceeds_its_bounds(max_tokens):
    dice = random.Random(max_tokens)
    state = start(FLAT)
    for _ in range(60):
        inputs = tuple(policy.RowInput(i, dice.randrange(K_MAX + 1)) for i in range(4))
        allocation = policy.allocate(state, inputs, limits(max_tokens))
        assert allocation.num_tokens <= max_tokens
        for row, length, drafts in zip(inputs, allocation.lengths, allocation.drafts, strict=True):
            assert 0 <= length <= drafts <= row.cap
        state = played(state, allocation, tuple(dice.randrange(8) for _ in range(4)))


def test_the_same_log_gives_the_same_decisions():
    def decisions() -> list[str]:
        dice, state, said = random.Random(5), start(CLIFF), []
        for _ in range(60):
            allocation = policy.allocate(state, rows(3), limits())
            said.append(str(allocation))
            state = played(state, allocation, tuple(dice.randrange(8) for _ in range(3)))
        return said

    assert decisions() == decisions()


def test_plain_decoding_unless_drafting_is_clearly_better():
    dice, state = random.Random(1), start(calibration(1.0, 1.5, 1.8, 2.0))
    for _ in range(ROUNDS):
        allocation = policy.allocate(state, rows(2), limits())
        is_better = allocation.speedup > decision.MARGIN
        assert is_better or not any(allocation.lengths) or allocation.trial_s is not None
        state = played(state, allocation, tuple(dice.randrange(4) for _ in range(2)))


def test_a_deep_round_teaches_every_smaller_depth():
    dice = random.Random(3)
    for depth in range(1, K_MAX):
        deep = shallow = acceptance.Acceptance.start(K_MAX)
        for _ in range(40):
            right = dice.randrange(K_MAX + 1)
            deep = deep.observe((acceptance.Seen(0, right, K_MAX),))
            shallow = shallow.observe((acceptance.Seen(0, min(right, depth), depth),))
        counts = [(m.hits[:depth], m.trials[:depth]) for m in (deep.rows[0], shallow.rows[0])]
        assert counts[0] == counts[1]


def test_a_shadow_beyond_verified_drafts_counts_only_what_is_new():
    state = start()
    allocation = policy.allocate(state, rows(1), limits())
    timing = policy.Timing(allocation.seconds)
    state = policy.observe(state, allocation, (), timing, (policy.Shadow(0, 2, 4, 6),))
    assert state.acceptance.rows[0].trials == (0, 0, 1, 1, 1, 0, 0)
    assert state.acceptance.rows[0].hits == (0, 0, 1, 1, 0, 0, 0)


def test_a_changed_text_is_noticed_within_ten_rounds():
    state = taught(start(), 0, K_MAX, K_MAX, 60)
    assert state.acceptance.of(0).rate[0] > 0.9
    changed = taught(state, 0, 0, 1, 10)
    assert changed.acceptance.of(0).rate[0] < 0.35


def test_equal_rows_share_what_they_learn_and_unequal_rows_do_not():
    alike = differ = start()
    for row in range(4):
        alike = taught(alike, row, 1, 1, 12)
        differ = taught(differ, row, row % 2, 1, 12)
    alike = taught(alike, 9, 1, 1, 1)
    assert alike.acceptance.of(9).rate[0] > 0.9
    assert differ.acceptance.of(1).rate[0] > 0.8
    assert differ.acceptance.of(0).rate[0] < 0.2


def test_a_row_that_leaves_is_forgotten_and_what_it_taught_is_kept():
    state = policy.retire(taught(start(), 0, K_MAX, K_MAX, 30), 0)
    assert not state.acceptance.rows
    assert state.acceptance.of(1).rate[0] > 0.9
    assert policy.retire(state, 0) == state


@pytest.mark.parametrize("machine", [FLAT, CLIFF, calibration(1.0, 1.3, 1.7, 2.2)])
@pytest.mark.parametrize("count", [1, 4])
def test_the_bank_is_never_overdrawn_and_bounds_what_is_spent(machine, count):
    dice, state = random.Random(2), start(machine)
    spent = total = 0.0
    for _ in range(ROUNDS):
        allocation = policy.allocate(state, rows(count), limits())
        state = played(state, allocation, tuple(dice.choice((0, 0, 1, 7)) for _ in range(count)))
        spent += allocation.spent_s
        total += allocation.seconds
        assert state.ledger.bank_s >= 0
        first = ledger.OPENING_BANK * allocation.plain.seconds
        assert spent <= first + ledger.BANK_INCOME * total


@pytest.mark.parametrize("machine", [FLAT, CLIFF, calibration(1.0, 1.045, 1.09, 1.13)])
@pytest.mark.parametrize("count", [1, 4])
def test_drafts_that_are_never_right_cost_no_more_than_the_accounts_allow(machine, count):
    state = start(machine)
    plain = total = 0.0
    for _ in range(ROUNDS):
        allocation = policy.allocate(state, rows(count), limits())
        plain += allocation.plain.seconds
        total += allocation.seconds
        state = played(state, allocation, (0,) * count)
        openings = ledger.OPENING_CREDIT + ledger.OPENING_BANK + search.LUCK_ROOM
        opening = openings * allocation.plain.seconds
        income = (ledger.CREDIT_INCOME + ledger.BANK_INCOME) * total
        assert total - plain <= opening + income


def commanded(count: int, drafts: int) -> tuple[policy.RowInput, ...]:
    return tuple(policy.RowInput(i, drafts, is_command=True) for i in range(count))


@pytest.mark.parametrize("drafts", [0, 3])
@pytest.mark.parametrize("accepted", [0, 3])
def test_rounds_that_others_decide_move_no_account(drafts, accepted):
    state = start(FLAT)
    for _ in range(50):
        allocation = policy.allocate(state, commanded(2, drafts), limits())
        state = played(state, allocation, (accepted,) * 2)
    assert state.ledger == ledger.Ledger()


def test_luck_with_commanded_drafts_is_no_credit():
    state = start(calibration(1.0, 1.1, 1.2, 1.3, 1.4, 10.0, 20.0))
    rows_ = (*commanded(1, 3), policy.RowInput(1, K_MAX))
    for accepted in (0, 3):
        after = state
        for _ in range(30):
            allocation = policy.allocate(after, rows_, limits())
            assert allocation.lengths == (3, 0)
            after = played(after, allocation, (accepted, 0))
        plain = allocation.plain.seconds
        assert 0 < after.ledger.credit_s < (ledger.OPENING_CREDIT + 0.3) * plain


def test_a_round_that_takes_twice_as_long_as_predicted_is_charged_so():
    state = taught(start(calibration(1.0, 1.1, 1.2, 1.3)), 0, 3, 3, 30)
    allocation = policy.allocate(state, rows(1, cap=3), limits())
    assert allocation.lengths == (3,)
    outcomes = (policy.Outcome(0, 3, 3),)
    credits = []
    for factor in (1.0, 1.8, 50.0):
        timing = policy.Timing(factor * allocation.seconds)
        credits.append(policy.observe(state, allocation, outcomes, timing).ledger.credit_s)
    kept = 1 - ledger.CREDIT_INCOME
    assert credits[0] - credits[1] == pytest.approx(0.8 * kept * allocation.seconds)
    assert credits[0] - credits[2] == pytest.approx(1.0 * kept * allocation.seconds)


def test_the_time_of_a_plain_round_with_shadows_is_not_held_against_the_credit():
    state = start(calibration(1.0, 1.5, 1.9, 2.2))
    while not (allocation := policy.allocate(state, rows(1), limits())).has_shadows:
        state = played(state, allocation, (0,))
    long = policy.Timing(3 * allocation.seconds)  # the pipeline behind it broke
    assert (
        policy.observe(state, allocation, (), long).ledger == played(state, allocation, (0,)).ledger
    )


def test_what_is_known_of_the_other_rows_is_theirs_alone():
    dice, state = random.Random(4), start(FLAT)
    rates = (0.99, 0.9, 0.8, 0.7, 0.5, 0.3, 0.1, 0.05)
    for step in range(400):
        if step == 300:  # a text changes and its row starts again
            rates = (*rates[:-1], 0.95)
        for row, rate in enumerate(rates):
            seen = policy.Shadow(row, 0, int(dice.random() < rate), 1)
            state = shadowed(state, seen)
    memories = state.acceptance.rows
    for row in memories:
        others = [m for other, m in memories.items() if other != row]
        hits, trials = sum(m.hits[0] for m in others), sum(m.trials[0] for m in others)
        pool = acceptance.Counts.of(memories.values(), K_MAX)
        [(rate, count, seen), *_] = acceptance._others(pool, memories[row])
        assert count == pytest.approx(trials + acceptance.PRIOR_TRIALS)
        assert seen == pytest.approx(hits / trials)
        prior = acceptance.PRIOR_TRIALS * acceptance.PRIOR_RATE
        assert rate == pytest.approx((hits + prior) / count)
    for row in list(memories):
        state = policy.retire(state, row)
    left = state.acceptance.departed
    assert 0 < left.hits[0] < left.trials[0] <= acceptance.MOST_DEPARTED
    assert state.acceptance.of(99).rate[0] == pytest.approx(left.hits[0] / left.trials[0], abs=0.05)


def test_a_drafter_that_costs_nothing_is_tried_too():
    assert first_shadow(calibration(1.0, 1.6, 1.7, draft_s=0.0, host_s=0.0))[0] == 0


def test_a_trial_falls_due_in_the_same_round_whether_planned_ahead_or_not():
    state, was_due = start(replace(calibration(1.0, 1.7), spread=0.2)), False
    for _ in range(60):
        state = taught(state, 0, 1, 1, 2)
        state = taught(state, 0, 0, 1, 1)
    for _ in range(150):
        here = policy.allocate(state, rows(1), limits())
        assert (here.trial_s is not None) == was_due
        if was_due:
            return
        ahead = policy.allocate(state, rows(1), policy.Limits(MAX_TOKENS, in_the_air=1))
        was_due = ahead.trial_s is not None
        state = played(state, here, (0,))
    raise AssertionError("no trial was due")


def first_shadow(machine: policy.Calibration) -> tuple[int, int]:
    """The round of the first shadow, and its depth; no draft is ever right."""
    state = start(machine)
    for index in range(ROUNDS):
        allocation = policy.allocate(state, rows(1), limits())
        if allocation.has_shadows:
            return index, allocation.drafts[0]
        state = played(state, allocation, (0,))
    raise AssertionError("no shadow was made")


def test_the_first_shadow_does_not_wait_until_the_bank_pays_for_a_deep_one():
    index, depth = first_shadow(calibration(1.0, 1.5, 1.9, 2.2))
    assert index < 6
    assert depth < 4


def test_before_a_cliff_the_first_shadow_is_deep_for_shallow_drafts_cannot_pay():
    index, depth = first_shadow(calibration(1.0, 4.5, 4.5))
    assert index > 5
    assert depth >= 4


def test_a_command_is_a_command():
    inputs = (policy.RowInput(0, 3, is_command=True), policy.RowInput(1, 0))
    allocation = policy.allocate(start(STEEP), inputs, limits())
    assert allocation.lengths == (3, 0)
    assert allocation.plain.lengths == (3, 0)


def test_rows_that_may_not_draft_are_no_fault():
    for state in (start(), start(k_max=0)):
        allocation = policy.allocate(state, rows(3, cap=0), limits())
        assert allocation.lengths == (0, 0, 0)
        assert allocation.reason == "parked: no row may draft"


def test_a_round_that_carries_a_prefill_drafts_no_deeper_than_three():
    state = taught(start(FLAT), 0, K_MAX, K_MAX, 30)
    allocation = policy.allocate(state, rows(1), limits(prefill_tokens=512))
    assert allocation.lengths == (3,)


def test_a_decision_says_what_it_chose_and_what_else_there_was():
    state = taught(start(FLAT), 0, K_MAX, K_MAX, 30)
    said = str(policy.allocate(state, rows(1), limits()))
    assert said.startswith("drafts 7 (N=8), ")
    assert "x of plain" in said
    assert "common depths 0:1.00x 1:" in said


def test_a_parked_decision_says_why():
    state = taught(start(STEEP), 0, 0, 1, 60)
    allocation = policy.allocate(state, rows(1), limits())
    assert allocation.reason is not None
    assert allocation.reason.startswith("parked, drafting would not pay: N=2 costs 2.00x of N=1, ")
    assert "first drafts accepted 0.0" in allocation.reason
    assert allocation.reason in str(allocation)


def test_an_unsure_start_says_that_it_is_unsure():
    allocation = policy.allocate(start(calibration(1.0, 1.6, 1.65, 1.7)), rows(1), limits())
    assert allocation.lengths == (0,)
    assert allocation.reason is not None
    assert "not yet sure to pay" in allocation.reason
