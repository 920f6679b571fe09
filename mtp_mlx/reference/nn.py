"""The few pieces of `mlx.nn` that the model is made of, over a flat dict of tensors."""

from collections.abc import Mapping

import numpy as np

from mtp_mlx.errors import CheckpointError


class Tensors:
    """Weights (canonical key -> array) below one prefix; each is taken once, with its due shape."""

    def __init__(self, weights: Mapping[str, np.ndarray], source: str) -> None:
        self.weights = weights
        self.source = source
        self.prefix = ""
        self.taken: set[str] = set()

    def under(self, prefix: str) -> "Tensors":
        """The same tensors seen from a module further down, `prefix` with its closing dot."""
        below = Tensors(self.weights, self.source)
        below.prefix = self.prefix + prefix
        below.taken = self.taken
        return below

    def take(self, key: str, *shape: int) -> np.ndarray:
        """The tensor, floats as float32. Raises CheckpointError when missing or misshapen."""
        name = self.prefix + key
        if name not in self.weights:
            raise CheckpointError(f"{self.source}: tensor {name} is missing")
        array = self.weights[name]
        if array.shape != shape:
            raise CheckpointError(
                f"{self.source}: tensor {name} should have shape {list(shape)} "
                f"by config.json, found {list(array.shape)}"
            )
        self.taken.add(name)
        return array.astype(np.float32) if array.dtype.kind == "f" else array

    def check_all_taken(self) -> None:
        """Raise CheckpointError naming a tensor that no module asked for."""
        left = sorted(self.weights.keys() - self.taken)
        if left:
            raise CheckpointError(f"{self.source}: tensor {left[0]} is not part of this model")


class Linear:
    """x [N, inputs] -> [N, outputs], no bias."""

    def __init__(self, inputs: int, outputs: int, weights: Tensors) -> None:
        self.weight = weights.take("weight", outputs, inputs)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return np.stack([self.weight @ row for row in x])


class Embedding:
    """A table of one vector a token, which is also the tied output head."""

    def __init__(self, num_embeddings: int, width: int, weights: Tensors) -> None:
        self.weight = weights.take("weight", num_embeddings, width)

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        """Rows [N, D] of ids [N]. Raises ValueError for an id that the table does not hold."""
        rows = []
        for token in ids:
            if not 0 <= token < len(self.weight):
                raise ValueError(f"token id {token}, the table holds {len(self.weight)}")
            rows.append(self.weight[token])
        return np.stack(rows)

    def as_linear(self, x: np.ndarray) -> np.ndarray:
        """x [N, D] -> one score for each row of the table [N, V]."""
        return np.stack([self.weight @ row for row in x])


class RMSNorm:
    """Division by the root mean square of the last axis, times the weight (not 1 + weight)."""

    def __init__(self, width: int, eps: float, weights: Tensors) -> None:
        self.weight = weights.take("weight", width)
        self.eps = eps

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return rms_norm(x, self.eps) * self.weight


def rms_norm(x: np.ndarray, eps: float) -> np.ndarray:
    """The norm without weight: x · (mean(x²) + eps)^-½ over the last axis."""
    mean_square = np.mean(x * x, axis=-1, keepdims=True, dtype=np.float32)
    return x / np.sqrt(mean_square + np.float32(eps))
