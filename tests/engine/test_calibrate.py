"""What a calibration makes of timings: planted costs are found, in the order that matters."""

import random

import pytest

from mtp_mlx.config import ExpertSpec
from mtp_mlx.engine.calibrate import (
    COUNTS,
    MIN_REPEATS,
    calibrate,
    drift,
    measure,
    reach,
    spread_of,
)
from mtp_mlx.engine.policy import Calibration
from tests.machine import MS, FakeBench

PLENTY_S = 1e6


def approx_ms(value: float):
    return pytest.approx(value * MS, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("num_slots", [1, 3, 8])
def test_planted_costs_are_found(num_slots):
    bench = FakeBench(num_slots=num_slots)
    found = calibrate(bench, PLENTY_S, 3)
    counts = [count for count, _ in found.verify]
    assert counts == sorted(count for count in COUNTS if count <= 8 * num_slots)
    assert counts[0] == 1 and counts[-1] == 8 * num_slots
    assert all(seconds == approx_ms(bench.forward_ms(count)) for count, seconds in found.verify)
    assert found.host_s == approx_ms(bench.host_ms)
    if num_slots > 1:
        assert found.draft_depth_s == approx_ms(bench.depth_ms)
        assert found.draft_token_s == approx_ms(bench.token_ms)
    else:  # one row: only their sum can be told
        assert found.draft_depth_s + found.draft_token_s == approx_ms(1.75)
    assert (found.repeats, found.experts) == (3, None)
    assert found.spread == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("num_slots", [1, 8])
def test_the_price_of_an_expert_is_found(num_slots):
    bench = FakeBench(num_slots=num_slots, experts=ExpertSpec(128, 8, 704))
    experts = calibrate(bench, PLENTY_S, 3).experts
    assert (experts.num_experts, experts.top_k) == (128, 8)
    assert experts.expert_s == approx_ms(bench.expert_ms)
    kinds = [call[0] for call in bench.calls]
    assert set(kinds[kinds.index("share") :]) == {"share", "count", "alike"}  # it spoils the rest


def test_experts_that_save_nothing_have_no_price():
    narrow = FakeBench(experts=ExpertSpec(8, 2, 8), is_narrow=True, noise=lambda trial: trial)
    assert calibrate(narrow, PLENTY_S, 3).experts.expert_s == 0
    cheap = FakeBench(experts=ExpertSpec(8, 2, 8), expert_ms=-1.0)  # noise may look like this
    assert calibrate(cheap, PLENTY_S, 3).experts.expert_s == 0


def test_a_plain_run_slower_than_a_lone_step_leaves_no_host_time():
    found = calibrate(FakeBench(host_ms=-1.0), PLENTY_S, 3)
    assert found.host_s == 0
    assert found.verify[0] == (1, approx_ms(10.0))


def test_no_draft_figure_is_negative():
    found = calibrate(FakeBench(token_ms=-0.05), PLENTY_S, 3)
    assert found.draft_token_s == 0
    assert found.draft_depth_s > 0


def counts_of(bench: FakeBench, budget_s: float) -> list[int]:
    return [count for count, _ in calibrate(bench, budget_s, 3).verify]


def test_where_time_is_short_the_points_that_matter_remain():
    bench = FakeBench()
    found = calibrate(bench, 0.0, 3)
    assert [count for count, _ in found.verify] == [1, 4, 16, 64]
    assert (found.repeats, found.draft_depth_s) == (MIN_REPEATS, approx_ms(bench.depth_ms))
    more = counts_of(FakeBench(), 1.4)
    assert {1, 2, 4, 8, 16, 64} < set(more) < set(COUNTS)


@pytest.mark.parametrize(
    ("num_slots", "k_max", "counts"),
    [
        (1, 7, [1, 4, 8]),
        (1, 1, [1, 2]),
        (2, 7, [1, 4, 16]),
        (3, 7, [1, 4, 16, 24]),
        (5, 6, [1, 4, 16, 35]),  # a number of tokens that no table names
        (64, 7, [1, 4, 16, 512]),
        (90, 7, [1, 4, 16, 512]),  # beyond the table: it ends where that does
    ],
)
def test_however_short_the_time_the_curve_reaches_the_widest_round(num_slots, k_max, counts):
    bench = FakeBench(num_slots, k_max)
    assert counts_of(bench, 0.0) == counts
    assert counts[-1] == reach(bench.max_tokens)


def test_a_first_run_that_compiles_is_not_taken_for_what_a_pass_takes():
    """On a GPU the first forward of each shape may take ten times as long as the next ones."""
    met: set[tuple] = set()

    class Compiling(FakeBench):
        def _take(self, call: tuple, milliseconds: float) -> float:
            if call not in met:
                met.add(call)
                self.now += 10 * milliseconds * MS
            return super()._take(call, milliseconds)

    bench = Compiling(num_slots=1)
    compiling_s = calibrate_s(bench) - calibrate_s(FakeBench(num_slots=1))
    met.clear()
    budget_s = calibrate_s(FakeBench(num_slots=1)) + compiling_s + 1e-6
    assert counts_of(Compiling(num_slots=1), budget_s) == [1, 2, 3, 4, 5, 6, 8]


def test_a_wide_forward_of_a_slow_machine_is_timed_once():
    """A large model on a CPU: 64 tokens take as long as 64 steps, and a load waits for them."""
    bench = FakeBench(forward_ms=lambda tokens: 50.0 * tokens)
    found = calibrate(bench, 2.0, 3)
    assert found.verify[-1] == (64, approx_ms(50 * 64))
    times = [bench.calls.count(("verify", count)) for count in (1, 4, 16, 64)]
    assert times == [1 + MIN_REPEATS, 1 + MIN_REPEATS, 1 + MIN_REPEATS, 1]
    assert found.repeats == MIN_REPEATS  # of those that are repeated
    bench = FakeBench(forward_ms=lambda tokens: 50.0 * tokens)
    assert calibrate(bench, 60.0, 3).repeats == 3  # with time enough


def calibrate_s(bench: FakeBench) -> float:
    """What a calibration of all points takes."""
    calibrate(bench, PLENTY_S, MIN_REPEATS)
    return bench.now


def test_repeats_go_as_far_as_the_time():
    bench = FakeBench()
    few = calibrate(bench, 4.0, 100)
    assert len(few.verify) == sum(count <= 64 for count in COUNTS)
    assert MIN_REPEATS < few.repeats < 100
    assert bench.now <= 4.0
    assert calibrate(FakeBench(), PLENTY_S, 100).repeats == 100


def test_repeats_are_interleaved_after_a_warm_up_of_each():
    bench = FakeBench(num_slots=1)
    calibrate(bench, PLENTY_S, 4)
    once = bench.calls[: 2 * len(bench.calls) // 5 : 2]
    assert len(set(once)) == len(once)
    assert bench.calls == [call for call in once for _ in range(2)] + once * 3


def test_the_spread_is_that_of_the_noise_and_a_stall_is_none():
    noise = random.Random(1)
    normal = [[noise.gauss(1.0, 0.05) for _ in range(25)] for _ in range(30)]
    assert spread_of(normal) == pytest.approx(0.05, rel=0.15)
    assert spread_of([[1.0, 1.0, 9.0], [2.0, 2.0, 2.0], [3.0] * 5]) == 0
    assert spread_of([[1.0, 1.6, 2.5], [2.0, 2.9, 1.1]]) > 0.3
    assert spread_of([[1.0]]) == 0


def test_a_stall_moves_no_figure():
    stalled = FakeBench(noise=lambda trial: 20.0 if trial == 40 else 1.0)
    found = calibrate(stalled, PLENTY_S, 3)
    assert all(seconds == approx_ms(10.0 + count) for count, seconds in found.verify)
    assert found.spread == pytest.approx(0, abs=1e-9)


def test_each_point_has_its_spread():
    jitter = random.Random(2)
    seen = measure(FakeBench(noise=lambda trial: jitter.uniform(0.8, 1.2)), PLENTY_S, 25)
    assert [point.tokens for point in seen.points] == [n for n, _ in seen.calibration.verify]
    assert all(0.02 < point.spread < 0.4 for point in seen.points)
    assert 0.05 < seen.calibration.spread < 0.2


def test_progress_is_told():
    told: list[str] = []
    measure(FakeBench(), PLENTY_S, 3, told.append)
    assert told[0] == "warming up: plain 1"
    assert told[-1] == "timing: 3 of up to 3"


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.3])
def test_drift_is_how_much_longer_a_few_things_take(factor):
    known = calibrate(FakeBench(), PLENTY_S, 3)
    later = FakeBench(noise=lambda trial: factor)
    seen = drift(later, known)
    assert (seen.forward, seen.round) == (pytest.approx(factor), pytest.approx(factor))
    assert seen.spread == pytest.approx(0, abs=1e-12)
    verify, draft = {("verify", n) for n in (1, 4, 8)}, {("draft", 1, n) for n in (1, 4)}
    assert set(later.calls) == verify | draft
    assert len(later.calls) == 5 * (1 + MIN_REPEATS)


def test_one_point_that_is_off_is_no_drift():
    known = calibrate(FakeBench(), PLENTY_S, 3)
    odd = FakeBench(forward_ms=lambda tokens: 40.0 if tokens == 1 else 10.0 + tokens)
    assert drift(odd, known).forward == pytest.approx(1.0)


def test_a_drafter_that_takes_longer_makes_its_rounds_longer():
    known = calibrate(FakeBench(), PLENTY_S, 3)
    seen = drift(FakeBench(depth_ms=1.5 + 4.0), known)
    assert seen.forward == pytest.approx(1.0)
    expected = (14 + 2) + 3 * 1.75  # of a forward of 4 tokens, and three draft steps before it
    assert seen.round == pytest.approx((expected + 3 * 4.0) / expected)


def test_what_a_burst_begins_with_is_no_drift():
    class Slow(FakeBench):
        def draft_s(self, num_rows: int, depth: int) -> float:
            return super().draft_s(num_rows, depth) + 50 * MS

    known = calibrate(FakeBench(), PLENTY_S, 3)
    assert drift(Slow(), known).round == pytest.approx(1.0)


def test_drift_takes_the_narrow_points_there_are():
    points = ((1, 11 * MS), (4, 14 * MS), (13, 23 * MS), (64, 74 * MS))
    known = Calibration(points, 1.5 * MS, 0.25 * MS, 2 * MS, 0.0)
    bench = FakeBench(num_slots=1)
    seen = drift(bench, known)
    assert (seen.forward, seen.round) == (pytest.approx(1.0), pytest.approx(1.0))
    assert {call[1] for call in bench.calls if call[0] == "verify"} == {1, 4}
    alone = Calibration(((1, 11 * MS),), 1.5 * MS, 0.25 * MS, 2 * MS, 0.0)
    assert drift(FakeBench(), alone).round == pytest.approx(1.0)
