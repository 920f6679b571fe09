"""Rotary position embedding, default and proportional.

Half-split form: pair (j, j + K/2) turns by position · f_j with f_j = theta^(-2j/K) / factor for
j < pairs and 0 beyond; "proportional" (the full layers of Gemma 4) turns only the first 64 of 256
pairs, so dims 0-63 and 256-319 change. Angles are float32, as in the reference implementation.
"""

import mlx.core as mx
import numpy as np

from mtp_mlx.config import RopeSpec


class Angles:
    """Cosines and sines [N, 1, pairs] of one forward, shared by all layers of a kind."""

    def __init__(self, spec: RopeSpec, positions: mx.array) -> None:
        self.spec = spec
        exponent = np.arange(spec.pairs, dtype=np.float32) * np.float32(2.0 / spec.head_dim)
        frequencies = 1.0 / (np.float32(spec.theta) ** exponent) / np.float32(spec.factor)
        turned = positions.astype(mx.float32)[:, None, None] * mx.array(frequencies)
        self.cos = mx.cos(turned)
        self.sin = mx.sin(turned)


def rotate(x: mx.array, angles: Angles) -> mx.array:
    """x [N, heads, K] turned by its positions; the dims of resting pairs pass through."""
    half, pairs = x.shape[-1] // 2, angles.spec.pairs
    first = x[..., :pairs].astype(mx.float32)
    second = x[..., half : half + pairs].astype(mx.float32)
    turned_first = (first * angles.cos - second * angles.sin).astype(x.dtype)
    turned_second = (second * angles.cos + first * angles.sin).astype(x.dtype)
    parts = [turned_first, x[..., pairs:half], turned_second, x[..., half + pairs :]]
    return mx.concatenate([part for part in parts if part.shape[-1]], axis=-1)
