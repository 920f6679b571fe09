"""A1: a file that ends too early."""

import os
from collections.abc import Callable
from pathlib import Path

from tests.bad_input.faults import Damage, Fault, check, each
from tests.bad_input.files import INDEX, WEIGHTS

SHARD = "model-00002-of-00003.safetensors"


def cut(size: int, name: str = WEIGHTS) -> Damage:
    return lambda target, drafter: os.truncate(target / name, size)


def begun_with(length: int) -> Damage:
    """The first eight bytes say that the header has `length` bytes."""

    def damage(target: Path, drafter: Path) -> None:
        with (target / WEIGHTS).open("r+b") as file:
            file.write(length.to_bytes(8, "little"))

    return damage


def halved(choose: Callable[[Path, Path], Path]) -> Damage:
    def damage(target: Path, drafter: Path) -> None:
        path = choose(target, drafter)
        os.truncate(path, path.stat().st_size // 2)

    return damage


FAULTS = [
    Fault("empty", cut(0), (WEIGHTS, "at least 8 bytes, found 0")),
    Fault("two_bytes", cut(2), (WEIGHTS, "at least 8 bytes, found 2")),
    Fault("in_the_header", cut(100), (WEIGHTS, "the file has 100")),
    Fault("header_past_the_end", begun_with(10_000_000), (WEIGHTS, "needs 10,000,008 bytes")),
    Fault("header_2**63", begun_with(2**63 - 1), (WEIGHTS, "9,223,372,036,854,775,807")),
    Fault("half_target", halved(lambda t, d: t / WEIGHTS), (WEIGHTS, "truncated", "data bytes")),
    Fault("half_drafter", halved(lambda t, d: d / WEIGHTS), (WEIGHTS, "truncated", "data bytes")),
]
FAULTS_OF_SHARDS = [
    Fault("half_shard", halved(lambda t, d: t / SHARD), (SHARD, "truncated", "data bytes")),
    Fault("empty_shard", cut(0, SHARD), (SHARD, "at least 8 bytes, found 0")),
    Fault("half_index", halved(lambda t, d: t / INDEX), (INDEX, "not valid JSON")),
]


@each(FAULTS)
def test_a_file_that_ends_too_early_is_refused_with_both_sizes(fault, tmp_path):
    check(fault, tmp_path)


@each(FAULTS_OF_SHARDS)
def test_a_shard_that_ends_too_early_is_refused_with_both_sizes(fault, tmp_path):
    check(fault, tmp_path, shards=3)
