"""The draft lengths that give most tokens per second: an exact search over depth and count.

For a given depth (of the deepest row) and number of drafts n the round's time is fixed, and the
best n drafts are the n of highest survival: a row's survivals fall with depth, so the top n are
whole prefixes. Scoring *every* n is therefore the exact optimum, cliffs and steps of the cost
included; a climb that stops at the first loss would stay in front of a cliff.
"""

import math
from dataclasses import dataclass, replace

# Drafts that survive less often are never worth their place and need no scoring.
LEAST_SURVIVAL = 0.02
# Drafts of a row beside a prefill: its time is long, and deep drafts would only delay it.
PREFILL_DEPTH = 3
# Standard deviations of bad luck that the credit must bear, but for so many plain steps.
LUCK, LUCK_ROOM = 0.5, 0.1
UNLIMITED = float("inf")
ROUNDING = 1e-9  # of sums in another order


@dataclass(frozen=True)
class Prices:
    """What a round of the given rows takes: `forward[n]` seconds with n drafts in the verify.

    `doubt[n]`: seconds that it may well take more; `draft_doubt`: the share by which drafting may.
    """

    forward: tuple[float, ...]
    doubt: tuple[float, ...]
    draft_doubt: float
    depth_s: float
    token_s: float
    host_s: float

    def seconds(self, depth: int, num_drafts: int) -> float:
        """Seconds of a round with so many drafts, the deepest row's `depth`."""
        return self.forward[num_drafts] + self.drafting_s(depth, num_drafts)

    def drafting_s(self, depth: int, num_drafts: int) -> float:
        """Seconds of a round beside its forward."""
        if not num_drafts:
            return 0.0
        return depth * self.depth_s + num_drafts * self.token_s + self.host_s

    def doubt_s(self, depth: int, num_drafts: int) -> float:
        """Seconds that such a round may well take more."""
        return self.doubt[num_drafts] + self.draft_doubt * self.drafting_s(depth, num_drafts)


@dataclass(frozen=True)
class Candidate:
    """A row to draft for: survival of its drafts by position, at most len(survival) of them.

    `cautious` and `hopeful`: what the survival may turn out to be. `command`: drafts that are made
    whatever they are worth; such a row gets no others.
    """

    survival: tuple[float, ...]
    cautious: tuple[float, ...]
    hopeful: tuple[float, ...]
    command: int | None = None


@dataclass(frozen=True)
class Plan:
    """Draft lengths by row, the tokens they are expected to give and the seconds they take."""

    lengths: tuple[int, ...]
    tokens: float
    seconds: float

    @property
    def rate(self) -> float:
        """Expected tokens per second."""
        return self.tokens / self.seconds


def survival(rates: tuple[float, ...], cap: int) -> tuple[float, ...]:
    """Probability that all of the first j drafts agree, for j up to `cap`."""
    values, product = [], 1.0
    for rate in rates[:cap]:
        product *= rate
        values.append(product)
    return tuple(values)


def hopeful(candidates: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
    """The rows as they may turn out to be."""
    return tuple(replace(c, survival=c.hopeful) for c in candidates)


def priced(candidates: tuple[Candidate, ...], lengths: tuple[int, ...], prices: Prices) -> Plan:
    """What the given lengths are expected to give and take."""
    drafts = sum(sum(c.survival[:k]) for c, k in zip(candidates, lengths, strict=True))
    return Plan(lengths, len(lengths) + drafts, prices.seconds(max(lengths), sum(lengths)))


def least(candidates: tuple[Candidate, ...], prices: Prices) -> Plan:
    """The plan of what was commanded alone; without commands, plain decoding."""
    return priced(candidates, tuple(c.command or 0 for c in candidates), prices)


def is_covered(
    candidates: tuple[Candidate, ...], base: Plan, plan: Plan, prices: Prices, credit_s: float
) -> bool:
    """Whether the credit covers what a plan may lose against the rate of `base`, the least plan.

    Survivals and time may be unkind; and on top of that, luck, by LUCK standard deviations, may not
    take more than the credit and LUCK_ROOM steps: few rounds make no average.
    """
    doubt_s = prices.doubt_s(max(plan.lengths), sum(plan.lengths))
    extra_s = plan.seconds + doubt_s - base.seconds
    if extra_s <= 0 or extra_s <= credit_s:
        return True
    lengths = zip(base.lengths, plan.lengths, strict=True)
    rows = [c.cautious[b:k] for c, (b, k) in zip(candidates, lengths, strict=True) if k > b]
    step_s, tokens = base.seconds / base.tokens, sum(map(sum, rows))
    if extra_s - step_s * tokens > credit_s:
        return False
    room_s = credit_s + LUCK_ROOM * base.seconds
    if extra_s <= room_s:
        return True
    unlucky = max(tokens - LUCK * math.sqrt(sum(map(_variance, rows))), 0.0)
    return extra_s - step_s * unlucky <= room_s


def _variance(survivals: tuple[float, ...]) -> float:
    """Of the number of drafts accepted, of which j or more are with survivals[j - 1]."""
    squares = sum((2 * j - 1) * value for j, value in enumerate(survivals, 1))
    return squares - sum(survivals) ** 2


def best(candidates: tuple[Candidate, ...], prices: Prices, credit_s: float) -> Plan:
    """The plan of the highest rate among those the credit covers, the least plan included.

    `prices` bounds the drafts of all rows.
    """
    base = least(candidates, prices)
    found = _fastest(candidates, base, prices, UNLIMITED)
    if is_covered(candidates, base, found, prices, credit_s):
        return found
    return _fastest(candidates, base, prices, credit_s)


def _fastest(
    candidates: tuple[Candidate, ...], base: Plan, prices: Prices, credit_s: float
) -> Plan:
    """The search itself. With a credit every plan that leads is asked whether that covers it, which
    takes long; so `best` searches without first, and what is surely not covered is not asked."""
    items = _items(candidates)
    base_depth, base_drafts = max(base.lengths), sum(base.lengths)
    times = [
        forward + count * prices.token_s + prices.host_s
        for count, forward in enumerate(prices.forward[base_drafts:])
    ]
    room, is_free = len(times) - 1, credit_s == UNLIMITED
    step_s = base.seconds / base.tokens
    top, found = base.rate, None
    for depth in range(1, max((j for _, j, _ in items), default=0) + 1):
        depth_s = max(depth, base_depth) * prices.depth_s + base_drafts * prices.token_s
        chosen = [item for item in items if item[1] <= depth]
        tokens, cautious, deepest = base.tokens, 0.0, base_depth
        for count, (gain, j, row) in enumerate(chosen[:room], 1):
            tokens -= gain
            cautious += candidates[row].cautious[j - 1]
            deepest = j if j > deepest else deepest
            seconds = times[count] + depth_s
            if tokens <= top * seconds:
                continue
            lead = chosen, count, tokens, seconds
            if not is_free:
                extra_s = seconds + prices.doubt_s(deepest, base_drafts + count) - base.seconds
                beyond_s = extra_s - step_s * cautious - credit_s
                if extra_s > 0 and beyond_s > ROUNDING * seconds:  # the first that is_covered asks
                    continue
                if not is_covered(candidates, base, _plan(base, *lead), prices, credit_s):
                    continue
            top, found = tokens / seconds, lead
    return base if found is None else _plan(base, *found)


def _plan(base: Plan, chosen: list["Item"], count: int, tokens: float, seconds: float) -> Plan:
    """The base with the first `count` of the chosen drafts."""
    return Plan(_lengths(base.lengths, chosen[:count]), tokens, seconds)


def beside_prefill(
    candidates: tuple[Candidate, ...], prices: Prices, rate: float, row_s: float
) -> Plan:
    """The plan for a round that carries a prefill, whose time is spent whatever is drafted.

    A draft is worth its place if it earns more than `rate` tokens per second over what it adds:
    `row_s` seconds for each packed row, and its drafting.
    """
    base = least(candidates, prices)
    items = _items(candidates)
    price = rate * (row_s + prices.token_s)
    room = len(prices.forward) - 1 - sum(base.lengths)
    top, lengths = 0.0, base.lengths
    for depth in range(1, PREFILL_DEPTH + 1):
        chosen = [item for item in items if item[1] <= depth and -item[0] > price][:room]
        gain = sum(-item[0] - price for item in chosen)
        value = gain - rate * (depth * prices.depth_s + prices.host_s)
        if value > top:
            top, lengths = value, _lengths(base.lengths, chosen)
    return priced(candidates, lengths, prices)


Item = tuple[float, int, int]


def _items(candidates: tuple[Candidate, ...]) -> list[Item]:
    """(-survival, position, row) of all drafts to choose from, best first."""
    return sorted(
        (-gain, j, row)
        for row, c in enumerate(candidates)
        if c.command is None
        for j, gain in enumerate(c.survival, 1)
        if gain >= LEAST_SURVIVAL
    )


def _lengths(base: tuple[int, ...], chosen: list[Item]) -> tuple[int, ...]:
    """The lengths that take these drafts, best first."""
    lengths = list(base)
    for _, j, row in chosen:
        lengths[row] = j
    return tuple(lengths)
