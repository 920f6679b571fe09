"""What MLX and a pair make of this machine: device, memory, calibration, rows, speed."""

from pathlib import Path

import mlx.core as mx

from mtp_mlx import calibration_file, proof_file
from mtp_mlx.backends import find_pair, open_pair
from mtp_mlx.calibration_file import Key
from mtp_mlx.doctor.check import Check
from mtp_mlx.engine.calibrate import reach
from mtp_mlx.engine.calibrated import key_of
from mtp_mlx.errors import MtpError
from mtp_mlx.estimate import Estimate, estimate, find_subject
from mtp_mlx.fit import MAX_BLOCK, spell
from mtp_mlx.model.backend import device_name, on_gpu
from mtp_mlx.model.load import compute_dtype
from mtp_mlx.verdict import LEVELS

ROWS, TOKENS = 8, 8192  # texts that are planned for, or the model's longest
NO_FOLDER = "set HOME or XDG_CACHE_HOME to a folder that may be written"
PROBE_WIDTH, PROBE_ROWS = 256, (2, 3, 8)


def pair_checks(
    model: str, draft_model: str, dtype: str | None, memory_limit: int | str | None
) -> list[Check]:
    """All checks of the device, and of `model` on it."""
    found = [_device(), _rows()]
    try:
        subject = find_subject(model, draft_model)
        tokens = min(TOKENS, subject.config.max_positions)
        planned = estimate(subject, ROWS, tokens, dtype, memory_limit)
    except MtpError as error:
        expected = f"{model} can be opened"
        fix = "as it says, or name another model; mtp-mlx ls lists those that are here"
        return [*found, Check("model", False, "error", expected, str(error), fix)]
    found += [_fits(planned), _drafter(planned), _dtype(planned)]
    if not subject.is_here:
        return found
    opened = open_pair(find_pair(model, draft_model))
    compute = compute_dtype(opened.target.config, opened.target.tensors.values(), dtype)
    try:
        key = key_of((opened.target, opened.drafter), compute)
        folder = calibration_file.cache_folder()
    except OSError as error:
        expected = "results of tune and verify are kept"
        return [*found, Check("results", False, "warning", expected, str(error), NO_FOLDER)]
    found.append(_exactness(model, folder, key))
    return found if opened.drafter is None else [*found, _calibration(model, folder, key)]


def _device() -> Check:
    """On a Mac and beside a CUDA GPU, MLX should use it."""
    device = mx.default_device().type.name
    wanted = "gpu" if mx.metal.is_available() or mx.cuda.is_available() else "cpu"
    return Check(
        "device",
        device == wanted,
        "warning",
        wanted,
        f"{device}: {device_name()}",
        "unset MLX_DEFAULT_DEVICE or what else makes MLX leave the GPU alone",
    )


def _rows() -> Check:
    """Whether a row of a product is the same alone and among others: where it is not, a near-tie
    may fall either way in a batch."""
    weight = mx.random.normal((PROBE_WIDTH, PROBE_WIDTH), key=mx.random.key(1))
    rows = mx.random.normal((max(PROBE_ROWS), PROBE_WIDTH), key=mx.random.key(2))
    packed = mx.quantize(weight, 64, 4)
    parts = {
        "float32": lambda x: x @ weight,
        "4 bits": lambda x: mx.quantized_matmul(x, *packed, transpose=True, group_size=64, bits=4),
    }
    differing = [
        name
        for name, product in parts.items()
        for count in PROBE_ROWS
        if not mx.array_equal(product(rows[:count])[:1], product(rows[:1]))
    ]
    observed = f"they differ: {', '.join(dict.fromkeys(differing))}" if differing else "the same"
    return Check(
        "rows",
        not differing or on_gpu(),
        "warning",
        "usual on a GPU" if on_gpu() else "a row of a product is the same alone and among others",
        observed,
        "unset LD_PRELOAD, install MLX again; mtp-mlx verify shows what it does to texts",
    )


def _exactness(model: str, folder: Path, key: Key) -> Check:
    """The level that verify showed here for this pair; no other command shows one."""
    expected, fix = f"verify has shown a level for {model}", f"mtp-mlx verify {model}"
    kept = proof_file.last(folder, key)
    if kept is None:
        return Check("exactness", False, "info", expected, "no level is shown yet", fix)
    if kept.has_fault:
        observed = f"verify found differences that rounding does not explain, in {kept.cases} texts"
        return Check("exactness", False, "error", "texts do not depend on drafts", observed, fix)
    if kept.level is None:
        observed = "the last verify showed nothing, for want of accepted drafts or full batches"
        return Check("exactness", False, "info", expected, observed, f"{fix} --tokens 200")
    observed = f"level {kept.level}, {LEVELS[kept.level]}: shown over {kept.cases} texts"
    return Check("exactness", True, "info", expected, observed, fix)


def _fits(planned: Estimate) -> Check:
    plan, name = planned.plan, planned.subject.name
    return Check(
        "fit",
        plan.fits,
        "error",
        f"at most {spell(plan.limit)} ({planned.bound})",
        f"{spell(plan.total)} for {plan.rows} texts of {plan.tokens:,} tokens of {name}",
        f"mtp-mlx fit {name} --batch 1, or a smaller or quantised model",
    )


def _drafter(planned: Estimate) -> Check:
    subject = planned.subject
    return Check(
        "drafter",
        subject.draft_name is not None,
        "warning",
        f"a drafter of {subject.name}",
        subject.draft_name or "none: decoding is plain, and slower on a GPU",
        "put the target's -assistant checkpoint beside it, or name it with --draft-model; "
        "mtp-mlx pull fetches those of the hub",
    )


def _dtype(planned: Estimate) -> Check:
    """On CPU, MLX computes bfloat16 slowly, and weights that are not quantised are twice as large
    in float32."""
    is_slow = planned.dtype == "bfloat16" and not on_gpu()
    note = "" if on_gpu() else "; on CPU drafts gain little with large models, and prompts are slow"
    return Check(
        "dtype",
        not is_slow,
        "warning",
        "bfloat16 or float32" if on_gpu() else "float32",
        f"{planned.dtype} on {'the GPU' if on_gpu() else 'CPU'}{note}",
        "unset MTP_MLX_DTYPE and leave --dtype out",
    )


def _calibration(model: str, folder: Path, key: Key) -> Check:
    """Whether what a round costs is known for this pair on this machine."""
    expected, fix = f"costs of {model} are kept for this machine", f"mtp-mlx tune {model}"
    if not calibration_file.is_on():
        observed = f"{calibration_file.VARIABLE} is off: auto is a fixed number of drafts"
        fix = f"unset {calibration_file.VARIABLE}"
        return Check("calibration", False, "warning", expected, observed, fix)
    found = calibration_file.read(folder, key, reach(MAX_BLOCK))
    known = found.calibration
    if known is None:
        observed = found.reason or "none yet: the next load measures for two seconds"
        return Check("calibration", False, "info", expected, observed, fix)
    observed = f"{folder / key.file_name}, spread {known.spread:.0%}"
    return Check("calibration", True, "info", expected, observed, fix)
