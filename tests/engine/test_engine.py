"""Rows come, end and fail in every way and no other row notices: each equals its plain run."""

import gc
import random
import weakref
from dataclasses import replace
from functools import cache
from itertools import pairwise

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mtp_mlx.engine.engine import PREFILL_CHUNK, Engine
from mtp_mlx.errors import ContextLengthExceeded, NumericalError
from mtp_mlx.model.target import Target
from mtp_mlx.request import MAX_DRAFT_TOKENS, Failed, Finished, Request, Sampling, Tokens
from tests.exact.pairs import Outcome, Run, golden_pair, oracle_engine, plain, run_together
from tests.golden import recipe
from tests.oracle import Oracle, agreeing, always
from tests.planners import Moody

TARGET = "31b"  # six layers, the cheapest
PER_LAYER = "e2b"  # its per-layer embedding may hold NaN that the tied head does not see
DRAFTS = range(MAX_DRAFT_TOKENS + 1)


def decoded_alone(asked: Request, chunk: int) -> Outcome:
    """The plain outcome, computed once for each request."""
    return _decoded_alone(replace(asked, num_draft_tokens=0), chunk)


@cache
def _decoded_alone(asked: Request, chunk: int) -> Outcome:
    return plain(golden_pair(TARGET).target, asked, chunk)


def prompt(length: int, seed: int) -> tuple[int, ...]:
    return tuple(int(token) for token in recipe.prompt(length, seed))


def varied(seed: int, num_tokens: int, num_drafts: int, length: int = 5) -> Request:
    """A sampled request: its tokens differ among each other, as greedy ones need not."""
    return Request(
        prompt=prompt(length, seed),
        sampling=Sampling(temperature=1.0, seed=seed),
        max_tokens=num_tokens,
        num_draft_tokens=num_drafts,
    )


def with_parameters(target: Target, config=None, **changed: mx.array) -> Target:
    """A target of the same weights with another config or some other tensors."""
    weights = dict(tree_flatten(target.parameters())) | changed
    return Target(config or target.config, weights)


def perfect(target: Target, text: list[int], count: int, slots: int = 8) -> Engine:
    """An engine whose drafter proposes `text` for each of `count` requests."""
    return oracle_engine(target, [text] * count, always("right"), slots, PREFILL_CHUNK)[0]


@pytest.mark.parametrize("num_drafts", [0, 1, 4, 7])
def test_a_stop_id_ends_the_row_at_every_index_of_a_block(num_drafts):
    target = golden_pair(TARGET).target
    asked = varied(1, 17, num_drafts)
    text = plain(target, asked).ids
    assert len(set(text)) > MAX_DRAFT_TOKENS
    requests = [replace(asked, stop_ids=frozenset((token,))) for token in text]
    outcomes = run_together(perfect(target, text, len(text)), requests)
    for token, outcome in zip(text, outcomes, strict=True):
        assert outcome.text[:2] == (text[: text.index(token) + 1], "stop")


@pytest.mark.parametrize("num_drafts", [0, 1, 4, 7])
def test_a_stop_string_ends_the_row_at_every_index_and_hears_each_token_once(num_drafts):
    target = golden_pair(TARGET).target
    asked = varied(2, 17, num_drafts)
    text = plain(target, asked).ids
    heard: list[list[int]] = [[] for _ in text]

    def ends_at(index: int):
        def is_end(token: int) -> bool:
            heard[index].append(token)
            return len(heard[index]) == index + 1

        return is_end

    requests = [replace(asked, is_end=ends_at(index)) for index in range(len(text))]
    outcomes = run_together(perfect(target, text, len(text)), requests)
    for index, outcome in enumerate(outcomes):
        assert outcome.text[:2] == (text[: index + 1], "stop")
        assert heard[index] == outcome.ids


def test_a_stop_id_that_is_also_heard_is_heard():
    target = golden_pair(TARGET).target
    heard: list[int] = []
    asked = varied(1, 8, 0)
    text = plain(target, asked).ids
    stopping = replace(
        asked, stop_ids=frozenset(text[3:4]), is_end=lambda token: bool(heard.append(token))
    )
    assert plain(target, stopping).ids == heard == text[: text.index(text[3]) + 1]


@pytest.mark.parametrize("num_drafts", DRAFTS)
def test_a_budget_is_met_exactly_and_no_draft_is_made_beyond_it(num_drafts):
    target = golden_pair(TARGET).target
    budgets = sorted({1, 2, max(num_drafts, 1), num_drafts + 1, num_drafts + 2, 2 * num_drafts + 3})
    asked = varied(3, max(budgets), num_drafts)
    text = plain(target, asked).ids
    requests = [replace(asked, max_tokens=budget) for budget in budgets]
    outcomes = run_together(perfect(target, text, len(budgets)), requests)
    for budget, outcome in zip(budgets, outcomes, strict=True):
        assert outcome.text[:2] == (text[:budget], "length")
        emitted = 0
        for event in outcome.rounds:
            assert emitted + event.drafted < budget
            emitted += len(event.ids)


@pytest.mark.parametrize("room", [1, 2, 4, 5, 9])
@pytest.mark.parametrize("num_drafts", [0, 3, 7])
def test_the_end_of_the_context_ends_the_row_inside_a_block(room, num_drafts):
    whole = golden_pair(TARGET).target
    asked = varied(4, 16, num_drafts)
    text = plain(whole, asked).ids
    context = len(asked.prompt) + room
    small = with_parameters(whole, replace(whole.config, max_positions=context))
    [outcome] = run_together(perfect(small, text, 1), [asked])
    assert outcome.text[:2] == (text[:room], "length")
    with pytest.raises(ContextLengthExceeded, match=f"the context is {context}"):
        Engine(small, None).submit(replace(asked, prompt=prompt(context, 1)))


@pytest.mark.parametrize("num_drafts", DRAFTS)
def test_a_prompt_of_one_token_gives_its_plain_text(num_drafts):
    pair = golden_pair(TARGET)
    asked = varied(5, 12, num_drafts, length=1)
    expected = plain(pair.target, asked)
    [real] = run_together(Engine(pair.target, pair.drafter), [asked])
    [right] = run_together(perfect(pair.target, expected.ids, 1), [asked])
    assert real.text == right.text == expected.text


def test_without_a_drafter_asked_drafts_are_not_made():
    target = golden_pair(TARGET).target
    asked = varied(6, 12, 3)
    [outcome] = run_together(Engine(target, None), [asked])
    assert outcome.text == plain(target, asked).text
    assert all(event.drafted == 0 for event in outcome.rounds)


def ragged_requests(count: int, num_drafts: int | None) -> list[Request]:
    """Requests of 1 to 20 tokens after prompts of 1 to 30; None draws the draft length too."""
    draw = random.Random(f"{count}/{num_drafts}")
    return [
        varied(
            seed,
            draw.randint(1, 20),
            draw.randint(0, 7) if num_drafts is None else num_drafts,
            draw.randint(1, 30),
        )
        for seed in range(count)
    ]


@pytest.mark.parametrize("num_drafts", [0, 3, None])
@pytest.mark.parametrize("chunk", [7, PREFILL_CHUNK])
def test_slots_are_reused_without_residue_while_the_batch_grows_and_shrinks(num_drafts, chunk):
    target = golden_pair(TARGET).target
    requests = ragged_requests(16, num_drafts)
    alone = [decoded_alone(asked, chunk) for asked in requests]
    texts = dict(enumerate([outcome.ids for outcome in alone], start=1))
    oracle = Oracle(texts, agreeing(0.7, 1), target.config.vocab_size)
    engine = Engine(target, oracle, max_num_seqs=4, chunk=chunk)
    oracle.watch(engine)
    run, sizes = Run(engine), []
    for wave in (requests[:1], requests[1:9], requests[9:10], requests[10:]):
        for asked in wave:
            run.submit(asked)
        for _ in range(12):
            run.step()
            sizes.append(len(engine.sequences))
    run.finish()
    changes = [after - before for before, after in pairwise(sizes)]
    assert max(sizes) == 4 and min(changes) < 0 < max(changes)
    assert [run.outcomes[index + 1].text for index in range(16)] == [each.text for each in alone]
    assert engine.cache.lengths == [0] * 4


@pytest.mark.parametrize("num_drafts", [0, 3])
@pytest.mark.parametrize("steps", range(7))
def test_a_cancelled_row_ends_at_once_and_its_slot_serves_the_next(num_drafts, steps):
    target = golden_pair(TARGET).target
    chunk = 8
    # Two slots: request 1 runs, 2 is in prefill for four steps and then runs, 3 and 4 wait.
    requests = [varied(seed, 12, num_drafts, length) for seed, length in ((1, 3), (2, 30), (3, 9))]
    requests.append(varied(4, 12, num_drafts, 17))
    alone = [decoded_alone(asked, chunk) for asked in requests]
    texts = [outcome.ids for outcome in alone]
    for doomed in (1, 2, 3):
        engine, _ = oracle_engine(target, texts, agreeing(0.6, 2), 2, chunk)
        run = Run(engine)
        for asked in requests:
            run.submit(asked)
        for _ in range(steps):
            run.step()
        was_over = run.outcomes[doomed].end is not None
        before = list(run.outcomes[doomed].ids)
        run.cancel(doomed)
        run.finish()
        for index, expected in enumerate(alone, start=1):
            if index != doomed or was_over:
                assert run.outcomes[index].text == expected.text
        if not was_over:
            assert run.outcomes[doomed].text[:2] == (before, "cancelled")
            assert before == texts[doomed - 1][: len(before)]


def test_cancelling_an_unknown_or_ended_request_does_nothing():
    target = golden_pair(TARGET).target
    engine = Engine(target, None)
    assert engine.cancel(1) == []
    run_together(engine, [varied(1, 2, 0)])
    assert engine.cancel(1) == []


def poisoned(target: Target, token: int) -> Target:
    """The target with NaN in the per-layer embedding of one token."""
    name = "embed_tokens_per_layer.weight"
    table = mx.array(dict(tree_flatten(target.parameters()))[name])
    table[token] = mx.array(float("nan"))
    return with_parameters(target, **{name: table})


@pytest.mark.parametrize("num_drafts", [0, 3])
@pytest.mark.parametrize("length", [4, 20])
def test_nan_in_a_prompt_fails_that_row_alone_and_leaves_a_clean_slot(num_drafts, length):
    healthy = golden_pair(PER_LAYER).target
    requests = [varied(seed, 10, num_drafts, 6) for seed in range(4)]
    alone = [plain(healthy, asked, 8) for asked in requests]
    used = {token for each in alone for token in each.ids} | {0}
    used.update(token for asked in requests for token in asked.prompt)
    poison = next(token for token in range(256) if token not in used)
    bad = replace(requests[0], prompt=(*prompt(length, 9), poison, 7))
    texts = {1: alone[0].ids, 2: [], **{i: alone[i - 2].ids for i in (3, 4, 5)}}
    target = poisoned(healthy, poison)
    oracle = Oracle(texts, always("right"), target.config.vocab_size)
    engine = Engine(target, oracle, max_num_seqs=3, chunk=8)
    oracle.watch(engine)
    first, doomed, *others = run_together(engine, [requests[0], bad, *requests[1:]])
    assert isinstance(doomed.end, Failed) and isinstance(doomed.end.error, NumericalError)
    assert doomed.ids == []
    assert [each.text for each in (first, *others)] == [each.text for each in alone]


def put_nan(engine: Engine, slot: int, *, in_window: bool) -> None:
    """NaN into the newest committed key and value of a row, in all layers of a kind."""
    at, cache = engine.cache.lengths[slot] - 1, engine.cache
    nan = mx.array(float("nan"))
    if in_window:
        for ring in cache.window.values():
            places = mx.array(ring.places(slot, np.array([at])).reshape(-1))
            ring.keys[places] = nan
            ring.values[places] = nan
        return
    for full in cache.full.values():
        for buffer in (full.keys[slot], full.values[slot]):
            assert buffer is not None
            buffer[:, at] = nan


@pytest.mark.parametrize("num_drafts", [0, 3])
@pytest.mark.parametrize("in_window", [True, False])
def test_nan_in_mid_generation_fails_that_row_alone_and_leaves_a_clean_slot(num_drafts, in_window):
    target = golden_pair(TARGET).target
    requests = [varied(seed, 16, num_drafts, 6 + seed) for seed in range(5)]
    alone = [plain(target, asked) for asked in requests]
    texts = [outcome.ids for outcome in alone]
    engine, _ = oracle_engine(target, texts, agreeing(0.6, 3), 3, PREFILL_CHUNK)
    run = Run(engine)
    for asked in requests:
        run.submit(asked)
    for _ in range(4):
        run.step()
    put_nan(engine, 1, in_window=in_window)
    run.finish()
    doomed = run.outcomes.pop(2)
    assert isinstance(doomed.end, Failed) and isinstance(doomed.end.error, NumericalError)
    assert doomed.ids and doomed.ids == texts[1][: len(doomed.ids)]
    assert f"after {len(doomed.ids)} tokens" in str(doomed.end.error)
    assert [each.text for each in run.outcomes.values()] == [
        each.text for index, each in enumerate(alone) if index != 1
    ]


def finite_everywhere(engine: Engine) -> bool:
    rings = [buffer for ring in engine.cache.window.values() for buffer in (ring.keys, ring.values)]
    return all(bool(mx.isfinite(buffer).all()) for buffer in rings)


@pytest.mark.parametrize("num_drafts", [0, 3])
def test_no_nan_of_a_failed_row_stays_when_the_next_one_comes(num_drafts):
    target = golden_pair(TARGET).target
    requests = [varied(seed, 24, num_drafts, 6) for seed in range(3)]
    texts = [plain(target, asked).ids for asked in requests]
    engine, _ = oracle_engine(target, texts, agreeing(0.3, 3), 3, PREFILL_CHUNK)
    run = Run(engine)
    for asked in requests:
        run.submit(asked)
    for _ in range(5):
        run.step()
    put_nan(engine, 1, in_window=True)
    while run.outcomes[2].end is None:
        run.step()
    assert isinstance(run.outcomes[2].end, Failed)
    assert not engine.is_idle
    run.submit(varied(4, 4, 0, 3))
    run.step()
    assert finite_everywhere(engine)
    run.finish()


def test_plain_rounds_that_run_ahead_equal_rounds_that_wait():
    pair = golden_pair(TARGET)
    text = plain(pair.target, varied(1, 14, 0)).ids
    ahead = ragged_requests(8, 0)
    ahead.append(replace(varied(1, 14, 0), stop_ids=frozenset(text[6:7])))
    # A drafter that is always wrong makes every row wait for its round.
    waiting = [replace(asked, num_draft_tokens=1) for asked in ahead]
    alone = [plain(pair.target, asked) for asked in ahead]
    texts = [outcome.ids for outcome in alone]
    adversary, _ = oracle_engine(pair.target, texts, always("wrong"), 4, PREFILL_CHUNK)
    for outcomes in (
        run_together(Engine(pair.target, pair.drafter, max_num_seqs=4), ahead),
        run_together(adversary, waiting),
    ):
        assert [outcome.text for outcome in outcomes] == [outcome.text for outcome in alone]


def test_each_request_ends_once_and_after_its_tokens():
    pair = golden_pair(TARGET)
    engine = Engine(pair.target, pair.drafter, max_num_seqs=3)
    outcomes: list[Outcome] = run_together(engine, ragged_requests(7, None))  # feed() checks
    assert all(isinstance(outcome.end, Finished) for outcome in outcomes)
    assert engine.is_idle and engine.step() == []


def test_a_first_token_is_handed_over_before_the_next_round():
    pair = golden_pair(TARGET)
    engine = Engine(pair.target, pair.drafter, 2)
    engine.submit(varied(1, 14, 2))
    events = engine.step()
    assert [event.origins for event in events if isinstance(event, Tokens)] == [("prefill",)]


class Listener:
    """What a request holds on to."""

    def is_end(self, token: int) -> bool:
        return False


@pytest.mark.parametrize("reason", ["stop", "cancelled"])
def test_an_idle_engine_keeps_nothing_of_the_rows_that_were(reason):
    target, listener = golden_pair(TARGET).target, Listener()
    asked, gone = varied(1, 14, 0), weakref.ref(listener)
    text = plain(target, asked).ids
    stop = text[5:6] if reason == "stop" else []
    planner = Moody(1)
    run = Run(Engine(target, None, planner=planner))
    run.submit(replace(asked, stop_ids=frozenset(stop), is_end=listener.is_end))
    del listener
    for _ in range(1 + text.index(text[5])):
        run.step()
    if reason == "cancelled":
        run.cancel(1)
    assert run.engine.is_idle and run.outcomes[1].text[:2] == (
        text[: text.index(text[5]) + 1],
        reason,
    )
    gc.collect()
    assert gone() is None
    assert planner.left == [1]
    assert run.engine.step() == []
