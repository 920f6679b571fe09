"""Which experts one forward chose, layer by layer, and how many different ones that are."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Distinct:
    """See model.routes.Distinct."""

    pending: int
    all: int


class Routes:
    """Collects the router's choices of one forward."""

    def __init__(self) -> None:
        self._layers: list[np.ndarray] = []

    def add(self, ids: np.ndarray, num_experts: int) -> None:
        """The choices [N, top_k] of the next layer, each below `num_experts`."""
        assert ids.max() < num_experts, "the router names an expert that is not there"
        self._layers.append(ids)

    def distinct(self, pending: list[int]) -> np.ndarray:
        """The fields of Distinct, int32 [2]; `pending`: the pending tokens among the N."""
        few = sum(len(set(ids[pending].flat)) for ids in self._layers)
        every = sum(len(set(ids.flat)) for ids in self._layers)
        return np.array([few, every], np.int32)
