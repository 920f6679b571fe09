"""A loaded pair on MLX: the engine, and the models outside a generation."""

import gc
from collections.abc import Callable, Sequence
from pathlib import Path

import mlx.core as mx
import numpy as np

from mtp_mlx import calibration_file
from mtp_mlx.checkpoint import Checkpoint
from mtp_mlx.config import DrafterConfig, TargetConfig
from mtp_mlx.engine import blocks, forced, positions
from mtp_mlx.engine.calibrate import measure
from mtp_mlx.engine.calibrated import Calibrated, Source, load_or_calibrate
from mtp_mlx.engine.engine import PREFILL_CHUNK, Engine
from mtp_mlx.engine.planner import PolicyPlanner, most_drafts
from mtp_mlx.engine.policy import Calibration
from mtp_mlx.fit import Plan, make_plan
from mtp_mlx.loading import Loading
from mtp_mlx.machine import budget_of, limit_bytes
from mtp_mlx.measured import Measured, PositionScore
from mtp_mlx.model.backend import device_name, on_gpu
from mtp_mlx.model.kernels import check_kernels
from mtp_mlx.model.load import compute_dtype, load_drafter, load_target
from mtp_mlx.verdict import Rounding, Text


def available_memory() -> int:
    """Bytes that may be taken here, less what this process's models take already."""
    return budget_of(mx.device_info()).available - mx.get_active_memory()


def limit_here(memory_limit: int | str | None) -> int:
    """Bytes that may be taken here within the user's limit, see api.load. Raises RequestError."""
    there = available_memory()
    if memory_limit is None:
        return there
    return min(there, limit_bytes(memory_limit, budget_of(mx.device_info()).total))


def _chunk(loading: Loading) -> int:
    return PREFILL_CHUNK if loading.prefill_chunk is None else loading.prefill_chunk


def _plan(
    target: Checkpoint[TargetConfig],
    drafter: Checkpoint[DrafterConfig] | None,
    loading: Loading,
    dtype: mx.Dtype,
) -> Plan:
    """What the pair will take, before any of it is read. Raises DoesNotFit."""
    limit, rows = limit_here(loading.memory_limit), loading.max_num_seqs
    stored = target.tensors.values(), () if drafter is None else drafter.tensors.values()
    plan = make_plan(target.config, stored, rows, dtype.size, limit, chunk=_chunk(loading))
    plan.check()
    return plan


class MlxRuntime:
    """See backends.Runtime."""

    def __init__(
        self,
        target: Checkpoint[TargetConfig],
        drafter: Checkpoint[DrafterConfig] | None,
        loading: Loading,
    ) -> None:
        """Plan the memory, then read the weights."""
        self._kernel_fault = check_kernels()
        self._may_calibrate = calibration_file.is_on()
        compute = compute_dtype(target.config, target.tensors.values(), loading.dtype)
        plan, asked = _plan(target, drafter, loading, compute), loading.prompt_cache_bytes
        max_num_seqs = loading.max_num_seqs
        self._kv_budget = plan.kv_budget
        self._prompt_cache_bytes = plan.prompt_cache_bytes if asked is None else asked
        self._chunk = _chunk(loading)
        self._target = load_target(target, compute)
        self._drafter = None if drafter is None else load_drafter(drafter, compute)
        self._max_num_seqs = max_num_seqs
        self._source: Source | None = None
        if drafter is not None and self._drafter is not None:
            files = (target, drafter)
            self._source = Source(self._target, self._drafter, files, max_num_seqs)
        self._calibrated: Calibrated | None = None

    @property
    def has_drafter(self) -> bool:
        return self._drafter is not None

    @property
    def calibration(self) -> Calibration | None:
        """What rounds take on this machine, read or measured when first asked for.

        None without a drafter, and where MTP_MLX_CALIBRATION is off.
        """
        if self._calibrated is None and self._source is not None and self._may_calibrate:
            self._calibrated = load_or_calibrate(self._source, calibration_file.cache_folder)
        return None if self._calibrated is None else self._calibrated.calibration

    @property
    def note(self) -> str | None:
        found = self._kernel_fault, None if self._calibrated is None else self._calibrated.note
        return "; ".join(note for note in found if note is not None) or None

    @property
    def device(self) -> str:
        return device_name()

    def close(self) -> None:
        """Give the memory of the weights back to the system; the thread is done with MLX."""
        del self._target, self._drafter, self._source
        gc.collect()
        mx.clear_cache()
        mx.clear_streams()

    def new_engine(self) -> Engine:
        """An engine with empty slots and a policy that knows this machine's costs; it shares the
        weights."""
        engine = Engine(
            self._target,
            self._drafter,
            self._max_num_seqs,
            self._chunk,
            self._kv_budget,
            self._planner(),
        )
        engine.keep_prompts(self._prompt_cache_bytes)
        return engine

    def _planner(self) -> PolicyPlanner | None:
        calibration = self.calibration
        if calibration is None:
            return None
        k_max = most_drafts(self._target.config, on_gpu=on_gpu())
        return PolicyPlanner(calibration, self._max_num_seqs, k_max)

    @property
    def dtype(self) -> str:
        """Of the activations."""
        return str(self._target.dtype).removeprefix("mlx.core.")

    def peak_memory_bytes(self) -> int:
        return mx.get_peak_memory()

    def forget_peak_memory(self) -> None:
        """The most memory in use is counted anew from here on."""
        mx.reset_peak_memory()

    def active_memory_bytes(self) -> int | None:
        return mx.get_active_memory()

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        return forced.logits(self._target, ids, self._chunk)

    def measure_rounding(
        self, texts: Sequence[Text], sizes: Sequence[int], progress: Callable[[str], None]
    ) -> Rounding:
        return blocks.measure(self._target, texts, sizes, self._chunk, progress)

    def last_logits(self, text: Text) -> np.ndarray:
        return blocks.last_logits(self._target, text, self._chunk)

    def propose(self, ids: Sequence[int], count: int) -> list[int]:
        assert self._drafter is not None
        return forced.drafts(self._target, self._drafter, ids, count, self._chunk)

    def measure_costs(
        self, max_seconds: float, repeats: int, progress: Callable[[str], None]
    ) -> Measured:
        assert self._source is not None
        return measure(self._source.bench(self._max_num_seqs), max_seconds, repeats, progress)

    def compare_positions(
        self, texts: Sequence[Text], progress: Callable[[str], None]
    ) -> tuple[PositionScore, ...]:
        assert self._drafter is not None
        slots = self._max_num_seqs
        return positions.compare(self._target, self._drafter, texts, slots, self._chunk, progress)

    def calibration_key(self) -> calibration_file.Key:
        assert self._source is not None
        return self._source.key()

    def keep_calibration(self, calibration: Calibration) -> Path:
        """Keep it for later loads, and for engines that are made from now on; one that runs goes on
        with what it has learned. Raises OSError."""
        folder = calibration_file.cache_folder()
        path = calibration_file.write(folder, self.calibration_key(), calibration)
        self._calibrated = Calibrated(calibration)
        return path
