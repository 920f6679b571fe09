"""Reading a checked checkpoint into MLX: every weight evaluated before the model is used."""

import os
from collections.abc import Iterable, Mapping, Set
from pathlib import Path

import mlx.core as mx

from mtp_mlx.checkpoint import Checkpoint
from mtp_mlx.config import DrafterConfig, TargetConfig
from mtp_mlx.errors import CheckpointError, DoesNotFit, RequestError
from mtp_mlx.fields import shown
from mtp_mlx.fit import Stored
from mtp_mlx.model.backend import on_gpu
from mtp_mlx.model.drafter import Drafter
from mtp_mlx.model.target import Target

DTYPES = {"float32": mx.float32, "bfloat16": mx.bfloat16}
_FLOATS = (mx.float16, mx.bfloat16, mx.float32)
_EXPERT_AXES = 3  # [experts, out, in]
_TABLE, _PER_LAYER_TABLE = "embed_tokens.weight", "embed_tokens_per_layer.weight"
_ORDERING = "masked_embedding.token_ordering"


def compute_dtype(config: TargetConfig, tensors: Iterable[Stored], wanted: str | None) -> mx.Dtype:
    """The type of activations: as asked, else the checkpoint's own on a GPU, float32 on CPU.

    float16 becomes bfloat16: its range is too small for Gemma 4's activations. Raises RequestError
    for a type this backend cannot compute in.
    """
    if wanted is not None:
        has_experts = any(layer.experts for layer in config.layers)
        if wanted == "bfloat16" and has_experts and not on_gpu():
            raise RequestError(
                "dtype bfloat16 is not possible on CPU for a model with experts: MLX multiplies "
                "experts in float32 there; use dtype float32",
                param="dtype",
            )
        return DTYPES[wanted]
    is_half = any(info.dtype in ("BF16", "F16") for info in tensors)
    return mx.bfloat16 if is_half and on_gpu() else mx.float32


def load_target(checkpoint: Checkpoint[TargetConfig], dtype: mx.Dtype) -> Target:
    """The target with all weights in memory. Raises CheckpointError."""
    return Target(checkpoint.config, _arrays(checkpoint, dtype, {_PER_LAYER_TABLE}))


def load_drafter(checkpoint: Checkpoint[DrafterConfig], dtype: mx.Dtype) -> Drafter:
    """The drafter with all weights in memory. Raises CheckpointError."""
    has_clusters = checkpoint.config.centroids is not None  # whose tokens' rows are picked
    weights = _arrays(checkpoint, dtype, {_TABLE} if has_clusters else set())
    if _ORDERING in weights:
        ordering, expected = weights[_ORDERING], mx.arange(checkpoint.config.vocab_size)
        if ordering.shape != expected.shape or not mx.array_equal(mx.sort(ordering), expected):
            raise CheckpointError(
                f"{checkpoint.tensors[_ORDERING].file}: tensor {_ORDERING} must list each id "
                f"from 0 to {checkpoint.config.vocab_size - 1} once"
            )
        weights[_ORDERING] = ordering.astype(mx.int32)
    return Drafter(checkpoint.config, weights)


def _arrays(checkpoint: Checkpoint, dtype: mx.Dtype, tables: Set[str]) -> dict[str, mx.array]:
    """All tensors by canonical key, cast, evaluated and checked. tables: what is only looked up."""
    try:
        arrays = _read(checkpoint, dtype, tables)
    except (RuntimeError, KeyError) as error:  # MLX's word for a file that is not as its header was
        checkpoint.check_unchanged()
        if "malloc" in str(error) or "memory" in str(error):
            raise DoesNotFit(
                f"{checkpoint.folder}: the weights do not fit in memory: {shown(error)}; "
                "load a smaller or quantised checkpoint"
            ) from error
        raise CheckpointError(f"{checkpoint.folder}: cannot be read: {shown(error)}") from error
    checkpoint.check_unchanged()
    for key, array in arrays.items():
        if checkpoint.must_be_finite(key) and not mx.isfinite(array).all():
            place = checkpoint.place_of(key)
            raise CheckpointError(f"{place}: tensor {key} holds NaN or infinity")
    return arrays


def _read(checkpoint: Checkpoint, dtype: mx.Dtype, tables: Set[str]) -> dict[str, mx.array]:
    """All tensors by canonical key, cast, split and evaluated, so that no fused copy stays."""
    arrays: dict[str, mx.array] = {}
    for file in checkpoint.files:
        keys = {key: info.name for key, info in checkpoint.tensors.items() if info.file == file}
        arrays |= _read_file(file, keys, dtype)
    arrays = split_experts(arrays)
    if not on_gpu():
        arrays |= {key: _for_products(key, arrays[key]) for key in arrays.keys() - tables}
    mx.eval(arrays)
    return arrays


def _for_products(key: str, array: mx.array) -> mx.array:
    """A matrix [.., out, in] laid out by its inputs, which MLX's own BLAS multiplies by faster;
    all else as it is."""
    if not key.endswith(".weight") or array.ndim == 1 or array.dtype not in _FLOATS:
        return array
    return mx.contiguous(array.swapaxes(-1, -2)).swapaxes(-1, -2)


def _read_file(file: Path, names: Mapping[str, str], dtype: mx.Dtype) -> dict[str, mx.array]:
    """The tensors `names` (canonical key -> name in the file), floats cast to `dtype`."""
    if os.fsencode(file) == str(file).encode("utf-8", "replace"):
        loaded = mx.load(str(file), format="safetensors")
    else:  # MLX takes no path that is not UTF-8
        with file.open("rb") as opened:
            loaded = mx.load(opened, format="safetensors")
            mx.eval(loaded)
    assert isinstance(loaded, dict)
    arrays = {key: loaded[name] for key, name in names.items()}
    return {key: a.astype(dtype) if a.dtype in _FLOATS else a for key, a in arrays.items()}


def split_experts(arrays: Mapping[str, mx.array]) -> dict[str, mx.array]:
    """Published fused experts in the layout of `ffn.SwitchGLU`; other keys pass through."""
    split: dict[str, mx.array] = {}
    for key, array in arrays.items():
        stem = key.rsplit(".", 1)[0] + ".switch_glu."
        if key.endswith("experts.gate_up_proj") and array.ndim == _EXPERT_AXES:
            half = array.shape[1] // 2
            split[stem + "gate_proj.weight"] = mx.contiguous(array[:, :half])
            split[stem + "up_proj.weight"] = mx.contiguous(array[:, half:])
        elif key.endswith("experts.down_proj"):
            split[stem + "down_proj.weight"] = array
        else:
            split[key] = array
    return split
