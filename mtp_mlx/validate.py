"""Checks a checkpoint's files before MLX reads a byte of them.

MLX's reader trusts a safetensors header more than the format allows: it takes negative and
fractional shapes, overlapping and missing ranges, and shapes that wrap at 32 bits. A model folder
is untrusted input, so every header, index and JSON file passes through here first:

- a file's length, header length and JSON depth are checked before anything is parsed;
- a header must describe its data exactly: no overlap, no hole, nothing left over;
- an index may name files of its own folder only (or the hub cache's blobs of the same repository);
- formats other than safetensors are refused by name and never opened.

Every fault is a CheckpointError of one line: the file, what was expected, what was found.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from mtp_mlx.errors import CheckpointError, ModelNotFound, UnsupportedModel
from mtp_mlx.files import file_name, inside, parse_object, read_json, regular_size, show

INDEX_NAME = "model.safetensors.index.json"
PREFIX_BYTES = 8  # the little-endian header length that opens a safetensors file
HEADER_LIMIT_BYTES = 16 << 20  # a 30B checkpoint needs under 1 MiB; the format itself allows 100 MB
HEADER_DEPTH = 8  # a valid header is 3 levels deep
MAX_TENSORS = 65_536
MAX_DIMENSION = 2**31 - 1  # MLX stores each dimension in 32 bits
MAX_ELEMENTS = 2**63 - 1
NAMES_SHOWN = 5
SINGLE_NAME = "model.safetensors"

ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1,
    "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
FOREIGN_SUFFIXES = (".bin", ".gguf", ".npz", ".pt", ".pth", ".ckpt", ".h5", ".msgpack")
SHARD_NUMBER = re.compile(r"-(\d{1,6})-of-(\d{1,6})\.safetensors$")


@dataclass(frozen=True)
class TensorInfo:
    """One tensor as its file's header describes it; begin and end count bytes after the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int
    file: Path


def read_checkpoint(folder: Path) -> dict[str, TensorInfo]:
    """Every tensor of the checkpoint in `folder`, by name, with headers and index checked.

    Reads headers only. Raises ModelNotFound, UnsupportedModel or CheckpointError.
    """
    tensors: dict[str, TensorInfo] = {}
    for path in checkpoint_files(folder):
        for name, info in read_header(path).items():
            if name in tensors:
                first = file_name(tensors[name].file)
                raise CheckpointError(f"{file_name(path)}: tensor {show(name)} is also in {first}")
            tensors[name] = info
    if not tensors:
        raise CheckpointError(f"{folder}: the checkpoint holds no tensors")
    if (folder / INDEX_NAME).exists():
        _compare_with_index(_weight_map(folder), tensors)
    return tensors


def checkpoint_files(folder: Path) -> list[Path]:
    """The checkpoint's safetensors files in `folder`: those of the index, else model*.safetensors.

    Files of other formats are never opened. Raises as `read_checkpoint` does.
    """
    if not folder.is_dir():
        raise ModelNotFound(f"{folder}: there is no such model folder")
    if (folder / INDEX_NAME).exists():
        names = sorted(set(_weight_map(folder).values()))
        foreign = [name for name in names if not name.endswith(".safetensors")]
        if foreign:
            raise UnsupportedModel(f"{INDEX_NAME}: unsupported format: {_first(foreign)}")
    elif (folder / SINGLE_NAME).exists():
        names = [SINGLE_NAME]
    else:
        names = sorted(path.name for path in folder.glob("model*.safetensors"))
        _check_shard_numbers(names)
    if not names:
        raise _no_checkpoint(folder)
    files = [inside(folder, name) for name in names]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise CheckpointError(f"{folder}: missing files: {_first(missing)}; download them again")
    return files


def read_header(path: Path) -> dict[str, TensorInfo]:
    """The tensors of one safetensors file by name, its header checked in full; data stay unread.

    Raises CheckpointError, or UnsupportedModel for a dtype that MLX cannot load.
    """
    try:
        size = regular_size(path)
        with path.open("rb") as file:
            length = _header_length(path, file.read(PREFIX_BYTES), size)
            text = file.read(length)
    except OSError as error:
        raise CheckpointError(f"{file_name(path)}: cannot be read: {error.strerror}") from error
    if not text.startswith(b"{"):
        raise CheckpointError(f"{file_name(path)}: the header must begin with '{{'")
    if (found := text.count(b'"data_offsets"')) > MAX_TENSORS:
        expected = f"expected at most {MAX_TENSORS:,} tensors"
        raise CheckpointError(f"{file_name(path)}: {expected}, found {found:,}")
    header = parse_object(path, text, HEADER_DEPTH)
    _check_metadata(path, header.pop("__metadata__", {}))
    tensors = {name: _tensor(path, name, entry) for name, entry in header.items()}
    _check_ranges(path, tensors, size - PREFIX_BYTES - length)
    return tensors


def _header_length(path: Path, prefix: bytes, size: int) -> int:
    if size < PREFIX_BYTES or len(prefix) < PREFIX_BYTES:
        raise CheckpointError(
            f"{file_name(path)}: expected at least {PREFIX_BYTES} bytes, found {size}; "
            "download it again"
        )
    length = int.from_bytes(prefix, "little")
    if length > HEADER_LIMIT_BYTES:
        raise CheckpointError(
            f"{file_name(path)}: expected a header of at most {HEADER_LIMIT_BYTES:,} bytes, "
            f"found a header length of {length:,}"
        )
    if length > size - PREFIX_BYTES:
        raise CheckpointError(
            f"{file_name(path)}: the header needs {length + PREFIX_BYTES:,} bytes, the file has "
            f"{size:,}; download it again"
        )
    return length


def _check_metadata(path: Path, metadata: object) -> None:
    values = {} if metadata is None else metadata  # MLX writes null where there is none
    if not isinstance(values, dict) or not all(isinstance(v, str) for v in values.values()):
        found = show(metadata)
        raise CheckpointError(
            f"{file_name(path)}: __metadata__: expected strings only, found {found}"
        )


def _tensor(path: Path, name: str, entry: object) -> TensorInfo:
    where = f"{file_name(path)}: tensor {show(name)}"
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(f"{where}: expected dtype, shape, data_offsets, found {show(entry)}")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if isinstance(dtype, str) and re.match(r"F[468](_|$)", dtype):
        raise UnsupportedModel(f"{where}: dtype {show(dtype)} is not supported by MLX")
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        expected = f"expected a dtype of {', '.join(ITEM_BYTES)}"
        raise CheckpointError(f"{where}: {expected}, found {show(dtype)}")
    if not _are_counts(shape):
        raise CheckpointError(f"{where}: expected whole sizes as shape, found {show(shape)}")
    if not _are_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise CheckpointError(
            f"{where}: expected data_offsets [begin, end], begin <= end, found {show(offsets)}"
        )
    begin, end = offsets
    expected = _elements(where, shape) * ITEM_BYTES[dtype]
    if end - begin != expected:
        raise CheckpointError(
            f"{where}: {dtype} of shape {show(shape)} needs {expected:,} bytes, "
            f"data_offsets give {end - begin:,}"
        )
    return TensorInfo(name, dtype, tuple(shape), begin, end, path)


def _are_counts(value: object) -> bool:
    """Whether value is a list of integers >= 0; type() because a bool is an int in Python."""
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _elements(where: str, shape: list[int]) -> int:
    total = 1
    for dimension in shape:
        total *= dimension
        if dimension > MAX_DIMENSION or total > MAX_ELEMENTS:
            raise CheckpointError(f"{where}: shape {show(shape)} overflows")
    return total


def _check_ranges(path: Path, tensors: dict[str, TensorInfo], size: int) -> None:
    """Raises unless the tensors tile the `size` data bytes of the file exactly."""
    reached = 0
    for info in sorted(tensors.values(), key=lambda info: (info.begin, info.end)):
        if info.begin != reached:
            fault = "overlaps the tensor before it" if info.begin < reached else "leaves a hole"
            raise CheckpointError(
                f"{file_name(path)}: tensor {show(info.name)} {fault}: expected its begin at byte "
                f"{reached:,}, found {info.begin:,}"
            )
        reached = info.end
    found = f"expected {reached:,} data bytes, found {size:,}"
    if reached > size:
        raise CheckpointError(f"{file_name(path)}: truncated: {found}; download it again")
    if reached < size:
        raise CheckpointError(f"{file_name(path)}: trailing bytes: {found}")


def _weight_map(folder: Path) -> dict[str, str]:
    """The index's map from tensor name to file name."""
    found = read_json(inside(folder, INDEX_NAME)).get("weight_map")
    if not isinstance(found, dict) or not found:
        raise CheckpointError(f"{INDEX_NAME}: expected a weight_map, found {show(found)}")
    if not all(isinstance(file_name, str) for file_name in found.values()):
        raise CheckpointError(f"{INDEX_NAME}: weight_map: expected file names, found {show(found)}")
    return found


def _compare_with_index(weight_map: dict[str, str], tensors: dict[str, TensorInfo]) -> None:
    absent = [name for name in weight_map if name not in tensors]
    if absent:
        raise CheckpointError(f"{INDEX_NAME}: names tensors that no file has: {_first(absent)}")
    unlisted = [name for name in tensors if name not in weight_map]
    if unlisted:
        raise CheckpointError(f"{INDEX_NAME}: does not list these tensors: {_first(unlisted)}")
    moved = [name for name, file in weight_map.items() if tensors[name].file.name != file]
    if moved:
        raise CheckpointError(f"{INDEX_NAME}: names the wrong file for: {_first(moved)}")


def _check_shard_numbers(names: list[str]) -> None:
    """Raises if shards numbered k-of-n are not all there; without an index nothing else tells."""
    found = [SHARD_NUMBER.search(name) for name in names]
    totals = {int(match[2]) for match in found if match}
    numbers = {int(match[1]) for match in found if match}
    if totals and (len(totals) > 1 or numbers != set(range(1, max(totals) + 1))):
        raise CheckpointError(
            f"model*.safetensors: expected the shards 1 to {max(totals)}, found {_first(names)}; "
            "download the missing ones"
        )


def _no_checkpoint(folder: Path) -> CheckpointError:
    foreign = sorted(path.name for path in folder.iterdir() if path.suffix in FOREIGN_SUFFIXES)
    if foreign:
        return UnsupportedModel(
            f"{folder}: unsupported format: {_first(foreign)}; expected model.safetensors"
        )
    return ModelNotFound(f"{folder}: there is no model.safetensors in this folder")


def _first(names: list[str]) -> str:
    """The first few names and how many more there are."""
    more = f" and {len(names) - NAMES_SHOWN:,} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(show(name)[1:-1] for name in names[:NAMES_SHOWN]) + more
