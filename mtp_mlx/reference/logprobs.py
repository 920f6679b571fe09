"""Log-probabilities of the target's own scores: of given tokens, and of the best ones."""

import numpy as np


def log_probabilities(
    scores: np.ndarray, ids: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """scores [N, V] float32, ids [N, E] int32 -> log-probabilities of the ids [N, E]; the `count`
    best tokens [N, count], of equal ones those with the lowest ids, and theirs [N, count]."""
    largest = scores.max(axis=-1, keepdims=True)
    logs = scores - (largest + np.log(np.exp(scores - largest).sum(axis=-1, keepdims=True)))
    best = np.argsort(-logs, axis=-1, kind="stable")[:, :count]
    return (
        np.take_along_axis(logs, ids, axis=-1),
        best.astype(np.int32),
        np.take_along_axis(logs, best, axis=-1),
    )
