"""Whatever a planner decides, the text stays; and the engine tells it the truth of its rounds."""

import random
from dataclasses import replace
from functools import cache

import pytest

from mtp_mlx.engine.engine import PREFILL_CHUNK, Engine
from mtp_mlx.engine.invariants import check_invariants
from mtp_mlx.engine.planner import Decision, PolicyPlanner, most_drafts
from mtp_mlx.engine.policy import Calibration, Experts
from mtp_mlx.request import MAX_DRAFT_TOKENS, Request, Sampling
from tests.exact import pairs
from tests.exact.pairs import embedded_pair, golden_pair, oracle_engine, plain
from tests.golden import recipe
from tests.oracle import Place, agreeing, always
from tests.planners import Moody

FLAT = Calibration(((1, 1e-3), (64, 1.1e-3)), 1e-5, 1e-6, 0.0, 0.01)
STEEP = Calibration(((1, 1e-3), (64, 64e-3)), 1e-4, 1e-5, 0.0, 0.01)


class Calibrated(PolicyPlanner):
    """Believes its calibration alone: whatever else this machine does, no clock tells it."""

    def learn(self, decision, outcomes, timing, shadows):
        super().learn(decision, outcomes, replace(timing, is_clean=False), shadows)


def requests(vocab_size: int, count: int = 5) -> list[Request]:
    dice = random.Random(5)
    return [
        Request(
            prompt=tuple(dice.randrange(2, vocab_size) for _ in range(dice.randint(2, 30))),
            sampling=Sampling(temperature=index % 2 * 0.8, top_k=20, seed=index),
            max_tokens=24,
            num_draft_tokens=None,
        )
        for index in range(count)
    ]


def finish(engine: Engine, chosen: list[Request]) -> list[list[int]]:
    """Ids of all requests, the invariants checked after every step."""
    run = pairs.Run(engine)
    ids = [run.submit(request) for request in chosen]
    while not engine.is_idle:
        run.step()
        check_invariants(engine)
    return [run.outcomes[request_id].ids for request_id in ids]


@pytest.mark.parametrize("name", ["tiny", "tiny-moe", *recipe.VARIANTS])
def test_no_decision_changes_a_text(name):
    pair = golden_pair(name) if name in recipe.VARIANTS else embedded_pair(name)
    chosen = requests(pair.vocab_size)
    expected = [plain(pair.target, request).ids for request in chosen]
    planner = Moody(3)
    engine = Engine(pair.target, pair.drafter, max_num_seqs=3, planner=planner)
    assert finish(engine, chosen) == expected
    assert sorted(planner.left) == list(range(1, len(chosen) + 1))


@cache
def scripted_texts(count):
    """Requests and their plain texts."""
    pair = golden_pair("12b")
    chosen = requests(pair.vocab_size, count)
    return chosen, [plain(pair.target, request).ids for request in chosen]


def oracle_run(planner, script, count=4, slots=4):
    """An engine with a scripted drafter and this planner; the texts by request id."""
    pair = golden_pair("12b")
    chosen, texts = scripted_texts(count)
    engine, oracle = oracle_engine(pair.target, texts, script, slots, PREFILL_CHUNK)
    engine.planner = planner
    assert finish(engine, chosen) == texts
    return engine, oracle


@pytest.mark.parametrize("seed", range(4))
def test_outcomes_and_shadows_are_what_the_drafter_was_worth(seed):
    script, planner = agreeing(0.7, seed), Moody(seed)
    oracle_run(planner, script)
    assert planner.shadows
    for shadow in planner.shadows:
        assert 0 <= shadow.verified < shadow.drafted
        assert shadow.verified <= shadow.matched <= shadow.drafted
    rights = [shadow.matched - shadow.verified for shadow in planner.shadows]
    tries = [
        min(shadow.matched + 1, shadow.drafted) - shadow.verified for shadow in planner.shadows
    ]
    assert 0.4 < sum(rights) / sum(tries) < 0.95
    for decision, outcomes, _, _ in planner.told:
        assert all(outcome.accepted <= outcome.drafted for outcome in outcomes)
        assert sum(o.drafted for o in outcomes) <= sum(decision.lengths)


@pytest.mark.parametrize(("proposal", "share"), [("right", 1.0), ("wrong", 0.0)])
def test_shadows_of_a_known_drafter_are_all_alike(proposal, share):
    planner = Moody(9)
    oracle_run(planner, always(proposal))
    assert planner.shadows
    for shadow in planner.shadows:
        assert shadow.matched == (shadow.drafted if share else shadow.verified == 0 and 0)


def test_a_broken_drafters_shadows_end_before_the_fault():
    def script(place: Place):
        return "nan" if place.depth >= 2 else "right"

    planner = Moody(4)
    engine, _ = oracle_run(planner, script)
    assert all(shadow.drafted <= 2 for shadow in planner.shadows)
    assert engine.is_idle


def test_rows_leave_the_drafters_batch_when_they_have_their_drafts():
    class Ragged(Moody):
        def plan(self, rows, in_the_air=0):
            made = tuple(min(row.cap, index) for index, row in enumerate(rows))
            return Decision(made, made)

    planner = Ragged(0)
    _, oracle = oracle_run(planner, always("right"))
    asked = {(place.request_id, place.burst, place.depth) for place in oracle.places}
    assert len(asked) == len(oracle.places)
    assert len(oracle.places) == sum(sum(decision.made) for decision, *_ in planner.told)


def test_the_policy_drafts_where_it_pays_and_parks_where_it_does_not():
    engine, _ = oracle_run(PolicyPlanner(FLAT, 4, 7), always("right"))
    assert engine.counters.accepted > 0.7 * engine.counters.tokens
    assert engine.stats().decision.startswith("drafts ")
    engine, _ = oracle_run(Calibrated(STEEP, 4, 7), always("right"))
    assert engine.counters.drafted == 0
    assert engine.stats().decision.startswith("parked, drafting would not pay: N=")


def test_a_parked_row_says_why_and_a_named_number_is_obeyed():
    pair = golden_pair("12b")
    (request,) = requests(pair.vocab_size, 1)
    text = plain(pair.target, request).ids
    for asked, is_parked in ((None, True), (2, False), (0, False)):
        engine, _ = oracle_engine(pair.target, [text], always("right"), 1, PREFILL_CHUNK)
        engine.planner = PolicyPlanner(STEEP, 1, 7)
        run = pairs.Run(engine)
        number = run.submit(replace(request, num_draft_tokens=asked))
        run.finish()
        outcome = run.outcomes[number]
        assert outcome.ids == text
        assert (outcome.end.parked is not None) == is_parked
        drafted = [len(event.drafts) for event in outcome.rounds]
        assert max(drafted) == (asked or 0)
        if is_parked:
            assert "would not pay" in outcome.end.parked


def test_a_row_that_could_not_have_drafted_gives_no_reason_of_another():
    pair = golden_pair("12b")
    long, short = requests(pair.vocab_size, 2)
    run = pairs.Run(Engine(pair.target, pair.drafter, 2, planner=PolicyPlanner(STEEP, 2, 7)))
    first = run.submit(long)
    for _ in range(4):
        run.step()
    others = [
        run.submit(replace(short, max_tokens=1)),  # has no round
        run.submit(replace(short, max_tokens=2)),  # has no room for a draft in its only one
        run.submit(replace(short, num_draft_tokens=0)),
        run.submit(short),
    ]
    run.cancel(others[-1])
    run.finish()
    assert run.outcomes[first].end.parked.startswith("parked")
    assert [run.outcomes[number].end.parked for number in others] == [None] * 4


def test_auto_rows_draft_no_deeper_than_the_planner_allows():
    engine, _ = oracle_run(PolicyPlanner(FLAT, 4, 2), always("right"))
    assert 0 < engine.counters.drafted <= 2 * engine.counters.rows


def test_the_policy_hears_of_the_experts_and_of_nobody_who_has_left():
    pair = embedded_pair("tiny-moe")
    chosen = requests(pair.vocab_size)
    experts = Experts(16, 2, 1e-5)
    planner = PolicyPlanner(replace(FLAT, experts=experts), 3, 7)
    engine = Engine(pair.target, pair.drafter, max_num_seqs=3, planner=planner)
    finish(engine, chosen)
    assert planner.state.costs.num_reports == engine.counters.rounds
    assert not planner.state.acceptance.rows
    stats = engine.stats()
    assert 2 <= stats.experts_per_layer <= 16
    assert 0 <= stats.expert_overlap_rows <= 1


def test_a_model_without_experts_reports_none():
    pair = embedded_pair("tiny")
    engine = Engine(pair.target, pair.drafter, max_num_seqs=2)
    finish(engine, requests(pair.vocab_size, 2))
    stats = engine.stats()
    assert stats.experts_per_layer is stats.expert_overlap_rows is None
    assert stats.rounds == engine.counters.rounds > 0


@pytest.mark.parametrize(
    ("heads", "kv_heads", "expected"), [(8, 1, 3), (8, 2, 7), (16, 8, 7), (64, 1, 1)]
)
def test_fused_attention_bounds_the_depth_on_a_gpu(heads, kv_heads, expected):
    config = golden_pair("12b").target.config
    layers = tuple(replace(layer, heads=heads, kv_heads=kv_heads) for layer in config.layers)
    config = replace(config, layers=layers)
    assert most_drafts(config, on_gpu=True) == expected
    assert most_drafts(config, on_gpu=False) == MAX_DRAFT_TOKENS


def test_the_statistics_hold_what_the_last_decision_cost():
    pair = embedded_pair("tiny")
    planner = PolicyPlanner(FLAT, 1, MAX_DRAFT_TOKENS)
    engine = Engine(pair.target, pair.drafter, max_num_seqs=1, planner=planner)
    assert engine.stats().costs is None
    finish(engine, requests(pair.vocab_size, 1))
    costs = engine.stats().costs
    decision = engine.watch.decision  # the last that was free: the round after it had no room
    assert costs is not None and decision is not None and decision.allocation is not None
    assert costs == decision.costs
    assert len(costs.forward_s) > 1
    assert costs.plain_tokens_per_s == pytest.approx(decision.allocation.plain.rate)
    assert Decision((3,), (3,)).costs is None


class Alternating(PolicyPlanner):
    """One round with drafts, then three without; notes which of them taught what a round takes."""

    def __init__(self, *given) -> None:
        super().__init__(*given)
        self._count, self.cleans = 0, []

    def plan(self, rows, in_the_air=0):
        decision = super().plan(tuple(replace(r, is_command=True, cap=0) for r in rows), in_the_air)
        if (self._count + in_the_air) % 4:
            return decision
        lengths = tuple(min(row.cap, 1) for row in rows)
        return replace(decision, made=lengths)  # shadows: the rows' tokens stay their own

    def learn(self, decision, outcomes, timing, shadows):
        self._count += 1
        self.cleans.append((decision.is_plain, timing.is_clean))
        super().learn(decision, outcomes, timing, shadows)


def test_a_plain_round_behind_drafts_teaches_no_cost_for_it_did_not_run_ahead():
    pair = embedded_pair("tiny")
    planner = Alternating(FLAT, 1, MAX_DRAFT_TOKENS)
    engine = Engine(pair.target, pair.drafter, max_num_seqs=1, planner=planner)
    asked = Request(prompt=(2, 44, 45), sampling=Sampling(), max_tokens=30, num_draft_tokens=None)
    engine.submit(asked)
    while not engine.is_idle:
        engine.step()
    settled = planner.cleans[8:20]
    assert [is_plain for is_plain, _ in settled] == [False, True, True, True] * 3
    assert [is_clean for _, is_clean in settled] == [True, False, True, True] * 3
