"""The choice of a token: filters, keyed noise, argmax. One function for draft, verify and plain.

Token at position t = argmax(filtered(logits / T) + gumbel(seed, t, id)). The noise depends on
(seed, t, token id) alone; greedy is the same without noise. See `mtp_mlx.model.choose` for the
theory and for the rule of the filters, which keep all that reach a threshold.
"""

from collections.abc import Sequence

import numpy as np

from mtp_mlx.reference.head import Logits
from mtp_mlx.request import Sampling

MASK64 = (1 << 64) - 1
# The odd constants of SplitMix64 (Steele 2014): the golden ratio's, then those of its mixer.
GOLDEN64 = 0x9E3779B97F4A7C15
MIX64 = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
# Golden ratio for 32 bits; the constants of MurmurHash3's finaliser (Appleby).
GOLDEN32 = np.uint32(0x9E3779B1)
MIX32 = (np.uint32(0x85EBCA6B), np.uint32(0xC2B2AE35))
# Largest float32 below 1: keeps log1p(-u) finite.
BELOW_ONE = np.float32(1.0 - 2.0**-24)


def noise_key(seed: int, position: int) -> tuple[int, int]:
    """Two 32-bit keys for the noise of one position, by two steps of SplitMix64 (Steele 2014)."""
    state = _mix64((seed + GOLDEN64) & MASK64)
    state = _mix64((state + GOLDEN64 * (position + 1)) & MASK64)
    return state % (1 << 32), state >> 32


def _mix64(bits: int) -> int:
    bits = (bits ^ (bits >> 30)) * MIX64[0] & MASK64
    bits = (bits ^ (bits >> 27)) * MIX64[1] & MASK64
    return bits ^ (bits >> 31)


def _mix32(bits: np.ndarray) -> np.ndarray:
    """uint32 [M] -> uint32 [M]; products wrap around."""
    bits = (bits ^ (bits >> np.uint32(16))) * MIX32[0]
    bits = (bits ^ (bits >> np.uint32(13))) * MIX32[1]
    return bits ^ (bits >> np.uint32(16))


def gumbel(keys: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Standard Gumbel noise of (key, token id): keys [N, 2] uint32, ids [N, M] or [M] -> [N, M]."""
    rows = []
    for row, (low, high) in enumerate(keys):
        own = (ids if ids.ndim == 1 else ids[row]).astype(np.uint32)
        hashed = _mix32(_mix32(own * GOLDEN32 ^ low) ^ high)
        uniform = (hashed.astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-32)
        uniform = np.minimum(uniform, BELOW_ONE)
        rows.append(-np.log(-np.log1p(-uniform)))
    return np.stack(rows)


class Choice:
    """How each of N rows chooses: its sampling and the absolute position of the chosen token."""

    def __init__(self, rows: Sequence[Sampling], positions: Sequence[int]) -> None:
        assert len(rows) == len(positions)
        self.num_rows = len(rows)
        self.sampled = [index for index, row in enumerate(rows) if not row.is_greedy]
        self.rows = [rows[index] for index in self.sampled]
        keys = [noise_key(rows[index].seed, positions[index]) for index in self.sampled]
        self.keys = np.array(keys, dtype=np.uint32).reshape(-1, 2)


def choose(logits: Logits, choice: Choice) -> np.ndarray:
    """The chosen token ids [N] int32."""
    columns = np.array([int(np.argmax(scores)) for scores in logits.scores])
    if choice.sampled:
        columns[choice.sampled] = _sample(logits, choice)
    if logits.ids is None:
        return columns.astype(np.int32)
    chosen = [ids[column] for ids, column in zip(logits.ids, columns, strict=True)]
    return np.array(chosen, dtype=np.int32)


def _sample(logits: Logits, choice: Choice) -> list[int]:
    """Columns of the winners of the sampled rows."""
    temperatures = np.array([[row.temperature] for row in choice.rows], dtype=np.float32)
    scaled = logits.scores[choice.sampled] / temperatures
    vocabulary = np.arange(scaled.shape[1])
    noise = gumbel(choice.keys, vocabulary if logits.ids is None else logits.ids[choice.sampled])
    threshold = filter_threshold(scaled, choice)
    noisy = scaled + noise
    if threshold is not None:
        noisy[scaled < threshold] = -np.inf
    return [int(np.argmax(row)) for row in noisy]


def filter_threshold(scaled: np.ndarray, choice: Choice) -> np.ndarray | None:
    """The smallest scaled logit [N, 1] that passes the filters; None when all rows keep all."""
    if not any(row.top_k or row.top_p < 1.0 or row.min_p > 0.0 for row in choice.rows):
        return None
    thresholds = [_threshold(*pair) for pair in zip(scaled, choice.rows, strict=True)]
    return np.array(thresholds, dtype=np.float32).reshape(-1, 1)


def _threshold(scaled: np.ndarray, sampling: Sampling) -> np.float32:
    """Of one row [M]: top-k, then top-p among the k, then min-p against the best."""
    kept = np.sort(scaled)[::-1]
    if sampling.top_k:
        kept = kept[: sampling.top_k]
    if sampling.top_p < 1.0:
        weights = np.exp(kept - kept[0])
        enough = np.float32(sampling.top_p) * weights.cumsum()[-1]
        mass, count = weights[0], 1  # the best always stays, however small top_p
        while count < len(kept) and mass < enough:
            mass += weights[count]
            count += 1
        kept = kept[:count]
    if sampling.min_p > 0.0:
        return max(kept[-1], kept[0] + np.log(np.float32(sampling.min_p)))
    return kept[-1]
