"""One sequence on its way through the engine, and the limits of its next round."""

from collections.abc import Callable
from dataclasses import dataclass, field

import mlx.core as mx

from mtp_mlx.request import NO_BUDGET, CacheUse, Logprob, Progress, Request, Thinking

# A row whose drafter gives NaN or impossible ids this often decodes plainly from then on.
MAX_DRAFTER_FAULTS = 3


@dataclass(frozen=True)
class Fixed:
    """What never changes of a row's processors, of every token [V] float32: what is added to its
    score, and how often the prompt holds it."""

    bias: mx.array
    prompt: mx.array


@dataclass
class Sequence:
    """A request in a slot.

    Invariant while it runs: cache.lengths[slot] == len(tokens) - 1. The last token is *pending*:
    emitted, not cached. `hidden` [D] is the target's state (final norm) that predicted it.
    `thinking`: where it stands with its budget.

    `parked`: why it makes no drafts any more; `declined`: why the planner's last word on it was
    none, where it might have drafted. `cache_use`: what was taken up when its prompt began to run.
    `prompt_logprobs`: of the prompt's tokens that have run, where they are asked for. `fixed`: made
    when first needed.

    `drafted` and `accepted` of its rounds so far, `depth` drafts of the last; `plain_s`: what its
    first `priced_rounds` would have taken without drafts.
    """

    id: int
    request: Request
    budget: int
    slot: int
    tokens: list[int]
    thinking: Thinking = NO_BUDGET
    num_prefilled: int = 0
    cache_use: CacheUse | None = None
    hidden: mx.array | None = None
    is_running: bool = False
    drafter_faults: int = 0
    parked: str | None = None
    declined: str | None = None
    prompt_logprobs: list[Logprob | None] = field(default_factory=list)
    fixed: Fixed | None = None
    drafted: int = 0
    accepted: int = 0
    depth: int = 0
    plain_s: float = 0.0
    priced_rounds: int = 0

    @staticmethod
    def of(id: int, request: Request, slot: int, context: int) -> "Sequence":
        """A request whose prompt has not begun to run, in a context of so many tokens."""
        budget = min(request.max_tokens, context - len(request.prompt))
        return Sequence(id, request, budget, slot, list(request.prompt), request.thinking)

    @property
    def pending(self) -> int:
        return self.tokens[-1]

    @property
    def num_emitted(self) -> int:
        return len(self.tokens) - len(self.request.prompt)

    @property
    def progress(self) -> Progress:
        """How much of its prompt is read now."""
        return Progress(self.id, self.num_prefilled, len(self.request.prompt))

    @property
    def remaining(self) -> int:
        """Tokens it may still emit."""
        return self.budget - self.num_emitted

    @property
    def plain_tokens_per_s(self) -> float | None:
        """Its speed without drafts, beside the rows it ran with; None where no costs are known."""
        return self.priced_rounds / self.plain_s if self.plain_s else None

    @property
    def limit(self) -> "RowLimit":
        stop_ids, is_end = self.request.stop_ids, self.request.is_end
        return RowLimit(stop_ids, self.remaining, is_end, self.thinking)

    @property
    def needs_its_tokens(self) -> bool:
        """Must the host know its last token before the next is chosen?"""
        request = self.request
        return request.constraint is not None or request.sampling.repeats_matter

    def note_fault(self, has_fault: bool) -> None:
        """Were the drafter's proposals unusable? A row whose are too often drafts no more."""
        self.drafter_faults += has_fault
        if self.drafter_faults >= MAX_DRAFTER_FAULTS:
            self.parked = f"the drafter gave unusable proposals {MAX_DRAFTER_FAULTS} times"

    def extend(self, tokens: tuple[int, ...]) -> None:
        """Take emitted tokens."""
        self.tokens.extend(tokens)
        for token in tokens:
            self.thinking = self.thinking.after(token)


@dataclass(frozen=True)
class RowLimit:
    """What a row may take of a round: at most `remaining` tokens, none after a stop, and what
    its budget of thinking leaves."""

    stop_ids: frozenset[int]
    remaining: int
    is_end: Callable[[int], bool]
    thinking: Thinking = NO_BUDGET
