"""How large the runs are: in full, and in `make test`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Form:
    """Numbers of requests; `distinct`: of how many kinds."""

    steady: int
    burst: int
    churn: int
    distinct: int
    streams: int = 8

    @property
    def most(self) -> int:
        return max(self.steady, self.burst, self.churn)


FULL = Form(steady=200, burst=100, churn=500, distinct=40)
QUICK = Form(steady=32, burst=60, churn=60, distinct=10)
