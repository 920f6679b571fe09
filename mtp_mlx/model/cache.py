"""The K/V cache of the target: slots of rows, lengths instead of trims.

Invariants (tests/model/test_cache.py holds a property test for each):

I1  Keys at positions below `lengths[slot]` (inside the window, for window layers) are those of the
    committed tokens.
I2  A mask made from absolute positions, `k <= q` and `k > q - window`, is the only way to read.
    Padding, stale and provisional slots are never visible. Those of a row in use hold finite
    values, because 0 · NaN leaks through attention: buffers start at zero, and a slot is wiped
    before the first token of its next row, whatever the last one, or a round that nobody waited
    for, left there.
I3  A window layer is a ring of C = window + max_block slots per row, position p in slot p mod C. A
    verify of at most max_block tokens overwrites no key that a query or the drafter may still see.
    C does not depend on the draft length in use, so key order, and with it the last bit, is the
    same with and without speculation.
I4  Only `commit` and `release` change a length. Writes beyond it are provisional: rejecting drafts
    is doing nothing.

A full layer holds one buffer per slot, which grows in steps; a window layer holds all rings in one
buffer. In both, the keys of one head lie end to end, [C, K] without gaps: with other strides MLX's
CPU attention copies every key it reads, once for each query head of the group. A prompt chunk
attends to (ring before the write ++ chunk), since it may be longer than the ring, and stores its
tail. What a later request may take up is copied out (`span`, `window_at`) and in (`restore`), a
chunk or a window at a time. No other operation copies K/V: writes go into the buffers in place,
which MLX does only while nobody else holds them, so a view of a buffer never outlives its forward.
"""

from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from mtp_mlx.config import LayerSpec
from mtp_mlx.fit import KEY_STEP, round_up
from mtp_mlx.model.backend import queue
from mtp_mlx.model.batch import Row

# A full layer grows by at least this many keys, and by an eighth of itself.
GROWTH_STEP = 256
UNLIMITED = 1 << 62


def ring_positions(end: int | np.ndarray, capacity: int) -> np.ndarray:
    """Position held by each slot [C] of a ring in which positions below `end` were written; of many
    rings [B, C] where that is [B, 1].

    Negative where the slot is empty. Slots that hold provisional keys of rejected drafts read as
    positions a whole ring earlier, which every mask excludes.
    """
    slots = np.arange(capacity)
    return end - 1 - (end - 1 - slots) % capacity


class FullLayer:
    """Keys and values of a full-attention layer: one growing buffer [G, C, K] per slot."""

    def __init__(self, spec: LayerSpec, num_slots: int, dtype: mx.Dtype) -> None:
        self.kv_heads, self.head_dim = spec.kv_heads, spec.head_dim
        self.dtype = dtype
        self.keys: list[mx.array | None] = [None] * num_slots
        self.values: list[mx.array | None] = [None] * num_slots

    def reserve(self, slot: int, end: int, most: int) -> None:
        """Make room for positions below `end`, of which there will be `most`: this may copy."""
        old = self.keys[slot]
        have = 0 if old is None else old.shape[1]
        if end <= have:
            return
        wanted = max(end, have + max(GROWTH_STEP, have // 8))
        capacity = round_up(min(wanted, most), KEY_STEP)
        for buffers in (self.keys, self.values):
            grown = mx.zeros((self.kv_heads, capacity, self.head_dim), self.dtype)
            if have:
                grown[:, :have] = _buffer(buffers, slot)
            buffers[slot] = grown

    def write(self, row: Row, keys: mx.array, values: mx.array) -> None:
        """Store keys and values [G, T, K] at the row's positions."""
        _buffer(self.keys, row.slot)[:, row.start : row.end] = keys
        _buffer(self.values, row.slot)[:, row.start : row.end] = values

    def read(self, slot: int, count: int) -> tuple[mx.array, mx.array]:
        """Keys and values [G, count, K], a view."""
        return _buffer(self.keys, slot)[:, :count], _buffer(self.values, slot)[:, :count]

    def release(self, slot: int) -> None:
        self.keys[slot] = None
        self.values[slot] = None

    def copy(self, source: int, target: int) -> None:
        for buffers in (self.keys, self.values):
            held = buffers[source]
            buffers[target] = None if held is None else mx.array(held)


class WindowLayer:
    """Keys and values of a sliding layer: rings of C slots for all rows, one buffer
    [slots·G·C, K] each. Position p of head g of a row lies at (slot·G + g)·C + p mod C."""

    def __init__(self, spec: LayerSpec, max_block: int, dtype: mx.Dtype) -> None:
        assert spec.window is not None
        self.window = spec.window
        self.capacity = spec.window + max_block
        self.kv_heads, self.head_dim = spec.kv_heads, spec.head_dim
        self.dtype = dtype
        self.num_slots = 0
        self.keys = mx.zeros((0, self.head_dim), dtype)
        self.values = mx.zeros((0, self.head_dim), dtype)

    @property
    def row_size(self) -> int:
        """Buffer rows of one slot."""
        return self.kv_heads * self.capacity

    def places(self, slot: int | np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Buffer rows [T, G] of the positions [T] of one slot, or of a slot [T] each."""
        heads = np.asarray(slot)[..., None] * self.kv_heads + np.arange(self.kv_heads)
        return heads * self.capacity + positions[:, None] % self.capacity

    def places_before(self, slot: int, end: int) -> np.ndarray:
        """Buffer rows [T, G] of the positions that a query at `end` may see of those before it."""
        return self.places(slot, np.arange(max(end - self.window, 0), end)).astype(np.int32)

    def reserve(self, slot: int, most: int) -> None:
        """Make room for `slot`, doubling up to `most` slots; copies only when a slot is new.

        Keys move before values and layer after layer: old and new together are all rings twice.
        """
        if slot < self.num_slots:
            return
        self.num_slots = min(most, max(slot + 1, 2 * self.num_slots))
        self.keys = self._moved(self.keys)
        self.values = self._moved(self.values)

    def _moved(self, old: mx.array) -> mx.array:
        """A buffer for all slots that begins with `old`, which nobody holds any longer."""
        grown = mx.zeros((self.num_slots * self.row_size, self.head_dim), self.dtype)
        if old.shape[0]:
            grown[: old.shape[0]] = old
            mx.eval(grown)
        return grown

    def write(self, places: mx.array, keys: mx.array, values: mx.array) -> None:
        """Store keys and values [N, G, K] at buffer rows [N, G]."""
        self.keys[places] = keys
        self.values[places] = values

    def read(self, first: int, last: int) -> tuple[mx.array, mx.array]:
        """Rings of slots first..last as keys and values [B, G, C, K], a view."""
        low, high = first * self.row_size, (last + 1) * self.row_size
        shape = (last + 1 - first, self.kv_heads, self.capacity, self.head_dim)
        return self.keys[low:high].reshape(shape), self.values[low:high].reshape(shape)

    def wipe(self, slot: int) -> None:
        """Zero a slot. Nothing reads it between this and the first write, so both are in place."""
        low, high = slot * self.row_size, (slot + 1) * self.row_size
        if slot < self.num_slots:
            self.keys[low:high] = mx.array(0, self.dtype)
            self.values[low:high] = mx.array(0, self.dtype)

    def copy(self, source: int, target: int) -> None:
        low, to = source * self.row_size, target * self.row_size
        self.keys[to : to + self.row_size] = self.keys[low : low + self.row_size]
        self.values[to : to + self.row_size] = self.values[low : low + self.row_size]


def _buffer(buffers: list[mx.array | None], slot: int) -> mx.array:
    held = buffers[slot]
    assert held is not None, f"slot {slot} was not reserved"
    return held


class Cache:
    """K/V of `num_slots` rows for the layers that own any; `lengths[slot]` tokens are committed."""

    def __init__(
        self, layers: tuple[LayerSpec, ...], num_slots: int, max_block: int, dtype: mx.Dtype
    ) -> None:
        self.num_slots = num_slots
        self.max_block = max_block
        self.lengths = [0] * num_slots
        self.full: dict[int, FullLayer] = {}
        self.window: dict[int, WindowLayer] = {}
        self._written = [0] * num_slots
        self._most = [UNLIMITED] * num_slots
        for spec in layers:
            if not spec.owns_cache:
                continue
            if spec.window is None:
                self.full[spec.index] = FullLayer(spec, num_slots, dtype)
            else:
                self.window[spec.index] = WindowLayer(spec, max_block, dtype)

    def limit(self, slot: int, most: int) -> None:
        """A row will never write a position from `most` on: its buffers grow no further."""
        self._most[slot] = most

    def begin(self, rows: tuple[Row, ...], *, is_chunk: bool) -> None:
        """Make room for the tokens of one forward, which are provisional until committed."""
        for row in rows:
            if not self.lengths[row.slot] <= row.start <= self._written[row.slot]:
                raise ValueError(
                    f"slot {row.slot}: a forward cannot start at {row.start}; committed up to "
                    f"{self.lengths[row.slot]}, written up to {self._written[row.slot]}"
                )
            if row.length > self.max_block and not is_chunk:
                raise ValueError(
                    f"a block of {row.length} tokens, the ring allows {self.max_block}"
                )
            if row.end > self._most[row.slot]:
                raise ValueError(
                    f"slot {row.slot}: position {row.end - 1}, limited to {self._most[row.slot]}"
                )
        for row in rows:
            self._written[row.slot] = row.end
            if row.start == 0:
                for window in self.window.values():
                    window.wipe(row.slot)
            for full in self.full.values():
                full.reserve(row.slot, row.end, self._most[row.slot])
            for window in self.window.values():
                window.reserve(row.slot, self.num_slots)

    def commit(self, slot: int, count: int) -> None:
        """Keep the next `count` written tokens of a row."""
        length = self.lengths[slot] + count
        if count < 0 or length > self._written[slot]:
            raise ValueError(
                f"slot {slot}: commit of {count} tokens, written up to "
                f"{self._written[slot]}, length {self.lengths[slot]}"
            )
        self.lengths[slot] = length

    def scrub(self, slot: int) -> None:
        """Zero what is written and not committed: NaN there would leak into later reads."""
        row = Row(slot, self.lengths[slot], self._written[slot] - self.lengths[slot])
        positions = np.arange(row.start, row.end)
        for full in self.full.values():
            zeros = mx.zeros((full.kv_heads, row.length, full.head_dim), full.dtype)
            full.write(row, zeros, zeros)
        for window in self.window.values():
            places = mx.array(window.places(slot, positions).astype(np.int32))
            zeros = mx.zeros((row.length, window.kv_heads, window.head_dim), window.dtype)
            window.write(places, zeros, zeros)
        self._written[slot] = row.start

    def release(self, slot: int) -> None:
        """Forget a row.

        Runs what is queued for the rings: a prompt that no round follows stored its tail, and
        without a reader that write would keep the prompt's keys in memory.
        """
        queue([(ring.keys, ring.values) for ring in self.window.values()])
        self.lengths[slot] = 0
        self._written[slot] = 0
        self._most[slot] = UNLIMITED
        for full in self.full.values():
            full.release(slot)

    def span(self, slot: int, start: int, end: int) -> list[mx.array]:
        """Copies of a row's keys and values [G, T, K] of the full layers, from start to end: keys,
        values, keys, values, ..."""
        at = mx.arange(start, end)
        buffers = [b for full in self.full.values() for b in (full.keys, full.values)]
        return [mx.take(_buffer(each, slot), at, axis=1) for each in buffers]

    def window_at(self, slot: int, end: int) -> list[mx.array]:
        """Copies of a row's keys and values [T, G, K] of the window layers: what a query at `end`
        may see of the positions before it."""
        copies = []
        for ring in self.window.values():
            places = mx.array(ring.places_before(slot, end))
            copies += [ring.keys[places], ring.values[places]]
        return copies

    def restore(
        self,
        slot: int,
        spans: Sequence[list[mx.array]],
        window: list[mx.array],
        end: int,
        length: int,
    ) -> None:
        """Fill a free slot with the text of `end` tokens that such copies were made of, of which
        `length` are committed.

        `spans` lie end to end from position 0, `window` is that at `end`. Waits for the device:
        while a round reads the rings, writing them would copy them.
        """
        assert not self._written[slot], f"slot {slot} is in use"
        mx.synchronize()
        room = end + max(GROWTH_STEP, end // 8)  # the next tokens should move nothing
        for full in self.full.values():
            full.reserve(slot, min(room, self._most[slot]), self._most[slot])
        start = 0
        for span in spans:
            row = Row(slot, start, end // len(spans))
            pairs = zip(span[::2], span[1::2], strict=True)
            for full, (keys, values) in zip(self.full.values(), pairs, strict=True):
                full.write(row, keys, values)
            start = row.end
        pairs = zip(window[::2], window[1::2], strict=True)
        for ring, (keys, values) in zip(self.window.values(), pairs, strict=True):
            ring.reserve(slot, self.num_slots)
            ring.wipe(slot)
            ring.write(mx.array(ring.places_before(slot, end)), keys, values)
        mx.eval([(ring.keys, ring.values) for ring in self.window.values()])
        mx.eval([(full.keys[slot], full.values[slot]) for full in self.full.values()])
        self._written[slot] = end
        self.lengths[slot] = length

    def full_bytes(self, slot: int) -> int:
        """Bytes that a row's full layers hold now."""
        held = [b[slot] for full in self.full.values() for b in (full.keys, full.values)]
        return sum(buffer.nbytes for buffer in held if buffer is not None)

    def copy(self, source: int, target: int) -> None:
        """Make row `target` an independent copy of row `source`."""
        for full in self.full.values():
            full.copy(source, target)
        for window in self.window.values():
            window.reserve(max(source, target), self.num_slots)
            window.copy(source, target)
        self._most[target] = self._most[source]
        self.lengths[target] = self.lengths[source]
        self._written[target] = self._written[source]
