"""What the engine's thread lets others see while it runs: plain values, published now and then."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from mtp_mlx.reply import EngineStats

RowState = Literal["queued", "prefill", "decode"]
# Of the host's time in a step: until it waits for the device, the wait, what it does with the
# round's tokens, and a prompt's chunk.
Phase = Literal["launch", "land", "commit", "prompt"]
PHASES: tuple[Phase, ...] = get_args(Phase)
ROUND_PHASES: tuple[Phase, ...] = ("launch", "land", "commit")
# Why rows do not draft, by how the engine's own words for it begin.
REASONS = {
    "parked: no row may draft": "no_row_may_draft",
    "parked, drafting would not pay": "would_not_pay",
    "parked, drafting not yet sure to pay": "not_sure_to_pay",
    "a draft led the target to NaN": "not_finite",
    "the drafter gave unusable proposals": "unusable_drafts",
}


def kind_of(reason: str) -> str:
    """A reason without its figures, one of a few."""
    kinds = (kind for words, kind in REASONS.items() if reason.startswith(words))
    return next(kinds, "other")


@dataclass(frozen=True)
class RowStatus:
    """A request at one moment. `slot`: None while it waits for a row. Of its prompt, `prompt_done`
    tokens are read; `tokens` are emitted; `depth`: drafts of its last round. `tokens_per_s`: of the
    last seconds, None before there is anything to tell it by."""

    id: int
    slot: int | None
    state: RowState
    prompt_tokens: int
    prompt_done: int = 0
    tokens: int = 0
    drafted: int = 0
    accepted: int = 0
    depth: int = 0
    tokens_per_s: float | None = None


@dataclass(frozen=True)
class BatchStats:
    """Rounds of so many rows. `depths[d]`: how often a row had d drafts verified.

    Of the rounds whose time nothing else shared and whose costs are known: `timed_tokens` came in
    `timed_s` seconds, in which plain decoding would have made `plain_tokens`, by the costs.
    """

    rows: int
    rounds: int
    depths: tuple[int, ...]
    timed_tokens: int
    timed_s: float
    plain_tokens: float

    @property
    def speedup(self) -> float | None:
        """How many times as fast as plain decoding; None where nothing was timed."""
        return self.timed_tokens / self.plain_tokens if self.plain_tokens else None


@dataclass(frozen=True)
class RoundStats:
    """An engine's rounds since it began.

    `seconds`: the host's, by phase; `eval_s`: those of them that rounds, not prompts, spent inside
    MLX's eval. `drafted_per_position[i]`: rounds of rows that verified a draft
    i + 1, of which `accepted_per_position[i]` emitted it. `depths`: drafts of the last round's
    rows; `plain_tokens_per_s`: what these would have made together without drafts, by the costs.
    `parked`: why no row drafted when it last was the policy's choice, without its figures
    `parked_kind`; `parked_rounds`: rounds in which none did, by kind. The NumPy reference counts
    positions alone.
    """

    seconds: Mapping[Phase, float]
    batches: tuple[BatchStats, ...]
    drafted_per_position: tuple[int, ...]
    accepted_per_position: tuple[int, ...]
    depths: tuple[int, ...] = ()
    plain_tokens_per_s: float | None = None
    parked: str | None = None
    parked_kind: str | None = None
    parked_rounds: Mapping[str, int] = field(default_factory=dict)
    eval_s: float = 0.0

    @property
    def round_s(self) -> float:
        """Seconds of all rounds, without what prompts took between them."""
        return sum(self.seconds.get(phase, 0.0) for phase in ROUND_PHASES)


@dataclass(frozen=True)
class EngineStatus:
    """An engine between two steps; `rows` are the admitted ones by slot, then those that wait."""

    stats: EngineStats
    rows: tuple[RowStatus, ...]
    rounds: RoundStats


@dataclass(frozen=True)
class Snapshot:
    """The engine as its thread last showed it: at most a quarter of a second ago while it takes
    steps, and exactly as it is while it has nothing to do.

    `at` and `last_step_at` are seconds of time.monotonic: when it was shown, and when a step last
    ended (when there was last nothing to do, if that is later). `steps`, and the `tokens` that they
    emitted, are counted since the model was loaded; the sums of `stats` and `rounds` since the
    engine began, which begins anew when it has failed. `tokens_per_s` of all rows, over the last
    seconds. `active_bytes` in use on the device, None where that is not known, and `peak_bytes`,
    the most so far. `stopped`: why the thread has ended, None while it runs.
    """

    at: float
    last_step_at: float
    steps: int
    tokens: int
    stats: EngineStats
    rows: tuple[RowStatus, ...]
    rounds: RoundStats
    tokens_per_s: float
    active_bytes: int | None
    peak_bytes: int
    stopped: str | None = None

    def stalled_s(self, now: float) -> float:
        """Seconds since a step last ended; 0 while there is nothing to do. `now`: the monotonic
        clock's."""
        return 0.0 if self.stats.is_idle else now - self.last_step_at
