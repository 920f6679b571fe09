"""Which device computes, and the one way its results reach the host."""

import os
import threading
import time
from collections.abc import Callable
from functools import cache
from typing import Any, ParamSpec, TypeVar, cast

import mlx.core as mx


class _Inside(threading.local):
    """Seconds that a thread has spent inside MLX's eval."""

    seconds = 0.0


_INSIDE = _Inside()
_LOG2_E = 1.4426950408889634
P = ParamSpec("P")
R = TypeVar("R")


def eval_s() -> float:
    """Seconds that this thread has spent so far in `queue` and `read_ints`. What a round takes
    besides is the host's own: building its graph, and what becomes of its tokens."""
    return _INSIDE.seconds


def queue(*arrays: Any) -> None:
    """Begin to compute arrays, or trees of them; on a CPU, whose queue is short, much of it is done
    when this returns."""
    started = time.perf_counter()
    mx.async_eval(*arrays)
    _INSIDE.seconds += time.perf_counter() - started


def read_ints(array: mx.array) -> list[int]:
    """A one-dimensional array on the host: waits for the device."""
    started = time.perf_counter()
    values = array.tolist()
    _INSIDE.seconds += time.perf_counter() - started
    return cast(list[int], values)


@cache
def on_gpu() -> bool:
    """True on Metal and CUDA, which have kernels of MLX's own for norms, turns and attention."""
    return mx.default_device().type == mx.DeviceType.gpu


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """The function as one kernel, whatever the shapes. On CPU, MLX has g++ make it the first time,
    in the temporary folder, and where there is no g++ runs the function as it is."""
    return mx.compile(function, shapeless=True)


def exp(x: mx.array) -> mx.array:
    """e^x for use within `compiled` on CPU: as a power of two, which the C library computes in half
    the time that MLX's own exp and tanh take there for large arrays, as near to the true value."""
    return mx.power(2.0, x * _LOG2_E)


def device_name() -> str:
    """The chip that computes, as its driver calls it, and the cores of the host."""
    info = mx.device_info()
    return f"{info['device_name']} {info['architecture']}, {os.cpu_count()} cores"
