"""RMS norm, alone, behind a residual, and with the rotary turn of heads.

MLX has one kernel for the norm on a GPU and none on CPU, where a sum of squares and one compiled
elementwise kernel do the same: x · √K·w / √(sum + K·eps). Types narrower than float32 go MLX's way
on CPU too.
"""

from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn

from mtp_mlx.model.backend import compiled, on_gpu, queue
from mtp_mlx.model.rope import Angles, rotate


def _root(x: mx.array, eps: mx.array) -> mx.array:
    """x [..., K] -> one over the root of its sum of squares [..., 1]."""
    return mx.rsqrt(mx.square(x).sum(axis=-1, keepdims=True) + eps)


@compiled
def _scaled(x: mx.array, scale: mx.array, eps: mx.array) -> mx.array:
    return x * _root(x, eps) * scale


@compiled
def _added(
    residual: mx.array, x: mx.array, scale: mx.array, eps: mx.array, outer: mx.array
) -> mx.array:
    return (residual + x * _root(x, eps) * scale) * outer


@compiled
def _turned(
    x: mx.array,
    partner: mx.array,
    scales: tuple[mx.array, mx.array],
    eps: mx.array,
    turn: tuple[mx.array, mx.array],
) -> mx.array:
    root, (scale, partner_scale), (cos, sin) = _root(x, eps), scales, turn
    return x * root * scale * cos + partner * root * partner_scale * sin


@dataclass(frozen=True)
class Folded:
    """What our own form takes of a norm with the weight w: √K·w [K] or [1], its dims in the order
    of their rotary partners, K·eps, and the factor 1."""

    weight: mx.array | None
    scale: mx.array
    partner_scale: mx.array
    eps: mx.array
    one: mx.array

    @staticmethod
    def of(width: int, weight: mx.array | None, eps: float) -> "Folded":
        scale = mx.array([width**0.5]) if weight is None else weight * width**0.5
        half = width // 2
        partner_scale = scale if weight is None else mx.roll(scale, half)
        one = mx.ones((1,))
        queue(scale, partner_scale, one)  # at once: in a graph it would be computed at each call
        return Folded(weight, scale, partner_scale, mx.array([width * eps]), one)


def is_own(x: mx.array) -> bool:
    """Is this for our own form, of float32 on CPU?"""
    return x.dtype == mx.float32 and not on_gpu()


def scaled(x: mx.array, folded: Folded) -> mx.array:
    """The norm of x [..., K] in our own form."""
    return _scaled(x, folded.scale, folded.eps)


class RMSNorm(nn.Module):
    """x over the root of its mean square; times a learned weight [K], if it has one."""

    def __init__(self, width: int, eps: float, has_weight: bool = True) -> None:
        super().__init__()
        self.width, self.eps = width, eps
        self._folded: Folded | None = None
        if has_weight:
            self.weight = mx.ones((width,))

    def __call__(self, x: mx.array) -> mx.array:
        """x [..., K] -> [..., K]."""
        if not is_own(x):
            return mx.fast.rms_norm(x, self.get("weight"), self.eps)
        return scaled(x, self._own())

    def add(self, residual: mx.array, x: mx.array, outer: mx.array | None = None) -> mx.array:
        """residual + norm(x), all [..., K], times `outer` [1]."""
        if not is_own(x):
            added = residual + self(x)
            return added if outer is None else added * outer
        own = self._own()
        factor = own.one if outer is None else outer
        return _added(residual, x, own.scale, own.eps, factor)

    def turn(self, x: mx.array, angles: Angles) -> mx.array:
        """norm(x) turned by its positions: x [N, heads, K]."""
        if not is_own(x):
            return rotate(self(x), angles)
        own, partner = self._own(), mx.roll(x, self.width // 2, -1)
        scales = own.scale, own.partner_scale
        return _turned(x, partner, scales, own.eps, (angles.cos, angles.sin))

    def _own(self) -> Folded:
        weight = self.get("weight")
        if self._folded is None or self._folded.weight is not weight:
            self._folded = Folded.of(self.width, weight, self.eps)
        return self._folded
