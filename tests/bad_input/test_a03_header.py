"""A3: headers that do not describe their data."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mtp_mlx.errors import UnsupportedModel
from tests.bad_input.faults import Damage, Fault, both_backends, check, each, in_target_tensors
from tests.bad_input.files import WEIGHTS, Json, write_raw

FIRST, SECOND = "model.language_model.embed_tokens.weight", "model.language_model.norm.weight"


def in_header(change: Callable[[Json], object], more: bytes = b"") -> Damage:
    """Damage to the header of the target, whose data stay, and have `more` behind them."""

    def damage(target: Path, drafter: Path) -> None:
        data = (target / WEIGHTS).read_bytes()
        begin = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:begin])
        change(header)
        write_raw(target / WEIGHTS, header, data[begin:] + more)

    return damage


def entry(**fields: object) -> Damage:
    """The embedding's entry with other fields."""
    return in_header(lambda header: header[FIRST].update(fields))


def overlapping(header: Json) -> None:
    begin, end = header[SECOND]["data_offsets"]
    header[SECOND]["data_offsets"] = [begin - 4, end - 4]


def holed(header: Json) -> None:
    del header[SECOND]


def twice(target: Path, drafter: Path) -> None:
    text = b'{"a":{},"a":{}}'
    (target / WEIGHTS).write_bytes(len(text).to_bytes(8, "little") + text)


FAULTS = [
    Fault("negative", entry(shape=[-256, -64]), (WEIGHTS, FIRST, "expected whole sizes")),
    Fault("fractional", entry(shape=[256.0, 64]), (WEIGHTS, FIRST, "expected whole sizes")),
    Fault("boolean", entry(shape=[True, 16384]), (WEIGHTS, FIRST, "expected whole sizes")),
    Fault("huge", entry(shape=[2**31, 64]), (WEIGHTS, FIRST, "overflows")),
    Fault("wraps", entry(shape=[2**32 + 256, 64]), (WEIGHTS, FIRST, "overflows")),
    Fault("larger", entry(shape=[257, 64]), (WEIGHTS, FIRST, "65,792 bytes", "65,536")),
    Fault("offsets_of_three", entry(data_offsets=[0, 1, 2]), (WEIGHTS, FIRST, "data_offsets")),
    Fault("unknown_dtype", entry(dtype="F33"), (WEIGHTS, FIRST, "expected a dtype of", "F33")),
    Fault("complex_dtype", entry(dtype="C64"), (WEIGHTS, FIRST, "expected a dtype of", "C64")),
    Fault("8_bit_float", entry(dtype="F8_E4M3"), (WEIGHTS, FIRST, "F8_E4M3"), UnsupportedModel),
    Fault("overlap", in_header(overlapping), (WEIGHTS, "overlaps")),
    Fault("hole", in_header(holed), (WEIGHTS, "leaves a hole")),
    Fault("trailing", in_header(lambda header: None, b"more"), (WEIGHTS, "trailing bytes")),
    Fault("metadata", in_header(lambda h: h.update(__metadata__=[1])), (WEIGHTS, "__metadata__")),
    Fault("twice", twice, (WEIGHTS, "duplicate key 'a'")),
]


@each(FAULTS)
def test_a_header_that_does_not_describe_its_data_is_refused(fault, tmp_path):
    check(fault, tmp_path)


def doubled(tensors):
    tensors[SECOND] = tensors[SECOND].astype(np.float64)


@both_backends
def test_a_double_is_refused_by_its_name(backend, tmp_path):
    """MLX reads no float64 from a file and says so with a bare RuntimeError."""
    said = (WEIGHTS, "norm.weight", "F32 or F16 or BF16", "F64")
    fault = Fault("double", in_target_tensors(doubled), said)
    check(fault, tmp_path, backend=backend)
