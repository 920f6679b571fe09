"""The K/V cache of the target as plain lists: the entry at index p is that of position p.

Nothing is ever overwritten or evicted, windows included; what a query may see is a question of
positions alone (`view`). That makes this an independent check of the rings in `model/cache.py`.

Tokens at positions below `lengths[slot]` are committed. Entries beyond are provisional: the next
forward of the row cuts the list at its own first position, and so rejecting drafts is doing
nothing.
"""

import numpy as np

from mtp_mlx.config import LayerSpec
from mtp_mlx.reference.batch import Row


class Cache:
    """K/V of `num_slots` rows for the layers that own any; `lengths[slot]` tokens are committed.

    `keys[layer][slot][position]` and `values` alike are [G, K].
    """

    def __init__(
        self, layers: tuple[LayerSpec, ...], num_slots: int, max_block: int, dtype: np.dtype
    ) -> None:
        self.num_slots = num_slots
        self.max_block = max_block
        self.dtype = dtype
        self.lengths = [0] * num_slots
        self.keys: dict[int, list[list[np.ndarray]]] = {}
        self.values: dict[int, list[list[np.ndarray]]] = {}
        self.windows: dict[int, int | None] = {}
        self._written = [0] * num_slots
        for spec in layers:
            if spec.owns_cache:
                self.keys[spec.index] = [[] for _ in range(num_slots)]
                self.values[spec.index] = [[] for _ in range(num_slots)]
                self.windows[spec.index] = spec.window

    def begin(self, rows: tuple[Row, ...], *, is_chunk: bool) -> None:
        """Announce the tokens of one forward, which are provisional until committed."""
        for row in rows:
            if row.start < self.lengths[row.slot]:
                raise ValueError(f"slot {row.slot}: position {row.start} is committed already")
            if row.start > self._written[row.slot]:
                raise ValueError(f"slot {row.slot}: nothing lies before position {row.start}")
            if row.length > self.max_block and not is_chunk:
                raise ValueError(f"a block of {row.length} tokens, the most is {self.max_block}")
        for row in rows:
            self._written[row.slot] = row.end

    def commit(self, slot: int, count: int) -> None:
        """Keep the next `count` written tokens of a row."""
        length = self.lengths[slot] + count
        if count < 0 or length > self._written[slot]:
            raise ValueError(
                f"slot {slot}: commit of {count} tokens, written up to {self._written[slot]}, "
                f"length {self.lengths[slot]}"
            )
        self.lengths[slot] = length

    def scrub(self, slot: int) -> None:
        """Drop what is written and not committed."""
        self._written[slot] = self.lengths[slot]
        for layer in self.keys:
            del self.keys[layer][slot][self.lengths[slot] :]
            del self.values[layer][slot][self.lengths[slot] :]

    def release(self, slot: int) -> None:
        """Forget a row."""
        self.lengths[slot] = 0
        self._written[slot] = 0
        for layer in self.keys:
            self.keys[layer][slot] = []
            self.values[layer][slot] = []

    def copy(self, source: int, target: int) -> None:
        """Make row `target` an independent copy of row `source`."""
        self.lengths[target] = self.lengths[source]
        self._written[target] = self._written[source]
        for layer in self.keys:
            self.keys[layer][target] = list(self.keys[layer][source])
            self.values[layer][target] = list(self.values[layer][source])
