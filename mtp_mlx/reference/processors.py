"""What is done to scores before a token is chosen: bias, penalties, bans, a constraint's mask.

In this order, then come temperature and filters (`choose`). See `mtp_mlx.model.processors`.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from mtp_mlx.reference.head import Logits
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
        bias: np.ndarray | None,
        prompt: np.ndarray | None,
        reply: np.ndarray | None,
    ) -> None:
        assert len(rows) == len(samplings)
        self.rows, self.samplings = list(rows), list(samplings)
        self.bias, self.prompt, self.reply = bias, prompt, reply


def biases(sampling: Sampling, vocab_size: int) -> np.ndarray:
    """What is added to the scores of every token [V] float32."""
    values = np.zeros(vocab_size, dtype=np.float32)
    for token, bias in sampling.logit_bias:
        values[token] = bias
    for token in sampling.banned:
        values[token] = -np.inf
    return values


def counts(ids: Iterable[int], vocab_size: int) -> np.ndarray:
    """How often each token comes in `ids` [V] float32."""
    found = np.zeros(vocab_size, dtype=np.float32)
    for token in ids:
        found[token] += 1
    return found


def process(logits: Logits, processors: Processors) -> Logits:
    """Logits in which the scores of the rows that ask for it are changed."""
    scores = logits.scores.copy()
    for index, (row, sampling) in enumerate(
        zip(processors.rows, processors.samplings, strict=True)
    ):
        ids = np.arange(scores.shape[1]) if logits.ids is None else logits.ids[row]
        if processors.bias is not None:
            scores[row] += processors.bias[index, ids]
        if processors.reply is None:
            continue
        reply = processors.reply[index, ids]
        if processors.prompt is not None:
            strength = np.float32(sampling.repetition_penalty)
            came = processors.prompt[index, ids] + reply > 0
            positive = scores[row] > 0
            scores[row, came & positive] /= strength
            scores[row, came & ~positive] *= strength
        scores[row] -= np.float32(sampling.frequency_penalty) * reply
        scores[row, reply > 0] -= np.float32(sampling.presence_penalty)
    return Logits(scores, logits.ids)


def allow(scores: np.ndarray, rows: Sequence[int], words: np.ndarray) -> np.ndarray:
    """Scores [N, V] with -inf for what is not allowed in the rows [C] of `words` [C, W] uint32,
    where token t is bit t % 32 of word t // 32."""
    scores = scores.copy()
    tokens = np.arange(scores.shape[1])
    for row, own in zip(rows, words, strict=True):
        may = own[tokens // 32] >> (tokens % 32).astype(np.uint32) & np.uint32(1)
        scores[row, may == 0] = -np.inf
    return scores
