"""The real policy as a chooser of the simulator, started with what a calibration would give."""

import random
import statistics
import time

from bench.sim_machine import EXPERT_BYTES, NUM_EXPERTS, PLAIN_BYTES, TOP_K, Case, Machine
from bench.sim_run import Landed, Running
from mtp_mlx.engine import policy

# Where a calibration measures the verify, and how often (§5.2 of the design).
CALIBRATED = (1, 2, 3, 4, 5, 6, 8, 10, 12, 13, 16, 18, 24, 25, 32, 33, 40, 48, 56, 64)
REPEATS = 3
# A policy's table of costs needs no larger N.
MOST_TOKENS = 256


class Stopwatch:
    """Medians of noisy times, and how far the single times spread."""

    def __init__(self, noise: float, dice: random.Random) -> None:
        self.noise = noise
        self.dice = dice
        self.spreads: list[float] = []

    def median(self, exact: float) -> float:
        times = [exact * max(1 + self.dice.gauss(0, self.noise), 0.1) for _ in range(REPEATS)]
        if exact:
            self.spreads.append(statistics.stdev(times) / statistics.fmean(times))
        return statistics.median(times)

    @property
    def spread(self) -> float:
        """Relative standard deviation of one time, over all that was measured."""
        return statistics.fmean(value**2 for value in self.spreads) ** 0.5


def calibrate(machine: Machine, dice: random.Random) -> policy.Calibration:
    """Medians of noisy times of the machine's forward, draft step and host."""
    watch = Stopwatch(machine.noise, dice)
    experts = None
    if machine.moe is not None:
        moe = machine.moe
        per_expert = (1 - moe.fixed) * EXPERT_BYTES * (1 - moe.beta) / PLAIN_BYTES
        experts = policy.Experts(NUM_EXPERTS, TOP_K, watch.median(per_expert))
    return policy.Calibration(
        verify=tuple((n, watch.median(machine.calibrated(n))) for n in CALIBRATED),
        draft_depth_s=watch.median(machine.d0),
        draft_token_s=watch.median(machine.d1),
        host_s=watch.median(machine.host),
        spread=watch.spread,
        repeats=REPEATS,
        experts=experts,
    )


class Policy:
    """Drives allocate, observe and retire as the engine does."""

    def __init__(self, case: Case) -> None:
        self.k_max = case.k_max
        most = min(len(case.rows) * (case.k_max + 1), MOST_TOKENS)
        max_tokens = max(most, len(case.rows), CALIBRATED[-1])
        calibration = calibrate(case.machine, random.Random(f"{case.name}/calibration"))
        self.state = policy.State.start(calibration, case.k_max, max_tokens)
        self.limits = policy.Limits(max_tokens)
        self.allocation: policy.Allocation | None = None
        self._shapes: set[tuple[int, int]] = set()
        self._rows: list[int] = []
        self._spent: list[tuple[int, float]] = []  # rows and seconds of each decision

    def plan(self, running: list[Running]) -> tuple[list[int], list[int]]:
        started = time.perf_counter()
        rows = tuple(
            policy.RowInput(r.id, min(self.k_max, max(r.remaining - 1, 0))) for r in running
        )
        self.allocation = policy.allocate(self.state, rows, self.limits)
        self._spent.append((len(rows), time.perf_counter() - started))
        return list(self.allocation.lengths), list(self.allocation.drafts)

    def learn(self, landed: Landed) -> None:
        assert self.allocation is not None, "a round is planned before it lands"
        started = time.perf_counter()
        outcomes = tuple(
            policy.Outcome(r.id, drafted, accepted)
            for r, drafted, accepted in zip(
                landed.running, self.allocation.lengths, landed.accepted, strict=True
            )
        )
        shadows = tuple(
            policy.Shadow(s.running.id, s.verified, s.matched, s.drafted) for s in landed.shadows
        )
        experts = None if landed.experts is None else policy.SeenExperts(*landed.experts)
        timing = policy.Timing(landed.seconds, self._is_clean(landed.running), experts)
        self.state = policy.observe(self.state, self.allocation, outcomes, timing, shadows)
        rows, before = self._spent[-1]
        self._spent[-1] = (rows, before + time.perf_counter() - started)

    def _is_clean(self, running: list[Running]) -> bool:
        """As the engine's clock: no row came or left, and the shape is not new."""
        assert self.allocation is not None, "a round has landed"
        shape, rows = (len(running), self.allocation.num_tokens), [r.id for r in running]
        is_clean = rows == self._rows and shape in self._shapes
        self._shapes.add(shape)
        self._rows = rows
        return is_clean

    def leave(self, row_id: int) -> None:
        self.state = policy.retire(self.state, row_id)

    def timed(self, num_rows: int) -> list[float]:
        """Seconds of every decision for so many rows, with what was learned after it."""
        return [seconds for rows, seconds in self._spent if rows == num_rows]
