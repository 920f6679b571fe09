"""Which experts one forward chose, layer by layer, and how many different ones that are."""

from dataclasses import dataclass

import mlx.core as mx


@dataclass(frozen=True)
class Distinct:
    """Distinct experts, summed over the layers that have experts: those that the rows' pending
    tokens chose, and those that all tokens chose, drafts too."""

    pending: int
    all: int


class Routes:
    """Collects the router's choices of one forward."""

    def __init__(self) -> None:
        self._layers: list[tuple[mx.array, int]] = []

    def add(self, ids: mx.array, num_experts: int) -> None:
        """The choices [N, top_k] of the next layer."""
        self._layers.append((ids, num_experts))

    def distinct(self, pending: list[int]) -> mx.array:
        """The fields of Distinct, int32 [2]; `pending`: the pending tokens among the N."""
        ids = mx.concatenate(
            [ids.astype(mx.int32) + base for (ids, _), base in self._based()], axis=1
        )
        total = sum(num_experts for _, num_experts in self._layers)
        every = _count(ids, total)
        if len(pending) == ids.shape[0]:
            return mx.stack([every, every])
        return mx.stack([_count(ids[mx.array(pending)], total), every])

    def _based(self) -> list[tuple[tuple[mx.array, int], int]]:
        """Each layer with the number of experts in the layers before it."""
        based, base = [], 0
        for layer in self._layers:
            based.append((layer, base))
            base += layer[1]
        return based


def _count(ids: mx.array, total: int) -> mx.array:
    """How many different values, all below `total`, int32."""
    seen = mx.zeros((total,), mx.int32)
    seen[ids.reshape(-1)] = mx.ones((ids.size,), mx.int32)
    return seen.sum()
