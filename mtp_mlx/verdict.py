"""What `proof.verify` measured and found: rounding, divergences, and the level they leave."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

Level = Literal["A", "B", "C"]

LEVELS: dict[Level, str] = {
    "A": "tokens follow the target's distribution as the verify kernels compute it",
    "B": "text identical to plain decoding in the same batch",
    "C": "text identical to plain decoding of the prompt alone, whatever runs beside it",
}


# A larger measured error excuses no more than this: at a top-2 gap of 2 logits no kernel's rounding
# was ever seen to change the best token.
MAX_EPS = 1.0


@dataclass(frozen=True)
class Text:
    """Token ids: a prompt, and from `start` on what is decoded after it."""

    ids: tuple[int, ...]
    start: int


@dataclass(frozen=True)
class BlockError:
    """How far logits in blocks of `block` tokens, `rows` texts side by side, are from those of one
    token at a time, alone: over `positions`, the largest difference of any logit, and at how many
    positions another token was best."""

    block: int
    rows: int
    positions: int
    largest: float
    disagreements: int


@dataclass(frozen=True)
class Rounding:
    """The kernels' errors, and the top-2 gaps [n] of plain decoding where they were measured."""

    errors: tuple[BlockError, ...]
    gaps: np.ndarray

    def eps(self, block: int, rows: int) -> float:
        """The largest error of forwards with at most so many tokens a row and rows."""
        seen = [e.largest for e in self.errors if e.block <= block and e.rows <= rows]
        return min(max(seen, default=0.0), MAX_EPS)

    def near_ties_per_1000(self) -> float:
        """Positions in 1,000 where rounding could choose."""
        widest = max((error.largest for error in self.errors), default=0.0)
        return 1000.0 * float((self.gaps < 2 * widest).mean())


@dataclass(frozen=True)
class Divergence:
    """The first token of a row that is not the one of the text it should equal.

    `prompt` and `position` count from 0, the position within the reply. `against` names that text:
    "alone", which plain decoding in a batch should equal, or "plain", plain decoding in the same
    batch, which drafting should. `plain` is its token, `found` the row's own; None where a text has
    ended. `gap`: by how much the lower of
    both tokens misses the best score, where scores are logits, or logits / temperature + noise; it
    is the top-2 gap where the two are the best. None where a text has ended. `allowed`: twice the
    kernels' measured error, on the same scale.
    """

    prompt: int
    position: int
    plain: int | None
    found: int | None
    gap: float | None
    allowed: float
    temperature: float
    seed: int
    batch_size: int
    num_draft_tokens: int
    against: Literal["alone", "plain"]

    @property
    def is_near_tie(self) -> bool:
        """Does rounding explain it?"""
        return self.gap is not None and self.gap <= self.allowed


@dataclass(frozen=True)
class VerifyReport:
    """What was compared and what came out.

    `cases`: rows compared with a plain text, in batches of `batch_sizes`. `errors`: the kernels'
    measured error; `near_ties_per_1000`: at how many of 1,000 positions the two best logits lie
    within twice that error of each other, where rounding may choose. `has_drafter` false: only
    batching was verified.
    """

    cases: int
    batch_sizes: tuple[int, ...]
    num_draft_tokens: int
    max_tokens: int
    has_drafter: bool
    errors: tuple[BlockError, ...]
    near_ties_per_1000: float
    divergences: tuple[Divergence, ...]

    @property
    def identical(self) -> bool:
        return not self.divergences

    @property
    def faults(self) -> tuple[Divergence, ...]:
        """Divergences that rounding does not explain: a bug."""
        return tuple(each for each in self.divergences if not each.is_near_tie)

    @property
    def eps(self) -> float:
        """The largest measured error of a logit."""
        return max((error.largest for error in self.errors), default=0.0)

    @property
    def level(self) -> Level | None:
        """The highest level that the runs showed; None where there is a fault.

        A holds by construction, as long as nothing but rounding parts the texts. B: drafting
        changed no text. C: neither drafting nor neighbours did, and there were neighbours.
        """
        if self.faults:
            return None
        if any(each.against == "plain" for each in self.divergences):
            return "A"
        has_neighbours = max(self.batch_sizes) > 1
        return "C" if self.identical and has_neighbours else "B"

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict of all fields."""
        divergences = [
            asdict(each) | {"is_near_tie": each.is_near_tie} for each in self.divergences
        ]
        head = {"identical": self.identical, "level": self.level, "eps": self.eps}
        return head | asdict(self) | {"divergences": divergences}
