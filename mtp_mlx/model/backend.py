"""Which device computes, and the one way its results reach the host."""

import os
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


def device_name() -> str:
    """The chip that computes, as its driver calls it, and the cores of the host."""
    info = mx.device_info()
    return f"{info['device_name']} {info['architecture']}, {os.cpu_count()} cores"
