"""Who decides how many drafts each row makes: a fixed number, or the policy.

The engine gives the rows with their caps before a round, and what came of it afterwards.
"""

from dataclasses import dataclass
from typing import Protocol

from mtp_mlx.config import TargetConfig
from mtp_mlx.engine import policy
from mtp_mlx.engine.policy import (
    Allocation,
    Calibration,
    Limits,
    Outcome,
    RowId,
    RowInput,
    Shadow,
    State,
    Timing,
)
from mtp_mlx.reply import RoundCosts
from mtp_mlx.request import AUTO_DRAFT_TOKENS, MAX_DRAFT_TOKENS

# Queries times heads of a group that one fused attention call takes (MLX 0.32, Metal).
FUSED_HEADS = 32


@dataclass(frozen=True)
class Decision:
    """Draft lengths of one round, by row: `lengths` are verified of the `made` drafts; those beyond
    are shadows, made to see whether they would have been right. `allocation`: how the policy came
    to it; None where nobody asked the policy."""

    lengths: tuple[int, ...]
    made: tuple[int, ...]
    allocation: Allocation | None = None

    @property
    def is_plain(self) -> bool:
        """Nothing is drafted at all, so that the round can run ahead."""
        return not any(self.made)

    @property
    def is_free(self) -> bool:
        """Some row might have drafted: there was something to decide."""
        return self.allocation is None or self.allocation.is_free

    @property
    def reason(self) -> str | None:
        """Why no row drafts, where the policy decided so."""
        return None if self.allocation is None else self.allocation.reason

    @property
    def costs(self) -> RoundCosts | None:
        """What the policy takes such rounds to cost."""
        if self.allocation is None:
            return None
        known = self.allocation.prices
        return RoundCosts(known.forward, known.depth_s, known.token_s, known.host_s)

    def __str__(self) -> str:
        if self.allocation is None:
            return f"drafts {','.join(map(str, self.lengths))}"
        return str(self.allocation)


def most_drafts(config: TargetConfig, *, on_gpu: bool) -> int:
    """Most drafts a round that are worth considering: fused attention takes a few queries a row.

    MLX's vector attention on a GPU takes at most 8 queries of one row, and at most 32 with all
    query heads of a K/V head; a deeper block leaves it. On a CPU there is no such limit.
    """
    if not on_gpu:
        return MAX_DRAFT_TOKENS
    queries = [FUSED_HEADS // (s.heads // s.kv_heads) for s in config.layers if s.window]
    return max(min(MAX_DRAFT_TOKENS + 1, *queries) - 1, 1)


class Planner(Protocol):
    """See PolicyPlanner. `k_max`: most drafts of a row that leaves their number open."""

    k_max: int

    def plan(self, rows: tuple[RowInput, ...], in_the_air: int = 0) -> Decision: ...

    def learn(
        self,
        decision: Decision,
        outcomes: tuple[Outcome, ...],
        timing: Timing,
        shadows: tuple[Shadow, ...],
    ) -> None: ...

    def retire(self, row: RowId) -> None: ...


class FixedPlanner:
    """As many drafts as a request names; AUTO_DRAFT_TOKENS for one that leaves it open."""

    k_max = AUTO_DRAFT_TOKENS

    def plan(self, rows: tuple[RowInput, ...], in_the_air: int = 0) -> Decision:
        lengths = tuple(row.cap for row in rows)
        return Decision(lengths, lengths)

    def learn(
        self,
        decision: Decision,
        outcomes: tuple[Outcome, ...],
        timing: Timing,
        shadows: tuple[Shadow, ...],
    ) -> None:
        """There is nothing to learn for."""

    def retire(self, row: RowId) -> None:
        """Nothing is known of any row."""


class PolicyPlanner:
    """The policy and what it has learned; requests that name a number get that number."""

    def __init__(self, calibration: Calibration, num_slots: int, k_max: int) -> None:
        self.k_max = k_max
        max_tokens = num_slots * (MAX_DRAFT_TOKENS + 1)
        self._max_tokens = max_tokens
        self.state = State.start(calibration, MAX_DRAFT_TOKENS, max_tokens)

    def plan(self, rows: tuple[RowInput, ...], in_the_air: int = 0) -> Decision:
        """Draft lengths for the rows of the next round, of which there is at least one, or of the
        one after so many rounds that have not landed yet."""
        limits = Limits(self._max_tokens, in_the_air=in_the_air)
        allocation = policy.allocate(self.state, rows, limits)
        return Decision(allocation.lengths, allocation.drafts, allocation)

    def learn(
        self,
        decision: Decision,
        outcomes: tuple[Outcome, ...],
        timing: Timing,
        shadows: tuple[Shadow, ...],
    ) -> None:
        """Take in a round that has landed, and the shadows that have been judged by now."""
        assert decision.allocation is not None, "this planner made the decision"
        self.state = policy.observe(self.state, decision.allocation, outcomes, timing, shadows)

    def retire(self, row: RowId) -> None:
        """A row has left."""
        self.state = policy.retire(self.state, row)
