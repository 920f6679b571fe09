"""What was measured of a pair, with drafts beside without, and of another server."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mtp_mlx.measure.figures import Figure, Ratio
from mtp_mlx.measure.sample import Rounds, Sample
from mtp_mlx.measure.where import Where
from mtp_mlx.measured import Point

PLAIN = 0
SERVER = "server"

Drafts = int | str  # "auto", or SERVER for what the other server does


@dataclass(frozen=True)
class Settings:
    """What to measure. depths: drafts a round, "auto" among them or not; plain is always measured.
    prompt_tokens: of the prompts whose reading is timed. cost_s: seconds for the cost of a verify
    by its tokens."""

    batch_sizes: tuple[int, ...]
    depths: tuple[int | str, ...]
    repeats: int
    max_tokens: int
    prompt_tokens: int
    cost_s: float

    @property
    def all_depths(self) -> tuple[int | str, ...]:
        return (PLAIN, *(depth for depth in self.depths if depth != PLAIN))


THOROUGH = Settings((1, 4, 8), (PLAIN, "auto"), 5, 128, 512, 10.0)
QUICK = Settings((1, 4), (PLAIN, "auto"), 3, 48, 128, 2.0)


@dataclass(frozen=True)
class Line:
    """Batches of `rows` replies. is_alike: all to one question. drafts: 0 is plain, SERVER the
    other server. `samples`: by repeat; `plain` and `served`: of the same repeats."""

    rows: int
    is_alike: bool
    drafts: Drafts
    samples: tuple[Sample, ...]
    plain: tuple[Sample, ...]
    served: tuple[Sample, ...] | None = None

    @property
    def tokens_per_s(self) -> Figure:
        """New tokens of all rows by wall time, prompts included."""
        return _speed(self.samples)

    @property
    def row_tokens_per_s(self) -> float | None:
        """What a row gets once it has its first token, median; None where replies had no more."""
        return _median([each for sample in self.samples for each in sample.row_tokens_per_s])

    @property
    def first_s(self) -> float:
        """Seconds to the first token of a reply, median."""
        return Figure(tuple(each for sample in self.samples for each in sample.first_s)).median

    @property
    def over_plain(self) -> Ratio | None:
        """How many times the speed of plain decoding; None for plain itself."""
        return None if self.drafts == PLAIN else self.tokens_per_s.over(_speed(self.plain))

    @property
    def over_server(self) -> Ratio | None:
        """How many times the speed of the other server; None for itself, and without one."""
        if self.served is None or self.drafts == SERVER:
            return None
        return self.tokens_per_s.over(_speed(self.served))

    @property
    def rounds(self) -> Rounds | None:
        """Of all repeats."""
        return _all(self.samples).rounds

    @property
    def peak_bytes(self) -> int | None:
        return _all(self.samples).peak_bytes

    @property
    def decision(self) -> str | None:
        """Of auto, the policy's last, in words."""
        return _all(self.samples).decision

    @property
    def texts(self) -> tuple[str, ...]:
        """Of all replies."""
        return _all(self.samples).texts

    @property
    def num_different(self) -> int:
        """Replies that are not those of plain decoding."""
        pairs = zip(self.texts, _all(self.plain).texts, strict=True)
        return sum(own != plain for own, plain in pairs)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict; None where a figure is not known, or would be noise."""
        rounds, over = self.rounds, (self.over_plain, self.over_server)
        whole = _all(self.samples)
        return {
            "batch_size": self.rows,
            "prompts": "identical" if self.is_alike else "distinct",
            "drafts": self.drafts,
            "tokens_per_s": self.tokens_per_s.to_json(),
            "over_plain": None if over[0] is None else over[0].to_json(),
            "over_server": None if over[1] is None else over[1].to_json(),
            "row_tokens_per_s": self.row_tokens_per_s,
            "first_token_s": self.first_s,
            "replies": len(whole.texts),
            "tokens": whole.tokens,
            "different": self.num_different,
            "rounds": None if rounds is None else _rounds(rounds),
            "peak_memory_bytes": self.peak_bytes,
            "decision": self.decision,
        }


@dataclass(frozen=True)
class Reading:
    """Prompts of `tokens` tokens, `rows` at once, with no more than each reply's first token."""

    rows: int
    tokens: int
    samples: tuple[Sample, ...]

    @property
    def tokens_per_s(self) -> Figure:
        return Figure(tuple(sample.prompt_tokens / sample.seconds for sample in self.samples))

    @property
    def first_s(self) -> float:
        return Figure(tuple(each for sample in self.samples for each in sample.first_s)).median

    @property
    def peak_bytes(self) -> int | None:
        return _all(self.samples).peak_bytes

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        return {
            "batch_size": self.rows,
            "prompt_tokens": self.tokens,
            "tokens_per_s": self.tokens_per_s.to_json(),
            "first_token_s": self.first_s,
            "peak_memory_bytes": self.peak_bytes,
        }


@dataclass(frozen=True)
class Report:
    """All that was measured. `note`: see LLM.note; `costs`: a verify by its tokens N, without the
    host's wait of `cost_host_s`; empty and 0 without a drafter."""

    model: str
    draft_model: str | None
    dtype: str
    note: str | None
    where: Where
    settings: Settings
    server: str | None
    readings: tuple[Reading, ...]
    lines: tuple[Line, ...]
    costs: tuple[Point, ...]
    cost_host_s: float

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict; times in seconds."""
        first_s = self.costs[0].seconds if self.costs else 1.0
        return {
            "bench": "model",
            "model": self.model,
            "draft_model": self.draft_model,
            "dtype": self.dtype,
            "note": self.note,
            "machine": asdict(self.where),
            "settings": asdict(self.settings),
            "server": self.server,
            "prefill": [reading.to_json() for reading in self.readings],
            "decode": [line.to_json() for line in self.lines],
            "verify": [asdict(p) | {"of_one": p.seconds / first_s} for p in self.costs],
            "verify_host_s": self.cost_host_s,
        }


def _speed(samples: Sequence[Sample]) -> Figure:
    return Figure(tuple(sample.tokens / sample.seconds for sample in samples))


def _median(values: Sequence[float]) -> float | None:
    return Figure(tuple(values)).median if values else None


def _all(samples: Sequence[Sample]) -> Sample:
    """All repeats as one sample."""
    first, *others = samples
    return sum(others, start=first)


def _rounds(rounds: Rounds) -> dict[str, Any]:
    return asdict(rounds) | {
        "tokens_per_round": rounds.tokens_per_round,
        "acceptance": rounds.acceptance,
        "host_share": rounds.host_share,
        "host_s": rounds.host_s,
    }
