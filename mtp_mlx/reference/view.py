"""What one forward sees of the cache: for every query the keys that its position allows."""

import numpy as np

from mtp_mlx.config import RopeSpec
from mtp_mlx.reference.batch import Batch, Row
from mtp_mlx.reference.cache import Cache
from mtp_mlx.reference.rope import Angles

# Newest committed keys that the drafter's sliding layers see, beyond the window. Changing it never
# changes text. Transformers shows one more (the goldens use 1), vLLM and SGLang none.
DRAFT_EXTRA_KEYS = 0


def draft_position(length: int) -> int:
    """The drafter's query position, constant through a burst, after `length` cached tokens."""
    return length


def attend(
    queries: np.ndarray, keys: np.ndarray, values: np.ndarray, mask: np.ndarray
) -> np.ndarray:
    """Softmax attention with scale 1.0: queries [B, H, T, K], keys and values [B, G, S, K].

    Query head j reads K/V head j // (H / G). `mask` is boolean, broadcastable to [B, H, T, S];
    what it hides is left out of the sums, so not even a NaN there is felt.
    """
    num_rows, num_heads, num_queries, _ = queries.shape
    sharing = num_heads // keys.shape[1]
    mask = np.broadcast_to(mask, (num_rows, num_heads, num_queries, keys.shape[2]))
    out = np.zeros_like(queries)
    for row in range(num_rows):
        for head in range(num_heads):
            for query in range(num_queries):
                seen = mask[row, head, query]
                own_keys = keys[row, head // sharing][seen]  # [seen, K]
                own_values = values[row, head // sharing][seen]
                scores = own_keys @ queries[row, head, query]
                weights = np.exp(scores - scores.max())
                out[row, head, query] = (weights / weights.sum()) @ own_values
    return out


def target_view(cache: Cache, batch: Batch) -> "View":
    """Access for one target forward over `batch`, which begins at each row's length, or behind the
    provisional tokens of a forward before it."""
    cache.begin(batch.rows, is_chunk=batch.is_chunk)
    return View(cache, batch.rows, batch.positions, is_chunk=batch.is_chunk)


def draft_view(
    cache: Cache, slots: tuple[int, ...], extra_keys: int = DRAFT_EXTRA_KEYS, back: int = 0
) -> "View":
    """Access for the drafter: one query a row, which sees the committed tokens and no more.

    It looks from the place of the last committed token, but turns by `draft_position`.
    back: by how much its position lies before that. Changing it never changes text.
    """
    rows, positions = [], []
    for slot in slots:
        length = cache.lengths[slot]
        assert length, "the drafter needs at least one cached token a row"
        rows.append(Row(slot, length - 1, 1))
        positions.append(draft_position(length) - back)
    return View(cache, tuple(rows), np.array(positions, dtype=np.int32), extra_keys=extra_keys)


class View:
    """The cache as the tokens of one forward may read and write it."""

    def __init__(
        self,
        cache: Cache,
        rows: tuple[Row, ...],
        positions: np.ndarray,
        *,
        is_chunk: bool = False,
        extra_keys: int = 0,
    ) -> None:
        self.cache = cache
        self.rows = rows
        self.positions = positions
        self.is_chunk = is_chunk
        self.extra_keys = extra_keys

    def angles(self, spec: RopeSpec) -> Angles:
        """Rotary angles of this forward's positions for one layer kind."""
        return Angles(spec, self.positions)

    def write(self, layer: int, keys: np.ndarray, values: np.ndarray) -> None:
        """Store keys and values [N, G, K] of an owning layer, provisionally."""
        offset = 0
        for row in self.rows:
            part = slice(offset, offset + row.length)
            for entries, new in ((self.cache.keys, keys), (self.cache.values, values)):
                held = entries[layer][row.slot]
                del held[row.start :]
                held.extend(new[part].astype(self.cache.dtype))
            offset += row.length

    def attend(self, layer: int, queries: np.ndarray) -> np.ndarray:
        """Attention of queries [N, H, K] over the K/V of an owning layer -> [N, H·K]."""
        outputs, offset = [], 0
        for row in self.rows:
            own = queries[offset : offset + row.length].transpose(1, 0, 2)  # [H, T, K]
            keys = np.stack(self.cache.keys[layer][row.slot][: row.end], axis=1)  # [G, S, K]
            values = np.stack(self.cache.values[layer][row.slot][: row.end], axis=1)
            mask = self._mask(row, self.cache.windows[layer])
            out = attend(own[None], keys[None], values[None], mask)[0]
            outputs.append(out.transpose(1, 0, 2).reshape(row.length, -1))
            offset += row.length
        return np.concatenate(outputs)

    def _mask(self, row: Row, window: int | None) -> np.ndarray:
        """[T, S]: may the query at position q see the key at position k?"""
        mask = np.zeros((row.length, row.end), dtype=bool)
        for index, query in enumerate(range(row.start, row.end)):
            first = 0 if window is None else max(0, query + 1 - window - self.extra_keys)
            mask[index, first : query + 1] = True
        return mask
