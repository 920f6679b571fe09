"""What a prompt's forwards give beside its K/V: the first token, and scores of its own tokens."""

from math import isnan

import mlx.core as mx
import numpy as np

from mtp_mlx.engine.choosing import Reader, pack_logprobs, read_logprobs
from mtp_mlx.engine.round import Commit, Verdict, judge, logprobs_of, numerical_error
from mtp_mlx.engine.sequence import Sequence
from mtp_mlx.model.backend import read_ints
from mtp_mlx.model.logprobs import log_probabilities
from mtp_mlx.model.target import Target
from mtp_mlx.request import Tokens

# Rows of scores at a time: 64 MiB of float32 for 262,144 tokens, where a chunk's would be 1 GiB.
SCORED_ROWS = 64


def score_chunk(target: Target, sequence: Sequence, start: int, hidden: mx.array) -> None:
    """Add the log-probabilities of the prompt's tokens that the states [T, D] of its chunk from
    `start` on predict; none where they are not asked for. The last state predicts the reply."""
    asked = sequence.request.prompt_logprobs
    if asked is None:
        return
    if not start:
        sequence.prompt_logprobs.append(None)  # nothing predicts the first token
    count = min(asked, target.config.vocab_size)
    following = sequence.request.prompt[start + 1 : start + 1 + hidden.shape[0]]
    for at in range(0, len(following), SCORED_ROWS):
        ids = np.array(following[at : at + SCORED_ROWS], dtype=np.int32)[:, None]
        logits = target.logits(hidden[at : at + len(ids)])
        packed = pack_logprobs(*log_probabilities(logits, mx.array(ids), count))
        report = Reader(read_ints(packed))
        for _ in ids:
            sequence.prompt_logprobs += read_logprobs(report, 1, count, asked)


def first_token(sequence: Sequence, verdict: Verdict, hidden: mx.array) -> tuple[Tokens, Commit]:
    """Take the token after the prompt, which was chosen from its last state [1, D].

    Raises NumericalError, and what the request's own stop test and constraint raise.
    """
    scores = [each.logprob for each in sequence.prompt_logprobs if each is not None]
    if not verdict.is_finite[0] or any(map(isnan, scores)):
        raise numerical_error(sequence)
    kept = judge(sequence, verdict, 0)
    sequence.extend(kept.tokens)
    sequence.hidden = hidden[0]
    sequence.is_running = True
    event = Tokens(
        sequence.id,
        kept.tokens,
        ("prefill",),
        (),
        0,
        sequence.cache_use,
        logprobs_of(verdict, 0, kept),
        tuple(sequence.prompt_logprobs),
    )
    return event, kept
