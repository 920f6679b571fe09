"""mtp-mlx: Gemma 4 with its MTP drafter on MLX. Importing this package imports no MLX."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mtp_mlx.api import LLM, load
    from mtp_mlx.errors import (
        CheckpointError,
        ContextLengthExceeded,
        DoesNotFit,
        DrafterMismatch,
        EngineStopped,
        InvalidSchema,
        ModelNotFound,
        MtpError,
        NumericalError,
        RequestError,
        TimedOut,
        Unsupported,
        UnsupportedModel,
    )
    from mtp_mlx.proof import verify
    from mtp_mlx.reply import Chunk, EngineStats, Reply, SpecStats, Timings, Token, Usage
    from mtp_mlx.request import CacheUse, Logprob, Progress
    from mtp_mlx.server.process.local import Server, serve
    from mtp_mlx.snapshot import BatchStats, RoundStats, RowStatus, Snapshot
    from mtp_mlx.streams import AsyncStream, Stream
    from mtp_mlx.text.calls import ToolCall
    from mtp_mlx.verdict import VerifyReport

__version__ = "0.1.0"

_HOMES = {
    "api": ("LLM", "load"),
    "errors": (
        "CheckpointError",
        "ContextLengthExceeded",
        "DoesNotFit",
        "DrafterMismatch",
        "EngineStopped",
        "InvalidSchema",
        "ModelNotFound",
        "MtpError",
        "NumericalError",
        "RequestError",
        "TimedOut",
        "Unsupported",
        "UnsupportedModel",
    ),
    "proof": ("verify",),
    "reply": ("Chunk", "EngineStats", "Reply", "SpecStats", "Timings", "Token", "Usage"),
    "request": ("CacheUse", "Logprob", "Progress"),
    "snapshot": ("BatchStats", "RoundStats", "RowStatus", "Snapshot"),
    "server.process.local": ("Server", "serve"),
    "streams": ("AsyncStream", "Stream"),
    "text.calls": ("ToolCall",),
    "verdict": ("VerifyReport",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "LLM",
    "AsyncStream",
    "BatchStats",
    "CacheUse",
    "CheckpointError",
    "Chunk",
    "ContextLengthExceeded",
    "DoesNotFit",
    "DrafterMismatch",
    "EngineStats",
    "EngineStopped",
    "InvalidSchema",
    "Logprob",
    "ModelNotFound",
    "MtpError",
    "NumericalError",
    "Progress",
    "Reply",
    "RequestError",
    "RoundStats",
    "RowStatus",
    "Server",
    "Snapshot",
    "SpecStats",
    "Stream",
    "TimedOut",
    "Timings",
    "Token",
    "ToolCall",
    "Unsupported",
    "UnsupportedModel",
    "Usage",
    "VerifyReport",
    "load",
    "serve",
    "verify",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'mtp_mlx' has no attribute {name!r}")
    return vars(import_module(f"mtp_mlx.{_HOME[name]}"))[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
