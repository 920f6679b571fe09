"""A loaded pair on MLX: the engine, and the models outside a generation."""

import gc
from collections.abc import Callable, Sequence

import mlx.core as mx
import numpy as np

from mtp_mlx.checkpoint import Checkpoint
from mtp_mlx.config import DrafterConfig, TargetConfig
from mtp_mlx.engine import blocks, forced
from mtp_mlx.engine.engine import PREFILL_CHUNK, Engine
from mtp_mlx.model.load import compute_dtype, load_drafter, load_target
from mtp_mlx.verdict import Rounding, Text


class MlxRuntime:
    """See backends.Runtime."""

    def __init__(
        self,
        target: Checkpoint[TargetConfig],
        drafter: Checkpoint[DrafterConfig] | None,
        max_num_seqs: int,
        dtype: str | None,
    ) -> None:
        compute = compute_dtype(target, dtype)
        self._target = load_target(target, compute)
        self._drafter = None if drafter is None else load_drafter(drafter, compute)
        self._max_num_seqs = max_num_seqs

    @property
    def has_drafter(self) -> bool:
        return self._drafter is not None

    def close(self) -> None:
        """Give the memory of the weights back to the system; the thread is done with MLX."""
        del self._target, self._drafter
        gc.collect()
        mx.clear_cache()
        mx.clear_streams()

    def new_engine(self) -> Engine:
        """An engine with empty slots; it shares the weights."""
        return Engine(self._target, self._drafter, self._max_num_seqs)

    def peak_memory_bytes(self) -> int:
        return mx.get_peak_memory()

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        return forced.logits(self._target, ids, PREFILL_CHUNK)

    def measure_rounding(
        self, texts: Sequence[Text], sizes: Sequence[int], progress: Callable[[str], None]
    ) -> Rounding:
        return blocks.measure(self._target, texts, sizes, PREFILL_CHUNK, progress)

    def last_logits(self, text: Text) -> np.ndarray:
        return blocks.last_logits(self._target, text, PREFILL_CHUNK)

    def propose(self, ids: Sequence[int], count: int) -> list[int]:
        assert self._drafter is not None
        return forced.drafts(self._target, self._drafter, ids, count, PREFILL_CHUNK)
