"""Packed tokens: one forward sees rows of any length, end to end, each token at its own position.

Shape letters are those of `mtp_mlx.model.batch`: N tokens of this forward · B rows · T tokens of
one row · D width · H query heads · G key/value heads · K head size · S keys seen · V vocabulary ·
E experts.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Row:
    """`length` tokens of the sequence in `slot`, the first of them at position `start`."""

    slot: int
    start: int
    length: int

    @property
    def end(self) -> int:
        return self.start + self.length


@dataclass(frozen=True)
class Batch:
    """Tokens [N] and their absolute positions [N], rows end to end in the order of their slots.

    `is_chunk` marks a piece of a prompt: one row, longer than a verify block may be.
    """

    tokens: np.ndarray
    positions: np.ndarray
    rows: tuple[Row, ...]
    is_chunk: bool

    @staticmethod
    def of(rows: tuple[Row, ...], tokens: np.ndarray, *, is_chunk: bool = False) -> "Batch":
        """A batch of `rows`; `tokens` [N] int32 lists row after row."""
        slots = [row.slot for row in rows]
        assert slots == sorted(set(slots)), f"rows must be in the order of their slots: {slots}"
        assert tokens.shape == (sum(row.length for row in rows),), tokens.shape
        assert len(rows) == 1 or not is_chunk, "a prompt chunk is a batch of one row"
        positions: list[int] = []
        for row in rows:
            positions.extend(range(row.start, row.end))
        return Batch(tokens, np.array(positions, dtype=np.int32), rows, is_chunk)
