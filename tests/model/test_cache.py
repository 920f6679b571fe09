"""The cache against plain lists of tokens: whatever happens to a row, attention sees its keys.

Every token is unique and every stored vector names its layer, head, position and token, so a key
that is wrong, missing, stale or another row's shows.
"""

from unittest.mock import patch

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from mtp_mlx.config import LayerSpec, RopeSpec
from mtp_mlx.model import view as view_module
from mtp_mlx.model.batch import Batch, Row
from mtp_mlx.model.cache import KEY_STEP, Cache
from mtp_mlx.model.view import Mask, View, draft_view, target_view

HEADS, KV_HEADS, HEAD_DIM = 4, 2, 4
NUM_SLOTS = 3
MAX_BLOCK = 8
CHUNK_WINDOWS = 3
KINDS = ("sliding", "full", "sliding", "full")

Slots = st.sets(st.integers(0, NUM_SLOTS - 1), min_size=1)
Slot = st.integers(0, NUM_SLOTS - 1)


def make_layers(window: int) -> tuple[LayerSpec, ...]:
    return tuple(
        LayerSpec(
            index=index,
            window=window if kind == "sliding" else None,
            heads=HEADS,
            kv_heads=KV_HEADS,
            head_dim=HEAD_DIM,
            rope=RopeSpec(HEAD_DIM, 1e4, HEAD_DIM // 2, 1.0),
            reads_from=index,
            owns_cache=True,
            keys_are_values=False,
            ffn_dim=4,
            experts=None,
        )
        for index, kind in enumerate(KINDS)
    )


def vectors(layer: int, positions: list[int], tokens: list[int]) -> np.ndarray:
    """What the keys [T, G, K] of these tokens hold."""
    stored = np.ones((len(tokens), KV_HEADS, HEAD_DIM), dtype=np.float32)
    stored[:, :, 1] = layer * KV_HEADS + np.arange(KV_HEADS)
    stored[:, :, 2] = np.array(positions)[:, None]
    stored[:, :, 3] = np.array(tokens)[:, None]
    return stored


class Seen:
    """Stands in for `attend`: notes which keys and values each query sees, and at which index.

    Queries carry their number; the answer to a query is itself.
    """

    def __init__(self) -> None:
        self.by_query: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    def __call__(self, queries: mx.array, keys: mx.array, values: mx.array, mask: Mask) -> mx.array:
        everything, keys, values = (
            np.array(each).reshape(-1, *each.shape[-3:]) for each in (queries, keys, values)
        )
        batch, _, length, _ = everything.shape  # a row alone comes without the first
        shown = np.broadcast_to(np.array(mask.seen), (batch, HEADS, length, keys.shape[2]))
        for row in range(batch):
            for place in range(length):
                indices = np.flatnonzero(shown[row, 0, place])
                if indices.size:  # padding sees nothing
                    assert np.isfinite(keys[row]).all() and np.isfinite(values[row]).all()
                    number = int(everything[row, 0, place, 0])
                    assert number not in self.by_query, "a query was computed twice"
                    found = keys[row][:, indices], values[row][:, indices]
                    self.by_query[number] = (indices, *found)
        return queries


def look(view: View, layer: int, num_queries: int) -> Seen:
    """What `num_queries` queries of this forward see of a layer."""
    numbers = np.broadcast_to(np.arange(num_queries)[:, None, None], (num_queries, HEADS, HEAD_DIM))
    queries = mx.array(numbers.astype(np.float32))
    seen = Seen()
    with patch.object(view_module, "attend", seen):
        out = view.attend(layer, queries)
    assert np.array_equal(np.array(out), numbers.reshape(num_queries, -1))
    assert sorted(seen.by_query) == list(range(num_queries))
    return seen


class CacheMachine(RuleBasedStateMachine):
    """`committed[slot]` lists the tokens of a row, `provisional[slot]` those behind them."""

    @initialize(window=st.integers(4, 16), max_block=st.integers(1, MAX_BLOCK))
    def start(self, window: int, max_block: int) -> None:
        self.window, self.max_block = window, max_block
        self.layers = make_layers(window)
        self.cache = Cache(self.layers, NUM_SLOTS, max_block, mx.float32)
        self.scrubbed: dict[int, int] = {}  # slot -> its length when it was scrubbed
        self.committed: list[list[int]] = [[] for _ in range(NUM_SLOTS)]
        self.provisional: list[list[int]] = [[] for _ in range(NUM_SLOTS)]
        self.next_token = 1

    def fresh(self, count: int) -> list[int]:
        """`count` tokens that never occurred."""
        first, self.next_token = self.next_token, self.next_token + count
        return list(range(first, self.next_token))

    def forward(self, rows: tuple[Row, ...], tokens: list[list[int]], *, is_chunk: bool) -> None:
        """Write tokens[i] at rows[i] in every layer, and check what each layer's queries see."""
        flat = [token for part in tokens for token in part]
        view = target_view(self.cache, Batch.of(rows, mx.array(flat), is_chunk=is_chunk))
        positions = [position for row in rows for position in range(row.start, row.end)]
        histories = [
            (self.committed[row.slot] + self.provisional[row.slot])[: row.start] + part
            for row, part in zip(rows, tokens, strict=True)
            for _ in part
        ]
        for spec in self.layers:
            keys = mx.array(vectors(spec.index, positions, flat))
            view.write(spec.index, keys, -keys)
            seen = look(view, spec.index, len(flat))
            for number, position in enumerate(positions):
                self.check_seen(seen, number, spec, histories[number], position, is_chunk)

    def check_seen(
        self, seen: Seen, number: int, spec: LayerSpec, row: list[int], last: int, is_chunk: bool
    ) -> None:
        """Query `number` sees `row` up to position `last`, as far back as its layer reaches."""
        first = max(0, last + 1 - self.window) if spec.window else 0
        places = list(range(first, last + 1))
        indices, keys, values = seen.by_query[number]
        if not is_chunk:  # the order of keys, and with it the last bit, is a function of position
            ring = self.window + self.max_block if spec.window else last + 1
            assert indices.tolist() == sorted(place % ring for place in places)
        expected = vectors(spec.index, places, row[first : last + 1]).swapaxes(0, 1)
        for found in (keys, -values):
            order = np.argsort(found[0, :, 2])
            assert np.array_equal(found[:, order], expected)

    @rule(slot=Slot, windows=st.floats(0.0, CHUNK_WINDOWS))
    def append(self, slot: int, windows: float) -> None:
        """A chunk of a prompt, of any length."""
        tokens = self.fresh(max(1, round(windows * self.window)))
        row = Row(slot, len(self.committed[slot]), len(tokens))
        self.provisional[slot] = []
        self.forward((row,), [tokens], is_chunk=True)
        self.cache.commit(slot, len(tokens))
        self.committed[slot] += tokens

    @rule(slots=Slots, data=st.data())
    def speculate(self, slots: set[int], data: st.DataObject) -> None:
        """One verify of several rows; what earlier ones left behind the lengths is overwritten."""
        rows, tokens = [], []
        for slot in sorted(slots):
            length = data.draw(st.integers(1, self.max_block), label=f"block of slot {slot}")
            rows.append(Row(slot, len(self.committed[slot]), length))
            tokens.append(self.fresh(length))
            self.provisional[slot] = []
        self.forward(tuple(rows), tokens, is_chunk=False)
        for row, part in zip(rows, tokens, strict=True):
            self.provisional[row.slot] = part

    @rule(slots=Slots)
    def run_ahead(self, slots: set[int]) -> None:
        """A plain step of the rows whose last plain step has not landed."""
        chosen = [slot for slot in sorted(slots) if len(self.provisional[slot]) == 1]
        assume(chosen)
        rows = tuple(Row(slot, len(self.committed[slot]) + 1, 1) for slot in chosen)
        tokens = [self.fresh(1) for _ in chosen]
        self.forward(rows, tokens, is_chunk=False)
        for slot, part in zip(chosen, tokens, strict=True):
            self.provisional[slot] += part

    @rule(slot=Slot, share=st.floats(0.0, 1.0))
    def commit(self, slot: int, share: float) -> None:
        """Keep some of what a verify wrote; the rest is rejected by doing nothing."""
        count = round(share * len(self.provisional[slot]))
        self.cache.commit(slot, count)
        self.committed[slot] += self.provisional[slot][:count]
        is_plain = len(self.provisional[slot]) <= 2 and count == 1
        self.provisional[slot] = self.provisional[slot][1:] if is_plain else []

    @rule(slot=Slot, excess=st.sampled_from([-1, 1, 7]))
    def commit_illegally(self, slot: int, excess: int) -> None:
        written = self.cache._written[slot] - self.cache.lengths[slot]
        with pytest.raises(ValueError, match=f"slot {slot}: commit"):
            self.cache.commit(slot, excess if excess < 0 else written + excess)

    @rule(slot=Slot)
    def begin_illegally(self, slot: int) -> None:
        length, before = len(self.committed[slot]), list(self.cache._written)
        with pytest.raises(ValueError, match=f"the ring allows {self.max_block}"):
            self.cache.begin((Row(slot, length, self.max_block + 1),), is_chunk=False)
        for start in (length - 1, before[slot] + 1):
            with pytest.raises(ValueError, match=f"cannot start at {start}"):
                self.cache.begin((Row(slot, start, 1),), is_chunk=False)
        assert self.cache._written == before

    @rule(slot=Slot)
    def release(self, slot: int) -> None:
        self.cache.release(slot)
        self.committed[slot], self.provisional[slot] = [], []

    @rule(slot=Slot, is_lost=st.booleans())
    def fail(self, slot: int, is_lost: bool) -> None:
        """Keys became NaN: the row ends, or what was not committed is scrubbed."""
        row = Row(slot, len(self.committed[slot]), 1)
        view = target_view(self.cache, Batch.of((row,), mx.array([1])))
        for spec in self.layers:
            nan = mx.full((1, KV_HEADS, HEAD_DIM), mx.nan)
            view.write(spec.index, nan, nan)
        self.provisional[slot] = []
        if is_lost:
            self.cache.release(slot)
            self.committed[slot] = []
        else:
            self.cache.scrub(slot)
            self.scrubbed[slot] = len(self.committed[slot])

    @rule(source=Slot, into=Slot)
    def copy(self, source: int, into: int) -> None:
        assume(source != into)
        self.cache.copy(source, into)
        self.scrubbed[into] = self.scrubbed.get(source, -1)
        self.committed[into] = list(self.committed[source])
        self.provisional[into] = list(self.provisional[source])

    # Rings for blocks of one token have no drafter: two plain steps under way take its last key.
    @precondition(lambda self: any(self.committed) and self.max_block > 1)
    @rule(slots=Slots, extra=st.integers(0, 1))
    def draft(self, slots: set[int], extra: int) -> None:
        """The drafter sees the committed tokens, the newest of them in window layers."""
        chosen = tuple(slot for slot in sorted(slots) if self.committed[slot])
        assume(chosen)
        # A scrubbed block took the slot of the key beyond the window; the next commit mends that.
        is_clean = all(
            self.cache._written[s] == self.cache.lengths[s]
            and self.scrubbed.get(s) != len(self.committed[s])
            for s in chosen
        )
        view = draft_view(self.cache, chosen, extra if is_clean else 0)
        for spec in self.layers:
            seen = look(view, spec.index, len(chosen))
            for number, slot in enumerate(chosen):
                row = self.committed[slot]
                reach = self.window + view.extra_keys if spec.window else len(row)
                _, keys, values = seen.by_query[number]
                order = np.argsort(keys[0, :, 2])
                first = max(0, len(row) - reach)
                places = list(range(first, len(row)))
                expected = vectors(spec.index, places, row[first:]).swapaxes(0, 1)
                assert np.array_equal(keys[:, order], expected)
                assert np.array_equal(values, -keys)

    @invariant()
    def one_length_holds_for_all_layers(self) -> None:
        if hasattr(self, "cache"):
            assert self.cache.lengths == [len(row) for row in self.committed]

    @invariant()
    def buffers_have_the_size_of_the_formula(self) -> None:
        if not hasattr(self, "cache"):
            return
        for ring in self.cache.window.values():
            rows = ring.num_slots * KV_HEADS * (self.window + self.max_block)
            assert ring.keys.shape == ring.values.shape == (rows, HEAD_DIM)
        for full in self.cache.full.values():
            for row, buffer in zip(self.committed, full.keys, strict=True):
                if buffer is not None:
                    heads, capacity, size = buffer.shape
                    assert (heads, size) == (KV_HEADS, HEAD_DIM)
                    assert capacity >= len(row) and capacity % KEY_STEP == 0

    def teardown(self) -> None:
        """Every buffer of every row is finite, whatever happened."""
        for ring in self.cache.window.values():
            for slot in [slot for slot, row in enumerate(self.committed) if row]:
                for rings in ring.read(slot, slot):
                    assert mx.isfinite(rings).all()
        for full in self.cache.full.values():
            for buffer in (*full.keys, *full.values):
                assert buffer is None or mx.isfinite(buffer).all()


@pytest.mark.parametrize(
    "num_examples", [200, pytest.param(2000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
def test_attention_sees_the_committed_tokens_whatever_happened(num_examples: int) -> None:
    bounds = settings(
        max_examples=num_examples,
        stateful_step_count=50,
        derandomize=True,
        database=None,
        deadline=None,
    )
    run_state_machine_as_test(CacheMachine, settings=bounds)
