"""Runs one case with a chooser of depths, fixed or the real policy, and measures its throughput.

A finished row leaves and nobody takes its place, so a policy that serves one row faster than the
others goes on with a smaller batch, and so does luck. Throughput is therefore compared *at the same
batch*: a run's tokens are worth what plain decoding pays for a token at the batch they were made
in, and the run's figure is that worth over its time, times plain's own tokens per unit time. At a
constant batch this is exactly tokens over time. Time without any row is not counted.
"""

import random
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from bench.sim_machine import Case, Row, distinct_experts

# The start-up is also reported apart: everything after so many plain steps.
START_STEPS = 200
# Router statistics are counts of whole experts, averaged over the layers: nearly exact.
EXPERTS_NOISE = 0.02


@dataclass
class Running:
    """A row in the batch: `place` tokens are made."""

    row: Row
    id: int
    place: int = 0

    @property
    def remaining(self) -> int:
        return self.row.tokens - self.place


@dataclass(frozen=True)
class Landed:
    """What an engine knows after a round; `seconds` is the measured, noisy time."""

    running: list[Running]
    accepted: list[int]
    seconds: float
    experts: tuple[float, float] | None
    shadows: list["Shadow"]


class Chooser(Protocol):
    """A chooser of draft lengths as the simulator drives it."""

    def plan(self, running: list[Running]) -> tuple[list[int], list[int]]:
        """Drafts to verify by row, and drafts to make by row: the rest are shadows."""
        ...

    def learn(self, landed: Landed) -> None: ...

    def leave(self, row_id: int) -> None: ...


class Fixed:
    """The same depth for every row in every round."""

    def __init__(self, depth: int) -> None:
        self.depth = depth

    def plan(self, running: list[Running]) -> tuple[list[int], list[int]]:
        lengths = [min(self.depth, r.remaining - 1) for r in running]
        return lengths, lengths

    def learn(self, landed: Landed) -> None:
        pass

    def leave(self, row_id: int) -> None:
        pass


@dataclass(frozen=True)
class Shadow:
    """Drafts that were not verified; their fate is known when the row has `known_at` tokens."""

    running: Running
    known_at: int
    verified: int
    matched: int
    drafted: int


@dataclass
class Tally:
    """Tokens, their worth in plain time, the time spent; worth and time again after the start."""

    tokens: int = 0
    worth: float = 0.0
    busy: float = 0.0
    late_worth: float = 0.0
    late_busy: float = 0.0

    def add(self, tokens: int, step: float, batch: int, seconds: float) -> None:
        worth = tokens * step / batch
        self.tokens += tokens
        self.worth += worth
        self.busy += seconds
        if self.busy > START_STEPS * step:
            self.late_worth += worth
            self.late_busy += seconds

    @property
    def efficiency(self) -> float:
        return self.worth / self.busy

    @property
    def late_efficiency(self) -> float:
        return self.late_worth / self.late_busy if self.late_busy else self.efficiency


class Simulation:
    """One run of a case: admits, plans, charges, accepts and reports, round after round."""

    def __init__(self, case: Case, chooser: Chooser, end: float) -> None:
        self.case = case
        self.chooser = chooser
        self.end = end
        self.now = 0.0
        self.tally = Tally()
        self.running: list[Running] = []
        self.shadows: list[Shadow] = []
        order = sorted(range(len(case.rows)), key=lambda i: (case.rows[i].arrive, i))
        self.waiting = deque(Running(case.rows[i], i) for i in order)
        self.noise = random.Random(f"{case.name}/noise")

    def run(self) -> Tally:
        horizon = self.case.horizon if self.case.horizon is not None else float("inf")
        while (self.running or self.waiting) and self.now < horizon:
            if not self.running:
                self.now = max(self.now, self.waiting[0].row.arrive)
            while self.waiting and self.waiting[0].row.arrive <= self.now:
                self.running.append(self.waiting.popleft())
            self.round()
        return self.tally

    def round(self) -> None:
        machine, batch = self.case.machine, len(self.running)
        lengths, drafts = self.chooser.plan(self.running)
        seconds = machine.round(lengths)
        if drafts != lengths:
            seconds += machine.drafting(drafts) - machine.drafting(lengths)
        seconds *= 1 + machine.drift * min(self.now / self.end, 1.0)
        accepted = [r.row.matches(r.place, k) for r, k in zip(self.running, lengths, strict=True)]
        self._start_shadows(lengths, drafts, accepted)
        made = 0
        for running, count in zip(self.running, accepted, strict=True):
            tokens = min(count + 1, running.remaining)
            running.place += tokens
            made += tokens
        self.now += seconds
        self.tally.add(made, machine.forward(batch, batch), batch, seconds)
        measured = seconds * max(1 + self.noise.gauss(0, machine.noise), 0.1)
        experts, judged = self._experts(sum(lengths)), self._judged()
        self.chooser.learn(Landed(self.running, accepted, measured, experts, judged))
        self._part()

    def _experts(self, num_drafts: int) -> tuple[float, float] | None:
        """Mean distinct experts a layer: of the pending tokens alone, and of this whole forward."""
        moe, batch = self.case.machine.moe, len(self.running)
        if moe is None:
            return None
        plain = distinct_experts(moe.independent(batch, batch))
        whole = distinct_experts(moe.independent(batch + num_drafts, batch))
        pending, drafted = (1 + self.noise.gauss(0, EXPERTS_NOISE) for _ in range(2))
        return plain * pending, max(whole * drafted, plain) * pending

    def _start_shadows(self, lengths: list[int], drafts: list[int], accepted: list[int]) -> None:
        """Drafts beyond the verified ones; they say nothing where a verified one was rejected."""
        rows = zip(self.running, lengths, drafts, accepted, strict=True)
        waiting = {shadow.running.id for shadow in self.shadows}  # one a row, as in the engine
        for running, length, drafted, count in rows:
            if drafted <= length or count < length or running.id in waiting:
                continue
            matched = running.row.matches(running.place, drafted)
            known_at = running.place + min(matched + 1, drafted)
            self.shadows.append(Shadow(running, known_at, length, matched, drafted))

    def _judged(self) -> list[Shadow]:
        """The shadows that the rows' tokens reach by now, taken out of those that wait."""
        judged = [s for s in self.shadows if s.running.place >= s.known_at]
        self.shadows = [s for s in self.shadows if s.running.place < s.known_at]
        return judged

    def _part(self) -> None:
        for running in self.running:
            if running.remaining <= 0:
                self.chooser.leave(running.id)
        self.running = [r for r in self.running if r.remaining > 0]
        self.shadows = [s for s in self.shadows if s.running.remaining > 0]


@dataclass(frozen=True)
class Result:
    """Throughputs in tokens per unit time; `late` figures leave the start-up out.

    `by_the_clock`: tokens over time of ours over plain's, where rows finish apart: with the batch
    that is left, see above. `exact_over_best_fixed`: what the best lengths by row would gain, were
    acceptance known.
    """

    name: str
    kind: str
    plain: float
    best_fixed: float
    best_fixed_depth: int
    ours: float
    late_over_plain: float
    late_over_best_fixed: float
    by_the_clock: float
    exact_over_best_fixed: float | None = None

    @property
    def over_plain(self) -> float:
        return self.ours / self.plain

    @property
    def over_best_fixed(self) -> float:
        return self.ours / self.best_fixed


def compare(case: Case, chooser: Chooser) -> Result:
    """Plain, every fixed depth and `chooser` on the same rows, arrivals and luck."""
    still = case.horizon or _plain_duration(case)
    fixed = [Simulation(case, Fixed(depth), still).run() for depth in range(case.k_max + 1)]
    plain, ours = fixed[0], Simulation(case, chooser, still).run()
    best = max(range(len(fixed)), key=lambda depth: fixed[depth].efficiency)
    rate = plain.tokens / plain.busy / plain.efficiency
    late = max(run.late_efficiency for run in fixed)
    return Result(
        name=case.name,
        kind=case.kind,
        plain=rate * plain.efficiency,
        best_fixed=rate * fixed[best].efficiency,
        best_fixed_depth=best,
        ours=rate * ours.efficiency,
        late_over_plain=ours.late_efficiency / plain.late_efficiency,
        late_over_best_fixed=ours.late_efficiency / late,
        by_the_clock=ours.tokens / ours.busy / (plain.tokens / plain.busy),
    )


def _plain_duration(case: Case) -> float:
    """When plain decoding would end without drift: the time by which the drift is complete."""
    still = Simulation(case, Fixed(0), float("inf"))
    still.run()
    return still.now
