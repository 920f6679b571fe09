"""What the processors of running rows need: their biases, and what came before each place.

The history of a place is the row's tokens and the drafts in front of it. Tokens are counted anew
from the row's own list in every round, and drafts, which only the device knows, on a copy that
lives no longer than the round: a rejected one leaves nothing behind. A row whose penalties count
never runs ahead (Engine._ends_run), for the token in the air would be missing. Rows that ask for
nothing cost nothing.
"""

from collections.abc import Sequence as Many

import mlx.core as mx
import numpy as np

from mtp_mlx.engine.sequence import Fixed, Sequence
from mtp_mlx.model.processors import Processors, biases, counts
from mtp_mlx.request import Sampling


class _Rows:
    """The arrays of rows with processors [S, V]; `reply` counts their tokens without drafts."""

    def __init__(self, sequences: Many[Sequence], vocab_size: int) -> None:
        samplings = [sequence.request.sampling for sequence in sequences]
        fixed = [_fixed(sequence, vocab_size) for sequence in sequences]
        has_bias = any(each.logit_bias or each.banned for each in samplings)
        repeats_matter = any(each.repeats_matter for each in samplings)
        has_repetition = any(each.repetition_penalty != 1.0 for each in samplings)
        self.bias = mx.stack([each.bias for each in fixed]) if has_bias else None
        self.prompt = mx.stack([each.prompt for each in fixed]) if has_repetition else None
        self.reply = _replies(sequences, vocab_size) if repeats_matter else None


def _fixed(sequence: Sequence, vocab_size: int) -> Fixed:
    """What stays the same through a reply, made once."""
    if sequence.fixed is None:
        sampling = sequence.request.sampling
        ids = sequence.request.prompt if sampling.repetition_penalty != 1.0 else ()
        sequence.fixed = Fixed(biases(sampling, vocab_size), counts(ids, vocab_size))
    return sequence.fixed


def _replies(sequences: Many[Sequence], vocab_size: int) -> mx.array:
    """How often each token came in the replies so far [S, V], of rows that count them."""
    rows, ids = [], []
    for row, sequence in enumerate(sequences):
        if sequence.request.sampling.repeats_matter:
            reply = sequence.tokens[len(sequence.request.prompt) :]
            rows += [row] * len(reply)
            ids += reply
    return _counted(mx.zeros((len(sequences), vocab_size)), rows, mx.array(_index(ids)))


def _counted(table: mx.array, rows: list[int], ids: mx.array) -> mx.array:
    """The table [S, V] with one more for each (row, id)."""
    return table.at[mx.array(_index(rows)), ids].add(1.0) if rows else table


def _index(values: list[int]) -> np.ndarray:
    return np.array(values, dtype=np.int32)


def _taken(values: mx.array | None, rows: list[int]) -> mx.array | None:
    return None if values is None else values[mx.array(_index(rows))]


def processors_of(
    sequences: Many[Sequence],
    lengths: Many[int],
    drafts: Many[list[int]],
    tokens: mx.array | None,
    vocab_size: int,
) -> Processors | None:
    """For packed places, lengths[i] of row i, whose drafts are tokens[drafts[i]]; None where no row
    asks for any."""
    asking = [row for row, each in enumerate(sequences) if each.request.sampling.has_processors]
    if not asking:
        return None
    owners, places, samplings, counting, before = [], [], [], [], []
    place = 0
    for row, length in enumerate(lengths):
        if row in asking:
            for index in range(length):
                counting += [len(places)] * index
                before += drafts[row][:index]
                owners.append(asking.index(row))
                places.append(place + index)
                samplings.append(sequences[row].request.sampling)
        place += length
    rows = _Rows([sequences[row] for row in asking], vocab_size)
    reply = _taken(rows.reply, owners)
    if reply is not None and tokens is not None and before:
        reply = _counted(reply, counting, tokens[mx.array(_index(before))])
    bias, prompt = _taken(rows.bias, owners), _taken(rows.prompt, owners)
    return Processors(places, samplings, bias, prompt, reply)


class DraftHistory:
    """The processors of drafting rows, whose drafts join their history one by one."""

    def __init__(self, drafting: Many[Sequence], vocab_size: int) -> None:
        self._samplings: dict[int, Sampling] = {  # by row among the drafting ones
            row: each.request.sampling
            for row, each in enumerate(drafting)
            if each.request.sampling.has_processors
        }
        self._order = {row: at for at, row in enumerate(self._samplings)}
        if self._samplings:
            self._rows = _Rows([drafting[row] for row in self._samplings], vocab_size)

    def processors(self, active: Many[int]) -> Processors | None:
        """For the rows that still draft; None where none of them asks for any."""
        asking = [at for at, row in enumerate(active) if row in self._samplings]
        if not asking:
            return None
        own = [self._order[active[at]] for at in asking]
        arrays = (_taken(each, own) for each in self._arrays)
        return Processors(asking, [self._samplings[active[at]] for at in asking], *arrays)

    @property
    def _arrays(self) -> tuple[mx.array | None, mx.array | None, mx.array | None]:
        return self._rows.bias, self._rows.prompt, self._rows.reply

    def add(self, active: Many[int], tokens: mx.array) -> None:
        """Count the drafts [n] of the active rows."""
        asking = [at for at, row in enumerate(active) if row in self._samplings]
        if asking and self._rows.reply is not None:
            own = [self._order[active[at]] for at in asking]
            drafted = tokens[mx.array(_index(asking))]
            self._rows.reply = _counted(self._rows.reply, own, drafted)
