"""The policy: what it knows as one frozen `State`, and the functions that use and change it.

    allocation = allocate(state, rows, limits)            # before a round
    state = observe(state, allocation, outcomes, timing)  # after it

The text depends on the target and the seed alone, so nothing decided here can change it. Times and
outcomes are passed in; the same ones give the same decisions again.
"""

from dataclasses import dataclass, replace

from mtp_mlx.engine.policy import probes, search
from mtp_mlx.engine.policy.acceptance import Acceptance, Seen
from mtp_mlx.engine.policy.calibration import Calibration
from mtp_mlx.engine.policy.cost import Costs
from mtp_mlx.engine.policy.decision import MARGIN, Allocation
from mtp_mlx.engine.policy.inputs import Limits, Outcome, RowId, RowInput, Shadow, Timing
from mtp_mlx.engine.policy.ledger import Ledger
from mtp_mlx.engine.policy.search import Candidate, Plan, Prices

# The previous lengths are kept while they are within this factor of the best.
KEEP = 0.99
# A trial is considered once in so many rounds.
TRIAL_EVERY = 4
# Standard errors by which a cost may turn out higher: more than for acceptance, for the search
# takes the best of many lengths and with it the one whose cost is most underestimated.
COST_CAUTION = 1.5
# What a round is charged, against its prediction: a stall of the machine is not drafting's fault.
MOST_SURPRISE = 2.0


@dataclass(frozen=True)
class State:
    """All the policy knows. Made from a calibration, changed only by the functions below.

    `waited`: rounds since the last shadows; `num_shadows`: rounds that made any.
    """

    costs: Costs
    acceptance: Acceptance
    ledger: Ledger
    previous: Allocation | None = None
    waited: int = 0
    num_shadows: int = 0

    @classmethod
    def start(cls, calibration: Calibration, k_max: int, max_tokens: int) -> "State":
        """What is known before the first round; no row drafts more than k_max, no N is larger."""
        return cls(Costs.start(calibration, max_tokens), Acceptance.start(k_max), Ledger())


def allocate(state: State, rows: tuple[RowInput, ...], limits: Limits) -> Allocation:
    """How many drafts each row of the next round gets, and which shadows are made; one row or more.

    Rows need no admission: an unknown one is expected to be as the others were.
    """
    candidates = tuple(_candidate(state.acceptance, row) for row in rows)
    num_drafts = min(sum(len(c.survival) for c in candidates), limits.max_tokens - len(rows))
    prices = _prices(state.costs, len(rows), num_drafts)
    plain = search.least(candidates, prices)
    account = state.ledger.opened(plain.seconds)
    ids = tuple(row.id for row in rows)
    chosen = _settled(state, ids, candidates, plain, prices, account)
    if chosen.rate <= MARGIN * plain.rate:
        chosen = plain
    allocation = Allocation(ids, chosen.lengths, chosen, plain, candidates, prices)
    if limits.prefill_tokens:
        row_s = state.costs.row_s()
        beside = search.beside_prefill(candidates, prices, chosen.rate, row_s)
        return replace(allocation, drafts=beside.lengths, chosen=beside)
    return _explored(state, allocation, account, limits.in_the_air)


def observe(
    state: State,
    allocation: Allocation,
    outcomes: tuple[Outcome, ...],
    timing: Timing,
    shadows: tuple[Shadow, ...] = (),
) -> State:
    """What is known after a round: its outcomes, its time, and what it did to the accounts.

    `shadows`: those of this or earlier rounds that the rows' own tokens have judged by now.
    """
    seen = tuple([Seen(o.row, o.accepted, o.drafted) for o in outcomes if o.drafted])
    judged = tuple([Seen(s.row, s.matched, s.drafted, s.verified) for s in shadows])
    num_rows, plain = len(allocation.rows), allocation.plain
    costs, seconds = state.costs, allocation.seconds
    if timing.experts is not None:
        costs = costs.observe_experts(allocation.num_tokens, num_rows, timing.experts)
    if timing.is_clean:
        beside_s = seconds - allocation.prices.forward[sum(allocation.lengths)]
        costs = costs.observe(allocation.num_tokens, num_rows, beside_s, timing.seconds)
        # Not a plain round with shadows: what ran ahead of it, or not, blurs its time.
        if allocation.is_own:
            seconds = min(max(timing.seconds, seconds / MOST_SURPRISE), seconds * MOST_SURPRISE)
    worth_s = plain.seconds
    if allocation.is_own:
        given = allocation.commanded
        extra = sum(o.accepted for o in outcomes if o.row not in given)
        doubt_s = allocation.prices.doubt_s(max(plain.lengths), sum(plain.lengths))
        worth_s = (1 + extra / plain.tokens) * (plain.seconds - doubt_s)
    ledger = state.ledger
    if allocation.is_free:
        ledger = ledger.entered(plain.seconds, worth_s, seconds, allocation.spent_s)
    return replace(
        state,
        costs=costs,
        acceptance=state.acceptance.observe(seen + judged),
        ledger=ledger,
        previous=allocation if allocation.trial_s is None else state.previous,
        waited=0 if allocation.has_shadows else state.waited + 1,
        num_shadows=state.num_shadows + allocation.has_shadows,
    )


def retire(state: State, row: RowId) -> State:
    """A row has left the batch."""
    return replace(state, acceptance=state.acceptance.retire(row))


def _candidate(acceptance: Acceptance, row: RowInput) -> Candidate:
    if not row.cap:  # nothing to draft, and nothing to look up
        return Candidate((), (), (), 0 if row.is_command else None)
    estimate = acceptance.of(row.id)
    return Candidate(
        survival=search.survival(estimate.rate, row.cap),
        cautious=search.survival(estimate.low, row.cap),
        hopeful=search.survival(estimate.high, row.cap),
        command=row.cap if row.is_command else None,
    )


def _prices(costs: Costs, num_rows: int, num_drafts: int, hope: float = 0.0) -> Prices:
    forward = costs.forwards(num_rows, num_drafts, hope)
    doubts = zip(forward, costs.doubts(num_rows, num_drafts), strict=True)
    doubt = tuple([COST_CAUTION * relative * seconds for seconds, relative in doubts])
    drafting = costs.draft_s(1, 0), costs.draft_s(0, 1), costs.host_s()
    return Prices(forward, doubt, COST_CAUTION * costs.draft_doubt(), *drafting)


def _settled(
    state: State,
    ids: tuple[RowId, ...],
    candidates: tuple[Candidate, ...],
    base: Plan,
    prices: Prices,
    account: Ledger,
) -> Plan:
    """The best plan, or the previous lengths while they are nearly as good."""
    found = search.best(candidates, prices, account.credit_s)
    before = state.previous
    if before is None or before.rows != ids or not any(before.lengths):
        return found
    lengths = tuple(
        min(k, len(c.survival)) for k, c in zip(before.lengths, candidates, strict=True)
    )
    if sum(lengths) >= len(prices.forward):
        return found
    kept = search.priced(candidates, lengths, prices)
    is_covered = search.is_covered(candidates, base, kept, prices, account.credit_s)
    return kept if is_covered and kept.rate >= KEEP * found.rate else found


def _explored(state: State, allocation: Allocation, account: Ledger, in_the_air: int) -> Allocation:
    """The same allocation, or a trial in its place, or with shadows, as far as the bank allows."""
    candidates, prices, chosen = allocation.candidates, allocation.prices, allocation.chosen
    if (account.rounds + in_the_air) % TRIAL_EVERY == TRIAL_EVERY - 1:
        num_rows, num_drafts = len(candidates), len(prices.forward) - 1
        hoped = _prices(state.costs, num_rows, num_drafts, probes.TRIAL_HOPE)
        trial = probes.trial(candidates, chosen, prices, hoped)
        if trial is not None and _is_affordable(trial, allocation, account):
            plan, trial_s = trial
            return replace(allocation, drafts=plan.lengths, chosen=plan, trial_s=trial_s)
    history = state.num_shadows, state.waited * allocation.plain.seconds
    drafts = probes.shadows(candidates, chosen, prices, history, account.bank_s)
    if drafts == allocation.drafts:
        return allocation
    return replace(allocation, drafts=drafts, shadow_s=probes.extra_s(drafts, chosen, prices))


def _is_affordable(trial: tuple[Plan, float], allocation: Allocation, account: Ledger) -> bool:
    plan, trial_s = trial
    return trial_s <= account.bank_s and search.is_covered(
        allocation.candidates, allocation.plain, plan, allocation.prices, account.credit_s
    )
