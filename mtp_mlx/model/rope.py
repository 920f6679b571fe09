"""Rotary position embedding, default and proportional.

Half-split form: pair (j, j + K/2) turns by position · f_j with f_j = theta^(-2j/K) / factor for
j < pairs and 0 beyond; "proportional" (the full layers of Gemma 4) turns only the first 64 of 256
pairs, so dims 0-63 and 256-319 change. Angles are float32, as in the reference implementation.
"""

from functools import cache

import mlx.core as mx
import numpy as np

from mtp_mlx.config import RopeSpec
from mtp_mlx.model.backend import compiled, on_gpu


class Angles:
    """What turns the tokens of one forward, shared by all layers of a kind.

    On a GPU, where MLX turns in one kernel, their positions and the periods of the pairs; else
    cosines and sines [N, 1, K], the sines of the first half negative.
    """

    def __init__(self, spec: RopeSpec, positions: mx.array) -> None:
        self.positions = positions
        if on_gpu():
            self.periods = _periods(spec)
            return
        turned = positions.astype(mx.float32)[:, None, None] * mx.array(_frequencies(spec))
        cos, sin = mx.cos(turned), mx.sin(turned)
        self.cos = mx.concatenate([cos, cos], axis=-1)
        self.sin = mx.concatenate([-sin, sin], axis=-1)


@cache
def _frequencies(spec: RopeSpec) -> np.ndarray:
    """By which each pair [K / 2] turns from one position to the next, in radians."""
    exponent = np.arange(spec.pairs, dtype=np.float32) * np.float32(2.0 / spec.head_dim)
    frequencies = np.zeros(spec.head_dim // 2, dtype=np.float32)
    frequencies[: spec.pairs] = 1.0 / (np.float32(spec.theta) ** exponent) / np.float32(spec.factor)
    return frequencies


def _periods(spec: RopeSpec) -> mx.array:
    with np.errstate(divide="ignore"):  # a pair that rests has an endless period
        return mx.array(np.float32(1.0) / _frequencies(spec))


@compiled
def _turned(x: mx.array, partner: mx.array, cos: mx.array, sin: mx.array) -> mx.array:
    return x * cos + partner * sin


def rotate(x: mx.array, angles: Angles) -> mx.array:
    """x [N, heads, K] turned by its positions; the dims of resting pairs pass through."""
    if on_gpu():
        apart = x[:, :, None]  # [N, heads, 1, K]: each token at its own position
        turned = mx.fast.rope(
            apart,
            x.shape[-1],
            traditional=False,
            base=None,
            scale=1.0,
            offset=angles.positions,
            freqs=angles.periods,
        )
        return turned[:, :, 0]
    wide = x.astype(mx.float32)
    partners = mx.roll(wide, x.shape[-1] // 2, -1)
    return _turned(wide, partners, angles.cos, angles.sin).astype(x.dtype)
