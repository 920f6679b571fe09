"""What an engine has done since it began."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from mtp_mlx.engine.policy import Outcome, SeenExperts
from mtp_mlx.engine.round import Commit, Verdict
from mtp_mlx.engine.sequence import Sequence
from mtp_mlx.request import MAX_DRAFT_TOKENS, CacheUse, Request
from mtp_mlx.snapshot import RowStatus


@dataclass
class Counters:
    """Rounds, their rows and tokens N; drafts proposed and accepted, tokens emitted; tokens of
    prompts, and those of them that earlier texts had left. `drafted_at` and `accepted_at`: drafts
    by their position in the round.

    Where the model has experts, sums over forwards of experts a layer: `experts` distinct ones;
    those that rows beyond the first asked for and the new ones among them; the same of drafts.
    """

    rounds: int = 0
    plain_rounds: int = 0
    verified: int = 0
    rows: int = 0
    drafted: int = 0
    accepted: int = 0
    tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    experts: float = 0.0
    asked_by_rows: float = 0.0
    new_by_rows: float = 0.0
    asked_by_drafts: float = 0.0
    new_by_drafts: float = 0.0
    drafted_at: list[int] = field(default_factory=lambda: [0] * MAX_DRAFT_TOKENS)
    accepted_at: list[int] = field(default_factory=lambda: [0] * MAX_DRAFT_TOKENS)

    def count(self, sequence: Sequence, drafted: int, kept: Commit) -> None:
        """One row of one round."""
        sequence.drafted += drafted
        sequence.accepted += kept.accepted
        sequence.depth = drafted
        for place in range(drafted):
            self.drafted_at[place] += 1
            self.accepted_at[place] += place < kept.accepted
        self.rows += 1
        self.drafted += drafted
        self.accepted += kept.accepted
        self.tokens += len(kept.tokens)

    def count_prompt(self, request: Request, cache_use: CacheUse) -> None:
        """One prompt that begins to run."""
        self.prompt_tokens += len(request.prompt)
        self.cached_tokens += cache_use.cached_tokens

    def count_round(self, num_rows: int, num_tokens: int) -> None:
        """One round."""
        self.rounds += 1
        self.plain_rounds += num_rows == num_tokens
        self.verified += num_tokens

    def count_experts(
        self, num_rows: int, num_tokens: int, seen: SeenExperts, top_k: float
    ) -> None:
        """What the router chose in one round, `top_k` experts a token."""
        self.experts += seen.all
        self.asked_by_rows += top_k * (num_rows - 1)
        self.new_by_rows += seen.pending - top_k
        self.asked_by_drafts += top_k * (num_tokens - num_rows)
        self.new_by_drafts += seen.all - seen.pending

    def to_stats(self) -> dict[str, Any]:
        """The fields of reply.EngineStats that are counted here."""
        has_experts = self.experts > 0
        return {
            "rounds": self.rounds,
            "plain_rounds": self.plain_rounds,
            "verified": self.verified,
            "rows": self.rows,
            "drafted": self.drafted,
            "accepted": self.accepted,
            "tokens": self.tokens,
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": self.cached_tokens,
            "experts_per_layer": self.experts / self.rounds if has_experts else None,
            "expert_overlap_rows": _shared(self.asked_by_rows, self.new_by_rows),
            "expert_overlap_drafts": _shared(self.asked_by_drafts, self.new_by_drafts),
        }


def _shared(asked: float, new: float) -> float | None:
    """The share of what was asked for that was there already; None where nothing was asked."""
    return 1 - new / asked if asked else None


def row_statuses(
    sequences: tuple[Sequence, ...], waiting: Iterable[tuple[int, Request]]
) -> tuple[RowStatus, ...]:
    """The admitted rows, then those that wait."""
    admitted = (
        RowStatus(
            id=s.id,
            slot=s.slot,
            state="decode" if s.is_running else "prefill",
            prompt_tokens=len(s.request.prompt),
            prompt_done=s.num_prefilled,
            tokens=s.num_emitted,
            drafted=s.drafted,
            accepted=s.accepted,
            depth=s.depth,
        )
        for s in sequences
    )
    queued = (RowStatus(each, None, "queued", len(request.prompt)) for each, request in waiting)
    return (*admitted, *queued)


def outcome_of(sequence: Sequence, drafted: list[int], kept: Commit) -> Outcome:
    """What a round says of a row's drafts; of those behind the end of the reply it says nothing."""
    is_cut = kept.reason is not None and kept.accepted == len(kept.tokens)
    return Outcome(sequence.id, kept.accepted if is_cut else len(drafted), kept.accepted)


def seen_experts(verdict: Verdict, num_layers: int) -> SeenExperts | None:
    """The router's report of a round, per layer with experts; None where it has none."""
    if verdict.experts is None:
        return None
    return SeenExperts(verdict.experts.pending / num_layers, verdict.experts.all / num_layers)
