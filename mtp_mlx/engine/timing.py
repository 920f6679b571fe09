"""What parts of a round take on this machine: a loaded pair, a cache of its own, and a clock.

Every row holds a few random tokens of context. A forward of N tokens is laid out as in a round with
few chats: in as few rows as hold N, each of at most k_max + 1 tokens, as equal as possible. Its ids
are random and new each time: equal ids would share experts and hide what experts cost. Nothing is
committed, so each forward starts where the one before did.

Use from the thread that owns MLX.
"""

from collections.abc import Callable, Sequence

import mlx.core as mx
import numpy as np

from mtp_mlx.config import ExpertSpec
from mtp_mlx.engine.choosing import is_finite
from mtp_mlx.engine.round import first_tokens
from mtp_mlx.model.backend import read_ints
from mtp_mlx.model.batch import Batch, Row
from mtp_mlx.model.choose import Choice, choose
from mtp_mlx.model.drafter import Drafts
from mtp_mlx.model.head import Logits
from mtp_mlx.model.routes import Routes
from mtp_mlx.model.target import Target
from mtp_mlx.model.view import draft_view
from mtp_mlx.request import MAX_DRAFT_TOKENS, Sampling

Clock = Callable[[], float]

MAX_BLOCK = MAX_DRAFT_TOKENS + 1  # of the engine's rings
CONTEXT_TOKENS = MAX_BLOCK  # of each row: one packed forward writes them all
SEED = 20  # of the ids; any other would do
# Plain steps of one run, at most as many as the rings hold provisionally; the first and the last
# fill and empty the pipeline, and are not timed.
RUN_STEPS = 5
# Fewer rows cannot show what sharing experts saves.
MIN_ROUTED_ROWS = 2
COUNTED_FORWARDS = 4


class Bench:
    """Times forwards, plain runs and drafts of one pair; all results are seconds."""

    def __init__(
        self, target: Target, drafter: Drafts, num_slots: int, k_max: int, clock: Clock
    ) -> None:
        """num_slots: rows that a round may have. k_max: drafts a row at most, 1 to 7."""
        assert 1 <= k_max <= MAX_DRAFT_TOKENS, k_max
        self.target = target
        self.drafter = drafter
        self.num_slots = num_slots
        self.k_max = k_max
        self.clock = clock
        self.experts = _experts(target)
        self.num_routed = num_slots if self.experts is None else max(num_slots, MIN_ROUTED_ROWS)
        self._random = np.random.default_rng(SEED)
        self._cache = target.new_cache(self.num_routed, MAX_BLOCK)
        self._hidden = self._write_context()

    @property
    def max_tokens(self) -> int:
        """The most tokens N of a round."""
        return self.num_slots * (self.k_max + 1)

    def forward_s(self, num_tokens: int) -> float:
        """A forward of N random tokens with the head and the choice, and the wait for it."""
        return self._timed(lambda: self._queue(self._layout(num_tokens), self._draw(num_tokens)))

    def plain_s(self) -> float:
        """A plain step of one row with the next always queued behind it, as the engine decodes."""
        ahead = self._plain_step(0, mx.array(self._draw(1)))
        behind = self._plain_step(1, ahead[:1])
        read_ints(ahead)
        started = self.clock()
        for step in range(2, RUN_STEPS):
            ahead, behind = behind, self._plain_step(step, behind[:1])
            read_ints(ahead)
        took = self.clock() - started
        read_ints(behind)
        return took / (RUN_STEPS - 2)

    def _plain_step(self, step: int, token: mx.array) -> mx.array:
        report = self._queue((Row(0, self._cache.lengths[0] + step, 1),), token)
        mx.async_eval(report)
        return report

    def draft_s(self, num_rows: int, depth: int) -> float:
        """Drafting `depth` tokens for each of some rows, one after the other, and the wait."""
        return self._timed(lambda: self._draft(num_rows, depth))

    def routed_s(self, *, is_alike: bool) -> float:
        """A forward of one token a row: the same for all rows, or random ones.

        Rows of the same token and context (`share_context`) need the same experts.
        """
        return self._timed(lambda: self._route(is_alike))

    def distinct(self, *, is_alike: bool) -> float:
        """Experts that a layer reads in such a forward, mean over layers and a few forwards."""
        every = [read_ints(self._route(is_alike))[-1] for _ in range(COUNTED_FORWARDS)]
        return sum(every) / len(every) / self.target.config.num_expert_layers

    def share_context(self) -> None:
        """Give all rows the context of the first, for good."""
        for slot in range(1, self.num_routed):
            self._cache.copy(0, slot)

    def _route(self, is_alike: bool) -> mx.array:
        rows = self._rows([1] * self.num_routed)
        ids = self._draw(1) * self.num_routed if is_alike else self._draw(self.num_routed)
        return self._queue(rows, ids)

    def _timed(self, work: Callable[[], mx.array]) -> float:
        started = self.clock()
        read_ints(work())
        return self.clock() - started

    def _draw(self, count: int) -> list[int]:
        drawn = self._random.integers(self.target.config.vocab_size, size=count)
        return [int(token) for token in drawn]

    def _layout(self, num_tokens: int) -> tuple[Row, ...]:
        num_rows = -(-num_tokens // (self.k_max + 1))
        base, more = divmod(num_tokens, num_rows)
        return self._rows([base + (row < more) for row in range(num_rows)])

    def _rows(self, lengths: Sequence[int]) -> tuple[Row, ...]:
        return tuple(Row(s, self._cache.lengths[s], length) for s, length in enumerate(lengths))

    def _write_context(self) -> mx.array:
        """Commit each row's context; the state [rows, D] of its last token."""
        rows = self._rows([CONTEXT_TOKENS] * self.num_routed)
        ids = mx.array(self._draw(CONTEXT_TOKENS * self.num_routed))
        hidden = self.target(Batch.of(rows, ids), self._cache)
        last = hidden[CONTEXT_TOKENS - 1 :: CONTEXT_TOKENS]
        mx.eval(last)
        for row in rows:
            self._cache.commit(row.slot, row.length)
        return last

    def _queue(self, rows: tuple[Row, ...], ids: list[int] | mx.array) -> mx.array:
        """What the host reads of a verify forward, as `round.launch` queues it: the choices [N],
        whether they are sound [N], and where there are experts the fields of Distinct."""
        tokens = ids if isinstance(ids, mx.array) else mx.array(ids)
        routes = Routes() if self.target.config.num_expert_layers else None
        hidden = self.target(Batch.of(rows, tokens), self._cache, routes)
        logits = self.target.logits(hidden)
        chosen = choose(Logits(logits), _greedy(len(tokens)))
        parts = [chosen, is_finite(hidden, logits).astype(mx.int32)]
        if routes is not None:
            parts.append(routes.distinct(first_tokens(rows)))
        return mx.concatenate(parts)

    def _draft(self, num_rows: int, depth: int) -> mx.array:
        view = draft_view(self._cache, tuple(range(num_rows)))
        tokens, hidden = mx.array(self._draw(num_rows)), self._hidden[:num_rows]
        report = []
        for _ in range(depth):
            logits, hidden = self.drafter.step(self.target.embed(tokens), hidden, view)
            tokens = choose(logits, _greedy(num_rows))
            is_sound = mx.isfinite(logits.scores.max(axis=-1))
            report += [tokens, is_sound.astype(mx.int32)]
        return mx.concatenate(report)


def _greedy(count: int) -> Choice:
    return Choice([Sampling()] * count, [0] * count)


def _experts(target: Target) -> ExpertSpec | None:
    """What the layers choose experts from, all alike in every model; None without a choice."""
    for layer in target.config.layers:
        if layer.experts is not None and layer.experts.top_k < layer.experts.num_experts:
            return layer.experts
    return None
