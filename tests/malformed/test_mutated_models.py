"""Mutated headers, indexes and configs, loaded in processes that may die: none does.

Each case ends in a typed error of one line or in a model that computes, within two seconds of
processor time, and reads nothing outside the model's folders. A failure names seed and case:
`python -m tests.malformed.mutated_models BASE SEED CASE 1` runs it alone.
"""

import json
import os
import select
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.golden import recipe
from tests.malformed.mutated_models import FINE, REFUSED, VICTIMS, WAYS

LIMIT_S = 2.0  # of processor time, as the design promises
SILENCE_S = 60.0  # of the clock, on a machine that may be busy
MOST_BYTES = 1 << 30  # of memory at any time
QUICK, ALL, PER_PROCESS = 500, 20_000, 1000
SEED = 20_251


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """The pair that is mutated; without a template, whose process has tests of its own."""
    folder = tmp_path_factory.mktemp("base")
    for part in recipe.write_pair(folder, "31b", shards=2):
        (part / "chat_template.jinja").unlink()
    return folder


def answers(base: Path, seed: int, first: int, count: int) -> Iterator[dict[str, Any]]:
    """What the process says of each case; fails where it dies, hangs or leaves one out."""
    arguments = (str(base), str(seed), str(first), str(count))
    with subprocess.Popen(
        [sys.executable, "-m", "tests.malformed.mutated_models", *arguments],
        stdout=subprocess.PIPE, env={**os.environ, "MTP_MLX_CALIBRATION": "off"},
    ) as process:  # fmt: skip
        case, ended = None, 0
        for line in lines(process):
            said = json.loads(line)
            case = said.get("begin", case)
            if "end" in said:
                ended += 1
                yield said
        code = process.wait()  # -9: it was silent for too long
    assert (code, ended) == (0, count), f"ended with {code} in case {case} of seed {seed}"


def lines(process: subprocess.Popen) -> Iterator[bytes]:
    """Its lines, until it ends; it is killed when it is silent for too long."""
    assert process.stdout is not None
    pending = b""
    while True:
        ready, _, _ = select.select([process.stdout], [], [], SILENCE_S)
        if not ready:
            process.kill()
            return
        found = os.read(process.stdout.fileno(), 1 << 16)
        if not found:
            return
        *whole, pending = (pending + found).split(b"\n")
        yield from whole


def check(base: Path, seed: int, first: int, count: int) -> Counter[str]:
    tally = Counter[str]()
    for said in answers(base, seed, first, count):
        where = f"case {said['end']} of seed {seed}: {said['how']} of {said['file']}"
        assert said["result"] in (FINE, REFUSED), f"{where}: {said['message']}"
        assert said["message"].isprintable(), where
        assert said["seconds"] < LIMIT_S, f"{where} took {said['seconds']:.1f} s"
        assert said["outside"] == [], f"{where} read {said['outside']}"
        assert said["peak"] < MOST_BYTES, f"{where} took {said['peak']:,} bytes"
        tally.update([said["result"], said["how"], said["file"]])
    return tally


@pytest.mark.timeout(400)
def test_mutated_models_are_refused_or_load(base):
    tally = check(base, SEED, 0, QUICK)
    assert tally[REFUSED] > QUICK // 2
    assert tally[FINE] > QUICK // 50
    assert all(tally[way.__name__] for way, _ in WAYS)
    assert all(tally[f"{role}/{name}"] for role, name, _ in VICTIMS)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", range(ALL // PER_PROCESS))
def test_twenty_thousand_mutated_models_are_refused_or_load(base, part):
    check(base, SEED + 1, part * PER_PROCESS, PER_PROCESS)


BROKEN = {
    "dies": "import os; say(begin=0); os.abort()",
    "leaves_one_out": "say(begin=0)",
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_process_that_dies_is_noticed(fault, base, monkeypatch):
    """Guards the tests above."""
    popen = subprocess.Popen
    code = f"from tests.malformed.mutated_models import say; {BROKEN[fault]}"
    monkeypatch.setattr(
        subprocess,
        "Popen",
        lambda arguments, **options: popen([arguments[0], "-c", code], **options),
    )
    with pytest.raises(AssertionError, match="in case 0 of seed 1"):
        check(base, 1, 0, 1)


PEEKS = """
from pathlib import Path
from tests.malformed import mutated_models as module
from mtp_mlx import checkpoint, files
checkpoint.inside = files.inside = lambda folder, name: folder / name
module.VICTIMS, module.WAYS = (("target", "config.json", 1),), ((module.a_link, 1),)
module.main(*__import__("sys").argv[1:])
"""


def test_a_read_outside_the_folder_is_noticed(base, monkeypatch):
    """Guards the tests above: where links are followed, the hook sees it."""
    popen = subprocess.Popen
    monkeypatch.setattr(
        subprocess,
        "Popen",
        lambda arguments, **options: popen([arguments[0], "-c", PEEKS, *arguments[3:]], **options),
    )
    with pytest.raises(AssertionError, match=r"a_link of target/config\.json read \["):
        check(base, 1, 0, 20)
