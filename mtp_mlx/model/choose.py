"""The choice of a token: filters, keyed noise, argmax. One function for draft, verify and plain.

Token at position t = argmax(filtered(logits / T) + gumbel(seed, t, id)). The noise depends on
(seed, t, token id) alone, so target and drafter draw the same noise and mostly pick the same token,
and the text of a seed is a function of the target: any drafter, any draft length, any neighbours
give the same. Greedy is the same without noise. Drafter-invariant speculative sampling: Daliri,
Musco, Suresh 2024, arXiv 2408.07978.

Filters keep a token when its scaled logit reaches a threshold, so ties at the border stay in:
top-k the k-th largest value; top-p the smallest value of the shortest prefix (by probability,
among the k) whose mass reaches p; min-p the largest value + log(min_p).
"""

from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from mtp_mlx.model.head import Logits
from mtp_mlx.request import Sampling

_MASK = (1 << 64) - 1
# Largest float32 below 1: keeps log1p(-u) finite.
_BELOW_ONE = 1.0 - 2.0**-24


def noise_key(seed: int, position: int) -> tuple[int, int]:
    """Two 32-bit keys for the noise of one position, by two steps of SplitMix64 (Steele 2014)."""
    state = _mix64((seed + 0x9E3779B97F4A7C15) & _MASK)
    state = _mix64((state + 0x9E3779B97F4A7C15 * (position + 1)) & _MASK)
    return state & 0xFFFFFFFF, state >> 32


def _mix64(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def _mix32(h: mx.array) -> mx.array:
    """The 32-bit finaliser of MurmurHash3 (Appleby)."""
    h = (h ^ (h >> 16)) * mx.array(0x85EBCA6B, mx.uint32)
    h = (h ^ (h >> 13)) * mx.array(0xC2B2AE35, mx.uint32)
    return h ^ (h >> 16)


def gumbel(keys: mx.array, ids: mx.array) -> mx.array:
    """Standard Gumbel noise of (key, token id): keys [N, 2] uint32, ids [N, M] or [M] -> [N, M].

    Uniforms are resolved to 2^-32 near 0, where the large noise comes from.
    """
    low, high = keys[:, :1], keys[:, 1:]
    hashed = _mix32(_mix32(ids.astype(mx.uint32) * mx.array(0x9E3779B1, mx.uint32) ^ low) ^ high)
    uniform = (hashed.astype(mx.float32) + 0.5) * 2.0**-32
    return -mx.log(-mx.log1p(-mx.minimum(uniform, _BELOW_ONE)))


class Choice:
    """How each of N rows chooses: its sampling and the absolute position of the chosen token."""

    def __init__(self, rows: Sequence[Sampling], positions: Sequence[int]) -> None:
        assert len(rows) == len(positions)
        self.num_rows = len(rows)
        self.sampled = [index for index, row in enumerate(rows) if not row.is_greedy]
        chosen = [rows[index] for index in self.sampled]
        self.temperature = _column([row.temperature for row in chosen])
        self.top_p = _column([row.top_p for row in chosen])
        self.min_p = _column([row.min_p for row in chosen])
        self.top_k = [row.top_k for row in chosen]
        self.needs_order = any(row.top_k or row.top_p < 1.0 for row in chosen)
        self.needs_floor = any(row.min_p > 0.0 for row in chosen)
        keys = [
            noise_key(row.seed, positions[i]) for i, row in zip(self.sampled, chosen, strict=True)
        ]
        self.keys = mx.array(np.array(keys, dtype=np.uint32).reshape(-1, 2))


def _column(values: list[float]) -> mx.array:
    return mx.array(np.array(values, dtype=np.float32).reshape(-1, 1))


def choose(logits: Logits, choice: Choice) -> mx.array:
    """The chosen token ids [N] int32."""
    scores, sampled = logits.scores, choice.sampled
    if len(sampled) == choice.num_rows:
        best = _sample(scores, logits.ids, choice)
    else:
        best = mx.argmax(scores, axis=-1)
        if sampled:
            rows = mx.array(sampled)
            ids = None if logits.ids is None else logits.ids[rows]
            picked = _sample(scores[rows], ids, choice)
            source = np.arange(choice.num_rows)
            source[sampled] = choice.num_rows + np.arange(len(sampled))
            best = mx.concatenate([best, picked])[mx.array(source)]
    if logits.ids is not None:
        best = mx.take_along_axis(logits.ids, best[:, None], axis=-1)[:, 0]
    return best.astype(mx.int32)


def _sample(scores: mx.array, ids: mx.array | None, choice: Choice) -> mx.array:
    """Column of the winner in scores [N, M] of the sampled rows."""
    scaled = scores / choice.temperature
    noise = gumbel(choice.keys, mx.arange(scores.shape[-1]) if ids is None else ids)
    threshold = filter_threshold(scaled, choice)
    if threshold is not None:
        noise = mx.where(scaled >= threshold, noise, -mx.inf)
    return mx.argmax(scaled + noise, axis=-1)


def filter_threshold(scaled: mx.array, choice: Choice) -> mx.array | None:
    """The smallest scaled logit [N, 1] that passes the filters; None when all rows keep all."""
    threshold = None
    if choice.needs_order:
        threshold = _order_threshold(scaled, choice)
    if choice.needs_floor:
        top = scaled.max(axis=-1, keepdims=True)
        floor = top + mx.log(choice.min_p)
        threshold = floor if threshold is None else mx.maximum(threshold, floor)
    return threshold


def _order_threshold(scaled: mx.array, choice: Choice) -> mx.array:
    """Top-k and top-p in one descending order; sums run from the top, so that a row's result does
    not depend on how many ranks its neighbours need."""
    width = scaled.shape[-1]
    ranks = [min(k, width) if k else width for k in choice.top_k]
    most = max(ranks)
    best = scaled if most == width else mx.topk(scaled, most, axis=-1)
    best = -mx.sort(-best, axis=-1)  # [N, most], descending
    last = mx.array(np.array(ranks, dtype=np.int32).reshape(-1, 1)) - 1
    weights = mx.exp(best - best[:, :1])
    mass = mx.cumsum(weights, axis=-1)
    total = mx.take_along_axis(mass, last, axis=-1)
    before = mx.concatenate([mx.zeros_like(total), mass[:, :-1]], axis=-1)
    limit = mx.where(choice.top_p < 1.0, choice.top_p * total, mx.inf)
    kept = (before < limit) & (mx.arange(most) <= last)
    count = mx.maximum(kept.astype(mx.int32).sum(axis=-1, keepdims=True), 1)
    return mx.take_along_axis(best, count - 1, axis=-1)
