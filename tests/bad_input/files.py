"""Pairs on disk to be damaged, and safetensors files written byte by byte."""

import json
import shutil
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tests.golden import recipe

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
CODES = {"float32": "F32", "float16": "F16", "float64": "F64", "int64": "I64", "int32": "I32",
         "uint32": "U32", "uint16": "BF16", "uint8": "U8", "bool": "BOOL"}  # fmt: skip
TYPES = {code: name for name, code in CODES.items()}
Json = dict[str, Any]
Pair = tuple[Path, Path]
Tensors = dict[str, np.ndarray]


@cache
def _written(
    variant: str, layout: str, dialect: str, shards: int
) -> tuple[TemporaryDirectory, Pair]:
    home = TemporaryDirectory()
    return home, recipe.write_pair(Path(home.name), variant, layout, dialect, shards)


def copy_pair(
    folder: Path,
    variant: str,
    layout: str = "hf",
    dialect: str = "classic",
    shards: int = 1,
) -> Pair:
    """A pair of `recipe.write_pair` to damage at will: target and drafter below `folder`."""
    for path in _written(variant, layout, dialect, shards)[1]:
        shutil.copytree(path, folder / path.name)
    return folder / "target", folder / "drafter"


def edit_json(path: Path, change: Callable[[Json], object]) -> None:
    """Rewrite a JSON file after `change` has had its object."""
    values = json.loads(path.read_text(encoding="utf-8"))
    change(values)
    path.write_text(json.dumps(values), encoding="utf-8")


def edit_tensors(folder: Path, change: Callable[[Tensors], object]) -> None:
    """Rewrite model.safetensors after `change` has had its tensors; bfloat16 is seen as uint16."""
    tensors = read_tensors(folder / WEIGHTS)
    change(tensors)
    write_tensors(folder / WEIGHTS, tensors)


def read_tensors(path: Path) -> Tensors:
    """Every tensor of a file, writable, bfloat16 as uint16."""
    data = path.read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    tensors = {}
    for name, entry in json.loads(data[8:begin]).items():
        if name != "__metadata__":
            first, last = (begin + offset for offset in entry["data_offsets"])
            flat = np.frombuffer(data[first:last], TYPES[entry["dtype"]])
            tensors[name] = flat.reshape(entry["shape"]).copy()
    return tensors


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """A safetensors file by hand, so that uint16 is written as bfloat16."""
    header: Json = {}
    end = 0
    for name, array in tensors.items():
        begin, end = end, end + array.nbytes
        code = CODES[array.dtype.name]
        header[name] = {"dtype": code, "shape": array.shape, "data_offsets": [begin, end]}
    write_raw(path, header, b"".join(array.tobytes() for array in tensors.values()))


def write_raw(path: Path, header: object, data: bytes) -> None:
    """A file of this header and these bytes, however little they fit."""
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def to_bfloat16(array: np.ndarray) -> np.ndarray:
    """float32 -> the bits of bfloat16 as uint16, rounded to nearest, ties to even."""
    bits = array.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    """The float32 of bfloat16 bits."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
