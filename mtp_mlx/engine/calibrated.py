"""The calibration of a loaded pair: the one that is kept, where it still holds, else a new one."""

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import mlx.core as mx

from mtp_mlx import __version__, calibration_file
from mtp_mlx.calibration_file import Key, checkpoint_digest
from mtp_mlx.checkpoint import CONFIG, Checkpoint
from mtp_mlx.config import DrafterConfig, TargetConfig
from mtp_mlx.engine.calibrate import Drift, calibrate, drift, reach
from mtp_mlx.engine.policy import Calibration
from mtp_mlx.engine.timing import Bench
from mtp_mlx.model.backend import device_name
from mtp_mlx.model.drafter import Drafter
from mtp_mlx.model.target import Target
from mtp_mlx.quantization import Quantization
from mtp_mlx.request import MAX_DRAFT_TOKENS

LOAD_BUDGET_S, LOAD_REPEATS = 2.0, 3
# Rows that are measured while a model loads, if it may have so many: their rings take memory, which
# a model that is loaded for many rows may never use. Wider rounds are extrapolated.
LOAD_ROWS = 8
# A kept calibration that is off by more is measured anew, unless this machine's timings scatter
# more than that, up to the limit below.
MAX_DRIFT = 0.15
# Timings that scatter more are not kept, unless by force: something else ran beside them.
MAX_SPREAD = 0.20


@dataclass(frozen=True)
class Source:
    """A pair whose costs are wanted: the models, their files, and the rows a round may have."""

    target: Target
    drafter: Drafter
    files: tuple[Checkpoint[TargetConfig], Checkpoint[DrafterConfig]]
    num_slots: int

    def key(self) -> Key:
        """What its calibration is kept under. Raises OSError where a file cannot be read."""
        return key_of(self.files, self.target.dtype)

    def bench(self, num_slots: int) -> Bench:
        """A new bench of the pair for rounds of so many rows."""
        return Bench(self.target, self.drafter, num_slots, MAX_DRAFT_TOKENS, time.perf_counter)


Files = tuple[Checkpoint[TargetConfig], Checkpoint[DrafterConfig] | None]


def key_of(files: Files, dtype: mx.Dtype) -> Key:
    """What is kept of a pair, or of a target alone, where activations are of `dtype`. Raises
    OSError where a file cannot be read."""
    target, drafter = files
    return Key(
        chip=device_name(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        device=mx.default_device().type.name,
        mlx=version("mlx"),
        mtp_mlx=__version__,
        dtype=str(dtype),
        target=_digest(target),
        drafter="" if drafter is None else _digest(drafter),
        quantization=" ".join(_spell(each.config.quantization) for each in files if each),
        k_max=MAX_DRAFT_TOKENS,
    )


def _digest(checkpoint: Checkpoint[TargetConfig] | Checkpoint[DrafterConfig]) -> str:
    return checkpoint_digest(checkpoint.folder / CONFIG, checkpoint.files)


def _spell(quantization: Quantization | None) -> str:
    if quantization is None:
        return "none"
    default = quantization.default
    return f"{default.mode}-{default.bits}-{default.group_size}"


@dataclass(frozen=True)
class Calibrated:
    """The calibration in use; `note` says in one line why the kept one was of no use, and why this
    one is not kept, where that is so."""

    calibration: Calibration
    note: str | None = None


def load_or_calibrate(source: Source, find_folder: Callable[[], Path]) -> Calibrated:
    """The kept calibration, if a few things timed again agree with it, else one measured within
    two seconds and kept in its place. find_folder: where they lie; may raise OSError. Trouble with
    files never fails: it is the note's."""
    bench = source.bench(min(source.num_slots, LOAD_ROWS))
    try:
        folder, key = find_folder(), source.key()
    except OSError as error:
        return Calibrated(calibrate(bench, LOAD_BUDGET_S, LOAD_REPEATS), _not_kept(error))
    found = calibration_file.read(folder, key, reach(bench.max_tokens))
    known, fault = found.calibration, found.reason
    if known is not None:
        fault = _mismatch(drift(bench, known), known)
        if fault is None:
            return Calibrated(known)
    fresh = calibrate(bench, LOAD_BUDGET_S, LOAD_REPEATS)
    notes = [f"the calibration was measured anew: {fault}"] if fault else []
    try:
        if fresh.spread > MAX_SPREAD:
            notes.append(_not_kept(scatter(fresh.spread)))
        else:
            calibration_file.write(folder, key, fresh)
    except OSError as error:
        notes.append(_not_kept(error))
    return Calibrated(fresh, "; ".join(notes) or None)


def _mismatch(seen: Drift, known: Calibration) -> str | None:
    """Why a kept calibration no longer holds; None where it does."""
    allowed = 1 + max(MAX_DRIFT, min(max(known.spread, seen.spread), MAX_SPREAD))
    for what, ratio in (("a forward", seen.forward), ("a round with drafts", seen.round)):
        if not 1 / allowed <= ratio <= allowed:
            return f"{what} takes {ratio:.2f} times as long as the one that was kept says"
    return None


def scatter(spread: float) -> str:
    """Why timings are not kept, for a spread above the limit."""
    return f"timings scatter by {spread:.0%}, more than {MAX_SPREAD:.0%}: other programs are busy"


def _not_kept(why: OSError | str) -> str:
    return f"the calibration is not kept: {why}"
