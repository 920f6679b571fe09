"""What is done to scores before a token is chosen: bias, penalties, bans, a constraint's mask.

In this order, then come temperature and filters (`choose`). All of it is float32 arithmetic on
single scores, so that a row is changed the same alone and in any batch; what one row does not ask
for adds 0 or multiplies by 1. Repetition penalty: Keskar et al. 2019, arXiv 1909.05858; presence
and frequency as OpenAI defines them.
"""

from collections.abc import Iterable, Sequence

import mlx.core as mx
import numpy as np

from mtp_mlx.model.head import Logits
from mtp_mlx.request import Sampling


class Processors:
    """The rows of a choice whose scores are changed, and what that needs, by such row [A, V].

    `rows` are their places among the N. `bias` is added, -inf for what is banned; `prompt` and
    `reply` are how often each token has come. None where no row needs it.
    """

    def __init__(
        self,
        rows: Sequence[int],
        samplings: Sequence[Sampling],
        bias: mx.array | None,
        prompt: mx.array | None,
        reply: mx.array | None,
    ) -> None:
        assert len(rows) == len(samplings)
        self.rows = list(rows)
        self.bias, self.prompt, self.reply = bias, prompt, reply
        self.repetition = _column([row.repetition_penalty for row in samplings])
        self.presence = _column([row.presence_penalty for row in samplings])
        self.frequency = _column([row.frequency_penalty for row in samplings])


def _column(values: list[float]) -> mx.array:
    return mx.array(np.array(values, dtype=np.float32).reshape(-1, 1))


def biases(sampling: Sampling, vocab_size: int) -> mx.array:
    """What is added to the scores of every token [V] float32."""
    values = np.zeros(vocab_size, dtype=np.float32)
    for token, bias in sampling.logit_bias:
        values[token] = bias
    values[list(sampling.banned)] = -np.inf
    return mx.array(values)


def counts(ids: Iterable[int], vocab_size: int) -> mx.array:
    """How often each token comes in `ids` [V] float32: whole numbers, exact up to 2^24."""
    found = np.bincount(np.fromiter(ids, dtype=np.int64), minlength=vocab_size)
    return mx.array(found.astype(np.float32))


def process(logits: Logits, processors: Processors) -> Logits:
    """Logits in which the scores of the rows that ask for it are changed."""
    if len(processors.rows) == logits.scores.shape[0]:
        return Logits(_processed(logits.scores, logits.ids, processors), logits.ids)
    rows = mx.array(processors.rows)
    ids = None if logits.ids is None else logits.ids[rows]
    changed = _processed(logits.scores[rows], ids, processors)
    return Logits(_with_rows(logits.scores, rows, changed), logits.ids)


def _processed(scores: mx.array, ids: mx.array | None, processors: Processors) -> mx.array:
    """Scores [A, M] of the rows that ask."""

    def of(values: mx.array) -> mx.array:
        return values if ids is None else mx.take_along_axis(values, ids, axis=-1)

    if processors.bias is not None:
        scores = scores + of(processors.bias)
    if processors.reply is None:
        return scores
    reply = of(processors.reply)
    if processors.prompt is not None:
        strength = processors.repetition
        damped = mx.where(scores > 0.0, scores / strength, scores * strength)
        scores = mx.where(of(processors.prompt) + reply > 0.0, damped, scores)
    scores = scores - processors.frequency * reply
    return scores - processors.presence * (reply > 0.0).astype(mx.float32)


def allow(scores: mx.array, rows: Sequence[int], words: mx.array) -> mx.array:
    """Scores [N, V] with -inf for what is not allowed in the rows [C] of `words` [C, W] uint32,
    where token t is bit t % 32 of word t // 32."""
    bits = (words[:, :, None] >> mx.arange(32, dtype=mx.uint32)) & mx.array(1, mx.uint32)
    may = bits.reshape(len(rows), -1)[:, : scores.shape[1]] > 0
    if len(rows) == scores.shape[0]:
        return mx.where(may, scores, -mx.inf)
    places = mx.array(list(rows))
    return _with_rows(scores, places, mx.where(may, scores[places], -mx.inf))


def _with_rows(scores: mx.array, rows: mx.array, values: mx.array) -> mx.array:
    """A copy in which `rows` hold `values`."""
    copy = mx.array(scores)
    copy[rows] = values
    return copy
