"""The corpus of safetensors files that the header check accepts or refuses, made on demand.

Each case is a name, the file's bytes, and the words the refusal must hold (None: accepted).
"""

import json
import struct
from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    name: str
    content: bytes
    refusal: str | None


def entry(dtype="F32", shape=(2, 2), offsets=(0, 16)) -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def raw(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def file_bytes(tensors: dict, data_bytes: int = 16) -> bytes:
    return raw(json.dumps(tensors).encode(), bytes(data_bytes))


def one(data_bytes: int = 16, **fields) -> bytes:
    return file_bytes({"w": entry(**fields)}, data_bytes)


VALID = file_bytes(
    {
        "__metadata__": {"format": "mlx"},
        "b": entry("BF16", (2, 3), (16, 28)),
        "a": entry(),
        "empty": entry("U8", (0, 7), (28, 28)),
        "scalar": entry("I64", (), (28, 36)),
    },
    36,
)
TWO = {"a": entry(), "b": entry(offsets=(16, 32))}
DEEP = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
TWICE = b'{"w":%s,"w":%s}' % ((json.dumps(entry()).encode(),) * 2)


def many(count: int) -> bytes:
    return file_bytes({f"t{i}": entry("F32", (0,), (0, 0)) for i in range(count)}, 0)


def cases() -> list[Case]:
    return _framing_cases() + _tensor_cases() + _layout_cases()


def _framing_cases() -> list[Case]:
    return [
        Case("valid", VALID, None),
        Case("no_tensors", raw(b"{}"), None),
        Case("padded_header", raw(b"{}      "), None),
        Case("empty", b"", "expected at least 8 bytes, found 0"),
        Case("two_bytes", b"\x01\x02", "expected at least 8 bytes, found 2"),
        Case("length_2_63", struct.pack("<Q", 2**63 - 1) + b"{}", "9,223,372,036,854,775,807"),
        Case("length_10000", struct.pack("<Q", 10_000) + b"{}", "needs 10,008 bytes"),
        Case("length_200MiB", struct.pack("<Q", 200 << 20) + b"{}", "at most 16,777,216 bytes"),
        Case("bad_json", raw(b'{"w": }'), "not valid JSON"),
        Case("not_utf8", raw(b'{"\xff": 1}'), "not valid JSON"),
        Case("array", raw(b"[]"), "must begin with '{'"),
        Case("leading_space", raw(b" {}"), "must begin with '{'"),
        Case("depth_100k", raw(DEEP), "deeper than 8 levels"),
        Case("unbalanced", raw(b"{" + b"[" * 50), "deeper than 8 levels, or unbalanced"),
        Case("duplicate_key", raw(TWICE, bytes(16)), "duplicate key 'w'"),
        Case("metadata_number", file_bytes({"__metadata__": {"a": 1}}, 0), "__metadata__"),
        Case("metadata_list", file_bytes({"__metadata__": []}, 0), "__metadata__"),
        Case("200k_tensors", many(200_000), "at most 65,536 tensors, found 200,000"),
    ]


def _tensor_cases() -> list[Case]:
    missing = {"w": {"dtype": "F32", "shape": [2, 2]}}
    extra = {"w": entry() | {"more": 1}}
    return [
        Case("missing_field", file_bytes(missing), "expected dtype, shape, data_offsets"),
        Case("extra_field", file_bytes(extra), "expected dtype, shape, data_offsets"),
        Case("tensor_not_object", file_bytes({"w": 3}), "expected dtype, shape, data_offsets"),
        Case("unknown_dtype", one(dtype="F33"), "found 'F33'"),
        Case("dtype_number", one(dtype=4), "found 4"),
        Case("dtype_f8", one(dtype="F8_E4M3"), "not supported by MLX"),
        Case("shape_larger", one(shape=(2, 3)), "needs 24 bytes, data_offsets give 16"),
        Case("shape_smaller", one(shape=(2, 1)), "needs 8 bytes, data_offsets give 16"),
        Case("shape_negative", one(shape=(-2, -2)), "expected whole sizes"),
        Case("shape_over_64_bits", one(shape=(2**31 - 1,) * 3), "overflows"),
        Case("shape_over_32_bits", one(shape=(2**32 + 2, 2)), "overflows"),
        Case("shape_5000_digits", raw(b'{"w":{"shape":[1%s]}}' % (b"0" * 5000)), "5,001 digits"),
        Case("shape_float", one(shape=(2.0, 2)), "expected whole sizes"),
        Case("shape_bool", one(shape=(True, 4)), "expected whole sizes"),
        Case("shape_string", one(shape=("2", 2)), "expected whole sizes"),
        Case("shape_number", file_bytes({"w": entry() | {"shape": 4}}), "expected whole sizes"),
    ]


def _layout_cases() -> list[Case]:
    overlap = TWO | {"b": entry(offsets=(8, 24))}
    hole = TWO | {"b": entry(offsets=(20, 36))}
    inside = {"a": entry(), "z": entry(shape=(0,), offsets=(4, 4))}
    return [
        Case("data_truncated", one(data_bytes=12), "expected 16 data bytes, found 12"),
        Case("data_absent", one(data_bytes=0), "expected 16 data bytes, found 0"),
        Case("offsets_past_end", one(offsets=(16, 32)), "leaves a hole"),
        Case("offsets_negative", one(offsets=(-16, 0)), "expected data_offsets [begin, end]"),
        Case("offsets_reversed", one(offsets=(16, 0)), "expected data_offsets [begin, end]"),
        Case("offsets_three", one(offsets=(0, 8, 16)), "expected data_offsets [begin, end]"),
        Case("offsets_float", one(offsets=(0, 16.0)), "expected data_offsets [begin, end]"),
        Case("overlap", file_bytes(overlap, 24), "overlaps the tensor before it"),
        Case("empty_inside_another", file_bytes(inside, 16), "overlaps the tensor before it"),
        Case("hole", file_bytes(hole, 36), "leaves a hole"),
        Case("trailing_bytes", one(data_bytes=17), "trailing bytes"),
    ]
