"""Reading a checked checkpoint into NumPy float32, without MLX; quantised weights are expanded."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mtp_mlx.checkpoint import Checkpoint
from mtp_mlx.errors import CheckpointError, UnsupportedModel
from mtp_mlx.fields import shown
from mtp_mlx.quantization import Quantization, QuantSpec
from mtp_mlx.validate import TensorInfo

_DTYPES: dict[str, Any] = {
    "F32": np.float32, "F16": np.float16, "BF16": np.uint16, "I64": np.int64,
    "I32": np.int32, "U32": np.uint32, "U8": np.uint8,
}  # fmt: skip
_PREFIX_BYTES = 8
_EXPERT_AXES = 3  # [experts, out, in]


def load_weights(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    """All tensors by canonical key; floats as float32, experts split, nothing quantised."""
    try:
        stored = {key: read_tensor(info) for key, info in checkpoint.tensors.items()}
    except (OSError, ValueError) as error:  # a file that is not as its header was
        checkpoint.check_unchanged()
        raise CheckpointError(f"{checkpoint.folder}: cannot be read: {shown(error)}") from error
    checkpoint.check_unchanged()
    _check_values(checkpoint, stored)
    quantization: Quantization | None = checkpoint.config.quantization
    weights: dict[str, np.ndarray] = {}
    for key, array in stored.items():
        stem = key.rsplit(".", 1)[0]
        if key.endswith((".scales", ".biases")):
            continue
        if stem + ".scales" in stored:
            spec = quantization.of(stem) if quantization is not None else None
            if spec is None or spec.mode != "affine":
                raise UnsupportedModel(
                    f"{checkpoint.config.source}: {stem}: "
                    "the numpy backend reads affine quantisation only"
                )
            array = dequantize(array, stored[stem + ".scales"], stored[stem + ".biases"], spec)
        weights.update(_split(key, array))
    return weights


def _check_values(checkpoint: Checkpoint, stored: Mapping[str, np.ndarray]) -> None:
    """Raise CheckpointError for NaN where every row meets it, and for ids that are no order."""
    for key, array in stored.items():
        file = checkpoint.tensors[key].file
        if checkpoint.must_be_finite(key) and not np.isfinite(array).all():
            raise CheckpointError(f"{file}: tensor {key} holds NaN or infinity")
        if key == "masked_embedding.token_ordering":
            expected = np.arange(checkpoint.config.vocab_size)
            if array.shape != expected.shape or not np.array_equal(np.sort(array), expected):
                raise CheckpointError(
                    f"{file}: tensor {key} must list each id from 0 to {len(expected) - 1} once"
                )


def read_tensor(info: TensorInfo) -> np.ndarray:
    """One tensor from its file; floating types become float32."""
    if info.dtype not in _DTYPES:
        raise UnsupportedModel(f"{info.file}: tensor {info.name} of type {info.dtype}")
    with info.file.open("rb") as file:
        header_bytes = int.from_bytes(file.read(_PREFIX_BYTES), "little")
        file.seek(_PREFIX_BYTES + header_bytes + info.begin)
        raw = np.frombuffer(file.read(info.end - info.begin), dtype=_DTYPES[info.dtype])
    if info.dtype == "BF16":
        raw = (raw.astype(np.uint32) << 16).view(np.float32)
    array = raw.reshape(info.shape)
    return array.astype(np.float32) if array.dtype.kind == "f" else array


def dequantize(
    packed: np.ndarray, scales: np.ndarray, biases: np.ndarray, spec: QuantSpec
) -> np.ndarray:
    """Affine weights [.., out, in·bits/32] uint32 -> [.., out, in] float32: q · scale + bias.

    Values lie in one stream of bits, lowest first.
    """
    bits = np.unpackbits(packed.view(np.uint8), axis=-1, bitorder="little")
    values = bits.reshape(*bits.shape[:-1], -1, spec.bits).astype(np.float32)
    codes = (values * (2.0 ** np.arange(spec.bits, dtype=np.float32))).sum(axis=-1)
    grouped = codes.reshape(*codes.shape[:-1], -1, spec.group_size)
    expanded = grouped * scales[..., None] + biases[..., None]
    return expanded.reshape(codes.shape).astype(np.float32)


def _split(key: str, array: np.ndarray) -> dict[str, np.ndarray]:
    """Published fused experts in the layout of the expert layer; other keys pass through."""
    stem = key.rsplit(".", 1)[0] + ".switch_glu."
    if key.endswith("experts.gate_up_proj") and array.ndim == _EXPERT_AXES:
        half = array.shape[1] // 2
        return {
            stem + "gate_proj.weight": np.ascontiguousarray(array[:, :half]),
            stem + "up_proj.weight": np.ascontiguousarray(array[:, half:]),
        }
    if key.endswith("experts.down_proj"):
        return {stem + "down_proj.weight": array}
    return {key: array}
