"""What the constraints of a round's rows allow at its places, asked while the target runs.

A constraint needs the drafts on the host: the one more read of a round, and only of rounds in which
a constrained row has drafts. The drafter is not masked: a draft that is not allowed cannot be what
the target chooses, and goes the way of every wrong one.
"""

from collections.abc import Sequence as Many
from dataclasses import dataclass, field

import mlx.core as mx
import numpy as np

from mtp_mlx.engine.draft import Draft
from mtp_mlx.engine.sequence import Sequence
from mtp_mlx.errors import contained
from mtp_mlx.model.backend import queue, read_ints


@dataclass
class Ruling:
    """`words` [C, W] for the packed `places`. Of row i only the first reach[i] places may be kept;
    errors[i] is what its constraint raised."""

    places: list[int] = field(default_factory=list)
    masks: list[np.ndarray] = field(default_factory=list)
    reach: list[int] = field(default_factory=list)
    errors: dict[int, Exception] = field(default_factory=dict)

    @property
    def words(self) -> mx.array:
        return mx.array(np.concatenate(self.masks))


def ask(
    sequences: Many[Sequence], draft: Draft, forward: list[mx.array], vocab_size: int
) -> Ruling | None:
    """None where no row has a constraint. Queues `forward`, which is then under way."""
    if all(sequence.request.constraint is None for sequence in sequences):
        return None
    drafts = _read(sequences, draft, forward)
    ruling = Ruling()
    place = 0
    for row, (sequence, own) in enumerate(zip(sequences, drafts, strict=True)):
        ruling.reach.append(len(own) + 1)
        if sequence.request.constraint is not None:
            try:
                _ask_row(ruling, row, place, sequence, own, vocab_size)
            except BaseException as error:  # of its own constraint: no other row is to blame
                ruling.errors[row] = contained(error)
        place += len(own) + 1
    return ruling


def _read(sequences: Many[Sequence], draft: Draft, forward: list[mx.array]) -> list[list[int]]:
    """The drafts of every row; zeros where no constrained row has any, for nobody asks then."""
    pairs = zip(sequences, draft.lengths, strict=True)
    is_read = any(length and row.request.constraint is not None for row, length in pairs)
    if draft.tokens is None or not is_read:
        queue(*forward)
        return [[0] * length for length in draft.lengths]
    queue(draft.tokens)  # by itself, so that it is there before the forward
    queue(*forward)
    every = read_ints(draft.tokens.reshape(-1))
    return [[every[at] for at in draft.flat_places(row)] for row in range(len(sequences))]


def _ask_row(
    ruling: Ruling, row: int, place: int, sequence: Sequence, drafts: list[int], vocab_size: int
) -> None:
    """Masks for the places that the constraint decides: those before the first at which a spent
    budget of thinking does. That one comes first in a round of its own: the constraint may not
    take its token, and what was said before stands."""
    constraint = sequence.request.constraint
    assert constraint is not None
    forced = _forced(sequence, drafts)
    num_asked = len(drafts) + 1 if forced is None else forced
    if forced is not None:
        ruling.reach[row] = max(forced, 1)
    if not num_asked:
        return
    words = constraint.masks(drafts[: num_asked - 1])
    shape = (num_asked, -(-vocab_size // 32))
    if words.shape != shape or words.dtype != np.uint32:
        raise ValueError(
            f"a constraint gave masks {words.dtype} {list(words.shape)}, expected uint32 "
            f"{list(shape)}"
        )
    ruling.places += range(place, place + num_asked)
    ruling.masks.append(words)


def _forced(sequence: Sequence, drafts: list[int]) -> int | None:
    """The first place whose token the budget of thinking decides, if these are the drafts."""
    thinking = sequence.thinking
    for place in range(len(drafts) + 1):
        if thinking.is_spent:
            return place
        if place < len(drafts):
            thinking = thinking.after(drafts[place])
    return None
