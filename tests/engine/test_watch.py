"""What the engine notes of its rounds, and what it says of a prompt that is being read."""

from dataclasses import replace

import pytest

from mtp_mlx.engine.airborne import Airborne
from mtp_mlx.engine.engine import Engine
from mtp_mlx.engine.planner import Decision, PolicyPlanner
from mtp_mlx.engine.policy import Calibration, RowInput, Timing
from mtp_mlx.engine.round import Draft, Flight
from mtp_mlx.engine.watch import Watch
from mtp_mlx.request import Finished, Request, Sampling
from tests.exact.pairs import Run, embedded_pair, golden_pair, run_together
from tests.planners import Moody

FLAT = Calibration(((1, 1e-3), (64, 1.1e-3)), 1e-5, 1e-6, 0.0, 0.01)
STEEP = Calibration(((1, 1e-3), (64, 64e-3)), 1e-4, 1e-5, 0.0, 0.01)
CHUNK = 8


def ask(length: int, new: int = 12, **options) -> Request:
    prompt = tuple(110 + place % 50 for place in range(length))
    chosen = {"sampling": Sampling(), "num_draft_tokens": None} | options
    return Request(prompt=prompt, max_tokens=new, **chosen)


def told(run: Run, number: int) -> list[tuple[int, int]]:
    return [(event.done, event.total) for event in run.outcomes[number].progress]


def test_a_prompt_is_told_of_from_its_row_on_chunk_by_chunk():
    pair = golden_pair("31b")
    run = Run(Engine(pair.target, pair.drafter, max_num_seqs=2, chunk=CHUNK))
    numbers = [run.submit(ask(length)) for length in (20, 8, 5)]
    run.step()
    assert [told(run, number) for number in numbers] == [[(0, 20), (8, 20)], [(0, 8)], []]
    assert not run.outcomes[1].ids
    run.finish()
    assert told(run, 1) == [(0, 20), (8, 20), (16, 20), (20, 20)]
    assert [told(run, number) for number in (2, 3)] == [[(0, 8), (8, 8)], [(0, 5), (5, 5)]]
    moments = [event.at for event in run.outcomes[1].progress]
    assert moments == sorted(moments) and len(set(moments)) > 1


def test_what_the_prompt_cache_had_is_told_too():
    pair = golden_pair("31b")
    engine = Engine(pair.target, pair.drafter, max_num_seqs=1, chunk=CHUNK)
    engine.keep_prompts(1 << 30)
    run = Run(engine)
    for _ in range(2):
        run.submit(ask(20))
        run.finish()
    assert told(run, 2) == [(0, 20), (16, 20), (20, 20)]


def test_rounds_are_counted_by_rows_depth_and_position():
    pair = embedded_pair("tiny")
    engine = Engine(pair.target, pair.drafter, max_num_seqs=3, planner=Moody(4))
    outcomes = run_together(engine, [ask(4 + index, 24) for index in range(5)])
    stats, rounds = engine.stats(), engine.status().rounds
    drafted = [event.drafted for each in outcomes for event in each.rounds[1:]]
    accepted = [event.accepted for each in outcomes for event in each.rounds[1:]]
    assert sum(batch.rounds for batch in rounds.batches) == stats.rounds
    assert {batch.rows for batch in rounds.batches} <= {1, 2, 3}
    for depth in range(8):
        counted = sum(batch.depths[depth] for batch in rounds.batches)
        assert counted == drafted.count(depth), depth
    for place in range(7):
        assert rounds.drafted_per_position[place] == sum(count > place for count in drafted)
        assert rounds.accepted_per_position[place] == sum(count > place for count in accepted)
    assert sum(rounds.accepted_per_position) == stats.accepted > 0
    assert all(seconds > 0 for seconds in rounds.seconds.values())
    assert engine.status().rows == ()


def test_rows_are_shown_in_every_state():
    pair = golden_pair("31b")
    run = Run(Engine(pair.target, pair.drafter, max_num_seqs=2, chunk=CHUNK))
    for length in (5, 20, 7):
        run.submit(ask(length, num_draft_tokens=2))
    run.step()
    run.step()
    first, second, third = run.engine.status().rows
    assert (first.id, first.slot, first.state, first.prompt_done) == (1, 0, "decode", 5)
    outcome = run.outcomes[1]
    assert first.tokens == len(outcome.ids) > 0
    assert (first.drafted, first.depth, first.accepted) == (2, 2, sum(outcome.accepted))
    assert (second.id, second.slot, second.state, second.prompt_done) == (2, 1, "prefill", 8)
    assert (third.id, third.slot, third.state, third.prompt_tokens) == (3, None, "queued", 7)


class Noting(PolicyPlanner):
    """Keeps its decisions."""

    def __init__(self) -> None:
        super().__init__(FLAT, 2, 7)
        self.noted: list[Decision] = []

    def learn(self, decision, outcomes, timing, shadows) -> None:
        super().learn(decision, outcomes, timing, shadows)
        self.noted.append(decision)


def test_a_row_is_told_its_plain_speed_beside_the_rows_it_ran_with():
    pair = embedded_pair("tiny")
    planner = Noting()
    engine = Engine(pair.target, pair.drafter, 1, planner=planner)
    [outcome] = run_together(engine, [ask(6, 40)])
    known = [decision.costs for decision in planner.noted]
    seconds = [costs.forward_s[0] for costs in known if costs is not None]
    assert isinstance(outcome.end, Finished) and len(seconds) > 3
    assert outcome.end.plain_tokens_per_s == pytest.approx(len(seconds) / sum(seconds))


def test_without_costs_there_is_no_plain_speed():
    pair = embedded_pair("tiny")
    engine = Engine(pair.target, pair.drafter, 1)
    [outcome] = run_together(engine, [ask(6)])
    assert isinstance(outcome.end, Finished) and outcome.end.plain_tokens_per_s is None
    assert engine.status().rounds.plain_tokens_per_s is None
    assert [batch.speedup for batch in engine.status().rounds.batches] == [None]


def test_why_nothing_is_drafted_is_one_of_a_few_kinds():
    pair = golden_pair("31b")
    engine = Engine(pair.target, pair.drafter, 1, planner=PolicyPlanner(STEEP, 1, 7))
    run_together(engine, [ask(6, 40)])
    rounds = engine.status().rounds
    assert rounds.parked_kind in ("would_not_pay", "not_sure_to_pay")
    assert rounds.parked is not None and rounds.parked.startswith("parked, drafting")
    assert 0 < sum(rounds.parked_rounds.values()) <= engine.counters.rounds
    assert set(rounds.parked_rounds) <= {"would_not_pay", "not_sure_to_pay", "no_row_may_draft"}


def planned(rows: int) -> Decision:
    inputs = tuple(RowInput(number, 3) for number in range(1, rows + 1))
    return PolicyPlanner(FLAT, 4, 7).plan(inputs)


def test_the_ratio_is_of_rounds_whose_time_nothing_else_shared():
    watch, decision = Watch(), planned(2)
    assert decision.costs is not None
    plain_s = decision.costs.forward_s[0]
    watch.land(decision, Timing(2 * plain_s, True), 6)  # 4 tokens plainly
    watch.land(decision, Timing(50 * plain_s, False), 7)
    watch.land(decision, Timing(plain_s, True), 10)  # 2 tokens plainly
    [batch] = watch.stats([], []).batches
    assert (batch.rows, batch.rounds, batch.timed_tokens) == (2, 3, 9)
    assert batch.plain_tokens == pytest.approx(6.0)
    assert batch.speedup == pytest.approx(1.5)
    assert batch.depths == tuple(3 * decision.lengths.count(depth) for depth in range(8))


def test_phases_share_the_time_of_a_step():
    moments = iter([0.0, 1.0, 3.0, 7.0, 8.0, 10.0])
    watch = Watch(lambda: next(moments))
    watch.begin()
    watch.lap("launch")
    watch.lap("land")
    watch.lap("commit")
    watch.lap("prompt")
    seconds = watch.stats([], []).seconds
    assert seconds == {"launch": 2.0, "land": 4.0, "commit": 1.0, "prompt": 2.0}


def test_time_inside_mlx_is_that_of_rounds_and_not_of_prompts():
    moments, inside = iter(range(99)), iter([0.0, 5.0, 5.5, 5.75, 5.75, 9.0, 9.0, 9.5])
    watch = Watch(lambda: float(next(moments)), lambda: next(inside))
    watch.begin()  # 5.0: what others waited for before it is nobody's
    for phase in ("launch", "land", "commit", "prompt"):
        watch.lap(phase)
    watch.begin()
    watch.lap("launch")
    rounds = watch.stats([], [])
    assert rounds.eval_s == pytest.approx(0.5 + 0.25 + 0.0 + 0.5)
    assert rounds.round_s == pytest.approx(4.0)


@pytest.mark.parametrize("drafts", [0, 3])
def test_a_round_is_the_hosts_time_and_that_inside_mlx(drafts):
    pair = embedded_pair("tiny")
    engine = Engine(pair.target, pair.drafter, 1)
    run_together(engine, [ask(6, num_draft_tokens=drafts)])
    rounds = engine.status().rounds
    assert 0 < rounds.eval_s < rounds.round_s


def test_the_last_round_has_its_own_plain_speed():
    watch, decision = Watch(), planned(3)
    assert decision.costs is not None
    nothing = replace(decision, allocation=None)
    for each, expected in ((decision, 3 / decision.costs.forward_s[0]), (nothing, None)):
        watch.decide(Airborne(Flight((), (), Draft(()), *[None] * 3), (), each))
        rounds = watch.stats([], [])
        assert (rounds.depths, rounds.plain_tokens_per_s) == (each.lengths, expected)
