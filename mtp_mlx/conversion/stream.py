"""Writing safetensors files whose tensors never lie in memory whole.

Sizes are known before any number is, so the header goes first and each chunk to its own place.
"""

import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import mlx.core as mx
import numpy as np

from mtp_mlx.checkpoint import FLOATS
from mtp_mlx.conversion.plan import Part
from mtp_mlx.errors import CheckpointError
from mtp_mlx.validate import INDEX_NAME, ITEM_BYTES, PREFIX_BYTES, SINGLE_NAME

CHUNK_BYTES = 64 << 20  # of a source tensor, read and quantised at once
SHARD_BYTES = 5 << 30
ALIGNMENT = 8  # where data begin, as other writers have it
TYPES = {
    "F32": mx.float32, "F16": mx.float16, "BF16": mx.bfloat16, "I32": mx.int32, "I64": mx.int64,
}  # fmt: skip
_NUMPY = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16, "I32": np.int32, "I64": np.int64}

Progress = Callable[[str], None]


def write_parts(
    folder: Path, found: list[Part], shard_bytes: int, progress: Progress
) -> list[Path]:
    """All parts into files of at most `shard_bytes` (a larger part has one of its own), an index.

    Raises CheckpointError for a number that is not finite, or a file that ends too early.
    """
    shards = list(_shards(found, shard_bytes))
    total, done = sum(part.num_bytes() for part in found), 0
    files: list[Path] = []
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        is_alone = len(shards) == 1
        name = SINGLE_NAME if is_alone else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        files.append(folder / name)
        weight_map |= dict.fromkeys((key for part in shard for key in part.tensors()), name)
        for count in _write(folder / name, shard):
            done += count
            progress(f"{name}: {done / 1e9:.2f} of {total / 1e9:.2f} GB")
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / INDEX_NAME).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return files


def _shards(found: list[Part], shard_bytes: int) -> Iterator[list[Part]]:
    shard: list[Part] = []
    size = 0
    for part in found:
        if shard and size + part.num_bytes() > shard_bytes:
            yield shard
            shard, size = [], 0
        shard.append(part)
        size += part.num_bytes()
    if shard:
        yield shard


def _write(path: Path, shard: list[Part]) -> Iterator[int]:
    """Write one file; yields the bytes of each chunk once it is written."""
    text, places = _header(shard)
    with path.open("wb") as file:
        file.write(text)
        for part in shard:
            for row, chunk in _chunks(part):
                stored = _stored(part, chunk)
                for name, data in stored.items():
                    file.seek(len(text) + places[name] + row * (len(data) // len(chunk)))
                    file.write(data)
                yield sum(map(len, stored.values()))
        file.flush()
        os.fsync(file.fileno())


def _header(shard: list[Part]) -> tuple[bytes, dict[str, int]]:
    """The file up to its data, and where among these each tensor begins."""
    entries: dict[str, object] = {"__metadata__": {"format": "mlx"}}
    places: dict[str, int] = {}
    end = 0
    for part in shard:
        for name, (dtype, shape) in part.tensors().items():
            begin, end = end, end + ITEM_BYTES[dtype] * math.prod(shape)
            places[name] = begin
            entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(PREFIX_BYTES, "little") + text, places


def _chunks(part: Part) -> Iterator[tuple[int, mx.array]]:
    """The part's rows, some at a time, with the number of the first."""
    source = part.source
    row_bytes = part.columns * ITEM_BYTES[source.dtype]
    step = max(1, CHUNK_BYTES // max(1, row_bytes))
    with source.file.open("rb") as file:
        begin = PREFIX_BYTES + int.from_bytes(file.read(PREFIX_BYTES), "little") + source.begin
        written = 0
        for block in range(part.blocks):
            for row in range(0, part.rows, step):
                count = min(step, part.rows - row)
                file.seek(begin + (block * part.stride + part.first + row) * row_bytes)
                yield written, _array(part, file.read(count * row_bytes), count)
                written += count


def _array(part: Part, data: bytes, rows: int) -> mx.array:
    """These bytes as `rows` rows of the type to be written; no NaN or infinity passes."""
    source = part.source
    try:
        flat = np.frombuffer(data, _NUMPY[source.dtype]).reshape(rows, part.columns)
    except ValueError as error:  # fewer bytes than the header said
        raise CheckpointError(f"{source.file}: changed while it was read; try again") from error
    array = mx.array(flat)
    array = array.view(mx.bfloat16) if source.dtype == "BF16" else array
    array = array.astype(TYPES[part.dtype])
    if source.dtype in FLOATS and not mx.isfinite(array).all():
        cast = "" if part.dtype == source.dtype else f" as {part.dtype}"
        raise CheckpointError(f"{source.file}: tensor {source.name} holds NaN or infinity{cast}")
    return array


def _stored(part: Part, chunk: mx.array) -> dict[str, bytes]:
    """The bytes of some rows in each of the part's tensors."""
    spec = part.spec
    arrays = [chunk]
    if spec is not None:
        arrays = list(mx.quantize(chunk, spec.group_size, spec.bits, mode=spec.mode))
    return {name: _bytes(array) for name, array in zip(part.tensors(), arrays, strict=True)}


def _bytes(array: mx.array) -> bytes:
    """Row by row, as a file holds it."""
    return np.array(array.view(mx.uint16) if array.dtype == mx.bfloat16 else array).tobytes()
