"""Reading the JSON and other small files of a model folder, which is untrusted input.

Depth and length are checked before anything is parsed. Every fault is a CheckpointError of one
line: folder and file, what was expected, what was found.
"""

import json
import math
import os
import re
import reprlib
import stat
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from mtp_mlx.errors import CheckpointError

JSON_LIMIT_BYTES = 16 << 20
JSON_DEPTH = 64
MAX_NAME_BYTES = 255  # of a file, on all usual systems
SHARED_BLOB = re.compile("[0-9a-f]{64}")
MAX_DIGITS = 40  # Transformers writes 31 where a tokenizer has no limit

_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NOT_MARKS = bytes(set(range(256)) - set(b'{}[]"'))
_REPR = reprlib.Repr()
_REPR.maxstring = 120


def read_json(path: Path, limit_bytes: int = JSON_LIMIT_BYTES) -> dict:
    """The JSON object in the file at `path`.

    Raises CheckpointError for a file that is missing, larger than `limit_bytes`, not UTF-8, not an
    object, too deep, or holds NaN, an infinity, an integer over 40 digits or a duplicate key.
    """
    return parse_object(path, read_small(path, limit_bytes), JSON_DEPTH)


def read_small(path: Path, limit_bytes: int) -> bytes:
    """The bytes of a regular file; raises CheckpointError if it is missing or over the limit."""
    try:
        size = regular_size(path)
        if size > limit_bytes:
            expected = f"expected at most {limit_bytes:,} bytes"
            raise CheckpointError(f"{file_name(path)}: {expected}, found {size:,}")
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{file_name(path)}: cannot be read: {error.strerror}") from error


def inside(folder: Path, name: str) -> Path:
    """The file `name` of `folder`; raises unless it is a plain name that stays in the folder.

    The hub cache's links from models--x/snapshots/<revision>/ into models--x/blobs/ are allowed,
    and from there into blobs/ of the whole cache, where repositories share files by their hash.
    """
    is_plain = Path(name).name == name and "\\" not in name and name.isprintable()
    if not is_plain or name.startswith(".") or len(os.fsencode(name)) > MAX_NAME_BYTES:
        raise CheckpointError(f"{folder}: expected a plain file name, found {show(name)}")
    root = Path(os.path.realpath(folder))
    target = Path(os.path.realpath(folder / name))
    repo = root.parent.parent
    in_hub_cache = root.parent.name == "snapshots" and repo.name.startswith("models--")
    shared = repo.parent / "blobs" / target.name[:2]
    is_blob = target.parent == repo / "blobs" or (
        target.parent == shared and SHARED_BLOB.fullmatch(target.name) is not None
    )
    if not (in_hub_cache and is_blob) and not target.is_relative_to(root):
        raise CheckpointError(f"{show(name)}: the link leads out of the model folder")
    return folder / name


def stat_snapshot(paths: Iterable[Path]) -> tuple:
    """Size, modification time and inode of each file, to compare once they are loaded."""
    return tuple(_stat_key(path) for path in paths)


def check_unchanged(before: tuple, paths: Iterable[Path]) -> None:
    """Raises CheckpointError if a file is not the one `stat_snapshot` of the same paths saw."""
    for old, path in zip(before, paths, strict=True):
        if _stat_key(path) != old:
            raise CheckpointError(f"{file_name(path)}: changed while loading; load the model again")


def _stat_key(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise CheckpointError(f"{file_name(path)}: cannot be read: {error.strerror}") from error
    return found.st_size, found.st_mtime_ns, found.st_ino


def regular_size(path: Path) -> int:
    """The size in bytes of a regular file: opening a pipe or a device could block for ever."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise CheckpointError(f"{file_name(path)}: expected a regular file")
    return found.st_size


def parse_object(path: Path, text: bytes, depth: int) -> dict:
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
        raise CheckpointError(f"{file_name(path)}: not valid JSON: {error}") from error
    if not isinstance(value, dict):
        found = type(value).__name__
        raise CheckpointError(f"{file_name(path)}: expected a JSON object, found {found}")
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
            f"{file_name(path)}: not valid JSON: nested deeper than {depth} levels, or unbalanced"
        )


def _unique_keys(pairs: list[tuple[str, object]]) -> dict:
    found = dict(pairs)
    if len(found) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = next(key for key, count in counts.items() if count > 1)
        raise ValueError(f"duplicate key {show(twice)}")
    return found


def _bounded_int(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"an integer of {len(digits):,} digits")
    return int(digits)


def _finite_float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"the number {show(digits)} is not finite")
    return value


def show(value: object) -> str:
    """A short one-line form of an untrusted value."""
    return _REPR.repr(value)


def file_name(path: Path) -> str:
    """Folder and name, on one line whatever they hold."""
    return repr(f"{path.parent.name}/{path.name}")[1:-1]
