"""One sequence on its way through the engine, and the limits of its next round."""

from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx

from mtp_mlx.request import CacheUse, Request


@dataclass
class Sequence:
    """A request in a slot.

    Invariant while it runs: cache.lengths[slot] == len(tokens) - 1. The last token is *pending*:
    emitted, not cached. `hidden` [D] is the target's state (final norm) that predicted it.

    `parked`: why it makes no drafts any more; `declined`: why the planner's last word on it was
    none, where it might have drafted. `cache_use`: what was taken up when its prompt began to run.
    """

    id: int
    request: Request
    budget: int
    slot: int
    tokens: list[int]
    num_prefilled: int = 0
    cache_use: CacheUse | None = None
    hidden: mx.array | None = None
    is_running: bool = False
    drafter_faults: int = 0
    parked: str | None = None
    declined: str | None = None

    @staticmethod
    def of(id: int, request: Request, slot: int, context: int) -> "Sequence":
        """A request whose prompt has not begun to run, in a context of so many tokens."""
        budget = min(request.max_tokens, context - len(request.prompt))
        return Sequence(id, request, budget, slot, list(request.prompt))

    @property
    def pending(self) -> int:
        return self.tokens[-1]

    @property
    def num_emitted(self) -> int:
        return len(self.tokens) - len(self.request.prompt)

    @property
    def remaining(self) -> int:
        """Tokens it may still emit."""
        return self.budget - self.num_emitted

    @property
    def limit(self) -> "RowLimit":
        return RowLimit(self.request.stop_ids, self.remaining, self.request.is_end)


@dataclass(frozen=True)
class RowLimit:
    """What a row may take of a round: at most `remaining` tokens, none after a stop."""

    stop_ids: frozenset[int]
    remaining: int
    is_end: Callable[[int], bool]
