"""Finding out: shadow drafts for what drafts are worth, trial rounds for what a round costs.

The drafter writes nothing, and the text does not depend on drafts; so drafts may be made, kept, and
compared with the tokens that come anyway: a *shadow* costs drafter steps only. A *trial* is a round
with the lengths that would be best if costs were lower than believed, by what is not known of them.
Both are made only where what they may find could change the plan, and both are paid from the bank.
"""

from dataclasses import replace

from mtp_mlx.engine.policy.ledger import MOST_BANK
from mtp_mlx.engine.policy.search import (
    UNLIMITED,
    Candidate,
    Plan,
    Prices,
    best,
    hopeful,
    priced,
    survival,
)

# Exploring may take this share of plain time for each part of speed it may gain, and at most the
# second; the share falls as 1 / (1 + shadows / FADE).
EXPLORE_SHARE, EXPLORE_MOST = 0.15, 0.05
FADE = 64.0
# The first shadows are no deeper than the bank pays for at once, if drafts of that depth may pay:
# what a first draft is worth decides whether anything is drafted; saving for deep ones delays it.
SHALLOW_SHADOWS = 6
# A gain worth exploring.
EXPLORE_GAIN = 1.01
# Share of plain time for looking whether the text of a row that drafts nothing has become easy, the
# acceptance of such text, and the gain it must promise.
WATCH_SHARE = 0.004
EASY_RATE = 0.92
WATCH_GAIN = 1.02
# A trial needs a plan that is better if costs are so many standard errors lower.
TRIAL_HOPE = 1.5


def shadows(
    candidates: tuple[Candidate, ...],
    plan: Plan,
    prices: Prices,
    history: tuple[int, float],
    bank_s: float,
) -> tuple[int, ...]:
    """Drafts to make by row, the plan's included, for at most `bank_s`.

    `history`: how often there were shadows, and the plain time since the last. All rows that have
    something to learn go in one packed call: a position's cost is paid once.
    """
    num_shadows, waited_s = history
    least_s = prices.token_s if any(plan.lengths) else prices.drafting_s(1, 1)
    if least_s <= min(EXPLORE_MOST * waited_s, bank_s):
        hoped = hopeful(candidates)
        found = best(hoped, prices, UNLIMITED)
        drafts = tuple(map(max, plan.lengths, found.lengths))
        is_early = num_shadows < SHALLOW_SHADOWS
        most_s = MOST_BANK * prices.forward[0]  # dearer ones the bank could never pay
        if extra_s(drafts, plan, prices) > (bank_s if is_early else most_s):
            depth = _affordable_depth(drafts, plan, prices, bank_s)
            found = best(_no_deeper(hoped, depth), prices, UNLIMITED)
            drafts = tuple(map(max, plan.lengths, found.lengths))
        cost = extra_s(drafts, plan, prices)
        if drafts != plan.lengths and found.rate > EXPLORE_GAIN * plan.rate:
            share = min(EXPLORE_SHARE * (found.rate / plan.rate - 1), EXPLORE_MOST)
            is_due = cost <= min(waited_s * share / (1 + num_shadows / FADE), bank_s)
            return drafts if is_due else plan.lengths
    return _watch(candidates, plan, prices, waited_s, bank_s)


def _affordable_depth(drafts: tuple[int, ...], plan: Plan, prices: Prices, bank_s: float) -> int:
    """The depth down to which the bank pays for the drafts; 0 if it pays for none."""
    for depth in range(max(drafts), 0, -1):
        cut = tuple(max(k, min(made, depth)) for k, made in zip(plan.lengths, drafts, strict=True))
        if extra_s(cut, plan, prices) <= bank_s:
            return depth
    return 0


def _no_deeper(candidates: tuple[Candidate, ...], depth: int) -> tuple[Candidate, ...]:
    return tuple(
        replace(c, survival=c.survival[:depth], cautious=c.cautious[:depth]) for c in candidates
    )


def _watch(
    candidates: tuple[Candidate, ...], plan: Plan, prices: Prices, waited_s: float, bank_s: float
) -> tuple[int, ...]:
    """One draft for every row that has none, if it could pay for their text to become easy."""
    drafts = tuple(
        max(k, min(1, len(c.survival))) for c, k in zip(candidates, plan.lengths, strict=True)
    )
    cost = extra_s(drafts, plan, prices)
    if drafts == plan.lengths or cost > min(WATCH_SHARE * waited_s, bank_s):
        return plan.lengths
    deepest = max(len(c.survival) for c in candidates)
    easy = survival((EASY_RATE,) * deepest, deepest)
    turned = tuple(
        c if k else replace(c, survival=easy[: len(c.survival)])
        for c, k in zip(candidates, plan.lengths, strict=True)
    )
    found = best(turned, prices, UNLIMITED)
    return drafts if found.rate > WATCH_GAIN * plan.rate else plan.lengths


def extra_s(drafts: tuple[int, ...], plan: Plan, prices: Prices) -> float:
    """Seconds that drafts beyond the plan's take, with the host where the round would have none."""
    extra = sum(drafts) - sum(plan.lengths)
    if not extra:
        return 0.0
    made = prices.drafting_s(max(drafts), sum(drafts))
    return made - prices.drafting_s(max(plan.lengths), sum(plan.lengths))


def trial(
    candidates: tuple[Candidate, ...], plan: Plan, prices: Prices, hoped: Prices
) -> tuple[Plan, float] | None:
    """A plan worth running to learn its cost, and the seconds it is expected to lose by it.

    `hoped`: the prices at TRIAL_HOPE standard errors below the estimate.
    """
    found = best(candidates, hoped, UNLIMITED)
    if found.lengths == plan.lengths or found.rate <= plan.rate:
        return None
    real = priced(candidates, found.lengths, prices)
    return real, max(real.seconds - real.tokens / plan.rate, 0.0)
