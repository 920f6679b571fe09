"""Rotary position embedding, default and proportional.

Half-split form: pair (j, j + K/2) turns by position · f_j with f_j = theta^(-2j/K) / factor for
j < pairs; the other pairs rest. Angles are float32, as in Transformers 5.14.1.
"""

import numpy as np

from mtp_mlx.config import RopeSpec


class Angles:
    """Cosines and sines [N, 1, pairs] of one forward, shared by all layers of a kind."""

    def __init__(self, spec: RopeSpec, positions: np.ndarray) -> None:
        self.spec = spec
        turned = np.zeros((len(positions), 1, spec.pairs), dtype=np.float32)
        for pair in range(spec.pairs):
            period = np.float32(spec.theta) ** np.float32(2 * pair / spec.head_dim)
            frequency = np.float32(1.0) / period / np.float32(spec.factor)
            turned[:, 0, pair] = positions.astype(np.float32) * frequency
        self.cos = np.cos(turned)
        self.sin = np.sin(turned)


def rotate(x: np.ndarray, angles: Angles) -> np.ndarray:
    """x [N, heads, K] turned by its positions; the dims of resting pairs pass through."""
    half = x.shape[-1] // 2
    turned = x.copy()
    for pair in range(angles.spec.pairs):
        cos, sin = angles.cos[:, :, pair], angles.sin[:, :, pair]  # [N, 1]
        first, second = x[:, :, pair], x[:, :, pair + half]  # [N, heads]
        turned[:, :, pair] = first * cos - second * sin
        turned[:, :, pair + half] = second * cos + first * sin
    return turned
