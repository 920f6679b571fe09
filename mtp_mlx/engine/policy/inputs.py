"""What the engine tells the policy: the rows of the next round, and what came of the last one."""

from dataclasses import dataclass

RowId = int


@dataclass(frozen=True)
class RowInput:
    """A row of the next round: at most `cap` drafts; with `is_command`, exactly that many.

    The cap is the least of what the request allows, its remaining tokens less one, the room in its
    context and in the ring; 0 for a row that may not draft.
    """

    id: RowId
    cap: int
    is_command: bool = False


@dataclass(frozen=True)
class Limits:
    """Bounds of one round: at most `max_tokens` packed rows N, its prefill not counted.

    `prefill_tokens`: prompt tokens that the same forward carries beside the rows. `in_the_air`:
    rounds that will be observed before this one, for which the policy plans ahead.
    """

    max_tokens: int
    prefill_tokens: int = 0
    in_the_air: int = 0


@dataclass(frozen=True)
class Outcome:
    """What came of a row's verified drafts: the first `accepted` of `drafted` agreed."""

    row: RowId
    drafted: int
    accepted: int


@dataclass(frozen=True)
class Shadow:
    """What came of drafts beyond the verified ones, once the row's own tokens have judged them.

    `matched` of all `drafted` agreed. Only for rounds that accepted all `verified` drafts; where
    one was rejected the rest says nothing.
    """

    row: RowId
    verified: int
    matched: int
    drafted: int


@dataclass(frozen=True)
class SeenExperts:
    """Distinct experts that a layer read in one forward, mean over the layers with experts.

    `pending`: for the rows' pending tokens alone, what a plain round would read; `all`: drafts too.
    """

    pending: float
    all: float


@dataclass(frozen=True)
class Timing:
    """A round's measured time in seconds.

    `is_clean`: the time says what a round of this shape takes: no admission, prefill, eviction or
    first use of the shape fell into it. `experts`: the router's report, None without experts.
    """

    seconds: float
    is_clean: bool = True
    experts: SeenExperts | None = None
