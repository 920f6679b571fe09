"""Which device computes, and the one way its results reach the host."""

import os
import tempfile
import threading
import time
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import mlx.core as mx

from mtp_mlx.fields import shown


class _Inside(threading.local):
    """Seconds that a thread has spent inside MLX's eval."""

    seconds = 0.0


_INSIDE = _Inside()
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


@compiled
def _probe(x: mx.array) -> mx.array:
    return x * x + x


def check_kernels() -> str | None:
    """Why kernels of `compiled` cannot be made or run here, None where they can. Where they cannot,
    the functions run as they are from then on, in all of the process.

    The folder must be this user's own: another one's kernels are another one's programs, and his
    folder takes none of ours.
    """
    if on_gpu():
        return None
    try:
        _check_folder(Path(tempfile.gettempdir()) / "mlx" / version("mlx") / "cpu")
        mx.eval(_probe(mx.ones((2,))))
    except (OSError, RuntimeError) as error:
        mx.disable_compile()
        return (
            f"kernels for this CPU cannot be made, and all takes longer: {shown(error)}; point "
            "TMPDIR at a folder of your own whose programs may run"
        )
    return None


def _check_folder(folder: Path) -> None:
    """Raises OSError where the folder, or one of MLX's two above it, is another user's."""
    for each in (folder.parents[1], folder.parents[0], folder):
        if each.exists() and each.stat().st_uid != os.geteuid():
            raise PermissionError(f"{each} is another user's")


def device_name() -> str:
    """The chip that computes, as its driver calls it, and the cores of the host."""
    info = mx.device_info()
    return f"{info['device_name']} {info['architecture']}, {os.cpu_count()} cores"
