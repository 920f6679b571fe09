"""The draft lengths that give most tokens per second: an exact search over depth and count.

For a given depth (of the deepest row) and number of drafts n the round's time is fixed, and the
best n drafts are the n of highest survival: a row's survivals fall with depth, so the top n are
whole prefixes. Scoring *every* n is therefore the exact optimum, cliffs and steps of the cost
included; a climb that stops at the first loss would stay in front of a cliff.
"""

from dataclasses import dataclass, replace

# Drafts that survive less often are never worth their place and need no scoring.
LEAST_SURVIVAL = 0.02
# Drafts of a row beside a prefill: its time is long, and deep drafts would only delay it.
PREFILL_DEPTH = 3
UNLIMITED = float("inf")


@dataclass(frozen=True)
class Prices:
    """What a round of the given rows takes: `forward[n]` seconds with n drafts in the verify.

    `doubt[n]`: seconds that it may well take more.
    """

    forward: tuple[float, ...]
    doubt: tuple[float, ...]
    depth_s: float
    token_s: float
    host_s: float

    def seconds(self, depth: int, num_drafts: int) -> float:
        """Seconds of a round with so many drafts, the deepest row's `depth`."""
        if not num_drafts:
            return self.forward[0]
        drafting = depth * self.depth_s + num_drafts * self.token_s + self.host_s
        return self.forward[num_drafts] + drafting


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


def risk_s(candidates: tuple[Candidate, ...], plan: Plan, prices: Prices) -> float:
    """Seconds a plan may lose against the least plan's rate, survivals and time being unkind."""
    base = least(candidates, prices)
    extra = sum(
        sum(c.cautious[b:k]) for c, b, k in zip(candidates, base.lengths, plan.lengths, strict=True)
    )
    doubt = prices.doubt[sum(plan.lengths)]
    return plan.seconds + doubt - base.seconds / base.tokens * (base.tokens + extra)


def best(candidates: tuple[Candidate, ...], prices: Prices, credit_s: float) -> Plan:
    """The plan of the highest rate among those the credit covers, the least plan included.

    A plan is covered if its `risk_s` is at most `credit_s`. `prices` bounds the drafts of all rows.
    """
    base = least(candidates, prices)
    step_s = base.seconds / base.tokens
    items = _items(candidates)
    base_depth, base_drafts = max(base.lengths), sum(base.lengths)
    times = [
        forward + count * prices.token_s + prices.host_s
        for count, forward in enumerate(prices.forward[base_drafts:])
    ]
    room = len(times) - 1
    top, top_depth, top_count = base.rate, 0, 0
    for depth in range(1, max((j for _, j, _, _ in items), default=0) + 1):
        depth_s = max(depth, base_depth) * prices.depth_s + base_drafts * prices.token_s
        chosen = [item for item in items if item[1] <= depth]
        tokens = cautious = base.tokens
        for count, (gain, _, _, low) in enumerate(chosen[:room], 1):
            tokens -= gain
            cautious += low
            seconds = times[count] + depth_s
            if tokens > top * seconds:
                loss = seconds + prices.doubt[base_drafts + count] - step_s * cautious
                if loss <= credit_s:
                    top, top_depth, top_count = tokens / seconds, depth, count
    if not top_count:
        return base
    return priced(candidates, _lengths(base.lengths, items, top_depth, top_count), prices)


def beside_prefill(
    candidates: tuple[Candidate, ...], prices: Prices, rate: float, row_s: float
) -> Plan:
    """The plan for a round that carries a prefill, whose time is spent whatever is drafted.

    A draft is worth its place if it earns more than `rate` tokens per second over what it adds:
    `row_s` seconds for each packed row, and its drafting.
    """
    base = least(candidates, prices)
    items = [item for item in _items(candidates) if item[1] <= PREFILL_DEPTH]
    price = rate * (row_s + prices.token_s)
    top, top_depth, top_count = 0.0, 0, 0
    for depth in range(1, PREFILL_DEPTH + 1):
        gains = [-gain - price for gain, j, _, _ in items if j <= depth and -gain > price]
        room = len(prices.forward) - 1 - sum(base.lengths)
        value = sum(gains[:room]) - rate * (depth * prices.depth_s + prices.host_s)
        if value > top:
            top, top_depth, top_count = value, depth, len(gains[:room])
    return priced(candidates, _lengths(base.lengths, items, top_depth, top_count), prices)


Item = tuple[float, int, int, float]


def _items(candidates: tuple[Candidate, ...]) -> list[Item]:
    """(-survival, position, row, cautious survival) of all drafts to choose from, best first."""
    return sorted(
        (-gain, j, row, low)
        for row, c in enumerate(candidates)
        if c.command is None
        for j, (gain, low) in enumerate(zip(c.survival, c.cautious, strict=True), 1)
        if gain >= LEAST_SURVIVAL
    )


def _lengths(base: tuple[int, ...], items: list[Item], depth: int, count: int) -> tuple[int, ...]:
    """The lengths that take the best `count` drafts of at most `depth`."""
    lengths = list(base)
    for _, j, row, _ in [item for item in items if item[1] <= depth][:count]:
        lengths[row] = j
    return tuple(lengths)
