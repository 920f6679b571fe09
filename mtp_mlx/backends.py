"""The two runtimes behind one interface: MLX, and the NumPy twin that needs no MLX."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from mtp_mlx.checkpoint import DRAFTER_REMEDY, Checkpoint, open_drafter, open_target
from mtp_mlx.config import DrafterConfig, TargetConfig
from mtp_mlx.errors import DrafterMismatch, MtpError, RequestError, Unsupported
from mtp_mlx.hub.find import PULL, drafter_of, find_model, short_name, title
from mtp_mlx.loading import Loading
from mtp_mlx.reply import EngineStats
from mtp_mlx.request import Event, Request
from mtp_mlx.snapshot import EngineStatus
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
    def status(self) -> EngineStatus: ...
    def disturb(self) -> None: ...


class Runtime(Protocol):
    """A loaded pair. Used from the thread that loaded it.

    `note`: what a user should know about its calibration, in one line. `device`: what computes, in
    words. `active_memory_bytes`: in
    use on the device now, None where that is not known.
    """

    @property
    def has_drafter(self) -> bool: ...
    @property
    def note(self) -> str | None: ...
    @property
    def device(self) -> str: ...
    def close(self) -> None: ...
    def new_engine(self) -> EngineLike: ...
    def peak_memory_bytes(self) -> int: ...
    def active_memory_bytes(self) -> int | None: ...
    def logits(self, ids: Sequence[int]) -> np.ndarray: ...
    def propose(self, ids: Sequence[int], count: int) -> list[int]: ...
    def measure_rounding(
        self, texts: Sequence[Text], sizes: Sequence[int], progress: Callable[[str], None]
    ) -> Rounding: ...
    def last_logits(self, text: Text) -> np.ndarray: ...


@dataclass(frozen=True)
class Pair:
    """Where target and drafter lie; `note` says in one line why there is no drafter, or how one was
    found that nobody named."""

    target: Path
    drafter: Path | None
    note: str | None


@dataclass(frozen=True)
class Opened:
    """A pair whose files are checked and whose weights are not read yet."""

    target: Checkpoint[TargetConfig]
    drafter: Checkpoint[DrafterConfig] | None


def find_pair(model: str | Path, draft_model: str | Path | None) -> Pair:
    """Resolve what the user asked for, on this machine; nothing is downloaded.

    A model or an explicit drafter that is not here is an error, a drafter that is not found a note.
    """
    target = find_model(model)
    if draft_model is None or draft_model == "none":
        return Pair(target, None, None)
    if draft_model == "auto":
        found = drafter_of(target)
        if found is None:
            return Pair(target, None, _no_drafter(target))
        return Pair(target, found.folder, found.note)
    return Pair(target, find_model(draft_model, DRAFTER_REMEDY), None)


def _no_drafter(target: Path) -> str:
    """Why a target decodes plainly, in one line."""
    name = short_name(target)
    if name is None:
        return f"no drafter beside {target} (-assistant), nor in the cache; decoding plainly"
    return f"no drafter of {title(target)} is here; decoding plainly; to fetch it: {PULL} {name}"


def open_pair(pair: Pair, *, check_all: bool = False) -> Opened:
    """Check headers, configs and names of a pair. Raises CheckpointError; reads no weights.

    check_all: see checkpoint.Checkpoint.
    """
    target = replace(open_target(pair.target), check_all=check_all)
    if pair.drafter is None:
        return Opened(target, None)
    if pair.drafter.resolve() == pair.target.resolve():
        raise DrafterMismatch(f"{pair.drafter}: target and drafter are the same folder")
    drafter = open_drafter(pair.drafter, target.config)
    return Opened(target, replace(drafter, check_all=check_all))


def load_runtime(opened: Opened, loading: Loading) -> Runtime:
    """Read the weights of a checked pair. Raises CheckpointError, RequestError, DoesNotFit."""
    backend, dtype = loading.backend, loading.dtype
    if backend not in ("mlx", "numpy"):
        raise RequestError(f"backend must be 'mlx' or 'numpy', found {backend!r}", param="backend")
    if dtype is not None and dtype not in DTYPES:
        raise RequestError(f"dtype must be one of {DTYPES}, found {dtype!r}", param="dtype")
    if backend == "numpy":
        if dtype not in (None, "float32"):
            raise RequestError("the numpy backend computes in float32 only", param="dtype")
        if loading.memory_limit is not None:
            raise Unsupported(
                "the NumPy reference keeps to no memory limit; leave memory_limit out",
                param="memory_limit",
            )
        if loading.prompt_cache_bytes:
            raise Unsupported(
                "the NumPy reference keeps no texts for later requests; leave prompt_cache_bytes "
                "out, or load with backend='mlx'",
                param="prompt_cache_bytes",
            )
        from mtp_mlx.reference.runtime import NumpyRuntime

        return NumpyRuntime(opened.target, opened.drafter, loading)
    require_mlx()
    from mtp_mlx.engine.runtime import MlxRuntime

    return MlxRuntime(opened.target, opened.drafter, loading)


def require_mlx() -> None:
    """Raises MtpError where MLX is not installed, with what to install."""
    try:
        import mlx.core  # noqa: F401
    except ImportError as error:
        raise MtpError(
            "MLX is not installed: pip install 'mtp-mlx[cpu]' (Linux), 'mtp-mlx[cuda]' (NVIDIA) or "
            f"mtp-mlx on a Mac; or load with backend='numpy' ({error})"
        ) from error
