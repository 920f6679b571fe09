"""What a round will take: the calibrated curve over N, corrected by every clean round.

For each N the logarithm of the forward's time, with its variance; beside it one common scale, which
follows what changes all costs alike (heat, context, other work). A round's surprise is shared out
between its own N and the scale in the ratio of their variances (a Kalman filter without the cross
terms): a point measured once by the calibration learns from its first visits, later surprises are
taken for the scale's. Read as a table, the curve is non-decreasing in N: where noise says otherwise
neighbours are averaged by their certainty (isotonic regression).

Experts: the calibration runs random tokens, which share no experts. The text's own share is learned
from the router's counts (`between` rows and `within` a row, both 1 for random tokens), and the
difference in distinct experts times their price is added to the table.
"""

import math
from bisect import bisect_left
from dataclasses import dataclass, replace

from mtp_mlx.engine.policy.calibration import Calibration
from mtp_mlx.engine.policy.inputs import SeenExperts

# Surprises are cut here: a stall of the machine is not a cost.
CLAMP = 0.25
# Variance of a median of normal times over that of their mean.
MEDIAN_ERROR = 1.5
# Variance that a round adds to the scale and to a visited point (relative, per round): costs drift
# by some 20 % in a thousand rounds, the shape of the curve much less.
SCALE_WALK = 3e-4**2
POINT_WALK = 3e-5**2
# Variance of one time (relative): at least this, and how fast it is learned.
NOISE_FLOOR = 0.003**2
NOISE_GAIN = 0.02
# A point between two calibrated ones may lie anywhere between them: its standard deviation as a
# share of their difference.
BETWEEN_POINTS = 0.25
# Share of new experts: believed before the router reports, and how fast reports are followed.
BETWEEN_PRIOR, WITHIN_PRIOR = 1.0, 0.7
EXPERTS_GAIN = 0.05
WITHIN_ERROR = 0.25
# Sharing experts never saves more: the rest of the forward remains, whatever their price was said
# to be.
LEAST_ROUTED = 0.1


@dataclass(frozen=True)
class Costs:
    """The live curve. Index i of the tuples is N = i + 1; times in seconds."""

    calibration: Calibration
    log_s: tuple[float, ...]
    variance: tuple[float, ...]
    table: tuple[float, ...]
    noise: float
    scale: float = 0.0
    scale_variance: float = 0.0
    between: float = BETWEEN_PRIOR
    within: float = WITHIN_PRIOR
    num_reports: int = 0
    num_drafted: int = 0

    @classmethod
    def start(cls, calibration: Calibration, max_tokens: int) -> "Costs":
        """The curve of a calibration for every N up to `max_tokens`."""
        noise = max(calibration.spread**2, NOISE_FLOOR)
        knots = [_knot(calibration.verify, n) for n in range(1, max_tokens + 1)]
        log_s = tuple(math.log(seconds) for seconds, _ in knots)
        known = MEDIAN_ERROR * noise / calibration.repeats
        variance = tuple(known + (BETWEEN_POINTS * gap) ** 2 for _, gap in knots)
        return cls(calibration, log_s, variance, _isotonic(log_s, variance), noise)

    def draft_s(self, depth: int, num_drafts: int) -> float:
        """Seconds of drafting: `num_drafts` tokens in all, `depth` positions deep."""
        known = self.calibration
        rows = depth * known.draft_depth_s + num_drafts * known.draft_token_s
        return rows * math.exp(self.scale)

    def row_s(self) -> float:
        """Seconds that one more packed row adds to a forward far beyond any round, as a prefill."""
        known = self.calibration.verify
        if len(known) == 1:
            return known[0][1] * math.exp(self.scale)
        (left, low), (right, high) = known[-2], known[-1]
        return max(high - low, 0.0) / (right - left) * math.exp(self.scale)

    def host_s(self) -> float:
        return self.calibration.host_s * math.exp(self.scale)

    def forwards(self, num_rows: int, num_drafts: int, hope: float = 0.0) -> tuple[float, ...]:
        """Seconds of a forward of B rows with 0, 1, … drafts, `hope` standard errors better."""
        factor = math.exp(self.scale)
        table = self.table[num_rows - 1 : num_rows + num_drafts]
        if self.calibration.experts is not None:
            within = max(self.within - hope * WITHIN_ERROR / (1 + self.num_drafted), 0.0)
            table = tuple(
                self._routed_s(seconds, num_rows + n, num_rows, within)
                for n, seconds in enumerate(table)
            )
        if not hope:
            return tuple([factor * seconds for seconds in table])
        doubts = self.doubts(num_rows, num_drafts)
        pairs = zip(table, doubts, strict=True)
        return tuple(factor * seconds * math.exp(-hope * doubt) for seconds, doubt in pairs)

    def doubts(self, num_rows: int, num_drafts: int) -> tuple[float, ...]:
        """Relative standard errors of the forward of B rows with 0, 1, … drafts."""
        variance = self.variance[num_rows - 1 : num_rows + num_drafts]
        return tuple([math.sqrt(value) for value in variance])

    def draft_doubt(self) -> float:
        """Relative standard error of the calibrated times of drafting."""
        return math.sqrt(MEDIAN_ERROR * self.noise / self.calibration.repeats)

    def _routed_s(self, seconds: float, num_tokens: int, num_rows: int, within: float) -> float:
        """A forward that takes `seconds` for random tokens, for tokens that share experts."""
        experts = self.calibration.experts
        if experts is None:
            return seconds
        rows = 1 + self.between * (num_rows - 1)
        live = rows * (1 + within * (num_tokens - num_rows) / num_rows)
        saved_s = experts.expert_s * (experts.distinct(num_tokens) - experts.distinct(live))
        return max(seconds - saved_s, LEAST_ROUTED * seconds)

    def observe(self, num_tokens: int, num_rows: int, beside_s: float, seconds: float) -> "Costs":
        """Take in a round's time, which is above 0; `beside_s` of it drafting and host."""
        index = num_tokens - 1
        own = self._routed_s(math.exp(self.log_s[index]), num_tokens, num_rows, self.within)
        predicted = own * math.exp(self.scale) + beside_s
        surprise = min(max(math.log(seconds / predicted), -CLAMP), CLAMP)
        scale_variance = self.scale_variance + SCALE_WALK
        variance = self.variance[index] + POINT_WALK
        total = scale_variance + variance + self.noise
        gain, scale_gain = variance / total, scale_variance / total
        log_s = _with(self.log_s, index, self.log_s[index] + gain * surprise)
        variances = _with(self.variance, index, variance * (1 - gain))
        expected = max(total - self.noise, 0.0)
        noise = self.noise + NOISE_GAIN * (max(surprise**2 - expected, 0.0) - self.noise)
        return replace(
            self,
            log_s=log_s,
            variance=variances,
            table=_isotonic(log_s, variances),
            noise=max(noise, NOISE_FLOOR),
            scale=self.scale + scale_gain * surprise,
            scale_variance=scale_variance * (1 - scale_gain),
        )

    def observe_experts(self, num_tokens: int, num_rows: int, seen: SeenExperts) -> "Costs":
        """Take in what the router of one forward reported."""
        experts = self.calibration.experts
        if experts is None:
            return self
        costs = self
        if num_rows > 1:
            share = _share((experts.independent(seen.pending) - 1) / (num_rows - 1))
            between = self.between + EXPERTS_GAIN * (share - self.between)
            if not self.num_reports:
                between = share
            costs = replace(costs, between=between)
        drafts = num_tokens - num_rows
        if drafts:
            ratio = experts.independent(seen.all) / experts.independent(seen.pending)
            share = _share((ratio - 1) * num_rows / drafts)
            gain = max(EXPERTS_GAIN, 1 / (1 + self.num_drafted))
            within = self.within + gain * (share - self.within)
            costs = replace(costs, within=within, num_drafted=self.num_drafted + 1)
        return replace(costs, num_reports=self.num_reports + 1)


def _share(value: float) -> float:
    return min(max(value, 0.0), 1.0)


def _with(values: tuple[float, ...], index: int, value: float) -> tuple[float, ...]:
    return (*values[:index], value, *values[index + 1 :])


def _knot(points: tuple[tuple[int, float], ...], at: int) -> tuple[float, float]:
    """Seconds at N, linear between the points and on from the last; log gap of its neighbours."""
    counts = [count for count, _ in points]
    index = bisect_left(counts, at)
    if index < len(points) and counts[index] == at:
        return points[index][1], 0.0
    if len(points) == 1:
        return points[0][1] * at, math.log(at)
    index = min(index, len(points) - 1)
    (left, low), (right, high) = points[index - 1], points[index]
    seconds = max(low + (high - low) * (at - left) / (right - left), low)
    return seconds, abs(math.log(high / low))


def _isotonic(log_s: tuple[float, ...], variance: tuple[float, ...]) -> tuple[float, ...]:
    """The non-decreasing curve nearest to exp(log_s), each point weighed by its certainty."""
    blocks: list[tuple[float, float, int]] = []  # mean, weight, length
    for value, doubt in zip(log_s, variance, strict=True):
        mean, weight, length = value, 1 / doubt, 1
        while blocks and blocks[-1][0] > mean:
            before, heft, count = blocks.pop()
            mean = (mean * weight + before * heft) / (weight + heft)
            weight, length = weight + heft, length + count
        blocks.append((mean, weight, length))
    table: list[float] = []
    for mean, _, length in blocks:
        table += [math.exp(mean)] * length
    return tuple(table)
