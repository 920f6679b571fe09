"""What was measured of a pair on a machine: its costs, and where its drafter looks from best."""

from dataclasses import asdict, dataclass
from typing import Any

from mtp_mlx.engine.policy import Calibration


@dataclass(frozen=True)
class Point:
    """A forward of `tokens` tokens: median seconds of a pipelined one, without the host's wait, and
    the relative spread of what was timed, wait and all."""

    tokens: int
    seconds: float
    spread: float


@dataclass(frozen=True)
class Measured:
    """A calibration, with the points of its curve."""

    calibration: Calibration
    points: tuple[Point, ...]


@dataclass(frozen=True)
class PositionScore:
    """How drafts fare whose query position lies `back` places before the number of cached tokens.

    Teacher-forced on greedy replies, a burst after every token. Index 0 of both tuples is the first
    draft of a burst: `drafted` times the reply went on so far with all drafts before it right,
    `accepted` of them it was right too.
    """

    back: int
    drafted: tuple[int, ...]
    accepted: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"length - {self.back}" if self.back else "length"

    @property
    def tokens_per_round(self) -> float:
        """Expected tokens of a round that drafts so deep: 1 and the product of the rates."""
        total, survival = 1.0, 1.0
        for drafted, accepted in zip(self.drafted, self.accepted, strict=True):
            survival *= accepted / drafted if drafted else 0.0
            total += survival
        return total

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        derived = {"position": self.name, "tokens_per_round": self.tokens_per_round}
        return derived | asdict(self)
