"""Reading a checked checkpoint into MLX: every weight evaluated before the model is used."""

from collections.abc import Mapping

import mlx.core as mx

from mtp_mlx.checkpoint import Checkpoint
from mtp_mlx.config import DrafterConfig, TargetConfig
from mtp_mlx.errors import CheckpointError, RequestError
from mtp_mlx.model.backend import on_gpu
from mtp_mlx.model.drafter import Drafter
from mtp_mlx.model.target import Target

DTYPES = {"float32": mx.float32, "bfloat16": mx.bfloat16}
_FLOATS = (mx.float16, mx.bfloat16, mx.float32)
# Searched for NaN and infinity at load: every row passes through them.
_CHECKED = ("norm.weight", "embed_tokens.weight", "embed_tokens.scales", "embed_tokens.biases")


def compute_dtype(checkpoint: Checkpoint[TargetConfig], wanted: str | None) -> mx.Dtype:
    """The type of activations: as asked, else the checkpoint's own on a GPU, float32 on CPU.

    float16 is never used: its range is too small for Gemma 4's activations. Raises RequestError for
    a type this backend cannot compute in.
    """
    if wanted is not None:
        has_experts = any(layer.experts for layer in checkpoint.config.layers)
        if wanted == "bfloat16" and has_experts and not on_gpu():
            raise RequestError(
                "dtype bfloat16 is not possible on CPU for a model with experts: MLX multiplies "
                "experts in float32 there; use dtype float32",
                param="dtype",
            )
        return DTYPES[wanted]
    norm = checkpoint.tensors.get("norm.weight")
    is_bfloat = norm is not None and norm.dtype == "BF16"
    return mx.bfloat16 if is_bfloat and on_gpu() else mx.float32


def load_target(checkpoint: Checkpoint[TargetConfig], dtype: mx.Dtype) -> Target:
    """The target with all weights in memory. Raises CheckpointError."""
    target = Target(checkpoint.config, _arrays(checkpoint, dtype))
    checkpoint.check_unchanged()
    return target


def load_drafter(checkpoint: Checkpoint[DrafterConfig], dtype: mx.Dtype) -> Drafter:
    """The drafter with all weights in memory. Raises CheckpointError."""
    weights = _arrays(checkpoint, dtype)
    ordering = weights.get("masked_embedding.token_ordering")
    if ordering is not None:
        expected = mx.arange(checkpoint.config.vocab_size)
        if ordering.shape != expected.shape or not mx.array_equal(mx.sort(ordering), expected):
            raise CheckpointError(
                f"{checkpoint.config.source}: masked_embedding.token_ordering must list each id "
                f"from 0 to {checkpoint.config.vocab_size - 1} once"
            )
    drafter = Drafter(checkpoint.config, weights)
    checkpoint.check_unchanged()
    return drafter


def _arrays(checkpoint: Checkpoint, dtype: mx.Dtype) -> dict[str, mx.array]:
    """All tensors by canonical key, cast, evaluated and checked."""
    if "norm.weight" not in checkpoint.tensors:
        raise CheckpointError(f"{checkpoint.folder}: tensor norm.weight is missing")
    arrays: dict[str, mx.array] = {}
    for file in checkpoint.files:
        loaded = mx.load(str(file), format="safetensors")
        assert isinstance(loaded, dict)
        for key, info in checkpoint.tensors.items():
            if info.file == file:
                arrays[key] = _cast(loaded[info.name], dtype)
    arrays = split_experts(arrays)
    mx.eval(arrays)
    for key, array in arrays.items():
        if key.endswith(_CHECKED) and not mx.isfinite(array).all():
            raise CheckpointError(f"{checkpoint.folder}: tensor {key} holds NaN or infinity")
    return arrays


def _cast(array: mx.array, dtype: mx.Dtype) -> mx.array:
    if array.dtype in _FLOATS:
        return array.astype(dtype)
    return array.astype(mx.int32) if array.dtype == mx.int64 else array


def split_experts(arrays: Mapping[str, mx.array]) -> dict[str, mx.array]:
    """Published fused experts in the layout of `ffn.SwitchGLU`; other keys pass through."""
    split: dict[str, mx.array] = {}
    for key, array in arrays.items():
        stem = key.rsplit(".", 1)[0] + ".switch_glu."
        if key.endswith("experts.gate_up_proj"):
            half = array.shape[1] // 2
            split[stem + "gate_proj.weight"] = mx.contiguous(array[:, :half])
            split[stem + "up_proj.weight"] = mx.contiguous(array[:, half:])
        elif key.endswith("experts.down_proj"):
            split[stem + "down_proj.weight"] = array
        else:
            split[key] = array
    return split
