"""The specification itself: speculation never changes a reply, and rounds leave a clean state."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
import pytest

from mtp_mlx.errors import ContextLengthExceeded, NumericalError, RequestError
from mtp_mlx.reference import decode
from mtp_mlx.reference.batch import Batch, Row
from mtp_mlx.reference.drafter import Drafter
from mtp_mlx.reference.head import Logits
from mtp_mlx.reference.target import Target
from mtp_mlx.reference.view import View, draft_view
from mtp_mlx.request import MAX_DRAFT_TOKENS, Logprob, Request, Sampling, Thinking
from tests import tiny_configs
from tests.constraints import Steps

PROMPT = (2, 17, 9, 40, 33)
# Past three turns of the ring that the MLX form keeps for a window of 8 and blocks of 5.
THREE_WRAPS = 45
GREEDY = Sampling()
NOISY = Sampling(temperature=1.0, top_k=20, top_p=0.9, min_p=0.01, seed=7)


@cache
def models(variant: str = "12b") -> tuple[Target, Drafter]:
    pair = tiny_configs.pair(variant, seed=1)
    return (
        Target(pair.target_config, pair.target_weights),
        Drafter(pair.drafter_config, pair.drafter_weights),
    )


@cache
def plain(variant: str, sampling: Sampling, count: int = THREE_WRAPS) -> list[int]:
    return decode.plain_decode(models(variant)[0], PROMPT, sampling, count)


def request(count: int, drafts: int, sampling: Sampling = GREEDY, **changes) -> Request:
    made = Request(prompt=PROMPT, sampling=sampling, max_tokens=count, num_draft_tokens=drafts)
    return replace(made, **changes)


def ids_of(rounds: Iterable[decode.Round]) -> list[int]:
    return [token for done in rounds for token in done.ids]


@dataclass
class Oracle:
    """Proposes `text`, prompt and plain reply, but errs after schedule[i] drafts of burst i."""

    text: list[int]
    schedule: list[int]
    bursts: list[View] = field(default_factory=list)
    seeds: list[tuple[np.ndarray, np.ndarray, int]] = field(default_factory=list)
    depth: int = 0

    def step(
        self, embedded: np.ndarray, hidden: np.ndarray, view: View
    ) -> tuple[Logits, np.ndarray]:
        if not self.bursts or self.bursts[-1] is not view:
            self.bursts.append(view)
            self.seeds.append((embedded, hidden, view.cache.lengths[0]))
            self.depth = 0
        place = view.cache.lengths[0] + 1 + self.depth
        token = self.text[place] if place < len(self.text) else 0
        if self.depth >= self.schedule[(len(self.bursts) - 1) % len(self.schedule)]:
            token = (token + 1) % tiny_configs.VOCAB_SIZE
        self.depth += 1
        scores = np.full((1, tiny_configs.VOCAB_SIZE), -1e9, dtype=np.float32)
        scores[0, token] = 1e9
        return Logits(scores), hidden


def oracle(variant: str, sampling: Sampling, *schedule: int, count: int = THREE_WRAPS) -> Oracle:
    return Oracle([*PROMPT, *plain(variant, sampling, count)], list(schedule))


@pytest.mark.parametrize(("sampling", "num_drafts", "chunk"), [(GREEDY, 1, 1), (NOISY, 4, 100)])
@pytest.mark.parametrize("variant", tiny_configs.VARIANTS)
def test_a_random_drafter_leaves_the_reply_as_it_is(variant, sampling, num_drafts, chunk):
    asked = request(THREE_WRAPS, num_drafts, sampling)
    rounds = list(decode.speculative_decode(*models(variant), asked, chunk=chunk))
    assert ids_of(rounds) == plain(variant, sampling)
    assert sum(done.drafted for done in rounds) > 0


@pytest.mark.parametrize("sampling", [GREEDY, NOISY])
@pytest.mark.parametrize("variant", tiny_configs.VARIANTS)
def test_an_oracle_drafter_leaves_the_reply_as_it_is_and_saves_rounds(variant, sampling):
    drafter = oracle(variant, sampling, 4, 0, 2, 7, 1)
    asked = request(THREE_WRAPS, 7, sampling)
    rounds = list(decode.speculative_decode(models(variant)[0], drafter, asked, chunk=4))
    assert ids_of(rounds) == plain(variant, sampling)
    assert [done.accepted for done in rounds[1:6]] == [4, 0, 2, 7, 1]
    for done in rounds[1:]:
        assert done.drafts[: done.accepted] == done.ids[: done.accepted]
        kinds = ["draft"] * done.accepted + ["target"] * (len(done.ids) - done.accepted)
        assert done.origins == tuple(kinds if done.drafted else ["plain"])


def test_every_burst_starts_from_the_last_token_and_the_hidden_state_before_it():
    target, _ = models()
    ids = (PROMPT * 4)[:20]
    schedule = (2, 4, 0, 1, 3, 4)
    reply = decode.plain_decode(target, ids, GREEDY, 26)
    script = Oracle([*ids, *reply], list(schedule))
    asked = request(26, 4, prompt=ids)
    rounds = list(decode.speculative_decode(target, script, asked, chunk=8))
    assert tuple(done.accepted for done in rounds[1:7]) == schedule
    assert [length for _, _, length in script.seeds[:7]] == [20, 23, 28, 29, 31, 35, 40]
    text = [*ids, *reply]
    states = decode.prefill(target, target.new_cache(1, 1), text, 50)
    for view, (embedded, hidden, length) in zip(script.bursts, script.seeds, strict=True):
        assert view.positions.tolist() == [length]
        assert (embedded == target.embed(np.array(text[length : length + 1]))).all()
        assert (hidden[0] == states[length - 1]).all()


@pytest.mark.parametrize("variant", ["e2b", "26b"])
def test_rejected_drafts_leave_no_trace_in_what_the_drafter_sees(variant):
    target, drafter = models(variant)
    script = oracle(variant, GREEDY, 3, 0, 1, 4)
    seen = []
    scripted_step = script.step

    def step(embedded, hidden, view):
        scores, state = drafter.step(embedded, hidden, view)
        length = view.cache.lengths[0]
        fresh = target.new_cache(1, 1)
        decode.prefill(target, fresh, script.text[:length], 50)
        alone, alone_state = drafter.step(embedded, hidden, draft_view(fresh, (0,)))
        assert (scores.scores == alone.scores).all()
        assert (state == alone_state).all()
        seen.append(length)
        return scripted_step(embedded, hidden, view)

    script.step = step
    list(decode.speculative_decode(target, script, request(30, 4), chunk=8))
    assert len(set(seen)) > 8


def test_greedy_proposals_are_those_of_the_round():
    target, drafter = models()
    text = [*PROMPT, *plain("12b", GREEDY)]
    cache = target.new_cache(1, 5)
    hidden = decode.prefill(target, cache, text[:20], 6)[-1]
    seed = decode.Seed(text[20], hidden)
    found = decode.draft(target, drafter, cache, seed, 4, GREEDY)
    assert found == decode.propose(target, drafter, text[:21], 4)
    assert len(found) == 4


def test_verify_rows_equal_decode_rows_and_chunks_do_not_matter():
    for variant in tiny_configs.VARIANTS:
        target, _ = models(variant)
        ids = [*PROMPT, *plain(variant, GREEDY)][:30]
        whole = decode.logits(target, ids)
        for chunk in (1, 7, 29):
            assert (decode.logits(target, ids, chunk) == whole).all()
        cache = target.new_cache(1, 5)
        decode.prefill(target, cache, ids[:25], 25)
        assert (target.logits(decode.forward(target, cache, ids[25:])) == whole[25:]).all()


def test_rows_of_a_batch_equal_each_row_alone():
    target, _ = models("e2b")
    ids = [*PROMPT, *plain("e2b", GREEDY)]
    cache = target.new_cache(3, 4)
    lengths = (3, 8, 25)  # below, at and above the window
    for slot, length in enumerate(lengths):
        piece = Batch.of((Row(slot, 0, length),), np.array(ids[:length]), is_chunk=True)
        target(piece, cache)
        cache.commit(slot, length)
    rows = tuple(Row(slot, length, slot + 1) for slot, length in enumerate(lengths))
    tokens = np.concatenate([ids[row.start : row.end] for row in rows])
    together = target(Batch.of(rows, tokens), cache)
    states = decode.prefill(target, target.new_cache(1, 1), ids, 50)
    alone = np.concatenate([states[row.start : row.end] for row in rows])
    assert (together == alone).all()


@pytest.mark.parametrize("index", range(12))
@pytest.mark.parametrize("accepted", [0, 2, 4])
def test_a_stop_token_ends_the_reply_wherever_it_stands_in_a_block(index, accepted):
    sampling = replace(NOISY, top_p=1.0)
    reply = plain("31b", sampling)
    stop = frozenset(reply[index : index + 1])
    expected = reply[: reply.index(reply[index]) + 1]
    target, _ = models("31b")
    asked = request(THREE_WRAPS, 4, sampling, stop_ids=stop)
    drafter = oracle("31b", sampling, accepted)
    rounds = list(decode.speculative_decode(target, drafter, asked, chunk=8))
    assert ids_of(rounds) == expected
    assert decode.plain_decode(target, PROMPT, sampling, THREE_WRAPS, stop) == expected
    for done in rounds:
        assert done.accepted == done.origins.count("draft") <= done.drafted


def test_the_caller_is_asked_once_for_each_token_and_may_end_the_reply():
    reply = plain("12b", GREEDY)
    for count in (1, 4, 9):
        asked: list[int] = []

        def is_end(token: int, asked: list[int] = asked, count: int = count) -> bool:
            asked.append(token)
            return len(asked) == count

        wanted = request(THREE_WRAPS, 4, is_end=is_end)
        drafter = oracle("12b", GREEDY, 4, 1)
        found = ids_of(decode.speculative_decode(models()[0], drafter, wanted, chunk=8))
        assert found == asked == reply[:count]


@pytest.mark.parametrize("count", [1, 2, 4, 5, 6])
def test_budgets_are_kept_and_no_draft_is_made_beyond_them(count):
    drafter = oracle("12b", GREEDY, 4)
    rounds = list(decode.speculative_decode(models()[0], drafter, request(count, 4), chunk=8))
    assert ids_of(rounds) == plain("12b", GREEDY)[:count]
    left = count - 1
    for done in rounds[1:]:
        assert done.drafted <= left - 1
        left -= len(done.ids)
    assert left == 0


@pytest.mark.parametrize("room", [1, 2, 3, 6, 7])
def test_a_reply_ends_with_the_context(room):
    target, _ = models()
    short = replace(target.config, max_positions=len(PROMPT) + room)
    narrow = Target(short, tiny_configs.pair("12b", seed=1).target_weights)
    drafter = oracle("12b", GREEDY, 4)
    found = ids_of(decode.speculative_decode(narrow, drafter, request(100, 4), chunk=8))
    assert found == plain("12b", GREEDY)[:room]
    assert decode.plain_decode(narrow, PROMPT, GREEDY, 100) == found


def test_a_prompt_that_fills_the_context_is_refused():
    target, _ = models()
    full = (3,) * target.config.max_positions
    with pytest.raises(ContextLengthExceeded, match="256 tokens"):
        next(decode.speculative_decode(target, None, request(1, 0, prompt=full), chunk=8))


@pytest.mark.parametrize("variant", tiny_configs.VARIANTS)
def test_a_prompt_of_one_token(variant):
    target, drafter = models(variant)
    expected = decode.plain_decode(target, (2,), GREEDY, 12)
    asked = request(12, 3, prompt=(2,))
    assert ids_of(decode.speculative_decode(target, drafter, asked, chunk=1)) == expected


def test_without_a_drafter_every_round_is_plain():
    rounds = list(decode.speculative_decode(models()[0], None, request(6, 4), chunk=8))
    assert [done.origins for done in rounds] == [("prefill",)] + [("plain",)] * 5
    assert ids_of(rounds) == plain("12b", GREEDY)[:6]


@pytest.mark.parametrize(
    "changes",
    [{"prompt": ()}, {"prompt": (64,)}, {"prompt": (-1,)}, {"max_tokens": 0},
     {"num_draft_tokens": MAX_DRAFT_TOKENS + 1}],
)  # fmt: skip
def test_impossible_requests_are_refused(changes):
    with pytest.raises(RequestError):
        next(decode.speculative_decode(models()[0], None, request(4, 2, **changes), chunk=8))


def test_ids_outside_the_vocabulary_do_not_reach_the_table():
    for token in (-1, tiny_configs.VOCAB_SIZE):
        with pytest.raises(ValueError, match="token id"):
            models()[0].embed(np.array([token]))


class Sick(Target):
    """A target that turns one token into NaN."""

    bad = -1

    def embed(self, tokens: np.ndarray) -> np.ndarray:
        embedded = super().embed(tokens)
        embedded[tokens == self.bad] = np.nan
        return embedded


@pytest.mark.parametrize("num_drafts", [0, 4])
def test_output_that_is_not_finite_raises_when_its_token_is_due(num_drafts):
    pair = tiny_configs.pair("12b", seed=1)
    sick = Sick(pair.target_config, pair.target_weights)
    reply = plain("12b", GREEDY)
    sick.bad = next(token for token in reply[6:] if token not in PROMPT)
    due = reply.index(sick.bad) + 1
    found: list[int] = []
    asked = request(THREE_WRAPS, num_drafts)
    with pytest.raises(NumericalError, match=f"position {len(PROMPT) + due} "):
        for done in decode.speculative_decode(sick, oracle("12b", GREEDY, 4), asked, chunk=8):
            found.extend(done.ids)
    assert found == reply[: len(found)]
    assert due - num_drafts <= len(found) <= due


def test_a_rejected_draft_that_is_not_finite_does_no_harm():
    pair = tiny_configs.pair("12b", seed=1)
    sick = Sick(pair.target_config, pair.target_weights)
    script = oracle("12b", GREEDY, 1)
    wrong = {(token + 1) % tiny_configs.VOCAB_SIZE for token in script.text}
    sick.bad = min(wrong - set(script.text))
    found = ids_of(decode.speculative_decode(sick, script, request(THREE_WRAPS, 4), chunk=8))
    assert found == plain("12b", GREEDY)


@pytest.mark.parametrize("sampling", [GREEDY, NOISY])
@pytest.mark.parametrize("left", [0, 1, 4])
def test_a_budget_of_thinking_is_kept_whatever_is_drafted(sampling, left):
    target, drafter = models()
    text = plain("12b", sampling)
    closes = (set(range(target.config.vocab_size)) - set(text)).pop()
    thinking = Thinking(opens=text[2], closes=closes, left=left)

    def reply(drafts: int, drafting: decode.Drafts | None) -> list[int]:
        asked = request(16, drafts, sampling, thinking=thinking)
        return ids_of(decode.speculative_decode(target, drafting, asked, chunk=decode.CHUNK))

    expected = reply(0, None)
    assert expected[:3] == text[:3]
    inside = text[3 : 3 + left]
    if text[2] not in inside:  # or the thought begins again, which takes nothing of the budget
        assert expected[3 : 4 + left] == [*inside, closes]
    whole = [*PROMPT, *expected, 0, 0, 0, 0, 0]
    for depth in (1, 3, 5):
        assert reply(depth, drafter) == expected
        assert reply(depth, Oracle(whole, [depth, 1, 0])) == expected


PENALISED = Sampling(
    temperature=0.7,
    seed=3,
    repetition_penalty=1.3,
    presence_penalty=0.4,
    frequency_penalty=0.3,
    logit_bias=((5, 1.5),),
    banned=(7,),
)


@pytest.mark.parametrize("sampling", [PENALISED, replace(PENALISED, temperature=0.0)])
@pytest.mark.parametrize("schedule", [(4,), (0,), (1, 3, 0, 2)])
def test_rejected_drafts_leave_no_trace_in_what_penalties_count(sampling, schedule):
    expected = plain("12b", sampling)
    assert 7 not in expected
    script = oracle("12b", sampling, *schedule)
    asked = request(THREE_WRAPS, 4, sampling, logprobs=2)
    rounds = list(decode.speculative_decode(models()[0], script, asked, chunk=8))
    assert ids_of(rounds) == expected
    bare = replace(asked, num_draft_tokens=0)
    alone = list(decode.speculative_decode(models()[0], None, bare, chunk=8))
    # Forwards of other sizes round otherwise in NumPy.
    for one, other in zip(scores_of(rounds), scores_of(alone), strict=True):
        assert abs(one.logprob - other.logprob) < 1e-4


def scores_of(rounds: Iterable[decode.Round]) -> list[Logprob]:
    return [each for done in rounds for each in done.logprobs]


@pytest.mark.parametrize("schedule", [(4,), (0,), (1, 3, 0, 2)])
def test_a_constraint_is_a_rule_of_the_text(schedule):
    vocab = tiny_configs.VOCAB_SIZE
    found = []
    for drafter in (None, oracle("12b", NOISY, *schedule), models()[1]):
        constraint = Steps(3, vocab)
        asked = request(20, 4, NOISY, constraint=constraint)
        found.append(ids_of(decode.speculative_decode(models()[0], drafter, asked, chunk=8)))
        assert constraint.taken == found[-1]
    assert found[0] == found[1] == found[2]
    assert all((two - one - 1) % 3 == 0 for one, two in zip(found[0], found[0][1:], strict=False))
    asked = request(20, 4, NOISY, constraint=Steps(3, vocab, ends_after=6))
    rounds = decode.speculative_decode(models()[0], models()[1], asked, chunk=8)
    seen = []
    with pytest.raises(RequestError, match="allows no token after 6 tokens"):
        seen.extend(token for done in rounds for token in done.ids)


def test_prompt_tokens_have_log_probabilities_but_the_first():
    asked = request(1, 0, prompt_logprobs=3)
    [first] = decode.speculative_decode(models()[0], None, asked, chunk=2)
    assert first.prompt_logprobs[0] is None
    scores = decode.logits(models()[0], PROMPT)
    for place, found in enumerate(first.prompt_logprobs[1:], start=1):
        row = scores[place - 1].astype(np.float64)
        logs = row - np.log(np.exp(row - row.max()).sum()) - row.max()
        assert abs(found.logprob - logs[PROMPT[place]]) < 1e-4
        assert [token for token, _ in found.top] == np.argsort(-logs)[:3].tolist()
