"""What an engine notes of its rounds as they go: decisions, depths, and the host's seconds.

The host waits for the device once a round, so it cannot tell drafting from verifying: `launch` is
all that is done before it waits, `land` the wait, `commit` what follows, `prompt` a prompt's chunk.
On a CPU, where the queue is short, most of the computing falls into `launch`; what a round spends
inside MLX's eval is noted by itself, so that the rest of it is the host's own.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from mtp_mlx.engine.airborne import Airborne
from mtp_mlx.engine.planner import Decision
from mtp_mlx.engine.policy import Timing
from mtp_mlx.model.backend import eval_s
from mtp_mlx.reply import RoundCosts
from mtp_mlx.request import MAX_DRAFT_TOKENS
from mtp_mlx.snapshot import PHASES, ROUND_PHASES, BatchStats, Phase, RoundStats, kind_of


@dataclass
class _Batch:
    """Sums over the rounds of so many rows; see snapshot.BatchStats."""

    rounds: int = 0
    depths: list[int] = field(default_factory=lambda: [0] * (MAX_DRAFT_TOKENS + 1))
    timed_tokens: int = 0
    timed_s: float = 0.0
    plain_tokens: float = 0.0


class Watch:
    """`decision` and `costs`: of the last round that had a choice. `now`: a clock in seconds that
    never goes back. `inside`: seconds that this thread has spent inside MLX's eval."""

    def __init__(
        self,
        now: Callable[[], float] = time.perf_counter,
        inside: Callable[[], float] = eval_s,
    ) -> None:
        self.decision: Decision | None = None
        self.costs: RoundCosts | None = None
        self._depths: tuple[int, ...] = ()
        self._plain_tokens_per_s: float | None = None
        self._now = now
        self._since = now()
        self._inside = inside
        self._inside_since = inside()
        self._eval_s = 0.0
        self._seconds: dict[Phase, float] = dict.fromkeys(PHASES, 0.0)
        self._batches: dict[int, _Batch] = {}
        self._parked: Counter[str] = Counter()
        self._tokens = 0

    def begin(self) -> None:
        """A step begins."""
        self._since = self._now()
        self._inside_since = self._inside()

    def lap(self, phase: Phase) -> None:
        """What was done since the lap before belongs to this phase."""
        now, inside = self._now(), self._inside()
        self._seconds[phase] += now - self._since
        if phase in ROUND_PHASES:
            self._eval_s += inside - self._inside_since
        self._since, self._inside_since = now, inside

    def decide(self, air: Airborne) -> None:
        """A round is about to land; tells each row that was free to draft why it does not."""
        decision, sequences = air.decision, air.flight.sequences
        costs = decision.costs
        if costs is not None:
            if self.costs is None or len(costs.forward_s) > 1:
                self.costs = costs  # of a round that might have drafted, if there was one
            for sequence in sequences:
                sequence.plain_s += costs.forward_s[0]
                sequence.priced_rounds += 1
        num_rows = len(decision.lengths)
        self._depths = decision.lengths
        self._plain_tokens_per_s = None if costs is None else num_rows / costs.forward_s[0]
        if not decision.is_free:
            return
        self.decision = decision
        if decision.reason is not None:
            self._parked[kind_of(decision.reason)] += 1
        for sequence, row in zip(sequences, air.rows, strict=True):
            if row.cap and not row.is_command:
                sequence.declined = decision.reason

    def land(self, decision: Decision, timing: Timing, tokens: int) -> None:
        """A round has landed and is committed; `tokens`: of all rounds so far."""
        num_rows = len(decision.lengths)
        batch = self._batches.setdefault(num_rows, _Batch())
        batch.rounds += 1
        for length in decision.lengths:
            batch.depths[length] += 1
        costs = decision.costs
        if timing.is_clean and costs is not None:
            batch.timed_tokens += tokens - self._tokens
            batch.timed_s += timing.seconds
            batch.plain_tokens += num_rows * timing.seconds / costs.forward_s[0]
        self._tokens = tokens

    def stats(self, drafted_at: list[int], accepted_at: list[int]) -> RoundStats:
        """What it has noted, beside the counts of drafts by position."""
        reason = None if self.decision is None else self.decision.reason
        return RoundStats(
            seconds=dict(self._seconds),
            eval_s=self._eval_s,
            batches=tuple(
                BatchStats(
                    rows=rows,
                    rounds=batch.rounds,
                    depths=tuple(batch.depths),
                    timed_tokens=batch.timed_tokens,
                    timed_s=batch.timed_s,
                    plain_tokens=batch.plain_tokens,
                )
                for rows, batch in sorted(self._batches.items())
            ),
            drafted_per_position=tuple(drafted_at),
            accepted_per_position=tuple(accepted_at),
            depths=self._depths,
            plain_tokens_per_s=self._plain_tokens_per_s,
            parked=reason,
            parked_kind=None if reason is None else kind_of(reason),
            parked_rounds=dict(self._parked),
        )
