"""From hidden state to logits: the tied head, and the centroid head of the small drafters."""

from dataclasses import dataclass

import numpy as np

from mtp_mlx.config import CentroidSpec
from mtp_mlx.reference.nn import Embedding, Linear, Tensors


@dataclass(frozen=True)
class Logits:
    """Scores [N, M] float32. `ids` [N, M] names their tokens; None when M is the vocabulary.

    Tokens outside `ids` have probability zero.
    """

    scores: np.ndarray
    ids: np.ndarray | None = None


def softcap(logits: np.ndarray, cap: float | None) -> np.ndarray:
    """cap · tanh(logits / cap), or the logits themselves."""
    if cap is None:
        return logits
    return np.float32(cap) * np.tanh(logits / np.float32(cap))


def tied_head(hidden: np.ndarray, embedding: Embedding, cap: float | None) -> np.ndarray:
    """Logits [N, V] float32 of hidden [N, D] through the embedding table."""
    return softcap(embedding.as_linear(hidden), cap)


class MaskedEmbedding:
    """The centroid head: `centroids` pick clusters of ids, listed by `token_ordering`."""

    def __init__(self, spec: CentroidSpec, width: int, vocab_size: int, weights: Tensors) -> None:
        self.top_k = spec.top_k
        self.cluster_size = vocab_size // spec.num
        self.centroids = Linear(width, spec.num, weights.under("centroids."))
        self.token_ordering = weights.take("token_ordering", vocab_size)

    def __call__(self, hidden: np.ndarray, embedding: Embedding, cap: float | None) -> Logits:
        """hidden [N, D] -> scores of the top_k · cluster_size tokens of the best clusters."""
        all_ids, all_scores = [], []
        for row, centroid_scores in zip(hidden, self.centroids(hidden), strict=True):
            ids: list[int] = []
            for cluster in np.argsort(-centroid_scores, kind="stable")[: self.top_k]:
                first = cluster * self.cluster_size
                ids.extend(self.token_ordering[first : first + self.cluster_size])
            all_ids.append(np.array(ids, dtype=np.int32))
            all_scores.append(embedding(all_ids[-1]) @ row)
        return Logits(softcap(np.stack(all_scores), cap), np.stack(all_ids))
