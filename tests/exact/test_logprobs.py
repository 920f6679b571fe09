"""P9: log-probabilities are the target's own, the same to the bit with drafts and in any batch."""

from dataclasses import replace
from functools import cache

import mlx.core as mx
import numpy as np
import pytest

from mtp_mlx.engine import prompts
from mtp_mlx.engine.engine import Engine
from mtp_mlx.engine.forced import logits
from mtp_mlx.engine.prefixes import SCORED
from mtp_mlx.reference.runtime import NumpyEngine
from mtp_mlx.request import MAX_LOGPROBS, Logprob, Request, Sampling, Thinking
from tests.constraints import Steps
from tests.exact.pairs import (
    Outcome,
    embedded_pair,
    embedded_twin,
    golden_pair,
    plain,
    run_together,
)
from tests.golden import recipe

NAMES = ("tiny", "tiny-moe")
# Of the text's own tokens; measured at most 1.17e-5, and 2.0e-6 in the mean.
ATOL, MEAN_ATOL = 1.3e-5, 3e-6
# Of the best tokens, down to very unlikely ones; measured at most 1.6e-5.
BEST_ATOL = 3e-5
LENGTH = 16
CHUNK = 16


@cache
def requests(name: str) -> tuple[Request, ...]:
    """Prompts of common words, so that trained drafters agree; each asks for other scores."""
    vocab = embedded_pair(name).vocab_size
    counts = (0, 1, 5, MAX_LOGPROBS, None)
    made = []
    for index, count in enumerate(counts):
        sampling = Sampling(temperature=0.7 * (index % 2), seed=index)
        if index == 3:
            sampling = replace(sampling, repetition_penalty=1.3, logit_bias=((375, -50.0),))
        made.append(
            Request(
                prompt=(2, *range(517 + index, 517 + index + 20 + index)),
                sampling=sampling,
                max_tokens=LENGTH,
                logprobs=count,
                prompt_logprobs=count if index % 2 else None,
                constraint=Steps(2, vocab) if index == 2 else None,
            )
        )
    return tuple(made)


@cache
def alone(name: str) -> list[Outcome]:
    return [plain(embedded_pair(name).target, each, CHUNK) for each in requests(name)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("num_drafts", [2, 7])
def test_drafts_and_neighbours_change_no_bit(name, num_drafts):
    pair = embedded_pair(name)
    rows = [replace(each, num_draft_tokens=num_drafts) for each in requests(name)]
    engine = Engine(pair.target, pair.drafter, max_num_seqs=3, chunk=CHUNK)
    found = run_together(engine, rows, [0, 0, 2, 3, 5])
    assert [each.whole for each in found] == [each.whole for each in alone(name)]
    for row, own in zip(rows, found, strict=True):
        assert len(own.logprobs) == (0 if row.logprobs is None else LENGTH)
    assert sum(sum(each.accepted) for each in found) > 0


@pytest.mark.parametrize("name", NAMES)
def test_both_forms_agree(name):
    theirs = run_together(NumpyEngine(*embedded_twin(name), 8, CHUNK), requests(name))
    differences = []
    for own, other in zip(alone(name), theirs, strict=True):
        assert own.ids == other.ids
        for ours, twins in (
            (own.logprobs, other.logprobs),
            (own.prompt_logprobs[1:], other.prompt_logprobs[1:]),
        ):
            for one, two in zip(ours, twins, strict=True):
                differences.append(abs(one.logprob - two.logprob))
                assert largest_difference(one, two) <= BEST_ATOL
    assert len(differences) > 100
    assert max(differences) <= ATOL
    assert sum(differences) / len(differences) <= MEAN_ATOL


def largest_difference(one: Logprob, two: Logprob) -> float:
    """Of the best ones, rank by rank: near-ties may change places."""
    pairs = zip(one.top, two.top, strict=True)
    return max((abs(a - b) for (_, a), (_, b) in pairs), default=0.0)


def of_scores(scores: np.ndarray, token: int, count: int) -> tuple[float, list[int]]:
    """From raw scores [V], in float64."""
    wide = scores.astype(np.float64)
    logs = wide - wide.max() - np.log(np.exp(wide - wide.max()).sum())
    return logs[token], np.lexsort((np.arange(len(logs)), -wide))[:count].tolist()


@pytest.mark.parametrize("name", NAMES)
def test_they_are_those_of_the_raw_scores_of_the_whole_text(name):
    """Teacher-forced over prompt and reply: before bias, penalties, constraint, temperature."""
    target = embedded_pair(name).target
    for row, own in zip(requests(name), alone(name), strict=True):
        text = [*row.prompt, *own.ids]
        scores = logits(target, text, CHUNK)
        found = [*(own.prompt_logprobs or [None] * len(row.prompt)), *own.logprobs]
        for place, each in enumerate(found):
            if each is not None:
                value, best = of_scores(scores[place - 1], text[place], len(each.top))
                assert abs(each.logprob - value) < ATOL
                assert len({token for token, _ in each.top} - set(best)) <= 1  # a near-tie
        if row.prompt_logprobs is not None:
            assert own.prompt_logprobs[0] is None
            assert len(own.prompt_logprobs) == len(row.prompt)


def test_the_end_of_a_spent_thought_has_its_own_log_probability():
    """The target would not have chosen it."""
    target = golden_pair("31b").target
    prompt = tuple(int(token) for token in recipe.prompt(6, 1))
    rule = Thinking(opens=1, closes=77, left=2, is_open=True)
    asked = Request(prompt=prompt, sampling=Sampling(), max_tokens=5, logprobs=2, thinking=rule)
    own = plain(target, asked)
    assert own.ids[2] == 77
    scores = logits(target, [*prompt, *own.ids], 64)
    for place, each in enumerate(own.logprobs):
        value, best = of_scores(scores[len(prompt) + place - 1], own.ids[place], 2)
        assert abs(each.logprob - value) < 1e-4
        assert [token for token, _ in each.top] == best
    assert own.logprobs[2].logprob < own.logprobs[2].top[1][1]


def test_scores_of_a_prompt_are_made_a_few_rows_at_a_time(monkeypatch):
    pair = embedded_pair("tiny")
    monkeypatch.setattr(prompts, "SCORED_ROWS", 6)
    sizes = []
    original = type(pair.target).logits

    def watched(self, hidden: mx.array) -> mx.array:
        sizes.append(hidden.shape[0])
        return original(self, hidden)

    monkeypatch.setattr(type(pair.target), "logits", watched)
    asked = replace(requests("tiny")[1], prompt_logprobs=1)
    found = plain(pair.target, asked, CHUNK)
    assert found.whole == alone("tiny")[1].whole
    assert max(sizes) == 6


def test_a_scored_prompt_neither_takes_up_nor_leaves_a_text():
    pair = embedded_pair("tiny")
    engine = Engine(pair.target, pair.drafter, max_num_seqs=2, chunk=CHUNK)
    engine.keep_prompts(1 << 30)
    scored = replace(requests("tiny")[3], logprobs=2)
    free = replace(scored, prompt_logprobs=None)

    def run(request: Request) -> Outcome:
        index = engine.submit(request)
        outcome = Outcome()
        while not engine.is_idle:
            for event in engine.step():
                assert event.request_id == index
                outcome.feed(event)
        return outcome

    first = run(scored)
    assert first.rounds[0].cache_use.miss_reason == SCORED
    assert engine.prefixes.borders.bytes == 0
    cold = run(free)
    warm = run(free)
    assert cold.rounds[0].cache_use.cached_tokens == 0
    assert warm.rounds[0].cache_use.cached_tokens == CHUNK
    again = run(scored)
    assert again.rounds[0].cache_use.cached_tokens == 0
    assert again.whole == first.whole
    assert warm.whole == cold.whole  # log-probabilities among it
    assert cold.logprobs == first.logprobs
