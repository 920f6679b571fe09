"""The target's choice at every place of a forward, and what is reported of it.

Raw scores become the scores that are chosen from: bias, penalties and bans, then constraints; then
temperature, filters, noise (model/choose.py). Log-probabilities are those of the raw scores. All
that the host reads is packed into one array of int32, floats by their bits.
"""

from collections.abc import Sequence as Many
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from mtp_mlx.engine.constraints import Ruling, ask
from mtp_mlx.engine.draft import Draft
from mtp_mlx.engine.history import processors_of
from mtp_mlx.engine.sequence import Sequence
from mtp_mlx.model.batch import Row
from mtp_mlx.model.choose import Choice, choose
from mtp_mlx.model.head import Logits
from mtp_mlx.model.logprobs import log_probabilities
from mtp_mlx.model.processors import allow, process
from mtp_mlx.request import Logprob


@dataclass(frozen=True)
class Scored:
    """Places with log-probabilities: of the chosen token, of the one that ends a thought, and of
    the `count` best."""

    places: list[int]
    count: int


@dataclass(frozen=True)
class Chosen:
    """Token ids [N] on the device, and `report`, what the host reads. `ruling`: of constraints,
    None where no row has one; `scored`: None where no row asks for log-probabilities."""

    ids: mx.array
    report: list[mx.array]
    ruling: Ruling | None
    scored: Scored | None


class Reader:
    """The integers of a report, taken from its front."""

    def __init__(self, values: list[int]) -> None:
        self._values = values
        self._at = 0

    def take(self, count: int) -> list[int]:
        self._at += count
        return self._values[self._at - count : self._at]


def choose_all(
    hidden: mx.array,
    logits: mx.array,
    sequences: Many[Sequence],
    rows: Many[Row],
    draft: Draft,
) -> Chosen:
    """For the states [N, D] and raw scores [N, V] of packed rows."""
    vocab = logits.shape[1]
    ruling = ask(sequences, draft, [hidden, logits], vocab)
    lengths = [row.length for row in rows]
    flat = [draft.flat_places(row) for row in range(len(rows))]
    tokens = None if draft.tokens is None else draft.tokens.reshape(-1)
    todo = processors_of(sequences, lengths, flat, tokens, vocab)
    scores = Logits(logits) if todo is None else process(Logits(logits), todo)
    if ruling is not None and ruling.places:
        scores = Logits(allow(scores.scores, ruling.places, ruling.words))
    samplings = [
        sequence.request.sampling
        for sequence, length in zip(sequences, lengths, strict=True)
        for _ in range(length)
    ]
    positions = [place + 1 for row in rows for place in range(row.start, row.end)]
    ids = choose(scores, Choice(samplings, positions))
    report = [ids, is_finite(hidden, logits).astype(mx.int32)]
    if ruling is not None:
        report.append(mx.isfinite(scores.scores.max(axis=-1)).astype(mx.int32))
    scored = _scored(sequences, lengths, vocab)
    if scored is not None:
        closes = [each.thinking.closes for each in sequences]
        report.append(_score(logits, ids, scored, np.repeat(closes, lengths)))
    return Chosen(ids, report, ruling, scored)


def is_finite(hidden: mx.array, logits: mx.array) -> mx.array:
    """Per token [N]: no NaN or infinity in its state or scores; argmax would hide them."""
    return mx.isfinite(hidden.sum(axis=-1)) & mx.isfinite(logits.max(axis=-1))


def _scored(sequences: Many[Sequence], lengths: Many[int], vocab_size: int) -> Scored | None:
    places, count, place = [], 0, 0
    for sequence, length in zip(sequences, lengths, strict=True):
        asked = sequence.request.logprobs
        if asked is not None:
            places += range(place, place + length)
            count = max(count, asked)
        place += length
    return Scored(places, min(count, vocab_size)) if places else None


def _score(logits: mx.array, ids: mx.array, scored: Scored, closes: np.ndarray) -> mx.array:
    """What is reported of the places that are scored. A row without a budget of thinking has token
    0 in place of the one that ends a thought, and nobody reads it."""
    rows = mx.array(np.array(scored.places, dtype=np.int32))
    ends = mx.array(np.maximum(closes, 0)[scored.places].astype(np.int32))
    asked = mx.stack([ids[rows], ends], axis=1)
    own, best, values = log_probabilities(logits[rows], asked, scored.count)
    return pack_logprobs(own, best, values)


def pack_logprobs(own: mx.array, best: mx.array, values: mx.array) -> mx.array:
    """Float32 [N, E], int32 and float32 [N, count] as one int32 [N * (E + 2 * count)]."""
    parts = [own.view(mx.int32), best]
    if best.shape[1]:
        parts.append(values.view(mx.int32))
    return mx.concatenate(parts, axis=1).reshape(-1)


def read_logprobs(report: Reader, num_own: int, num_best: int, asked: int) -> list[Logprob]:
    """Of one place: of each of its own tokens, with the `asked` best."""
    own = _floats(report.take(num_own))
    ids, values = report.take(num_best), _floats(report.take(num_best))
    best = list(zip(ids, values, strict=True))
    return [Logprob.of(value, best, asked) for value in own]


def _floats(values: list[int]) -> list[float]:
    """Float32 by their bits."""
    return [float(each) for each in np.array(values, dtype=np.int32).view(np.float32)]
