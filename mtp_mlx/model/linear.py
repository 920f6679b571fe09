"""A linear layer without bias that holds its matrix as products want it."""

from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn


@dataclass(frozen=True)
class _Inward:
    """A matrix [in, out]."""

    matrix: mx.array


class Linear(nn.Linear):
    """x @ weight.T, turned once. The weight [out, in] is not to change once it has been called."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)
        self._inward: _Inward | None = None

    def __call__(self, x: mx.array) -> mx.array:
        """x [..., in] -> [..., out]."""
        if self._inward is None:
            self._inward = _Inward(self.weight.T)
        return x @ self._inward.matrix
