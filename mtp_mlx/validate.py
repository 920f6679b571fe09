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

import json
import math
import os
import re
import reprlib
import stat
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mtp_mlx.errors import CheckpointError, ModelNotFound, UnsupportedModel

INDEX_NAME = "model.safetensors.index.json"
PREFIX_BYTES = 8  # the little-endian header length that opens a safetensors file
HEADER_LIMIT_BYTES = 16 << 20  # a 30B checkpoint needs under 1 MiB; the format itself allows 100 MB
HEADER_DEPTH = 8  # a valid header is 3 levels deep
JSON_LIMIT_BYTES = 16 << 20
JSON_DEPTH = 64
MAX_TENSORS = 65_536
MAX_DIMENSION = 2**31 - 1  # MLX stores each dimension in 32 bits
MAX_ELEMENTS = 2**63 - 1
MAX_DIGITS = 20  # digits and sign of a 64-bit integer
NAMES_SHOWN = 5

ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1,
    "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
FOREIGN_SUFFIXES = (".bin", ".gguf", ".npz", ".pt", ".pth", ".ckpt", ".h5", ".msgpack")
SHARD_NUMBER = re.compile(r"-(\d{1,6})-of-(\d{1,6})\.safetensors$")

_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NOT_MARKS = bytes(set(range(256)) - set(b'{}[]"'))
_REPR = reprlib.Repr()
_REPR.maxstring = 120


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
                first = _file(tensors[name].file)
                raise CheckpointError(f"{_file(path)}: tensor {_show(name)} is also in {first}")
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
    else:
        names = sorted(path.name for path in folder.glob("model*.safetensors"))
        _check_shard_numbers(names)
    if not names:
        raise _no_checkpoint(folder)
    files = [_inside(folder, name) for name in names]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise CheckpointError(f"{folder}: missing files: {_first(missing)}; download them again")
    return files


def read_header(path: Path) -> dict[str, TensorInfo]:
    """The tensors of one safetensors file by name, its header checked in full; data stay unread.

    Raises CheckpointError, or UnsupportedModel for a dtype that MLX cannot load.
    """
    try:
        size = _regular_size(path)
        with path.open("rb") as file:
            length = _header_length(path, file.read(PREFIX_BYTES), size)
            text = file.read(length)
    except OSError as error:
        raise CheckpointError(f"{_file(path)}: cannot be read: {error.strerror}") from error
    if not text.startswith(b"{"):
        raise CheckpointError(f"{_file(path)}: the header must begin with '{{'")
    if (found := text.count(b'"data_offsets"')) > MAX_TENSORS:
        expected = f"expected at most {MAX_TENSORS:,} tensors"
        raise CheckpointError(f"{_file(path)}: {expected}, found {found:,}")
    header = _parse(path, text, HEADER_DEPTH)
    _check_metadata(path, header.pop("__metadata__", {}))
    tensors = {name: _tensor(path, name, entry) for name, entry in header.items()}
    _check_ranges(path, tensors, size - PREFIX_BYTES - length)
    return tensors


def read_json(path: Path, limit_bytes: int = JSON_LIMIT_BYTES) -> dict:
    """The JSON object in the file at `path`.

    Raises CheckpointError for a file that is missing, larger than `limit_bytes`, not UTF-8, not an
    object, too deep, or holds NaN, an infinity, an integer over 20 digits or a duplicate key.
    """
    return _parse(path, read_small(path, limit_bytes), JSON_DEPTH)


def read_small(path: Path, limit_bytes: int) -> bytes:
    """The bytes of a regular file; raises CheckpointError if it is missing or over the limit."""
    try:
        size = _regular_size(path)
        if size > limit_bytes:
            expected = f"expected at most {limit_bytes:,} bytes"
            raise CheckpointError(f"{_file(path)}: {expected}, found {size:,}")
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{_file(path)}: cannot be read: {error.strerror}") from error


def stat_snapshot(paths: Iterable[Path]) -> tuple:
    """Size, modification time and inode of each file, to compare once they are loaded."""
    return tuple(_stat_key(path) for path in paths)


def check_unchanged(before: tuple, paths: Iterable[Path]) -> None:
    """Raises CheckpointError if a file is not the one `stat_snapshot` of the same paths saw."""
    for old, path in zip(before, paths, strict=True):
        if _stat_key(path) != old:
            raise CheckpointError(f"{_file(path)}: changed while loading; load the model again")


def _stat_key(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise CheckpointError(f"{_file(path)}: cannot be read: {error.strerror}") from error
    return found.st_size, found.st_mtime_ns, found.st_ino


def _regular_size(path: Path) -> int:
    """The size in bytes of a regular file: opening a pipe or a device could block for ever."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise CheckpointError(f"{_file(path)}: expected a regular file")
    return found.st_size


def _header_length(path: Path, prefix: bytes, size: int) -> int:
    if size < PREFIX_BYTES or len(prefix) < PREFIX_BYTES:
        raise CheckpointError(
            f"{_file(path)}: expected at least {PREFIX_BYTES} bytes, found {size}; "
            "download it again"
        )
    length = int.from_bytes(prefix, "little")
    if length > HEADER_LIMIT_BYTES:
        raise CheckpointError(
            f"{_file(path)}: expected a header of at most {HEADER_LIMIT_BYTES:,} bytes, "
            f"found a header length of {length:,}"
        )
    if length > size - PREFIX_BYTES:
        raise CheckpointError(
            f"{_file(path)}: the header needs {length + PREFIX_BYTES:,} bytes, the file has "
            f"{size:,}; download it again"
        )
    return length


def _parse(path: Path, text: bytes, depth: int) -> dict:
    """The object that `text` spells, its depth checked before the recursive parser sees it."""
    _check_depth(path, text, depth)
    try:
        value = json.loads(
            text.decode("utf-8"),
            object_pairs_hook=_unique_keys,
            parse_int=_bounded_int,
            parse_float=_finite_float,
            parse_constant=_finite_float,
        )
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{_file(path)}: not valid JSON: {error}") from error
    if not isinstance(value, dict):
        found = type(value).__name__
        raise CheckpointError(f"{_file(path)}: expected a JSON object, found {found}")
    return value


def _check_depth(path: Path, text: bytes, depth: int) -> None:
    """Raises if brackets outside strings nest too deep; linear and fast whatever the text is.

    A pair of quotes with nothing but plain text between can go: which side of a string the rest is
    on depends only on the parity of the quotes before it. Then each round peels one level.
    """
    marks = text.replace(rb"\\", b"").replace(rb"\"", b"").translate(_BRACKETS, _NOT_MARKS)
    brackets = b"".join(marks.replace(b'""', b"").split(b'"')[::2])
    for _ in range(depth):
        if not brackets:
            return
        brackets = brackets.replace(b"[]", b"")
    if brackets:
        raise CheckpointError(
            f"{_file(path)}: not valid JSON: nested deeper than {depth} levels, or unbalanced"
        )


def _unique_keys(pairs: list[tuple[str, object]]) -> dict:
    found = dict(pairs)
    if len(found) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = next(key for key, count in counts.items() if count > 1)
        raise ValueError(f"duplicate key {_show(twice)}")
    return found


def _bounded_int(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"an integer of {len(digits):,} digits")
    return int(digits)


def _finite_float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"the number {_show(digits)} is not finite")
    return value


def _check_metadata(path: Path, metadata: object) -> None:
    values = {} if metadata is None else metadata  # MLX writes null where there is none
    if not isinstance(values, dict) or not all(isinstance(v, str) for v in values.values()):
        found = _show(metadata)
        raise CheckpointError(f"{_file(path)}: __metadata__: expected strings only, found {found}")


def _tensor(path: Path, name: str, entry: object) -> TensorInfo:
    where = f"{_file(path)}: tensor {_show(name)}"
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(f"{where}: expected dtype, shape, data_offsets, found {_show(entry)}")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if isinstance(dtype, str) and re.match(r"F[468](_|$)", dtype):
        raise UnsupportedModel(f"{where}: dtype {_show(dtype)} is not supported by MLX")
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        expected = f"expected a dtype of {', '.join(ITEM_BYTES)}"
        raise CheckpointError(f"{where}: {expected}, found {_show(dtype)}")
    if not _are_counts(shape):
        raise CheckpointError(f"{where}: expected whole sizes as shape, found {_show(shape)}")
    if not _are_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise CheckpointError(
            f"{where}: expected data_offsets [begin, end], begin <= end, found {_show(offsets)}"
        )
    begin, end = offsets
    expected = _elements(where, shape) * ITEM_BYTES[dtype]
    if end - begin != expected:
        raise CheckpointError(
            f"{where}: {dtype} of shape {_show(shape)} needs {expected:,} bytes, "
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
            raise CheckpointError(f"{where}: shape {_show(shape)} overflows")
    return total


def _check_ranges(path: Path, tensors: dict[str, TensorInfo], size: int) -> None:
    """Raises unless the tensors tile the `size` data bytes of the file exactly."""
    reached = 0
    for info in sorted(tensors.values(), key=lambda info: (info.begin, info.end)):
        if info.begin != reached:
            fault = "overlaps the tensor before it" if info.begin < reached else "leaves a hole"
            raise CheckpointError(
                f"{_file(path)}: tensor {_show(info.name)} {fault}: expected it to begin at byte "
                f"{reached:,}, found {info.begin:,}"
            )
        reached = info.end
    found = f"expected {reached:,} data bytes, found {size:,}"
    if reached > size:
        raise CheckpointError(f"{_file(path)}: truncated: {found}; download it again")
    if reached < size:
        raise CheckpointError(f"{_file(path)}: trailing bytes: {found}")


def _weight_map(folder: Path) -> dict[str, str]:
    """The index's map from tensor name to file name."""
    found = read_json(_inside(folder, INDEX_NAME)).get("weight_map")
    if not isinstance(found, dict) or not found:
        raise CheckpointError(f"{INDEX_NAME}: expected a weight_map, found {_show(found)}")
    if not all(isinstance(file_name, str) for file_name in found.values()):
        raise CheckpointError(
            f"{INDEX_NAME}: weight_map: expected file names, found {_show(found)}"
        )
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


def _inside(folder: Path, name: str) -> Path:
    """The file `name` of `folder`; raises unless it is a plain name that stays in the folder.

    The hub cache's links from models--x/snapshots/<revision>/ into models--x/blobs/ are allowed.
    """
    if Path(name).name != name or "\\" in name or not name.isprintable() or name.startswith("."):
        raise CheckpointError(f"{folder}: expected a plain file name, found {_show(name)}")
    root = Path(os.path.realpath(folder))
    target = Path(os.path.realpath(folder / name))
    repo = root.parent.parent
    in_hub_cache = root.parent.name == "snapshots" and repo.name.startswith("models--")
    if not (in_hub_cache and target.parent == repo / "blobs") and not target.is_relative_to(root):
        raise CheckpointError(f"{_show(name)}: the link leads out of the model folder")
    return folder / name


def _first(names: list[str]) -> str:
    """The first few names and how many more there are."""
    more = f" and {len(names) - NAMES_SHOWN:,} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(_show(name)[1:-1] for name in names[:NAMES_SHOWN]) + more


def _show(value: object) -> str:
    """A short one-line form of an untrusted value."""
    return _REPR.repr(value)


def _file(path: Path) -> str:
    """The file's name, on one line whatever it holds."""
    return repr(path.name)[1:-1]
