"""A synthetic machine and synthetic rows: what a round costs and what of its drafts is accepted.

Time is in plain steps of one row. The policy under test is told what an engine would know: noisy
times, accepted counts, a noisy calibration. What a round is charged is the true time, without the
noise, so that two policies differ by their choices alone. Whether a draft is accepted depends on
the row and the place in its text, never on the policy: all policies meet the same random numbers.
"""

import random
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

# Expert layers of the 26B-A4B: 8 of 128 a token; seconds' shares of §3 of the byte model.
NUM_EXPERTS = 128
TOP_K = 8
SHARED_BYTES = 1.34
EXPERT_BYTES = 0.1005
PLAIN_BYTES = 2.144


def interpolate(points: tuple[tuple[float, float], ...], at: float) -> float:
    """Linear between the points, the last slope beyond the last, the first value before."""
    index = min(bisect_right(points, at, key=lambda point: point[0]), len(points) - 1)
    if len(points) == 1 or at <= points[0][0]:
        return points[0][1]
    (left, low), (right, high) = points[index - 1], points[index]
    return low + (high - low) * (at - left) / (right - left)


def distinct_experts(tokens: float) -> float:
    """Expected distinct experts a layer reads for so many independently routed tokens."""
    return NUM_EXPERTS * (1 - (1 - TOP_K / NUM_EXPERTS) ** tokens)


@dataclass(frozen=True)
class Moe:
    """§4.2: the share `fixed` of a step does not scale; `beta` is the cost of a repeated expert.

    `rho` is how alike neighbouring tokens of a row route; `identical`: all rows route as one.
    """

    fixed: float
    beta: float
    rho: float
    identical: bool = False

    def independent(self, num_tokens: int, num_rows: int) -> float:
        """How many independently routed tokens read as many experts as this forward."""
        drafts = num_tokens - num_rows
        if self.identical:
            return 1 + (1 - self.rho) * drafts / num_rows
        return num_rows + (1 - self.rho) * drafts

    def seconds(self, dense: float, num_tokens: int, experts: float) -> float:
        """Cost of a forward whose dense part costs `dense` steps and reads `experts` a layer."""
        repeats = max(TOP_K * num_tokens - experts, 0.0)
        read = SHARED_BYTES * dense + EXPERT_BYTES * (experts + self.beta * repeats)
        return self.fixed + (1 - self.fixed) * read / PLAIN_BYTES


@dataclass(frozen=True)
class Machine:
    """Costs in plain steps: the verify curve over N, a draft step `d0` + `d1` a row, the host."""

    verify: tuple[tuple[float, float], ...]
    d0: float
    d1: float
    host: float
    noise: float = 0.02
    drift: float = 0.0
    moe: Moe | None = None
    _known: dict[tuple[int, int], float] = field(default_factory=dict, compare=False)

    def forward(self, num_tokens: int, num_rows: int) -> float:
        """Cost of one target forward of N tokens from B rows."""
        known = self._known.get((num_tokens, num_rows))
        if known is None:
            known = interpolate(self.verify, num_tokens)
            if self.moe is not None:
                experts = distinct_experts(self.moe.independent(num_tokens, num_rows))
                known = self.moe.seconds(known, num_tokens, experts)
            self._known[num_tokens, num_rows] = known
        return known

    def calibrated(self, num_tokens: int) -> float:
        """The forward as a calibration sees it: random tokens, so every one routes by itself."""
        dense = interpolate(self.verify, num_tokens)
        if self.moe is None:
            return dense
        return self.moe.seconds(dense, num_tokens, distinct_experts(num_tokens))

    def draft(self, depth: int, num_drafts: int) -> float:
        return self.d0 * depth + self.d1 * num_drafts

    def round(self, lengths: list[int]) -> float:
        """A round that drafts so many tokens for each row; host time only where any row drafts."""
        forward = self.forward(sum(lengths) + len(lengths), len(lengths))
        return forward + self.drafting(lengths)

    def drafting(self, drafts: list[int]) -> float:
        """Making so many drafts for each row, and the host's part; nothing where there are none."""
        return self.draft(max(drafts), sum(drafts)) + self.host if any(drafts) else 0.0


Phases = tuple[tuple[int, tuple[float, ...]], ...]


@dataclass(frozen=True)
class Row:
    """A request: when it arrives, how many tokens it makes, how well its text can be drafted.

    `phases`: (tokens, conditional acceptance by draft position; the last value repeats), cycled.
    """

    name: str
    arrive: float
    tokens: int
    phases: Phases

    @cached_property
    def _draw(self) -> Callable[[], float]:
        return random.Random(self.name).random

    @cached_property
    def _luck(self) -> list[float]:
        return []

    @cached_property
    def _period(self) -> int:
        return sum(length for length, _ in self.phases)

    def rates_at(self, place: int) -> tuple[float, ...]:
        place %= self._period
        for length, rates in self.phases:
            if place < length:
                return rates
            place -= length
        raise AssertionError("a place lies in one of the phases")

    def matches(self, place: int, depth: int) -> int:
        """How many of `depth` drafts for the tokens from `place` on are the target's own."""
        luck, draw = self._luck, self._draw
        while len(luck) < place + depth:
            luck.append(draw())
        for index in range(depth):
            rates = self.phases[0][1] if len(self.phases) == 1 else self.rates_at(place + index)
            if luck[place + index] >= rates[min(index, len(rates) - 1)]:
                return index
        return depth


@dataclass(frozen=True)
class Case:
    """One regime with its rows. `horizon`: stop then, whatever is left; None: run to the end."""

    name: str
    machine: Machine
    rows: tuple[Row, ...]
    k_max: int = 7
    horizon: float | None = None
    kind: str = "own"
