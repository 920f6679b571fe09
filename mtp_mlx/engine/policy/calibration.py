"""What was measured of a machine and a pair of models before the first round."""

import math
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Experts:
    """The mixture-of-experts part of a forward.

    `expert_s`: seconds that one more distinct expert in every layer adds. A forward of random
    tokens, as the calibration runs, reads `num_experts * (1 - (1 - top_k / num_experts) ** N)`.
    """

    num_experts: int
    top_k: int
    expert_s: float

    def __post_init__(self) -> None:
        if not 0 < self.top_k < self.num_experts:
            raise ValueError(
                f"calibration: {self.top_k} of {self.num_experts} experts is no choice"
            )
        if not 0 <= self.expert_s < math.inf:
            raise ValueError("calibration: expert_s is not a number from 0")

    @classmethod
    def from_json(cls, values: dict) -> "Experts":
        """The inverse of `asdict`. Raises KeyError, TypeError or ValueError for other values."""
        num_experts, top_k = int(values["num_experts"]), int(values["top_k"])
        return cls(num_experts, top_k, float(values["expert_s"]))

    def distinct(self, tokens: float) -> float:
        """Expected distinct experts a layer for so many independently routed tokens."""
        return self.num_experts * (1 - (1 - self.top_k / self.num_experts) ** tokens)

    def independent(self, distinct: float) -> float:
        """The inverse: how many independently routed tokens read so many experts."""
        left = max(1 - distinct / self.num_experts, 1 / self.num_experts**2)
        return max(math.log(left) / math.log(1 - self.top_k / self.num_experts), 1.0)


@dataclass(frozen=True)
class Calibration:
    """Seconds of a forward by its tokens N, of a draft step, and of the host in a drafting round.

    A draft of `depth` positions and n tokens in all takes depth·draft_depth_s + n·draft_token_s.
    `spread`: relative standard deviation of one timing on this machine. `repeats`: timings behind
    each figure.
    """

    verify: tuple[tuple[int, float], ...]
    draft_depth_s: float
    draft_token_s: float
    host_s: float
    spread: float
    repeats: int = 3
    experts: Experts | None = None

    def __post_init__(self) -> None:
        counts = [count for count, _ in self.verify]
        if not counts or counts[0] != 1 or counts != sorted(set(counts)):
            raise ValueError(f"calibration: verify needs rising token counts from 1, not {counts}")
        if not all(0 < seconds < math.inf for _, seconds in self.verify):
            raise ValueError("calibration: verify has a time that is not positive")
        others = (self.draft_depth_s, self.draft_token_s, self.host_s, self.spread)
        if not all(0 <= figure < math.inf for figure in others):
            raise ValueError("calibration: a draft, host or spread figure is not a number from 0")
        if self.repeats < 1:
            raise ValueError(f"calibration: repeats is {self.repeats}, not at least 1")

    def to_json(self) -> dict:
        """Plain values for a JSON file."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict) -> "Calibration":
        """The inverse of `to_json`. Raises KeyError, TypeError or ValueError for other values."""
        experts = values["experts"]
        return cls(
            verify=tuple((int(count), float(seconds)) for count, seconds in values["verify"]),
            draft_depth_s=float(values["draft_depth_s"]),
            draft_token_s=float(values["draft_token_s"]),
            host_s=float(values["host_s"]),
            spread=float(values["spread"]),
            repeats=int(values["repeats"]),
            experts=None if experts is None else Experts.from_json(experts),
        )
