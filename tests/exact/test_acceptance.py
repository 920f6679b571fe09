"""What drafters do to a row: how many drafts it keeps, and that its text does not depend on it."""

from dataclasses import replace
from itertools import product
from math import sqrt

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from mtp_mlx.engine import engine as engine_module
from mtp_mlx.engine import round as round_module
from mtp_mlx.engine.engine import PREFILL_CHUNK, Engine
from mtp_mlx.model.batch import Batch, Row
from mtp_mlx.model.head import Logits
from mtp_mlx.model.target import Target
from mtp_mlx.model.view import View, draft_view
from mtp_mlx.request import MAX_DRAFT_TOKENS, Finished, Request, Sampling
from tests.exact.pairs import Outcome, golden_pair, oracle_engine, plain, run_together
from tests.golden import recipe
from tests.oracle import (
    Oracle,
    Place,
    Proposal,
    Script,
    accepting,
    agreeing,
    always,
    faulty,
)

TARGET = "31b"  # six layers, the cheapest


def request(seed: int, num_tokens: int, num_drafts: int, length: int = 5) -> Request:
    prompt = tuple(int(token) for token in recipe.prompt(length, seed))
    sampling = Sampling(temperature=1.0, top_k=64, seed=seed) if seed % 2 else Sampling()
    return Request(
        prompt=prompt, sampling=sampling, max_tokens=num_tokens, num_draft_tokens=num_drafts
    )


def run_scripted(
    target: Target, requests: list[Request], script: Script
) -> tuple[list[Outcome], list[Outcome]]:
    """Outcomes with the script's drafts in one batch, and plainly alone."""
    alone = [plain(target, each) for each in requests]
    texts = [outcome.ids for outcome in alone]
    engine, _ = oracle_engine(target, texts, script, len(requests), PREFILL_CHUNK)
    return run_together(engine, requests), alone


def assert_same_texts(seen: list[Outcome], alone: list[Outcome]) -> None:
    assert [outcome.text for outcome in seen] == [outcome.text for outcome in alone]


@pytest.mark.parametrize("num_drafts", [1, 3, 7])
def test_a_drafter_that_is_always_wrong_costs_a_token_a_round_and_no_more(num_drafts):
    target = golden_pair(TARGET).target
    requests = [request(seed, 12, num_drafts) for seed in range(3)]
    seen, alone = run_scripted(target, requests, always("wrong"))
    assert_same_texts(seen, alone)
    for outcome in seen:
        assert outcome.accepted == [0] * 11
        assert all(len(event.ids) == 1 for event in outcome.rounds)


@pytest.mark.parametrize("num_drafts", range(1, MAX_DRAFT_TOKENS + 1))
def test_a_perfect_drafter_gives_all_its_drafts_and_the_targets_own_token(num_drafts):
    target = golden_pair(TARGET).target
    num_tokens = 1 + 3 * (num_drafts + 1)
    requests = [request(seed, num_tokens, num_drafts) for seed in range(2)]
    seen, alone = run_scripted(target, requests, always("right"))
    assert_same_texts(seen, alone)
    for outcome in seen:
        assert outcome.accepted == [num_drafts] * 3
        block = ("draft",) * num_drafts + ("target",)
        assert [event.origins for event in outcome.rounds] == [("prefill",), *[block] * 3]


@pytest.mark.parametrize("num_drafts", [2, 3, pytest.param(4, marks=pytest.mark.slow)])
def test_rows_keep_what_is_right_in_every_combination_of_three(num_drafts):
    vectors = list(product(range(num_drafts + 1), repeat=3))
    counts = {row + 1: [vector[row] for vector in vectors] for row in range(3)}
    # Enough for every round: each row meets every count equally often.
    num_tokens = 2 + num_drafts + sum(1 + count for count in counts[1])
    target = shallow(golden_pair(TARGET).target)
    requests = [request(row, num_tokens, num_drafts, 5 + 4 * row) for row in range(3)]
    seen, alone = run_scripted(target, requests, accepting(counts))
    assert_same_texts(seen, alone)
    for row, outcome in enumerate(seen, start=1):
        assert outcome.accepted[: len(vectors)] == counts[row]


@pytest.mark.parametrize("proposal", ["nan", "infinite", "above", "negative"])
@pytest.mark.parametrize("depth", [0, 2])
def test_unusable_proposals_park_the_row_after_three_rounds_and_no_other(proposal, depth):
    target = golden_pair(TARGET).target
    bad, good = faulty(proposal, depth), always("right")
    requests = [request(seed, 24, 3) for seed in (1, 2)]

    def script(place: Place) -> Proposal:
        return (bad if place.request_id == 1 else good)(place)

    seen, alone = run_scripted(target, requests, script)
    assert_same_texts(seen, alone)
    drafted = [event.drafted for event in seen[0].rounds]
    assert drafted == [0, 3, 3, 3] + [0] * (len(drafted) - 4)
    assert seen[0].accepted[:3] == [depth] * 3
    assert isinstance(seen[0].end, Finished) and "3 times" in (seen[0].end.parked or "")
    assert isinstance(seen[1].end, Finished) and seen[1].end.parked is None
    assert sum(seen[1].accepted) == 17  # 24 less the first, and one of the target's a round


def test_faults_beyond_a_rows_own_draft_length_are_not_its_faults():
    target = golden_pair(TARGET).target
    requests = [request(1, 31, 2), request(2, 31, 5)]  # five rounds together

    def script(place: Place) -> Proposal:
        return "nan" if place.request_id == 1 and place.depth >= 2 else "right"

    seen, alone = run_scripted(target, requests, script)
    assert_same_texts(seen, alone)
    assert all(isinstance(each.end, Finished) and each.end.parked is None for each in seen)
    assert seen[0].accepted == [2] * 10


def shallow(target: Target) -> Target:
    """A target of the last two layers, one sliding and one full: quick, for long texts."""
    config = target.config
    skipped = len(config.layers) - 2
    layers = tuple(
        replace(spec, index=index, reads_from=index)
        for index, spec in enumerate(config.layers[skipped:])
    )
    weights = {}
    for key, array in tree_flatten(target.parameters()):
        root, _, rest = key.partition(".")
        number, _, name = rest.partition(".")
        if root != "layers":
            weights[key] = array
        elif int(number) >= skipped:
            weights[f"layers.{int(number) - skipped}.{name}"] = array
    donors = {spec.kind: spec.index for spec in layers}
    return Target(replace(config, layers=layers, donors=donors), weights)


def test_an_oracle_of_agreement_four_fifths_accepts_as_the_formula_says():
    agreement, num_drafts, batch, rounds_a_row = 0.8, 3, 8, 256
    powers = [agreement**place for place in range(1, num_drafts + 1)]
    mean = sum(powers)  # 1.952
    square = sum((2 * place - 1) * power for place, power in enumerate(powers, start=1))
    num_tokens = round(rounds_a_row * (1 + mean))
    target = shallow(golden_pair(TARGET).target)
    requests = [request(row, num_tokens, num_drafts, 3 + 5 * row) for row in range(batch)]
    bare = [replace(each, num_draft_tokens=0) for each in requests]
    alone = run_together(Engine(target, None), bare)  # the law says: as each alone
    texts = [outcome.ids for outcome in alone]
    engine, _ = oracle_engine(target, texts, agreeing(agreement, 7), batch, PREFILL_CHUNK)
    seen = run_together(engine, requests)
    assert_same_texts(seen, alone)
    whole = [e.accepted for outcome in seen for e in outcome.rounds if e.drafted == num_drafts]
    assert len(whole) >= 2000
    standard_error = sqrt((square - mean**2) / len(whole))
    assert abs(sum(whole) / len(whole) - mean) < 3 * standard_error


class Probe(Oracle):
    """An oracle that also keeps the real drafter's answer to each burst's first step."""

    def __init__(self, *args, drafter) -> None:
        super().__init__(*args)
        self.drafter = drafter
        self.first_steps: list[tuple[Row, mx.array, Logits]] = []

    def step(self, embedded: mx.array, hidden: mx.array, view: View) -> tuple[Logits, mx.array]:
        if view is not self._view:
            logits, _ = self.drafter.step(embedded, hidden, view)
            mx.eval(logits.scores)
            for index, row in enumerate(view.rows):
                part = slice(index, index + 1)
                ids = None if logits.ids is None else logits.ids[part]
                self.first_steps.append((row, hidden[part], Logits(logits.scores[part], ids)))
        return super().step(embedded, hidden, view)


@pytest.mark.parametrize("variant", recipe.VARIANTS)
def test_the_drafter_sees_committed_rows_and_the_state_behind_the_pending_token(variant):
    pair = golden_pair(variant)
    asked = request(3, 30, 7)
    text = plain(pair.target, asked).ids
    script = accepting({1: (0, 3, 1, 7, 2, 5)})
    probe = Probe({1: text}, script, pair.vocab_size, drafter=pair.drafter)
    engine = Engine(pair.target, probe, max_num_seqs=1)
    probe.watch(engine)
    assert run_together(engine, [asked])[0].ids == text
    assert len(probe.first_steps) >= 6
    states = clean_states(pair.target, [*asked.prompt, *text], len(asked.prompt))
    for row, hidden, logits in probe.first_steps:
        state, cache = next(states)
        while cache.lengths[0] < row.end:
            state, cache = next(states)
        assert mx.array_equal(hidden, state)
        embedded = pair.target.embed(mx.array([[*asked.prompt, *text][row.end]]))
        expected, _ = pair.drafter.step(embedded, state, draft_view(cache, (0,)))
        assert mx.array_equal(logits.scores, expected.scores)


def clean_states(target: Target, tokens: list[int], prompt_length: int):
    """(state of the last cached token, cache) after the prompt and then after each token alone."""
    cache = target.new_cache(1, MAX_DRAFT_TOKENS + 1)
    row = Row(0, 0, prompt_length)
    part = mx.array(tokens[:prompt_length])
    while True:
        hidden = target(Batch.of((row,), part, is_chunk=row.start == 0), cache)[-1:]
        mx.eval(hidden)
        cache.commit(0, row.length)
        yield hidden, cache
        row = Row(0, row.end, 1)
        part = mx.array([tokens[row.start]])


# Accepted drafts of the golden drafters, a digit a round: prompt of 5, temperature 5, seed 1.
RECORDED = {
    "e2b": "01100011000110000000000010000100010000",
    "31b": "0101120102313013301110",
}


def warm_outcome(variant: str) -> Outcome:
    pair = golden_pair(variant)
    prompt = tuple(int(token) for token in recipe.prompt(5, 1))
    warm = Request(
        prompt=prompt,
        sampling=Sampling(temperature=5.0, seed=1),
        max_tokens=48,
        num_draft_tokens=3,
    )
    return run_together(Engine(pair.target, pair.drafter, max_num_seqs=1), [warm])[0]


def digits(outcome: Outcome) -> str:
    return "".join(str(count) for count in outcome.accepted)


@pytest.mark.parametrize("variant", sorted(RECORDED))
def test_the_golden_drafter_has_as_many_drafts_accepted_as_recorded(variant):
    assert digits(warm_outcome(variant)) == RECORDED[variant]


@pytest.mark.parametrize("variant", sorted(RECORDED))
def test_a_hidden_state_one_off_changes_the_recorded_counts_and_not_the_text(variant, monkeypatch):
    text = warm_outcome(variant).ids

    def commit_one_off(cache, sequence, kept, hidden):
        round_module.commit(cache, sequence, kept, hidden)
        sequence.hidden = hidden[min(len(kept.tokens), hidden.shape[0] - 1)]

    monkeypatch.setattr(engine_module, "commit", commit_one_off)
    mutant = warm_outcome(variant)
    assert digits(mutant) != RECORDED[variant]
    assert mutant.ids == text


def test_counts_of_a_reply_add_up_round_by_round():
    pair = golden_pair(TARGET)
    requests = [
        replace(request(seed, 30, seed), sampling=Sampling(temperature=5.0, seed=seed))
        for seed in range(MAX_DRAFT_TOKENS + 1)
    ]
    outcomes = run_together(Engine(pair.target, pair.drafter), requests)
    for asked, outcome in zip(requests, outcomes, strict=True):
        assert outcome.rounds[0].origins == ("prefill",)
        assert sum(len(event.ids) for event in outcome.rounds) == asked.max_tokens
        emitted = 1
        for event in outcome.rounds[1:]:
            remaining = asked.max_tokens - emitted
            emitted += len(event.ids)
            assert event.drafted == min(asked.num_draft_tokens, remaining - 1)
            assert event.accepted == event.origins.count("draft") <= event.drafted
            assert event.drafts[: event.accepted] == event.ids[: event.accepted]
            assert len(event.ids) == event.accepted + 1
            assert ("plain" in event.origins) == (event.drafted == 0)
