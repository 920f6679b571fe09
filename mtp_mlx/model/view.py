"""What one forward sees of the cache: index plans and masks, made once for all its layers.

The last bit of attention depends on the order of the keys. A ring is read slot after slot: keys of
the lap of the query first, up to its own, then those of the lap before. A prompt chunk reads its
keys in that order too, one lap of the ring after the other, so that a state is the same to the bit
whether its token came in a chunk of any size or was decoded, and a text may be taken up anywhere.
"""

from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import cast

import mlx.core as mx
import numpy as np

from mtp_mlx.config import RopeSpec
from mtp_mlx.fit import KEY_STEP, round_up
from mtp_mlx.model.batch import Batch, Row
from mtp_mlx.model.cache import Cache, FullLayer, WindowLayer, ring_positions
from mtp_mlx.model.norm import is_own
from mtp_mlx.model.rope import Angles

# Newest committed keys that the drafter's sliding layers see, beyond the window. Changing it never
# changes text. Transformers shows one more (the goldens use 1), vLLM and SGLang none.
DRAFT_EXTRA_KEYS = 0
# Scores [H, T, S] of one attention call at most: bounds the memory that a long prompt needs where
# no fused kernel exists (256 MiB in float32).
MAX_SCORES = 1 << 26
# Queries of a row that share the K/V head's bias with a copy for each query head.
SHORT_BLOCK = 16
# Added to the score of a key that a query does not see: its weight is 0.
_UNSEEN = -1e30


def draft_position(length: int) -> int:
    """The drafter's query position, constant through a burst, after `length` cached tokens."""
    return length


class Mask:
    """Which keys S each query T sees: boolean [B, 1, T, S], or [1, T, S] for a row alone."""

    def __init__(self, seen: mx.array) -> None:
        self.seen = seen
        self._biases: dict[int, mx.array] = {}

    def bias(self, copies: int) -> mx.array:
        """The same as what is added to scores, `copies` times one below the other
        [..., copies · T, S]; made once for all layers."""
        if copies not in self._biases:
            added = mx.where(self.seen, mx.array(0.0), mx.array(_UNSEEN))
            self._biases[copies] = mx.concatenate([added] * copies, axis=-2)
        return self._biases[copies]

    def part(self, start: int, end: int) -> "Mask":
        """That of the queries `start` to `end`."""
        return Mask(self.seen[..., start:end, :])


def attend(queries: mx.array, keys: mx.array, values: mx.array, mask: Mask) -> mx.array:
    """Softmax attention with scale 1.0: queries [B, H, T, K], keys and values [B, G, S, K], or
    without B for a row alone.

    Query head j reads K/V head j // (H / G). On CPU, where MLX has no kernel for it, the two
    products and the softmax alone.
    """
    if not is_own(queries):
        return _attend_fused(queries, keys, values, mask)
    *rows, heads, length, size = queries.shape
    groups = keys.shape[-3]
    sharing = heads // groups
    if length <= SHORT_BLOCK:  # the heads that share keys are rows of one product
        own, bias = queries.reshape(*rows, groups, sharing * length, size), mask.bias(sharing)
    else:  # or the bias would be as long as a chunk for each of them
        own, bias = queries.reshape(*rows, groups, sharing, length, size), mask.bias(1)
        bias, keys, values = (mx.expand_dims(each, -3) for each in (bias, keys, values))
    scores = mx.addmm(bias, own, keys.swapaxes(-1, -2))
    return (mx.softmax(scores, axis=-1) @ values).reshape(queries.shape)


def _attend_fused(queries: mx.array, keys: mx.array, values: mx.array, mask: Mask) -> mx.array:
    if queries.ndim == 3:
        alone = Mask(mask.seen[None])
        return _attend_fused(queries[None], keys[None], values[None], alone)[0]
    return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=1.0, mask=mask.seen)


def _attend_in_pieces(queries: mx.array, keys: mx.array, values: mx.array, mask: Mask) -> mx.array:
    """`attend` for a row alone, a few queries at a time where there are many."""
    heads, length, _ = queries.shape
    step = max(1, MAX_SCORES // (heads * keys.shape[1]))
    if length <= step:
        return attend(queries, keys, values, mask)
    pieces = []
    for start in range(0, length, step):
        part = queries[:, start : start + step]
        pieces.append(attend(part, keys, values, mask.part(start, start + step)))
        mx.eval(pieces[-1])  # or the scores of all pieces would be there at once
    return mx.concatenate(pieces, axis=1)


@dataclass(frozen=True)
class Laps:
    """The queries `first` to `last` of a prompt chunk: `count` laps of a ring, as long each.

    `order` [count · S]: where the keys of a lap lie in (ring ++ chunk), in the order in which a
    ring is read, with gaps that `mask` [count, 1, T, S] hides.
    """

    first: int
    last: int
    count: int
    order: mx.array
    mask: Mask

    def attend(self, queries: mx.array, keys: mx.array, values: mx.array) -> mx.array:
        """Attention of the chunk's queries [N, H, K] over (ring ++ chunk) [G, C + N, K], for the
        queries of these laps -> [last - first, H · K]."""
        own = queries[self.first : self.last].reshape(self.count, -1, *queries.shape[1:])
        out = attend(own.swapaxes(1, 2), self._taken(keys), self._taken(values), self.mask)
        return out.swapaxes(1, 2).reshape(self.last - self.first, -1)

    def _taken(self, held: mx.array) -> mx.array:
        """Lap by lap [count, G, S, K]."""
        taken = mx.take(held, self.order, axis=1)
        return taken.reshape(held.shape[0], self.count, -1, held.shape[2]).swapaxes(0, 1)


def target_view(cache: Cache, batch: Batch) -> "View":
    """Access for one target forward over `batch`, which begins at each row's length, or behind the
    provisional tokens of a forward that is still running."""
    cache.begin(batch.rows, is_chunk=batch.is_chunk)
    return View(cache, batch.rows, batch.positions, is_chunk=batch.is_chunk)


def last_view(cache: Cache, batch: Batch) -> "View":
    """Access for the last token of a prompt chunk whose K/V the layers below have stored."""
    row = batch.rows[-1]
    return View(cache, (Row(row.slot, row.end - 1, 1),), batch.positions[-1:])


def draft_view(
    cache: Cache, slots: tuple[int, ...], extra_keys: int = DRAFT_EXTRA_KEYS, back: int = 0
) -> "View":
    """Access for the drafter: one query a row, which sees the committed tokens and no more.

    back: by how much its position lies before `draft_position`. Changing it never changes text.
    """
    lengths = [cache.lengths[slot] for slot in slots]
    assert list(slots) == sorted(set(slots)), f"slots must be in order: {slots}"
    assert all(lengths), "the drafter needs at least one cached token a row"
    rows = tuple(Row(slot, length - 1, 1) for slot, length in zip(slots, lengths, strict=True))
    at = np.array([draft_position(length) - back for length in lengths], dtype=np.int32)
    return View(cache, rows, mx.array(at), extra_keys=extra_keys)


class View:
    """The cache as the tokens of one forward may read and write it."""

    def __init__(
        self,
        cache: Cache,
        rows: tuple[Row, ...],
        positions: mx.array,
        *,
        is_chunk: bool = False,
        extra_keys: int = 0,
    ) -> None:
        self.cache = cache
        self.rows = rows
        self.positions = positions
        self.is_chunk = is_chunk
        self.extra_keys = extra_keys
        self._wider: View | None = None
        self._angles: dict[RopeSpec, Angles] = {}
        self._full_masks: list[Mask] | None = None
        self._window_plans: dict[tuple[int, int], WindowPlan] = {}
        self._chunks: dict[int, tuple[mx.array, mx.array]] = {}

    def narrowed(self, keep: list[int]) -> "View":
        """The same access for some of the rows, by their places in this view, in order."""
        rows = tuple(self.rows[index] for index in keep)
        positions = self.positions[mx.array(keep)]
        view = View(self.cache, rows, positions, extra_keys=self.extra_keys)
        view._wider = self.whole
        return view

    @property
    def whole(self) -> "View":
        """The view of all rows that this one was narrowed from, or itself."""
        return self if self._wider is None else self._wider

    def angles(self, spec: RopeSpec) -> Angles:
        """Rotary angles of this forward's positions for one layer kind."""
        if spec not in self._angles:
            self._angles[spec] = Angles(spec, self.positions)
        return self._angles[spec]

    def write(self, layer: int, keys: mx.array, values: mx.array) -> None:
        """Store keys and values [N, G, K] of an owning layer, provisionally."""
        if layer in self.cache.window:
            ring = self.cache.window[layer]
            plan = self._plan(ring)
            if not self.is_chunk:
                ring.write(plan.places, keys, values)
                return
            self._chunks[layer] = plan.extend(ring, keys, values)
            ring.write(plan.places, keys[-ring.capacity :], values[-ring.capacity :])
            return
        full = self.cache.full[layer]
        for row, *part in zip(self.rows, self._by_row(keys), self._by_row(values), strict=True):
            full.write(row, *part)

    def attend(self, layer: int, queries: mx.array) -> mx.array:
        """Attention of queries [N, H, K] over the K/V of an owning layer -> [N, H·K]."""
        if layer in self.cache.full:
            return self._attend_full(self.cache.full[layer], queries)
        ring = self.cache.window[layer]
        plan = self._plan(ring)
        if self.is_chunk:
            keys, values = self._chunks[layer]
            outs = [laps.attend(queries, keys, values) for laps in plan.laps]
            return outs[0] if len(outs) == 1 else mx.concatenate(outs)
        keys, values = ring.read(plan.first, plan.last)
        return plan.packed(attend(plan.padded(queries), keys, values, plan.mask))

    def _attend_full(self, layer: FullLayer, queries: mx.array) -> mx.array:
        outputs = []
        for row, mask, own in zip(self.rows, self._masks(), self._by_row(queries), strict=True):
            keys, values = layer.read(row.slot, mask.seen.shape[-1])
            outputs.append(_attend_in_pieces(own, keys, values, mask))
        joined = outputs[0] if len(outputs) == 1 else mx.concatenate(outputs, axis=1)
        return joined.swapaxes(0, 1).flatten(1)

    def _by_row(self, packed: mx.array) -> list[mx.array]:
        """[N, heads, K] -> [heads, T, K] of each row."""
        turned = packed.swapaxes(0, 1)
        if len(self.rows) == 1:
            return [turned]
        ends = list(accumulate(row.length for row in self.rows[:-1]))
        return cast(list[mx.array], mx.split(turned, ends, axis=1))

    def _masks(self) -> list[Mask]:
        """Per row: key positions up to the query's own."""
        if self._full_masks is None:
            self._full_masks = []
            for row in self.rows:
                seen = mx.arange(round_up(row.end, KEY_STEP))
                queries = mx.arange(row.start, row.end)
                self._full_masks.append(Mask((seen <= queries[:, None])[None]))
        return self._full_masks

    def _plan(self, ring: WindowLayer) -> "WindowPlan":
        shape = (ring.window, ring.kv_heads)
        if shape not in self._window_plans:
            self._window_plans[shape] = WindowPlan(self, ring)
        return self._window_plans[shape]


class WindowPlan:
    """Where the tokens of one forward lie in the rings, and which keys each query sees.

    Queries are padded to [B, T], B all slots from the first to the last in use, so that the rings
    are read as one view; the padding exists inside attention only.
    """

    def __init__(self, view: View, ring: WindowLayer) -> None:
        rows = view.rows
        self.first, self.last = rows[0].slot, rows[-1].slot
        self.num_rows = self.last + 1 - self.first
        self.longest = max(row.length for row in rows)
        reach = ring.window + view.extra_keys
        if view.is_chunk:
            self._plan_chunk(rows[0], reach, ring)
        else:
            self._plan_rows(rows, reach, ring)

    def _plan_rows(self, rows: tuple[Row, ...], reach: int, ring: WindowLayer) -> None:
        slots, starts, lengths = np.array([(r.slot, r.start, r.length) for r in rows]).T
        start = np.zeros((self.num_rows, 1), dtype=int)
        length = np.zeros_like(start)  # 0 in slots between that are not of this forward
        start[slots - self.first, 0], length[slots - self.first, 0] = starts, lengths
        column = np.arange(self.longest)
        at, is_used = start + column, column < length  # [B, T]
        held = ring_positions(start + length, ring.capacity)[:, None]  # [B, 1, C]
        query = at[..., None]
        seen = (held >= 0) & (held <= query) & (held > query - reach) & is_used[..., None]
        seen = np.asarray(seen[:, None], dtype=bool)
        places = ring.places(np.repeat(slots, lengths), at[is_used])
        self.mask = Mask(mx.array(seen))
        self.places = mx.array(places.astype(np.int32))
        self._pad: mx.array | None = None
        self._back: mx.array | None = None
        if not is_used.all():
            pad = np.zeros(is_used.shape, dtype=np.int32)
            pad[is_used] = np.arange(len(places))
            self._pad = mx.array(pad)
            self._back = mx.array(np.flatnonzero(is_used).astype(np.int32))

    def _plan_chunk(self, row: Row, reach: int, ring: WindowLayer) -> None:
        capacity = ring.capacity
        at = np.arange(row.start, row.end)
        self._ring_used = row.start > 0
        self.places = mx.array(ring.places(row.slot, at[-capacity:]).astype(np.int32))
        # Between a part of a lap at the front and one at the end, the laps that are whole.
        borders = {round_up(row.start, capacity), row.end // capacity * capacity}
        inside = {border for border in borders if row.start < border < row.end}
        cuts = sorted({row.start, row.end} | inside)
        self.laps = [self._laps(row, start, end, reach, capacity) for start, end in pairwise(cuts)]

    def _laps(self, row: Row, start: int, end: int, reach: int, capacity: int) -> Laps:
        """What the queries at positions `start` to `end` see: whole laps, or a part of one."""
        count = max(1, (end - start) // capacity)
        length = (end - start) // count
        lap = (start // capacity + np.arange(count))[:, None] * capacity
        own_length = (start + length - 1) % capacity + 1
        # Each lap begins at a multiple of KEY_STEP, so that sums take the same lanes as in a ring.
        held = np.full((count, round_up(own_length, KEY_STEP)), -1)
        held[:, :own_length] = lap + np.arange(own_length)
        if start >= capacity or count > 1:
            held = np.concatenate([held, lap - capacity + np.arange(capacity)], axis=1)
        at = np.arange(start, end).reshape(count, length, 1)
        own = held[:, None]
        seen = np.asarray((own >= 0) & (own <= at) & (own > at - reach), dtype=bool)
        old = held % capacity
        new = (capacity if self._ring_used else 0) + held - row.start
        order = np.where(held < row.start, old, new)
        order = np.where(seen.any(axis=1), order, 0).reshape(-1).astype(np.int32)
        first = start - row.start
        return Laps(
            first, first + end - start, count, mx.array(order), Mask(mx.array(seen[:, None]))
        )

    def extend(
        self, ring: WindowLayer, keys: mx.array, values: mx.array
    ) -> tuple[mx.array, mx.array]:
        """K/V [G, C + T, K] that a prompt chunk attends to: the ring, then itself."""
        own_keys, own_values = keys.swapaxes(0, 1), values.swapaxes(0, 1)
        if not self._ring_used:
            return own_keys, own_values
        old_keys, old_values = ring.read(self.first, self.first)
        return (
            mx.concatenate([old_keys[0], own_keys], axis=1),
            mx.concatenate([old_values[0], own_values], axis=1),
        )

    def padded(self, queries: mx.array) -> mx.array:
        """Queries [N, H, K] -> [B, H, T, K]."""
        if self._pad is not None:
            queries = queries[self._pad]
        else:
            queries = queries.reshape(self.num_rows, self.longest, *queries.shape[1:])
        return queries.transpose(0, 2, 1, 3)

    def packed(self, out: mx.array) -> mx.array:
        """Attention output [B, H, T, K] -> [N, H·K]."""
        rows = out.transpose(0, 2, 1, 3).reshape(self.num_rows * self.longest, -1)
        return rows if self._back is None else rows[self._back]
