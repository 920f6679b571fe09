"""A scripted drafter for tests and benchmarks: right or wrong on purpose at known places of a text.

It has the interface of `model.drafter.Drafts`. It knows each request's plain continuation and asks
its script, place by place, whether to propose the right token, a wrong one, NaN, or an id that no
vocabulary holds. Its scores are one-hot and so large that noise and filters do not matter.
"""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import mlx.core as mx
import numpy as np

from mtp_mlx.engine.engine import Engine
from mtp_mlx.model.batch import Row
from mtp_mlx.model.head import Logits
from mtp_mlx.model.view import View

Proposal = Literal["right", "wrong", "nan", "infinite", "above", "negative"]

# Beats any noise at any temperature above 1e-5, and stays finite when divided by it.
CERTAIN = 1e30


@dataclass(frozen=True)
class Place:
    """Draft number `depth` of a request's `burst` (both from 0), for the token at `position`."""

    request_id: int
    position: int
    depth: int
    burst: int


Script = Callable[[Place], Proposal]


def always(proposal: Proposal) -> Script:
    """The same everywhere: "right" is the perfect drafter, "wrong" the adversary."""
    return lambda place: proposal


def agreeing(agreement: float, seed: int) -> Script:
    """Right with probability `agreement`, drawn from (seed, request, position) alone."""

    def script(place: Place) -> Proposal:
        draw = random.Random(f"{seed}/{place.request_id}/{place.position}").random()
        return "right" if draw < agreement else "wrong"

    return script


def accepting(counts: Mapping[int, Sequence[int]]) -> Script:
    """Per request, the number of right drafts before the first wrong one, burst after burst."""

    def script(place: Place) -> Proposal:
        own = counts[place.request_id]
        return "right" if place.depth < own[place.burst % len(own)] else "wrong"

    return script


def faulty(proposal: Proposal, depth: int, otherwise: Proposal = "right") -> Script:
    """`proposal` at one depth of every burst."""
    return lambda place: proposal if place.depth == depth else otherwise


class Oracle:
    """A drafter that follows a script. Call `watch` with the engine that it drafts for.

    `texts`: request id -> all tokens that the request emits when it decodes plainly.
    `places` lists what it was asked, in order.
    """

    def __init__(self, texts: Mapping[int, Sequence[int]], script: Script, vocab_size: int) -> None:
        self.texts = texts
        self.script = script
        self.vocab_size = vocab_size
        self.places: list[Place] = []
        self._bursts: Counter[int] = Counter()
        self._engine: Engine | None = None
        self._view: View | None = None  # of the burst's first step
        self._depth = 0

    def watch(self, engine: Engine) -> None:
        """Follow `engine`, whose slots tell which request a row is."""
        self._engine = engine

    def step(self, embedded: mx.array, hidden: mx.array, view: View) -> tuple[Logits, mx.array]:
        """One proposal a row of `view`; see Drafter.step. The hidden state passes through."""
        assert embedded.shape == hidden.shape == (len(view.rows), embedded.shape[-1])
        scores = np.zeros((len(view.rows), self.vocab_size), dtype=np.float32)
        ids = np.tile(np.arange(self.vocab_size, dtype=np.int32), (len(view.rows), 1))
        for index, (place, right) in enumerate(self.look(view)):
            self._propose(place, right, scores[index], ids[index])
        is_plain = bool((ids[:, 0] == 0).all())
        return Logits(mx.array(scores), None if is_plain else mx.array(ids)), hidden

    def look(self, view: View) -> list[tuple[Place, int]]:
        """For each row of the next step of a burst: which draft it is, and the right token."""
        is_new = view.whole is not self._view
        self._view, self._depth = view.whole, 0 if is_new else self._depth + 1
        return [self._place(row, is_new=is_new) for row in view.rows]

    def _place(self, row: Row, *, is_new: bool) -> tuple[Place, int]:
        assert self._engine is not None, "the oracle watches no engine"
        sequence = self._engine.slots[row.slot]
        assert sequence is not None, f"slot {row.slot} is free"
        assert row.start == len(sequence.tokens) - 2, "the drafter sees the committed tokens"
        self._bursts[sequence.id] += is_new
        # row.start is the last cached token; the pending one follows, then the first draft.
        position = row.start + 2 + self._depth
        place = Place(sequence.id, position, self._depth, self._bursts[sequence.id] - 1)
        self.places.append(place)
        text, index = self.texts[sequence.id], position - len(sequence.request.prompt)
        return place, text[index] if index < len(text) else 0  # beyond the budget: never verified

    def _propose(self, place: Place, right: int, scores: np.ndarray, ids: np.ndarray) -> None:
        """Fill one row of scores [V] and ids [V]."""
        match self.script(place):
            case "right":
                scores[right] = CERTAIN
            case "wrong":
                off = 1 + place.position % (self.vocab_size - 1)
                scores[(right + off) % self.vocab_size] = CERTAIN
            case "nan":
                scores[:] = np.nan
            case "infinite":
                scores[right] = np.inf
            case "above":
                scores[0], ids[0] = CERTAIN, self.vocab_size
            case "negative":
                scores[0], ids[0] = CERTAIN, -1
