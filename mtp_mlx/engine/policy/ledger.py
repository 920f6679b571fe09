"""The two accounts that keep the policy from being slower than plain decoding.

*Credit* is how far the run is ahead of plain decoding, in seconds, plus a small allowance: every
round adds what its tokens would have cost plainly, less what it took. Drafting that is not yet sure
to pay may only risk what the credit covers, so that the whole run, start-up included, stays within
the allowance of plain decoding whatever the text does.

*Bank* is what may be spent on finding out: shadow drafts, and rounds that are run to learn a cost.
Its spending does not touch the credit: together they bound how far a run can fall behind.
"""

from dataclasses import dataclass

# Of every round's time: how much the run may fall behind plain decoding, and how much exploration
# may cost.
CREDIT_INCOME = 0.0075
BANK_INCOME = 0.01
# Both accounts open with this many plain steps of the first round's batch.
OPENING_CREDIT = 0.15
OPENING_BANK = 0.1
# A long good phase shall not pay for a long bad one: most plain steps that the credit holds. What
# the bank cannot hold goes to the credit: what is not spent on finding out may be risked.
MOST_CREDIT = 20.0
MOST_BANK = 0.6


@dataclass(frozen=True)
class Ledger:
    """Both accounts in seconds; `rounds` counts the entries."""

    credit_s: float = 0.0
    bank_s: float = 0.0
    rounds: int = 0

    def opened(self, plain_s: float) -> "Ledger":
        """The accounts before a round whose plain step takes `plain_s`."""
        if self.rounds:
            return self
        return Ledger(OPENING_CREDIT * plain_s, OPENING_BANK * plain_s)

    def entered(self, plain_s: float, worth_s: float, seconds: float, spent_s: float) -> "Ledger":
        """After a round of `seconds` with tokens worth `worth_s` plainly; `spent_s` of the bank."""
        account = self.opened(plain_s)
        credit = account.credit_s + worth_s + spent_s - (1 - CREDIT_INCOME) * seconds
        bank = account.bank_s + BANK_INCOME * seconds - spent_s
        spare = max(bank - MOST_BANK * plain_s, 0.0)
        return Ledger(min(credit + spare, MOST_CREDIT * plain_s), bank - spare, account.rounds + 1)
