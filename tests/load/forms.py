"""How large the runs are: in full, and in `make test`."""

from dataclasses import dataclass

from tests.load.asked import Asked, drawn


@dataclass(frozen=True)
class Form:
    """Numbers of requests; `distinct`: of how many kinds; `lengths`: of their replies, at most."""

    steady: int
    burst: int
    churn: int
    distinct: int
    lengths: tuple[int, ...]
    streams: int = 8

    def drawn(self, seed: int) -> list[Asked]:
        """Requests for the largest run."""
        return drawn(seed, max(self.steady, self.burst, self.churn), self.distinct, self.lengths)


FULL = Form(steady=200, burst=100, churn=500, distinct=40, lengths=(4, 16, 40, 96))
QUICK = Form(steady=24, burst=50, churn=40, distinct=10, lengths=(4, 12, 32))
