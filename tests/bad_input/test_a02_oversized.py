"""A2: headers too large, too deep or with too many tensors to be honest."""

from pathlib import Path

from tests.bad_input.faults import Damage, Fault, check, each
from tests.bad_input.files import WEIGHTS, write_raw

MIB = 1 << 20


def of_header(text: bytes, *, length: int | None = None) -> Damage:
    """A weights file that is all header; `length` bytes of it are zeros on no disk."""

    def damage(target: Path, drafter: Path) -> None:
        size = len(text) if length is None else length
        with (target / WEIGHTS).open("wb") as file:
            file.write(size.to_bytes(8, "little") + text)
            file.truncate(8 + size)

    return damage


def many(count: int) -> Damage:
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = {str(index): entry for index in range(count)}
    return lambda target, drafter: write_raw(target / WEIGHTS, header, b"")


def deep(levels: int) -> Damage:
    return of_header(b'{"a":' + b"[" * levels + b"]" * levels + b"}")


FAULTS = [
    Fault("17_mib", of_header(b"{", length=17 * MIB), (WEIGHTS, "16,777,216", "17,825,792")),
    Fault("200_mib", of_header(b"{", length=200 * MIB), (WEIGHTS, "16,777,216", "209,715,200")),
    Fault("65537_tensors", many(65_537), (WEIGHTS, "at most 65,536", "found 65,537")),
    Fault("9_levels", deep(8), (WEIGHTS, "deeper than 8 levels")),
    Fault("100k_levels", deep(100_000), (WEIGHTS, "deeper than 8 levels")),
]


@each(FAULTS)
def test_an_oversized_header_is_refused_before_it_is_parsed(fault, tmp_path):
    check(fault, tmp_path)
