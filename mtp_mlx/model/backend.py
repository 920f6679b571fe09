"""Which device computes, and the one way its results reach the host."""

import os
import shutil
from collections.abc import Callable
from functools import cache
from typing import cast

import mlx.core as mx


def read_ints(array: mx.array) -> list[int]:
    """A one-dimensional array on the host: waits for the device."""
    return cast(list[int], array.tolist())


@cache
def on_gpu() -> bool:
    """True on Metal and CUDA, where compiled elementwise kernels pay."""
    return mx.default_device().type == mx.DeviceType.gpu


@cache
def can_compile() -> bool:
    """May elementwise functions become one kernel each? On CPU, MLX calls g++ for that."""
    return on_gpu() or shutil.which("g++") is not None


def compiled(function: Callable[..., mx.array]) -> Callable[..., mx.array]:
    """The function of arrays as one kernel for all shapes, or as it is where none can be made."""
    fused = mx.compile(function, shapeless=True)

    def call(*arrays: mx.array | tuple[mx.array, ...]) -> mx.array:
        return fused(*arrays) if can_compile() else function(*arrays)

    return call


def device_name() -> str:
    """The chip that computes, as its driver calls it, and the cores of the host."""
    info = mx.device_info()
    return f"{info['device_name']} {info['architecture']}, {os.cpu_count()} cores"
