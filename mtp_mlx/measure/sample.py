"""What one batch of replies took."""

from dataclasses import dataclass

from mtp_mlx.snapshot import EngineStatus


@dataclass(frozen=True)
class Rounds:
    """An engine's rounds: their rows, drafts and tokens, and seconds, `eval_s` of them inside MLX's
    eval."""

    count: int
    rows: int
    drafted: int
    accepted: int
    tokens: int
    seconds: float
    eval_s: float

    @staticmethod
    def of(status: EngineStatus) -> "Rounds":
        """All of an engine so far."""
        stats, rounds = status.stats, status.rounds
        counts = (stats.rounds, stats.rows, stats.drafted, stats.accepted, stats.tokens)
        return Rounds(*counts, rounds.round_s, rounds.eval_s)

    def since(self, before: "Rounds") -> "Rounds":
        """Those that came after `before`."""
        return Rounds(
            self.count - before.count,
            self.rows - before.rows,
            self.drafted - before.drafted,
            self.accepted - before.accepted,
            self.tokens - before.tokens,
            self.seconds - before.seconds,
            self.eval_s - before.eval_s,
        )

    def __add__(self, other: "Rounds") -> "Rounds":
        return Rounds(
            self.count + other.count,
            self.rows + other.rows,
            self.drafted + other.drafted,
            self.accepted + other.accepted,
            self.tokens + other.tokens,
            self.seconds + other.seconds,
            self.eval_s + other.eval_s,
        )

    @property
    def host_share(self) -> float:
        """Of the rounds' time, what was spent outside MLX's eval."""
        return 1 - self.eval_s / self.seconds if self.seconds else 0.0

    @property
    def host_s(self) -> float:
        """Seconds of a round outside MLX's eval, mean."""
        return (self.seconds - self.eval_s) / self.count if self.count else 0.0

    @property
    def tokens_per_round(self) -> float:
        """Tokens that a row got of a round, mean."""
        return self.tokens / self.rows if self.rows else 0.0

    @property
    def acceptance(self) -> float | None:
        """The share of drafts that were accepted; None where none was made."""
        return self.accepted / self.drafted if self.drafted else None


@dataclass(frozen=True)
class Sample:
    """Replies that were asked for at once, and what they took, or several such batches one after
    the other.

    `prompt_tokens` and `tokens` of the replies are those of all; `first_s` and `row_tokens_per_s`
    are by reply: seconds to its first token, and its speed after that. `rounds`, `peak_bytes`, the
    most memory in use, and `decision`, the policy's last, are known of our own engine alone.
    """

    prompt_tokens: int
    tokens: int
    seconds: float
    first_s: tuple[float, ...]
    row_tokens_per_s: tuple[float, ...]
    texts: tuple[str, ...]
    rounds: Rounds | None = None
    peak_bytes: int | None = None
    decision: str | None = None

    def __add__(self, other: "Sample") -> "Sample":
        has_rounds = self.rounds is not None and other.rounds is not None
        has_peak = self.peak_bytes is not None and other.peak_bytes is not None
        return Sample(
            self.prompt_tokens + other.prompt_tokens,
            self.tokens + other.tokens,
            self.seconds + other.seconds,
            self.first_s + other.first_s,
            self.row_tokens_per_s + other.row_tokens_per_s,
            self.texts + other.texts,
            self.rounds + other.rounds if has_rounds else None,
            max(self.peak_bytes, other.peak_bytes) if has_peak else None,
            other.decision or self.decision,
        )
