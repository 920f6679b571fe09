"""The two runtimes behind one interface: MLX, and the NumPy twin that needs no MLX."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from mtp_mlx.checkpoint import (
    DRAFTER_REMEDY,
    Checkpoint,
    find_drafter,
    find_folder,
    open_drafter,
    open_target,
)
from mtp_mlx.config import DrafterConfig, TargetConfig
from mtp_mlx.errors import DrafterMismatch, MtpError, RequestError, Unsupported
from mtp_mlx.reply import EngineStats
from mtp_mlx.request import Event, Request
from mtp_mlx.verdict import Rounding, Text

DTYPES = ("float32", "bfloat16")


class EngineLike(Protocol):
    """Requests in, events out; see engine.engine.Engine."""

    @property
    def is_idle(self) -> bool: ...
    def submit(self, request: Request) -> int: ...
    def cancel(self, request_id: int) -> list[Event]: ...
    def step(self) -> list[Event]: ...
    def stats(self) -> EngineStats: ...
    def disturb(self) -> None: ...


class Runtime(Protocol):
    """A loaded pair. Used from the thread that loaded it.

    `note`: what a user should know about its calibration, in one line.
    """

    @property
    def has_drafter(self) -> bool: ...
    @property
    def note(self) -> str | None: ...
    def close(self) -> None: ...
    def new_engine(self) -> EngineLike: ...
    def peak_memory_bytes(self) -> int: ...
    def logits(self, ids: Sequence[int]) -> np.ndarray: ...
    def propose(self, ids: Sequence[int], count: int) -> list[int]: ...
    def measure_rounding(
        self, texts: Sequence[Text], sizes: Sequence[int], progress: Callable[[str], None]
    ) -> Rounding: ...
    def last_logits(self, text: Text) -> np.ndarray: ...


@dataclass(frozen=True)
class Pair:
    """Where target and drafter lie; `note` says in one line why there is no drafter."""

    target: Path
    drafter: Path | None
    note: str | None


@dataclass(frozen=True)
class Opened:
    """A pair whose files are checked and whose weights are not read yet."""

    target: Checkpoint[TargetConfig]
    drafter: Checkpoint[DrafterConfig] | None


def find_pair(model: str | Path, draft_model: str | Path | None) -> Pair:
    """Resolve what the user asked for. An explicit drafter that is not there is an error."""
    target = find_folder(model)
    if draft_model is None or draft_model == "none":
        return Pair(target, None, None)
    if draft_model == "auto":
        found = find_drafter(target)
        note = None if found else f"no drafter beside {target} (-assistant); decoding plainly"
        return Pair(target, found, note)
    return Pair(target, find_folder(draft_model, DRAFTER_REMEDY), None)


def open_pair(pair: Pair) -> Opened:
    """Check headers, configs and names of a pair. Raises CheckpointError; reads no weights."""
    target = open_target(pair.target)
    if pair.drafter is None:
        return Opened(target, None)
    if pair.drafter.resolve() == pair.target.resolve():
        raise DrafterMismatch(f"{pair.drafter}: target and drafter are the same folder")
    return Opened(target, open_drafter(pair.drafter, target.config))


def load_runtime(
    opened: Opened,
    max_num_seqs: int,
    dtype: str | None,
    backend: str,
    memory_limit: int | str | None,
) -> Runtime:
    """Read the weights of a checked pair. Raises CheckpointError, RequestError, DoesNotFit."""
    if backend not in ("mlx", "numpy"):
        raise RequestError(f"backend must be 'mlx' or 'numpy', found {backend!r}", param="backend")
    if dtype is not None and dtype not in DTYPES:
        raise RequestError(f"dtype must be one of {DTYPES}, found {dtype!r}", param="dtype")
    if backend == "numpy":
        if dtype not in (None, "float32"):
            raise RequestError("the numpy backend computes in float32 only", param="dtype")
        if memory_limit is not None:
            raise Unsupported(
                "the NumPy reference keeps to no memory limit; leave memory_limit out",
                param="memory_limit",
            )
        from mtp_mlx.reference.runtime import NumpyRuntime

        return NumpyRuntime(opened.target, opened.drafter, max_num_seqs)
    require_mlx()
    from mtp_mlx.engine.runtime import MlxRuntime

    return MlxRuntime(opened.target, opened.drafter, max_num_seqs, dtype, memory_limit)


def require_mlx() -> None:
    """Raises MtpError where MLX is not installed, with what to install."""
    try:
        import mlx.core  # noqa: F401
    except ImportError as error:
        raise MtpError(
            "MLX is not installed: pip install 'mtp-mlx[cpu]' (Linux), 'mtp-mlx[cuda]' (NVIDIA) or "
            f"mtp-mlx on a Mac; or load with backend='numpy' ({error})"
        ) from error
