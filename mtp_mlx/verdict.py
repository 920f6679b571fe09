"""What `proof.verify` measured and found: rounding, divergences, and the level they leave.

A measured error excuses a divergence only as far as rounding can err (`error_bound`), because it is
measured on the code under test: a cache that drops a key moves logits too, and by more.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from mtp_mlx.request import FinishReason

Level = Literal["A", "B", "C"]
Kind = Literal["plain", "drafts", "auto"]

LEVELS: dict[Level, str] = {
    "A": "tokens follow the target's distribution as the verify kernels compute it",
    "B": "text identical to plain decoding in the same batch",
    "C": "text identical to plain decoding of the prompt alone, whatever runs beside it",
}

# Of the largest logit, in float32: a product over n inputs errs by about sqrt(n) half units in the
# last place, 6e-8, and there are two to a layer one after the other. 60 layers 21,504 wide make
# 1e-3. Measured where BLAS orders sums otherwise: 2e-5 (verification.md, 7).
FLOAT32_SHARE = 1e-3
# In coarser arithmetic that estimate exceeds the logits. There no kernel's rounding was seen to
# change the best token at a top-2 gap of 2 logits (verification.md, 7), twice this error.
COARSE_BOUND = 1.0
# Share of positions where another token is best and usual rounding does not tell why: kernels with
# a bug had 2.3 % and more, sound ones none (verification.md, 7).
MAX_FAR_SHARE = 0.02


def error_bound(largest_logit: float, *, is_float32: bool) -> float:
    """How far rounding may move a logit, where none is larger than `largest_logit`."""
    return FLOAT32_SHARE * largest_logit if is_float32 else COARSE_BOUND


@dataclass(frozen=True)
class Text:
    """Token ids: a prompt, and from `start` on what is decoded after it."""

    ids: tuple[int, ...]
    start: int


@dataclass(frozen=True)
class BlockError:
    """How far logits in blocks of `block` tokens, `rows` texts side by side, are from those of one
    token at a time, alone, over `positions`.

    `largest` of any logit, infinite for NaN; `usual`: at half of the positions 99.9 % of the logits
    are no further off. `disagreements`: positions where another token is best, `far_disagreements`
    those of them whose top-2 gap is more than twice `usual`.
    """

    block: int
    rows: int
    positions: int
    largest: float
    usual: float
    disagreements: int
    far_disagreements: int

    def is_rounding(self, bound: float) -> bool:
        """Can rounding that moves no logit further than `bound` have done this?"""
        most_far = max(MAX_FAR_SHARE * self.positions, 1)  # one alone tells nothing
        return self.largest <= bound and self.far_disagreements <= most_far


@dataclass(frozen=True)
class Rounding:
    """The kernels' errors, the `bound` of what rounding can do, and the top-2 gaps [n] of plain
    decoding where they were measured."""

    errors: tuple[BlockError, ...]
    bound: float
    gaps: np.ndarray

    def eps(self, block: int, rows: int) -> float:
        """The largest error of forwards with at most so many tokens a row and rows, within the
        bound."""
        seen = [e.largest for e in self.errors if e.block <= block and e.rows <= rows]
        return min(max(seen, default=0.0), self.bound)

    def near_ties_per_1000(self) -> float:
        """Positions in 1,000 where rounding could choose."""
        widest = max((error.largest for error in self.errors), default=0.0)
        return 1000.0 * float((self.gaps < 2 * min(widest, self.bound)).mean())


@dataclass(frozen=True)
class Divergence:
    """The first token of a row that is not the one of the text it should equal, or another end.

    `prompt` and `position` count from 0, the position within the reply. `against` names that text:
    "alone", which plain decoding in a batch should equal, or "plain", plain decoding in the same
    batch, which drafting should. `plain` is its token, `found` the row's own; None where a text has
    ended, for the reasons `plain_finish` and `found_finish`; `error`: the row's own, if it failed.
    `gap`: by how much the lower of both tokens misses the best score, where scores are logits, or
    logits / temperature + noise; it is the top-2 gap where the two are the best. None where a text
    has ended. `allowed`: twice the kernels' measured error, on the same scale. `num_draft_tokens`
    None: the policy's choice.
    """

    prompt: int
    position: int
    plain: int | None
    found: int | None
    plain_finish: FinishReason
    found_finish: FinishReason
    error: str | None
    gap: float | None
    allowed: float
    temperature: float
    seed: int
    batch_size: int
    num_draft_tokens: int | None
    against: Literal["alone", "plain"]

    @property
    def is_near_tie(self) -> bool:
        """Does rounding explain it?"""
        return self.gap is not None and self.gap <= self.allowed


@dataclass(frozen=True)
class Exercise:
    """What the rows in batches of `batch_size` went through: drafts made and accepted, and the most
    rows that shared a round. `kind` "drafts": as many as asked for, of rounds with drafts alone;
    "auto": as many as the policy chose."""

    batch_size: int
    kind: Kind
    drafted: int
    accepted: int
    most_rows: int

    def __add__(self, other: "Exercise") -> "Exercise":
        """Both, of the same batch size and kind."""
        return Exercise(
            self.batch_size,
            self.kind,
            self.drafted + other.drafted,
            self.accepted + other.accepted,
            max(self.most_rows, other.most_rows),
        )

    @property
    def lacks(self) -> str | None:
        """What keeps it from showing anything; None where nothing does."""
        rows = "1 row" if self.batch_size == 1 else f"{self.batch_size} rows"
        if self.kind == "drafts" and not self.accepted:
            return f"no draft was accepted with {rows} ({self.drafted} made)"
        if self.kind != "auto" and self.most_rows < min(self.batch_size, 2):
            return f"no {self._round} had two of {rows}"
        return None

    @property
    def falls_short(self) -> str | None:
        """How far the rows that shared a round were from the whole batch; None where all did."""
        if self.kind == "auto" or self.lacks or self.most_rows == self.batch_size:
            return None
        return f"of {self.batch_size} rows at most {self.most_rows} shared a {self._round}"

    @property
    def _round(self) -> str:
        return "round with drafts" if self.kind == "drafts" else "plain round"


@dataclass(frozen=True)
class VerifyReport:
    """What was compared and what came out.

    `cases`: rows compared with a plain text, in batches of `batch_sizes`; `exercises`: what their
    rounds were. `errors`: the kernels' measured error, and `bound`, what rounding can do;
    `near_ties_per_1000`: at how many of 1,000 positions the two best logits lie within twice that
    error of each other, where rounding may choose. `has_drafter` false: only batching was verified.
    """

    cases: int
    batch_sizes: tuple[int, ...]
    num_draft_tokens: int
    max_tokens: int
    has_drafter: bool
    exercises: tuple[Exercise, ...]
    errors: tuple[BlockError, ...]
    bound: float
    near_ties_per_1000: float
    divergences: tuple[Divergence, ...]

    @property
    def identical(self) -> bool:
        return not self.divergences and not self.kernel_faults

    @property
    def faults(self) -> tuple[Divergence, ...]:
        """Divergences that rounding does not explain: a bug."""
        return tuple(each for each in self.divergences if not each.is_near_tie)

    @property
    def kernel_faults(self) -> tuple[BlockError, ...]:
        """Measured errors that are no rounding: a bug, whether or not a text shows it."""
        return tuple(each for each in self.errors if not each.is_rounding(self.bound))

    @property
    def has_fault(self) -> bool:
        return bool(self.faults or self.kernel_faults)

    @property
    def missing(self) -> tuple[str, ...]:
        """What was asked for and never happened, so that nothing is shown about it."""
        return tuple(each.lacks for each in self.exercises if each.lacks is not None)

    @property
    def partial(self) -> tuple[str, ...]:
        """Batches of which some rows never met, for their texts were too short: shown for as many
        rows as did."""
        return tuple(e.falls_short for e in self.exercises if e.falls_short is not None)

    @property
    def covers(self) -> tuple[str, ...]:
        """What the level speaks of: "drafts", "batches" or both."""
        drafts = ("drafts",) if self.has_drafter else ()
        return (*drafts, "batches") if max(self.batch_sizes) > 1 else drafts

    @property
    def eps(self) -> float:
        """The largest measured error of a logit."""
        return max((error.largest for error in self.errors), default=0.0)

    @property
    def level(self) -> Level | None:
        """The highest level that the runs showed; None where there is a fault, or where something
        is missing.

        A holds by construction, as long as nothing but rounding parts the texts. B: drafting
        changed no text. C: neither drafting nor neighbours did, and there were neighbours. Without
        a drafter there is no B, for nothing was drafted.
        """
        if self.has_fault or self.missing:
            return None
        if any(each.against == "plain" for each in self.divergences):
            return "A"
        if self.identical and "batches" in self.covers:
            return "C"
        return "B" if self.has_drafter else "A"

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict of all fields; an infinite error is None."""
        divergences = [
            asdict(each) | {"is_near_tie": each.is_near_tie} for each in self.divergences
        ]
        errors = [
            asdict(each)
            | {"largest": _finite(each.largest), "usual": _finite(each.usual)}
            | {"is_rounding": each.is_rounding(self.bound)}
            for each in self.errors
        ]
        head = {
            "identical": self.identical,
            "level": self.level,
            "covers": self.covers,
            "missing": self.missing,
            "partial": self.partial,
            "eps": _finite(self.eps),
        }
        return head | asdict(self) | {"errors": errors, "divergences": divergences}


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
