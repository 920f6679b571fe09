"""Figures of interleaved repeats: their median, how they scatter, and when a ratio may be told.

Heat, and other programs that come and go, fall on all that is compared when it is run in turn,
there and back (A B B A). A ratio is that of the same repeats, and is told only where its effect, by
how much the smaller side misses the larger one, is more than the spread of the repeats, and no more
than one of five says the opposite: else it is within the noise. That is the same for a ratio and
its inverse.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar

from mtp_mlx.engine.calibrate import spread_of

LEAST_REPEATS = 3  # fewer say nothing about how they scatter
WITHIN_NOISE = "within noise"

Progress = Callable[[str], None]


class Addable(Protocol):
    def __add__(self, other: Self, /) -> Self: ...


Sample = TypeVar("Sample", bound=Addable)


def interleaved(
    trials: Sequence[Callable[[int], Sample]], repeats: int
) -> tuple[tuple[Sample, ...], ...]:
    """By trial the samples of its repeats: a repeat is all trials in their order, then all again in
    the reverse, and a trial's sample is the sum of both. A trial is told the number of the pass."""
    found: list[list[Sample]] = [[] for _ in trials]
    for repeat in range(repeats):
        there = [run(2 * repeat) for run in trials]
        back = [run(2 * repeat + 1) for run in reversed(trials)]
        for own, first, second in zip(found, there, reversed(back), strict=True):
            own.append(first + second)
    return tuple(tuple(samples) for samples in found)


@dataclass(frozen=True)
class Figure:
    """A value of every repeat, in their order. `spread` is the relative deviation of one of them:
    a stall now and then does not count."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def spread(self) -> float | None:
        """None where there are too few to tell."""
        return spread_of([self.values]) if len(self.values) >= LEAST_REPEATS else None

    def over(self, base: "Figure") -> "Ratio":
        """This beside what was measured in the same repeats."""
        pairs = zip(self.values, base.values, strict=True)
        return Ratio(Figure(tuple(own / other for own, other in pairs)))

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        return {"median": self.median, "spread": self.spread, "values": list(self.values)}


@dataclass(frozen=True)
class Ratio:
    """How many times as much, repeat by repeat."""

    _of_repeats: Figure

    @property
    def value(self) -> float | None:
        """The median; None where it is within the noise: where more than one of five repeats says
        the opposite, or they scatter by more than the effect."""
        middle, spread = self._of_repeats.median, self._of_repeats.spread
        opposite = sum((each - 1) * (middle - 1) < 0 for each in self._of_repeats.values)
        if spread is None or opposite > len(self._of_repeats.values) // 5:
            return None
        return middle if 1 - min(middle, 1 / middle) > spread else None

    def __str__(self) -> str:
        return WITHIN_NOISE if self.value is None else f"{self.value:.2f}"

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict, which tells no ratio that is within the noise."""
        is_noise = self.value is None
        return {"ratio": self.value, "spread": self._of_repeats.spread, "within_noise": is_noise}
