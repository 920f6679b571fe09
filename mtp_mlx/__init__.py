"""mtp-mlx: Gemma 4 with its MTP drafter on MLX. Importing this package imports no MLX."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mtp_mlx.api import LLM, Stream, load
    from mtp_mlx.errors import (
        CheckpointError,
        ContextLengthExceeded,
        DoesNotFit,
        DrafterMismatch,
        EngineStopped,
        ModelNotFound,
        MtpError,
        NumericalError,
        RequestError,
        Unsupported,
        UnsupportedModel,
    )
    from mtp_mlx.reply import Chunk, Reply, SpecStats, Timings, Token, Usage

__version__ = "0.1.0"

_HOMES = {
    "api": ("LLM", "Stream", "load"),
    "errors": (
        "CheckpointError",
        "ContextLengthExceeded",
        "DoesNotFit",
        "DrafterMismatch",
        "EngineStopped",
        "ModelNotFound",
        "MtpError",
        "NumericalError",
        "RequestError",
        "Unsupported",
        "UnsupportedModel",
    ),
    "reply": ("Chunk", "Reply", "SpecStats", "Timings", "Token", "Usage"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "LLM",
    "CheckpointError",
    "Chunk",
    "ContextLengthExceeded",
    "DoesNotFit",
    "DrafterMismatch",
    "EngineStopped",
    "ModelNotFound",
    "MtpError",
    "NumericalError",
    "Reply",
    "RequestError",
    "SpecStats",
    "Stream",
    "Timings",
    "Token",
    "Unsupported",
    "UnsupportedModel",
    "Usage",
    "load",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'mtp_mlx' has no attribute {name!r}")
    return vars(import_module(f"mtp_mlx.{_HOME[name]}"))[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
