"""Machines whose times are made up: no test may depend on how fast this one is."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import cycle

from mtp_mlx.config import ExpertSpec
from mtp_mlx.engine.policy import Experts

MS = 1e-3


class TickingClock:
    """Each reading is later than the one before by the next of some steps, which come round."""

    def __init__(self, *steps_ms: float) -> None:
        self.now = 0.0
        self._steps: Iterator[float] = cycle(steps_ms or (1.0,))

    def __call__(self) -> float:
        self.now += next(self._steps) * MS
        return self.now

    def perf_counter(self) -> float:
        """It stands for the module `time` too."""
        return self()


def steady(trial: int) -> float:
    """Every timing is exact."""
    return 1.0


@dataclass
class FakeBench:
    """See engine.timing.Bench: a forward of N tokens takes `forward_ms(N)` and waits `host_ms`.

    is_narrow: all tokens choose the same experts. `noise(i)` multiplies the timing after i calls.
    `calls` names what was asked for, in order.
    """

    num_slots: int = 8
    k_max: int = 7
    experts: ExpertSpec | None = None
    forward_ms: Callable[[int], float] = lambda tokens: 10.0 + tokens
    host_ms: float = 2.0
    depth_ms: float = 1.5
    token_ms: float = 0.25
    expert_ms: float = 0.5
    is_narrow: bool = False
    noise: Callable[[int], float] = steady
    calls: list[tuple] = field(default_factory=list)
    now: float = 0.0

    @property
    def max_tokens(self) -> int:
        return self.num_slots * (self.k_max + 1)

    @property
    def num_routed(self) -> int:
        return max(self.num_slots, 2)

    def clock(self) -> float:
        return self.now

    def forward_s(self, num_tokens: int) -> float:
        assert num_tokens <= self.max_tokens, "no such round"
        return self._take(("verify", num_tokens), self.forward_ms(num_tokens) + self.host_ms)

    def plain_s(self) -> float:
        return self._take(("plain",), self.forward_ms(1))

    def draft_s(self, num_rows: int, depth: int) -> float:
        step_ms = self.depth_ms + num_rows * self.token_ms
        return self._take(("draft", num_rows, depth), self.host_ms + depth * step_ms)

    def routed_s(self, *, is_alike: bool) -> float:
        name = "alike" if is_alike else "routed"
        return self._take((name,), 10.0 + self.expert_ms * self._distinct(is_alike))

    def distinct(self, *, is_alike: bool) -> float:
        self.calls.append(("count",))
        return self._distinct(is_alike)

    def _distinct(self, is_alike: bool) -> float:
        assert self.experts is not None
        pool = Experts(self.experts.num_experts, self.experts.top_k, 0.0)
        return pool.top_k if is_alike or self.is_narrow else pool.distinct(self.num_routed)

    def share_context(self) -> None:
        self.calls.append(("share",))

    def _take(self, call: tuple, milliseconds: float) -> float:
        seconds = milliseconds * MS * self.noise(len(self.calls))
        self.calls.append(call)
        self.now += seconds
        return seconds
