"""The law in float64, written apart from the code under test: filters, chains, acceptance."""

import numpy as np

from mtp_mlx.request import Sampling


def softmax(values: np.ndarray) -> np.ndarray:
    weights = np.exp(values - values.max())
    return weights / weights.sum()


def kept_ids(logits: np.ndarray, sampling: Sampling) -> np.ndarray:
    """Which of the logits [V] pass the filters, as booleans: each filter in words.

    Temperature first. top_k: as many larger logits as k or more put a token out. top_p: of the k
    best, renormalised, the mass of the strictly better ones already reaches p. min_p: less than
    min_p times the probability of the best.
    """
    scaled = np.asarray(logits, dtype=np.float64) / np.float64(np.float32(sampling.temperature))
    is_kept = np.ones(len(scaled), dtype=bool)
    if sampling.top_k:
        is_kept &= np.array([(scaled > own).sum() < sampling.top_k for own in scaled])
    best = np.sort(scaled)[::-1][: sampling.top_k or None]
    if sampling.top_p < 1.0:
        shares = softmax(best)
        reached = np.array([shares[best > own].sum() for own in scaled])
        is_kept &= reached < np.float64(np.float32(sampling.top_p))
    if sampling.min_p > 0.0:
        is_kept &= np.exp(scaled - scaled.max()) >= np.float64(np.float32(sampling.min_p))
    return is_kept


def filtered(logits: np.ndarray, sampling: Sampling) -> np.ndarray:
    """Probabilities [V] of a sampled choice; [..., V] row by row."""
    logits = np.asarray(logits, dtype=np.float64)
    if logits.ndim > 1:
        return np.stack([filtered(row, sampling) for row in logits])
    scaled = np.where(kept_ids(logits, sampling), logits / sampling.temperature, -np.inf)
    return softmax(scaled)


def acceptance(target: np.ndarray, drafter: np.ndarray) -> float:
    """P(both choose the same id) with shared noise: sum_i 1 / sum_j max(p_j/p_i, q_j/q_i)."""
    shared = np.flatnonzero((target > 0.0) & (drafter > 0.0))
    ratios = [np.maximum(target / target[i], drafter / drafter[i]).sum() for i in shared]
    return float(sum(1.0 / ratio for ratio in ratios))


def chain_law(transitions: np.ndarray, last: int) -> np.ndarray:
    """Joint law [V, V, V] of the three tokens after `last`; transitions [V, V] row -> next."""
    first = transitions[last]
    return first[:, None, None] * transitions[:, :, None] * transitions[None, :, :]
