"""Counts what an engine does: forwards of its target, and how often the host reads an array.

A read is where the host waits for the device. Arrays and the target's class are changed while a
run is counted, so counted runs are not timed.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

READS = ("item", "tolist", "__array__", "__bool__", "__float__", "__index__", "__int__")


@dataclass(frozen=True)
class Counts:
    """`forwards` of the target, `rows` of them all together, and `reads` by the host."""

    forwards: int = 0
    rows: int = 0
    reads: int = 0

    def __sub__(self, other: "Counts") -> "Counts":
        return Counts(
            self.forwards - other.forwards, self.rows - other.rows, self.reads - other.reads
        )


class Meter:
    """`rows_of` tells from the arguments of the target's call how many rows it has."""

    def __init__(self, target: Any, rows_of: Callable[..., int]) -> None:
        self._target = target
        self._rows_of = rows_of
        self.counts = Counts()

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count from zero while the block runs."""
        self.counts = Counts()
        kind = type(self._target)
        places = [(kind, "__call__"), *((mx.array, name) for name in READS)]
        kept = [(owner, name, getattr(owner, name)) for owner, name in places]
        kind.__call__ = self._forward(kind.__call__)
        for name in READS:
            setattr(mx.array, name, self._read(getattr(mx.array, name)))
        try:
            yield
        finally:
            for owner, name, function in kept:
                setattr(owner, name, function)

    def _forward(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(model: Any, *arguments: Any, **options: Any) -> Any:
            if model is self._target:
                rows = self._rows_of(*arguments, **options)
                now = self.counts
                self.counts = Counts(now.forwards + 1, now.rows + rows, now.reads)
            return call(model, *arguments, **options)

        return counted

    def _read(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def counted(array: mx.array, *arguments: Any) -> Any:
            now = self.counts
            self.counts = Counts(now.forwards, now.rows, now.reads + 1)
            return method(array, *arguments)

        return counted
