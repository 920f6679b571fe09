"""How likely each row's drafts are right, by draft position, from what was seen of them.

`a_j` is the probability that draft j agrees with the target given that drafts 1..j-1 did. A round
that accepts `a` of k drafts shows a success at 1..a and, if a < k, a failure at a + 1; what lies
beyond is unseen. So one round at depth k informs every smaller depth at once.

Every row keeps two memories of its outcomes, long and short, and an alarm: the log-likelihood by
which the short one has lately predicted better, over all positions. While the alarm is low the long
memory speaks; as it rises the short one takes over, and at RESTART the long memory starts again
from the short one: the text has changed. The *pool* is the sum of the long memories of all rows and
of those that have left. What it holds of the other rows is a row's prior, strong where the rows'
rates differ by no more than chance and weak where they differ by more (the variance between rows by
the method of moments, DerSimonian and Laird 1986). The prior of a deeper position follows the
position before it, so that an unseen depth looks like its neighbour and not like nothing.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from mtp_mlx.engine.policy.inputs import RowId

# What is believed of a pair nobody has measured, and how many trials that belief is worth.
PRIOR_RATE = 0.75
PRIOR_TRIALS = 4.0
# A deeper draft is worth a little less than the one before, until seen otherwise; what the pool saw
# of the ratio counts within these bounds, for it may be of other texts.
CHAIN = 0.98
LEAST_RATIO, MOST_RATIO = 0.5, 1.2
# Discounts, at each new trial of a position (long) or each new outcome (short): memories of about
# 200 and 5 trials for a row.
GAIN, SHORT_GAIN = 0.995, 0.8
# Most trials of a position that the rows that have left are remembered by.
MOST_DEPARTED = 300.0
# Trials that the pool is worth to a row: at most (rows alike), at least (rows that differ) and
# where there are too few rows to tell.
ALIKE, UNLIKE, UNKNOWN = 40.0, 2.0, 12.0
# Trials of the long memory lent to the short one, so that one outcome is not a rate.
SHORT_PRIOR = 2.0
# Alarm in nats: at SWAY both memories speak equally; at RESTART the long one starts again.
SWAY, RESTART = 3.0, 5.0
# Standard errors below the estimate at which a plan must already pay to be free of the credit, and
# above it at which an unknown rate is still worth exploring.
CAUTION, HOPE = 0.85, 1.5
LOWEST, HIGHEST = 0.02, 0.985


@dataclass(frozen=True)
class Memory:
    """Discounted hits and trials by draft position, in the long and the short run."""

    hits: tuple[float, ...]
    trials: tuple[float, ...]
    short_hits: tuple[float, ...]
    short_trials: tuple[float, ...]
    alarm: float = 0.0

    @classmethod
    def empty(cls, k_max: int) -> "Memory":
        none = (0.0,) * k_max
        return cls(none, none, none, none)


@dataclass(frozen=True)
class Estimate:
    """Of one row or of the pool, by draft position: `rate` is the one to plan with.

    `low` and `high` are CAUTION and HOPE standard errors off, and `low` takes nothing on trust: it
    is 0 without a trial. `long` and `short` are the two memories' own.
    """

    rate: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    long: tuple[float, ...]
    short: tuple[float, ...]


@dataclass(frozen=True)
class Seen:
    """One row's outcome: its drafts from `first` to `drafted` were compared, `matched` agreed.

    `first` drafts are known from elsewhere to agree and are not counted again.
    """

    row: RowId
    matched: int
    drafted: int
    first: int = 0


@dataclass(frozen=True)
class Counts:
    """Hits and trials by draft position, of several rows."""

    hits: tuple[float, ...]
    trials: tuple[float, ...]

    @classmethod
    def of(cls, memories: Iterable["Memory | Counts"], k_max: int) -> "Counts":
        """The sum of the long memories."""
        hits, trials = [0.0] * k_max, [0.0] * k_max
        for memory in memories:
            for j in range(k_max):
                hits[j] += memory.hits[j]
                trials[j] += memory.trials[j]
        return cls(tuple(hits), tuple(trials))

    def bounded(self) -> "Counts":
        """The same rates of at most MOST_DEPARTED trials."""
        most = max(self.trials, default=0.0)
        share = min(1.0, MOST_DEPARTED / most) if most else 1.0
        hits, trials = (tuple(share * count for count in c) for c in (self.hits, self.trials))
        return Counts(hits, trials)


@dataclass(frozen=True)
class Acceptance:
    """All memories, and the estimates made of them.

    `departed`: of the rows that have left; `pool`: of these and all others.
    """

    k_max: int
    departed: Counts
    pool: Counts
    rows: Mapping[RowId, Memory]
    estimates: Mapping[RowId, Estimate]

    @classmethod
    def start(cls, k_max: int) -> "Acceptance":
        nobody = Counts.of((), k_max)
        return cls(k_max, nobody, nobody, {}, {})

    @cached_property
    def unseen(self) -> Estimate:
        """Of a row of which nothing is known."""
        return _estimate(self.pool, Memory.empty(self.k_max), UNKNOWN)

    def of(self, row: RowId) -> Estimate:
        """The row's estimate; of a row not seen yet, the pool's."""
        return self.estimates.get(row) or self.unseen

    def observe(self, outcomes: tuple[Seen, ...]) -> "Acceptance":
        """Take in what was seen of some rows, and estimate all rows anew."""
        if not outcomes:
            return self
        rows = dict(self.rows)
        for seen in outcomes:
            before = rows.get(seen.row)
            if before is None:
                before = Memory.empty(self.k_max)
            memory = _remember(before, seen, self.of(seen.row))
            rows[seen.row] = memory if memory.alarm < RESTART else _restarted(memory)
        return self._estimated(self.departed, rows)

    def retire(self, row: RowId) -> "Acceptance":
        """Forget a row that has left; the pool keeps what it taught."""
        if row not in self.rows:
            return self
        departed = Counts.of((self.departed, self.rows[row]), self.k_max).bounded()
        return self._estimated(departed, {k: v for k, v in self.rows.items() if k != row})

    def _estimated(self, departed: Counts, rows: dict[RowId, Memory]) -> "Acceptance":
        weight = _pool_weight(tuple(rows.values()))
        pool = Counts.of((departed, *rows.values()), self.k_max)
        return replace(
            self,
            departed=departed,
            pool=pool,
            rows=rows,
            estimates={row: _estimate(pool, memory, weight) for row, memory in rows.items()},
        )


def _remember(memory: Memory, seen: Seen, estimate: Estimate) -> Memory:
    """The memory with one more outcome; `estimate` is what was believed before it."""
    hits, trials = list(memory.hits), list(memory.trials)
    short_hits = [SHORT_GAIN * count for count in memory.short_hits]
    short_trials = [SHORT_GAIN * count for count in memory.short_trials]
    alarm = memory.alarm
    for j in range(seen.first, min(seen.matched + 1, seen.drafted)):
        hit = j < seen.matched
        hits[j] = GAIN * hits[j] + hit
        trials[j] = GAIN * trials[j] + 1
        short_hits[j] += hit
        short_trials[j] += 1
        short, long = estimate.short[j], estimate.long[j]
        better = math.log(short / long) if hit else math.log((1 - short) / (1 - long))
        alarm = max(0.0, alarm + better)
    return Memory(tuple(hits), tuple(trials), tuple(short_hits), tuple(short_trials), alarm)


def _restarted(memory: Memory) -> Memory:
    """The memory whose long run begins again with its short run: the text has changed."""
    return replace(memory, hits=memory.short_hits, trials=memory.short_trials, alarm=0.0)


def _pool_weight(rows: tuple[Memory, ...]) -> float:
    """Trials that the pool is worth to each row, by how far the rows' first rates differ."""
    counts = [(row.hits[0], row.trials[0]) for row in rows if row.trials and row.trials[0] > 0]
    if len(counts) < 2:
        return UNKNOWN
    total = sum(n for _, n in counts)
    mean = min(max(sum(h for h, _ in counts) / total, LOWEST), HIGHEST)
    spread = sum(n * (h / n - mean) ** 2 for h, n in counts)
    excess = spread / (mean * (1 - mean)) - (len(counts) - 1)
    if excess <= 0:
        return ALIKE
    effective = total - sum(n * n for _, n in counts) / total
    return min(max(effective / excess, UNLIKE), ALIKE)


def _others(pool: Counts, row: Memory) -> list[tuple[float, float, float]]:
    """By position, of all rows but one: rate and trials, each position the prior of the next.

    And the rate that was seen, without any prior; 0 if nothing was.
    """
    found = []
    prior = PRIOR_RATE
    for hits, trials, own_hits, own_trials in zip(
        pool.hits, pool.trials, row.hits, row.trials, strict=True
    ):
        others_hits = hits - own_hits if hits > own_hits else 0.0
        count = trials - own_trials
        count = count if count > others_hits else others_hits
        others = count + PRIOR_TRIALS
        rate = _within((others_hits + PRIOR_TRIALS * prior) / others, LOWEST, HIGHEST)
        found.append((rate, others, others_hits / count if count else 0.0))
        prior = CHAIN * rate
    return found


def _estimate(pool: Counts, row: Memory, most_weight: float) -> Estimate:
    """The others' rates, shifted by what the row's last position showed, corrected by its own."""
    share = 1 / (1 + math.exp(SWAY - row.alarm))
    rates, lows, highs, longs, shorts = [], [], [], [], []
    rate = others_before = 1.0
    for j, (others, known, others_seen) in enumerate(_others(pool, row)):
        ratio = others / others_before
        if j:
            ratio = _within(ratio, LEAST_RATIO, MOST_RATIO)
        weight = most_weight if most_weight < known else known
        trials = row.trials[j] + weight
        long = _within((row.hits[j] + weight * rate * ratio) / trials, LOWEST, HIGHEST)
        short = (row.short_hits[j] + SHORT_PRIOR * long) / (row.short_trials[j] + SHORT_PRIOR)
        short = _within(short, LOWEST, HIGHEST)
        rate = long + share * (short - long)
        trust = PRIOR_TRIALS if weight > PRIOR_TRIALS else weight
        low = _least(row.hits[j] + (weight - trust) * others_seen, trials - trust)
        high = rate + HOPE * math.sqrt(rate * (1 - rate) / (trials + 1))
        rates.append(rate)
        lows.append(low if low < rate else rate)
        highs.append(high if high < HIGHEST else HIGHEST)
        longs.append(long)
        shorts.append(short)
        others_before = others
    return Estimate(tuple(rates), tuple(lows), tuple(highs), tuple(longs), tuple(shorts))


def _within(value: float, least: float, most: float) -> float:
    """The nearest value within the bounds; spelled out, for it runs hundreds of times a round."""
    if value < least:
        return least
    return value if value < most else most


def _least(hits: float, trials: float) -> float:
    """The lower end of the interval for a rate of so many hits in so many trials (Wilson 1927)."""
    if trials <= 0:
        return 0.0
    rate, square = min(hits / trials, 1.0), CAUTION * CAUTION
    spread = CAUTION * math.sqrt(rate * (1 - rate) / trials + square / (4 * trials * trials))
    return (rate + square / (2 * trials) - spread) / (1 + square / trials)
