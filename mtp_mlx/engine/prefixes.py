"""Texts that later requests take up: copies of K/V at chunk borders, made and put back.

What it costs. A border in a prompt copies out one chunk of the full layers' K/V and one window of
the sliding layers'. A border in a reply copies the same in every round that may reach it, as a part
of that round, behind which no plain round runs ahead: nothing more is waited for, and no buffer is
written while it is read. Taking a text up copies its chunks and one window into the row, and waits
for the round in the air. Chunks are held once, however many texts begin with them; no buffer is
ever copied whole.
"""

from dataclasses import dataclass

import mlx.core as mx

from mtp_mlx.config import LayerSpec
from mtp_mlx.engine.borders import Borders
from mtp_mlx.engine.memory import Memory
from mtp_mlx.engine.sequence import Sequence
from mtp_mlx.fit import span_bytes, window_bytes
from mtp_mlx.model.backend import read_ints
from mtp_mlx.model.cache import Cache
from mtp_mlx.request import CacheUse

OFF = "off: the request asked for no prompt cache (cache=False)"
SCORED = "off: the request asks for prompt_logprobs, so the whole prompt must run"


@dataclass(frozen=True)
class Copy:
    """Copies that will hold the K/V of a row up to `border`, if it commits that far."""

    sequence: Sequence
    border: int
    spans: dict[int, list[mx.array]]
    window: list[mx.array]

    @property
    def arrays(self) -> list[mx.array]:
        return [*self.window, *(array for span in self.spans.values() for array in span)]


class Prefixes:
    """The kept texts of one engine, within `budget` bytes and what `memory` has left."""

    def __init__(
        self,
        layers: tuple[LayerSpec, ...],
        cache: Cache,
        memory: Memory,
        itemsize: int,
        chunk: int,
        budget: int,
    ) -> None:
        self._cache = cache
        self._memory = memory
        span = span_bytes(layers, chunk, itemsize)
        self.borders: Borders[list[mx.array], list[mx.array]] = Borders(
            chunk, budget, span, lambda border: window_bytes(layers, border, itemsize)
        )

    def make_way(self, prompt: tuple[int, ...], tokens: int) -> None:
        """Drop texts, if a row of at most `tokens` positions waits for nothing but them; what it
        might take up itself goes last."""
        short = self._memory.cost(tokens) - self._memory.free
        if short > 0 and self._memory.room_for(tokens):
            self.borders.find(prompt)
            self.borders.leave(self.borders.bytes - short)
            self._memory.kept = self.borders.bytes

    def start(self, sequence: Sequence) -> CacheUse:
        """Put the longest kept text that a prompt begins with into its row, which is empty.

        The last token of the prompt is left to run, for the state that predicts the next one.
        """
        if not sequence.request.may_cache:
            return CacheUse(0, SCORED if sequence.request.cache else OFF)
        prompt = sequence.request.prompt
        found = self.borders.find(prompt)
        if found.window is None:
            return CacheUse(0, found.reason)
        length = min(found.border, len(prompt) - 1)
        self._cache.restore(sequence.slot, found.spans, found.window, found.border, length)
        return CacheUse(length, found.reason)

    def reaches(self, sequence: Sequence, start: int, end: int) -> int | None:
        """The first border beyond `start` and up to `end` cached tokens where a row may be kept."""
        chunk = self.borders.chunk
        border = (start // chunk + 1) * chunk
        is_kept = self.borders.is_on and sequence.request.may_cache
        return border if is_kept and border <= end else None

    def copy(self, sequence: Sequence, start: int, end: int, promised: int = 0) -> Copy | None:
        """Copies for the border that a row may pass as it goes from `start` to `end` cached tokens,
        which are written; not evaluated yet. None where there is none, or no room for it beside
        `promised` bytes."""
        border = self.reaches(sequence, start, end)
        if border is None:
            return None
        known = sequence.tokens[:border]
        free = self._memory.free - promised
        wanted = self.borders.make_room(known, border, free, promised)
        self._memory.kept = self.borders.bytes
        if wanted is None:
            return None
        slot, chunk = sequence.slot, self.borders.chunk
        spans = {at: self._cache.span(slot, at, at + chunk) for at in wanted.starts}
        return Copy(sequence, border, spans, self._cache.window_at(slot, border))

    def copy_rows(
        self, sequences: tuple[Sequence, ...], draft_lengths: tuple[int, ...]
    ) -> tuple[Copy, ...]:
        """Copies for the running rows that may pass a border in the round that was just queued."""
        copies: list[Copy] = []
        promised = 0
        for sequence, length in zip(sequences, draft_lengths, strict=True):
            start = len(sequence.tokens) - 1
            made = self.copy(sequence, start, start + 1 + length, promised)
            if made is not None:
                copies.append(made)
                promised += sum(array.nbytes for array in made.arrays)
        return tuple(copies)

    def keep(self, copies: tuple[Copy, ...]) -> None:
        """Keep what was copied of the rows that have committed so far."""
        for made in copies:
            if made.border < len(made.sequence.tokens):  # the last token is pending, not cached
                ids = made.sequence.tokens[: made.border]
                self.borders.keep(ids, made.border, made.spans, made.window)
        self._memory.kept = self.borders.bytes

    def keep_chunk(self, sequence: Sequence, start: int, hidden: mx.array) -> None:
        """Keep a prompt up to the border at which a chunk of it ends that began at `start` and has
        just been committed with these states [T, D]; waits for the chunk. One with NaN or infinity
        in it is not kept."""
        end = sequence.num_prefilled
        made = self.copy(sequence, start, end)
        if made is None:
            mx.eval(hidden)
            return
        is_finite = mx.isfinite(hidden.sum(axis=-1)).all(keepdims=True)
        mx.eval(hidden, is_finite, made.arrays)
        if read_ints(is_finite.astype(mx.int32)) == [1]:
            self.borders.keep(sequence.tokens[:end], made.border, made.spans, made.window)
            self._memory.kept = self.borders.bytes
