"""The decision of one round: what was chosen, what else there was, and why nothing is drafted."""

from dataclasses import dataclass
from functools import cached_property

from mtp_mlx.engine.policy.inputs import RowId
from mtp_mlx.engine.policy.search import UNLIMITED, Candidate, Plan, Prices, best, priced

# Drafting must be predicted to beat plain decoding by this factor.
MARGIN = 1.02


@dataclass(frozen=True)
class Allocation:
    """Draft lengths for the rows of one round, in the order in which the rows were given.

    `drafts[i]` >= lengths[i] are the drafts to make; those beyond lengths[i] are shadows: not
    verified, but compared with the row's own tokens when these are known. `chosen` and `plain` are
    the plans with their expected tokens and seconds, without shadows; `plain` holds what was
    commanded. `trial_s`: seconds that a round run to learn a cost is expected to lose.
    """

    rows: tuple[RowId, ...]
    drafts: tuple[int, ...]
    chosen: Plan
    plain: Plan
    candidates: tuple[Candidate, ...]
    prices: Prices
    shadow_s: float = 0.0
    trial_s: float | None = None

    @property
    def lengths(self) -> tuple[int, ...]:
        """Drafts to verify, by row."""
        return self.chosen.lengths

    @property
    def num_tokens(self) -> int:
        """N of the verify: every row's pending token and its drafts."""
        return len(self.lengths) + sum(self.lengths)

    @property
    def seconds(self) -> float:
        """Predicted time of the round, shadows included."""
        return self.chosen.seconds + self.shadow_s

    @property
    def spent_s(self) -> float:
        """What the round takes from the bank."""
        return self.shadow_s + (self.trial_s or 0.0)

    @property
    def is_free(self) -> bool:
        """There was something to decide: some row might have drafted, and nobody said how many."""
        return any(c.survival and c.command is None for c in self.candidates)

    @property
    def has_shadows(self) -> bool:
        """Some drafts are made and not verified."""
        return self.drafts != self.lengths

    @property
    def commanded(self) -> frozenset[RowId]:
        """The rows whose number of drafts was given."""
        pairs = zip(self.rows, self.candidates, strict=True)
        return frozenset(row for row, c in pairs if c.command is not None)

    @property
    def is_own(self) -> bool:
        """More is drafted than was commanded."""
        return self.chosen.lengths != self.plain.lengths

    @property
    def speedup(self) -> float:
        """Predicted rate of the chosen plan over plain decoding's."""
        return self.chosen.rate / self.plain.rate

    @cached_property
    def alternatives(self) -> tuple[Plan, ...]:
        """What every common depth would give, from plain decoding up."""
        deepest = max(len(c.survival) for c in self.candidates)
        plans = []
        for depth in range(deepest + 1):
            lengths = tuple(min(depth, len(c.survival)) for c in self.candidates)
            if sum(lengths) < len(self.prices.forward):
                plans.append(priced(self.candidates, lengths, self.prices))
        return tuple(plans)

    @cached_property
    def reason(self) -> str | None:
        """Why no row drafts; None where one does."""
        if any(self.lengths):
            return None
        if len(self.alternatives) == 1:
            return "parked: no row may draft"
        plan = best(self.candidates, self.prices, UNLIMITED)
        if plan.lengths == self.lengths:
            plan = max(self.alternatives[1:], key=lambda plan: plan.rate)
        gain = plan.rate / self.plain.rate
        num_rows, drafts = len(self.rows), sum(plan.lengths)
        firsts = [c.survival[0] for c in self.candidates if c.survival]
        why = "not yet sure to pay" if gain > MARGIN else "would not pay"
        return (
            f"parked, drafting {why}: N={num_rows + drafts} costs "
            f"{self.prices.forward[drafts] / self.prices.forward[0]:.2f}x of N={num_rows}, "
            f"first drafts accepted {sum(firsts) / len(firsts):.2f}, best plan {gain:.2f}x"
        )

    def __str__(self) -> str:
        others = " ".join(
            f"{depth}:{plan.rate / self.plain.rate:.2f}x"
            for depth, plan in enumerate(self.alternatives)
        )
        chosen = self.reason
        if chosen is None:
            lengths = ",".join(map(str, self.lengths))
            chosen = f"drafts {lengths} (N={self.num_tokens}), {self.speedup:.2f}x of plain"
        if self.trial_s is not None:
            chosen += ", to learn its cost"
        if self.shadow_s:
            chosen += f", shadows {','.join(map(str, self.drafts))}"
        return f"{chosen}; common depths {others}"
