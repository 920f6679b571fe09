"""A linear layer without bias that holds its matrix as products want it."""

from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn

from mtp_mlx.model.backend import queue


@dataclass(frozen=True)
class _Turned:
    """A weight [out, in], and the same as [in, out]."""

    weight: mx.array
    inward: mx.array


class Linear(nn.Linear):
    """x @ weight.T, which is turned once; weight [out, in]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)
        self._turned: _Turned | None = None

    def __call__(self, x: mx.array) -> mx.array:
        """x [..., in] -> [..., out]."""
        weight = self["weight"]
        if self._turned is None or self._turned.weight is not weight:
            self._turned = _Turned(weight, weight.T)
            queue(self._turned.inward)  # at once: in a graph it would be turned at each call
        return x @ self._turned.inward
