"""Which device computes: the one place that the choice between two forms of an operation asks."""

from functools import cache

import mlx.core as mx


@cache
def on_gpu() -> bool:
    """True on Metal and CUDA, where `mx.fast` kernels and compiled graphs pay."""
    return mx.default_device().type == mx.DeviceType.gpu
