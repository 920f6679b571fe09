"""From hidden state to logits: the tied head, and the centroid head of the small drafters."""

from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn

from mtp_mlx.config import CentroidSpec
from mtp_mlx.model.backend import compiled
from mtp_mlx.model.linear import Linear


@dataclass(frozen=True)
class Logits:
    """Scores [N, M] float32. `ids` [N, M] names their tokens; None when M is the vocabulary.

    Tokens outside `ids` have probability zero.
    """

    scores: mx.array
    ids: mx.array | None = None


@compiled
def _capped(logits: mx.array, cap: mx.array) -> mx.array:
    return mx.tanh(logits / cap) * cap


def softcap(logits: mx.array, cap: float | None) -> mx.array:
    """cap · tanh(logits / cap), or the logits themselves."""
    if cap is None:
        return logits
    return _capped(logits, mx.array(cap, logits.dtype))


def tied_head(hidden: mx.array, embedding: nn.Embedding, cap: float | None) -> mx.array:
    """Logits [N, V] float32 of hidden [N, D] through the embedding table, plain or quantised."""
    return softcap(embedding.as_linear(hidden), cap).astype(mx.float32)


class MaskedEmbedding(nn.Module):
    """The centroid head: `centroids` pick clusters of ids, listed by `token_ordering`."""

    def __init__(self, spec: CentroidSpec, width: int, vocab_size: int) -> None:
        super().__init__()
        self.top_k = spec.top_k
        self.cluster_size = vocab_size // spec.num
        self.centroids = Linear(width, spec.num)
        self.token_ordering = mx.zeros((vocab_size,), mx.int32)

    def __call__(self, hidden: mx.array, embedding: nn.Embedding, cap: float | None) -> Logits:
        """hidden [N, D] -> scores of the top_k · cluster_size tokens of the best clusters."""
        scores = self.centroids(hidden)  # [N, num]
        best = mx.argpartition(-scores, kth=self.top_k - 1, axis=-1)[:, : self.top_k]
        within = mx.arange(self.cluster_size)
        places = best[:, :, None] * self.cluster_size + within  # [N, top_k, cluster]
        ids = self.token_ordering[places.reshape(hidden.shape[0], -1)]
        rows = embedding(ids)  # [N, M, D]; only these are dequantised
        logits = (rows @ hidden[:, :, None])[..., 0]
        return Logits(softcap(logits, cap).astype(mx.float32), ids)
