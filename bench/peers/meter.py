"""Counts what an engine does: forwards of its target, how often the host reads an array, and the
time inside MLX's eval.

A read is where the host waits for the device. Arrays, `mlx.core` and the target's class are changed
while a run is counted, so counted runs are not timed; their clock tells the host's share alone.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

READS = ("item", "tolist", "__array__", "__bool__", "__float__", "__index__", "__int__")
EVALS = ("eval", "async_eval")


@dataclass(frozen=True)
class Counts:
    """`forwards` of the target, `rows` of them all together, `reads` by the host, and `eval_s`
    seconds of these and of all that begins a computation."""

    forwards: int = 0
    rows: int = 0
    reads: int = 0
    eval_s: float = 0.0

    def __add__(self, other: "Counts") -> "Counts":
        return self._with(other, 1)

    def __sub__(self, other: "Counts") -> "Counts":
        return self._with(other, -1)

    def _with(self, other: "Counts", sign: int) -> "Counts":
        return Counts(
            self.forwards + sign * other.forwards,
            self.rows + sign * other.rows,
            self.reads + sign * other.reads,
            self.eval_s + sign * other.eval_s,
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
        places = [
            (kind, "__call__", self._forward),
            *((mx.array, name, self._read) for name in READS),
            *((mx, name, self._eval) for name in EVALS),
        ]
        kept = [(owner, name, getattr(owner, name)) for owner, name, _ in places]
        for owner, name, counted in places:
            setattr(owner, name, counted(getattr(owner, name)))
        try:
            yield
        finally:
            for owner, name, function in kept:
                setattr(owner, name, function)

    def _forward(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(model: Any, *arguments: Any, **options: Any) -> Any:
            if model is self._target:
                self.counts += Counts(forwards=1, rows=self._rows_of(*arguments, **options))
            return call(model, *arguments, **options)

        return counted

    def _read(self, method: Callable[..., Any]) -> Callable[..., Any]:
        return self._timed(method, Counts(reads=1))

    def _eval(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return self._timed(function, Counts())

    def _timed(self, function: Callable[..., Any], each: Counts) -> Callable[..., Any]:
        def counted(*arguments: Any) -> Any:
            started = time.perf_counter()
            found = function(*arguments)
            self.counts += each + Counts(eval_s=time.perf_counter() - started)
            return found

        return counted
