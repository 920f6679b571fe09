"""What statistics cannot see of a round: cache lengths, states, windows, cuts, failed rows.

Each test is exact (`==`). The scripted pair shows tokens, lengths and states; `WindowProbe` shows
which keys a query sees: values are the one-hot of their position, so uniform attention is a list of
the visible ones.
"""

import itertools
from collections.abc import Iterator

import mlx.core as mx
import numpy as np
import pytest

from mtp_mlx.engine.engine import Engine
from mtp_mlx.engine.round import Commit, accept
from mtp_mlx.engine.sequence import RowLimit
from mtp_mlx.errors import NumericalError
from mtp_mlx.model.batch import Batch, Row
from mtp_mlx.model.cache import Cache
from mtp_mlx.model.view import View, draft_view, target_view
from mtp_mlx.request import Failed, Finished, Request, Sampling, never
from tests.law.scripted import (
    DRAFTERS,
    VOCAB_SIZE,
    Reply,
    ScriptedDrafter,
    ScriptedTarget,
    draft_table,
    layer,
    make_engine,
    play,
    serve,
    target_table,
)

WINDOW = 4
MAX_BLOCK = 4
NUM_POSITIONS = 32
TABLE = target_table(1)
SAMPLED = Sampling(temperature=1.0, top_k=8)
# Per drafter: drafts proposed and accepted in 64 of `requests`.
RECORDED_ACCEPTANCE = {
    "equal": (576, 576),
    "close": (800, 455),
    "poor": (1353, 234),
    "disjoint": (1849, 31),
    "point": (1299, 241),
}
SAMPLINGS = (
    Sampling(),
    SAMPLED,
    Sampling(temperature=0.7, top_p=0.9),
    Sampling(temperature=1.5, min_p=0.05),
)


def requests(count: int, num_tokens: int = 12, num_drafts: int = 3, **options) -> list[Request]:
    """Requests of all samplings in turn, seeds and prompts in a row."""
    return [
        Request(
            prompt=(3, 5 + index % 8),
            sampling=Sampling(**{**vars(SAMPLINGS[index % len(SAMPLINGS)]), "seed": index}),
            max_tokens=num_tokens,
            num_draft_tokens=num_drafts,
            **options,
        )
        for index in range(count)
    ]


def pair(kind: str | None, num_slots: int = 16) -> Engine:
    """An engine of the scripted target and one drafter; None for no drafter."""
    drafter = None if kind is None else ScriptedDrafter(draft_table(kind, TABLE, SAMPLED))
    return make_engine(ScriptedTarget(TABLE), drafter, num_slots)


def ids_of(replies: list[Reply]) -> list[list[int]]:
    return [reply.ids for reply in replies]


def stepped(engine: Engine, wanted: list[Request]) -> Iterator[Engine]:
    """The engine after each of its steps, until all requests are done."""
    for request in wanted:
        engine.submit(request)
    while not engine.is_idle:
        engine.step()
        yield engine


# Tokens


@pytest.mark.parametrize("num_drafts", [1, 3, 7])
@pytest.mark.parametrize("kind", DRAFTERS)
def test_drafts_never_change_a_token(kind: str, num_drafts: int) -> None:
    plain = ids_of(play(pair(None), requests(64)))
    assert ids_of(play(pair(kind), requests(64, num_drafts=num_drafts))) == plain


def test_a_row_says_the_same_in_any_batch() -> None:
    alone = [play(pair("poor", 1), [request])[0].ids for request in requests(24)]
    assert ids_of(play(pair("poor", 8), requests(24))) == alone


def test_prefill_says_what_a_round_would() -> None:
    """`play` seats a row behind its prompt; `serve` runs the prompt and takes its first token."""
    seated = ids_of(play(pair("close"), requests(24)))
    assert ids_of(serve(pair("close", 3), requests(24))) == seated


@pytest.mark.parametrize("kind", [None, *DRAFTERS])
def test_a_stop_id_ends_a_row_wherever_it_falls_in_a_block(kind: str | None) -> None:
    """As decoding token by token would, the stop id included."""
    stops = frozenset({2, 7, 11})
    whole = ids_of(play(pair(None), requests(64)))
    replies = play(pair(kind), requests(64, stop_ids=stops))
    for ids, reply in zip(whole, replies, strict=True):
        ends = [at for at, token in enumerate(ids) if token in stops]
        assert reply.ids == (ids[: ends[0] + 1] if ends else ids)
        assert isinstance(reply.end, Finished)
        assert reply.end.reason == ("stop" if ends else "length")


@pytest.mark.parametrize("num_tokens", [1, 2, 3, 4, 5, 9])
def test_a_reply_has_exactly_its_budget(num_tokens: int) -> None:
    replies = play(pair("equal"), requests(16, num_tokens, num_drafts=4))
    assert [len(reply.ids) for reply in replies] == [num_tokens] * 16
    assert all(drafted < num_tokens for reply in replies for drafted, _, _ in reply.rounds)


def test_the_end_test_sees_every_emitted_token_once_and_in_order() -> None:
    """A stop string is found by what it was shown: no rejected draft, nothing behind the end."""
    for kind in ("equal", "poor"):
        seen: list[int] = []

        def is_end(token: int, seen: list[int] = seen) -> bool:
            seen.append(token)
            return len(seen) == 9

        [reply] = play(pair(kind), requests(1, is_end=is_end))
        assert reply.ids == seen
        assert len(seen) == 9


@pytest.mark.parametrize("num_drafts", [0, 1, 2, 3])
def test_acceptance_keeps_what_decoding_token_by_token_would(num_drafts: int) -> None:
    """All drafts and choices over three ids, all budgets, stop id 2."""
    alphabet = range(3)
    for drafted in itertools.product(alphabet, repeat=num_drafts):
        for chosen in itertools.product(alphabet, repeat=num_drafts + 1):
            for remaining in range(1, num_drafts + 3):
                limit = RowLimit(frozenset({2}), remaining, never)
                kept = accept(list(drafted), list(chosen), limit)
                assert kept == token_by_token(drafted, chosen, remaining)


def token_by_token(drafted: tuple, chosen: tuple, remaining: int) -> Commit:
    """How many choices count: up to the first wrong draft, the stop id 2, or the budget."""
    wrong = [i for i, draft in enumerate(drafted) if draft != chosen[i]]
    stops = [i for i, token in enumerate(chosen) if token == 2]
    count = min([len(drafted), *wrong[:1], *stops[:1], remaining - 1]) + 1
    accepted = sum(draft == token for draft, token in zip(drafted[:count], chosen, strict=False))
    is_stop = chosen[count - 1] == 2
    reason = "stop" if is_stop else "length" if count == remaining else None
    return Commit(chosen[:count], accepted, reason)


def test_the_equal_pair_accepts_all_and_the_disjoint_pair_nothing() -> None:
    same = [Request(prompt=(3, 5), sampling=SAMPLED, max_tokens=13, num_draft_tokens=3)]
    equal, disjoint = play(pair("equal"), same)[0], play(pair("disjoint"), same)[0]
    assert equal.rounds == [(3, 3, 4)] * 3 + [(0, 0, 1)]
    assert {accepted for _, accepted, _ in disjoint.rounds} == {0}
    assert len(disjoint.rounds) == 13


def test_acceptance_of_the_scripted_pairs_is_as_recorded() -> None:
    """Integers of a fixed seed: a change here is a change of noise, states or drafts."""
    found = {}
    for kind in DRAFTERS:
        rounds = [row for reply in play(pair(kind), requests(64)) for row in reply.rounds]
        found[kind] = tuple(int(total) for total in np.sum(rounds, axis=0)[:2])
    assert found == RECORDED_ACCEPTANCE


# State


@pytest.mark.parametrize("kind", ["close", "disjoint"])
def test_the_cache_holds_the_committed_tokens_and_no_rejected_draft(kind: str) -> None:
    for engine in stepped(pair(kind), requests(16)):
        for sequence in engine.sequences:
            if sequence.is_running:
                assert engine.cache.lengths[sequence.slot] == len(sequence.tokens) - 1


@pytest.mark.parametrize("kind", ["close", "point"])
def test_the_state_that_seeds_the_drafter_predicted_the_pending_token(kind: str) -> None:
    check_states(pair(kind), requests(16))


def test_the_state_is_fresh_after_plain_rounds_too() -> None:
    check_states(pair(None), requests(16))
    check_states(pair("close"), requests(16, num_drafts=0))


def check_states(engine: Engine, wanted: list[Request]) -> None:
    """The scripted state of a token is its one-hot: that of the last but one token, always."""
    for current in stepped(engine, wanted):
        for sequence in current.sequences:
            if sequence.is_running:
                assert int(sequence.hidden.argmax()) == sequence.tokens[-2]


def test_a_freed_slot_is_empty() -> None:
    engine = pair("close", 4)
    play(engine, requests(4))
    assert engine.cache.lengths == [0] * 4
    assert engine.slots == [None] * 4


# Visible keys


class WindowProbe:
    """One window layer and one full layer whose values are the one-hot of their position."""

    def __init__(self, num_slots: int = 2) -> None:
        self.specs = (layer(0, WINDOW, NUM_POSITIONS), layer(1, None, NUM_POSITIONS))
        self.cache = Cache(self.specs, num_slots, MAX_BLOCK, mx.float32)

    def forward(self, row: Row, *, is_chunk: bool = False) -> list[list[set[int]]]:
        """Write a row; per layer and query the positions seen."""
        tokens = mx.zeros((row.length,), mx.int32)
        view = target_view(self.cache, Batch.of((row,), tokens, is_chunk=is_chunk))
        values = mx.eye(NUM_POSITIONS)[row.start : row.end, None]  # [N, 1, K]
        for spec in self.specs:
            view.write(spec.index, mx.zeros_like(values), values)
        return self.seen(view, row.length)

    def seen(self, view: View, num_queries: int) -> list[list[set[int]]]:
        queries = mx.zeros((num_queries, 1, NUM_POSITIONS))
        found = [np.array(view.attend(spec.index, queries)) for spec in self.specs]
        return [[set(np.flatnonzero(row).tolist()) for row in rows] for rows in found]


def expected(start: int, length: int) -> list[list[set[int]]]:
    """Per layer and query: the last WINDOW positions, all positions; its own included."""
    ends = range(start + 1, start + length + 1)
    return [[set(range(max(0, end - WINDOW), end)) for end in ends], [set(range(e)) for e in ends]]


@pytest.mark.parametrize("num_cached", range(1, 14))
@pytest.mark.parametrize("length", range(1, MAX_BLOCK + 1))
def test_a_block_sees_its_window_and_itself(num_cached: int, length: int) -> None:
    probe = WindowProbe()
    assert probe.forward(Row(1, 0, num_cached), is_chunk=True) == expected(0, num_cached)
    probe.cache.commit(1, num_cached)
    assert probe.forward(Row(1, num_cached, length)) == expected(num_cached, length)


def test_rejected_blocks_leave_no_trace_in_what_is_seen() -> None:
    """Blocks of four, one kept each: the rings wrap, and every block rejects three tokens."""
    probe = WindowProbe()
    for start in range(20):
        assert probe.forward(Row(0, start, MAX_BLOCK)) == expected(start, MAX_BLOCK)
        probe.cache.commit(0, 1)


@pytest.mark.parametrize("num_kept", range(1, MAX_BLOCK + 1))
def test_the_drafter_sees_committed_keys_alone(num_kept: int) -> None:
    probe = WindowProbe()
    for start in range(0, 5 * num_kept, num_kept):
        probe.forward(Row(0, start, MAX_BLOCK))
        probe.cache.commit(0, num_kept)
        length = start + num_kept
        assert probe.seen(draft_view(probe.cache, (0,)), 1) == expected(length - 1, 1)


def test_a_prompt_in_chunks_sees_what_a_whole_one_sees() -> None:
    probe = WindowProbe()
    for start, length in ((0, 3), (3, 9), (12, 1), (13, 11)):
        assert probe.forward(Row(0, start, length), is_chunk=True) == expected(start, length)
        probe.cache.commit(0, length)


# Failed rows

POISON = VOCAB_SIZE - 1


class PoisonedTarget(ScriptedTarget):
    """A scripted target with a window layer, whose state is NaN where its attention gives NaN.

    The token POISON writes NaN keys and values, as an overflow inside a model would.
    """

    def __init__(self) -> None:
        super().__init__(TABLE)
        self.spec = layer(0, WINDOW, VOCAB_SIZE)

    def new_cache(self, num_slots: int, max_block: int) -> Cache:
        return Cache((self.spec,), num_slots, max_block, mx.float32)

    def __call__(self, batch: Batch, cache: Cache, routes: None = None) -> mx.array:
        view = target_view(cache, batch)
        hidden = self.embed(batch.tokens)
        is_poison = (batch.tokens == POISON)[:, None]
        states = mx.where(is_poison, mx.nan, hidden)[:, None]  # [N, 1, K]
        view.write(0, states, states)
        return hidden + 0.0 * view.attend(0, mx.zeros_like(states))


def failing(prompt: tuple[int, ...]) -> Request:
    return Request(prompt=prompt, sampling=Sampling(), max_tokens=4)


def test_a_row_after_a_failed_one_is_as_in_a_fresh_slot() -> None:
    """NaN in a masked value leaks through attention, so a failed row's ring must be zeroed."""
    # The poison lies ahead of all that the good row writes, in the ring that it reads.
    good, bad = failing((3, 5)), failing((3, 4, 6, 7, 8, 9, POISON))
    [alone] = serve(make_engine(PoisonedTarget(), None, 1), [good])
    engine = make_engine(PoisonedTarget(), None, 1)
    failed, after = serve(engine, [bad, good])
    assert isinstance(failed.end, Failed)
    assert isinstance(failed.end.error, NumericalError)
    assert isinstance(after.end, Finished)
    assert after.ids == alone.ids


def test_a_failed_row_harms_no_neighbour() -> None:
    good, bad = failing((3, 5)), failing((POISON, 6))
    [alone] = serve(make_engine(PoisonedTarget(), None, 1), [good])
    replies = serve(make_engine(PoisonedTarget(), None, 3), [good, bad, good])
    assert [isinstance(reply.end, Failed) for reply in replies] == [False, True, False]
    assert [replies[0].ids, replies[2].ids] == [alone.ids, alone.ids]
