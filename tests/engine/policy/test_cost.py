"""What a round costs: interpolation, learning from clean rounds, order, experts, stored form."""

import json
import math
from dataclasses import replace

import pytest

from mtp_mlx.engine import policy
from mtp_mlx.engine.policy.cost import Costs
from tests.engine.policy.scenes import calibration, limits, rows, start

EXPERTS = policy.Experts(num_experts=128, top_k=8, expert_s=0.01)


def noisy(*points: tuple[int, float], experts: policy.Experts | None = None) -> policy.Calibration:
    return policy.Calibration(points, 0.03, 0.01, 0.05, spread=0.05, experts=experts)


def seconds(costs: Costs, num_tokens: int, num_rows: int) -> float:
    """A forward of N tokens from B rows."""
    return costs.forwards(num_rows, num_tokens - num_rows)[-1]


def test_times_are_linear_between_the_measured_and_beyond():
    costs = Costs.start(noisy((1, 1.0), (3, 2.0), (5, 2.4)), 8)
    expected = (1.0, 1.5, 2.0, 2.2, 2.4, 2.6, 2.8, 3.0)
    assert costs.table == pytest.approx(expected)


def test_a_larger_forward_is_never_read_as_cheaper():
    costs = Costs.start(noisy((1, 1.0), (2, 1.3), (3, 1.2), (4, 1.5)), 4)
    assert list(costs.table) == sorted(costs.table)
    assert costs.table[1] == pytest.approx(costs.table[2])


def test_a_clean_round_moves_its_own_entry_first():
    costs = Costs.start(noisy((1, 1.0), (2, 1.2), (3, 1.4)), 3)
    for _ in range(20):
        costs = costs.observe(2, 1, 0.0, 1.3)
    assert seconds(costs, 2, 1) == pytest.approx(1.3, rel=0.02)
    assert seconds(costs, 1, 1) == pytest.approx(1.0, rel=0.02)


def test_a_machine_that_heats_up_moves_all_entries():
    costs = Costs.start(noisy((1, 1.0), (2, 1.2), (3, 1.4)), 3)
    for step in range(2000):
        costs = costs.observe(2, 1, 0.0, 1.2 * (1 + 0.2 * step / 2000))
    assert seconds(costs, 2, 1) == pytest.approx(1.44, rel=0.03)
    assert seconds(costs, 3, 1) / seconds(costs, 2, 1) == pytest.approx(1.4 / 1.2, rel=0.05)


def test_a_stall_of_the_machine_is_not_taken_for_a_cost():
    costs = Costs.start(noisy((1, 1.0), (2, 1.2)), 2)
    for _ in range(50):
        costs = costs.observe(1, 1, 0.0, 1.0)
    assert seconds(costs.observe(1, 1, 0.0, 100.0), 1, 1) < 1.05


def test_a_noisy_machine_leaves_the_price_of_drafting_in_doubt():
    quiet = Costs.start(noisy((1, 1.0)), 1)
    loud = Costs.start(replace(noisy((1, 1.0)), spread=0.2), 1)
    assert loud.draft_doubt() == pytest.approx(4 * quiet.draft_doubt())
    assert loud.draft_doubt() == pytest.approx(0.2 * (1.5 / 3) ** 0.5)


def test_an_unclean_round_teaches_no_cost():
    state = start(calibration(1.0, 1.2))
    allocation = policy.allocate(state, rows(1), limits())
    after = policy.observe(state, allocation, (), policy.Timing(9.0, is_clean=False))
    assert after.costs == state.costs


def test_rows_that_share_experts_cost_less():
    machine = noisy((1, 1.0), (64, 4.0), experts=EXPERTS)
    costs = Costs.start(machine, 64)
    before = seconds(costs, 16, 8)
    seen = policy.SeenExperts(EXPERTS.distinct(1), EXPERTS.distinct(1.4))
    for _ in range(100):
        costs = costs.observe_experts(16, 8, seen)
    saved = 0.01 * (EXPERTS.distinct(16) - EXPERTS.distinct(1.4))
    assert seconds(costs, 16, 8) == pytest.approx(before_random(machine, 16) - saved, rel=0.01)
    assert seconds(costs, 16, 8) < before


def before_random(machine: policy.Calibration, num_tokens: int) -> float:
    """What the calibration itself says: random tokens share no experts."""
    return Costs.start(machine, 64).table[num_tokens - 1]


def test_experts_of_independent_tokens_follow_the_formula_and_its_inverse():
    assert EXPERTS.distinct(1) == pytest.approx(8)
    assert EXPERTS.distinct(2) == pytest.approx(15.5)
    for tokens in (1, 2, 7, 30):
        assert EXPERTS.independent(EXPERTS.distinct(tokens)) == pytest.approx(tokens)
    assert math.isfinite(EXPERTS.independent(128))


@pytest.mark.parametrize("experts", [None, EXPERTS])
def test_a_calibration_survives_its_json_form(experts):
    stored = noisy((1, 1.0), (8, 1.7), experts=experts)
    assert policy.Calibration.from_json(json.loads(json.dumps(stored.to_json()))) == stored


@pytest.mark.parametrize(
    "change",
    [
        {"verify": []},
        {"verify": [[2, 1.0]]},
        {"verify": [[1, 1.0], [1, 2.0]]},
        {"verify": [[1, 0.0]]},
        {"verify": [[1, float("nan")]]},
        {"host_s": -1},
        {"spread": float("inf")},
        {"repeats": 0},
    ],
)
def test_a_senseless_calibration_is_refused(change):
    with pytest.raises(ValueError, match="calibration"):
        policy.Calibration.from_json(noisy((1, 1.0)).to_json() | change)
