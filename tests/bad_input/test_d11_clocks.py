"""D11, D12: the wall clock may jump and the machine may sleep: no reply is late for it.

Deadlines are read from the monotonic clock, which on Linux and macOS stands still in sleep; so a
wake-up looks like a jump of the wall clock, and no deadline has to be armed again.
"""

import ast
import itertools
import time
from pathlib import Path

import pytest

import mtp_mlx
from tests.api_pairs import loaded
from tests.bad_input.engines import LONG, PROMPTS, SAMPLED

PACKAGE = Path(mtp_mlx.__file__).parent
DAY_S = 86400.0
# The chat template's own strftime_now, in a process of its own; the age of files left behind; the
# date of a pull, which is shown and decides nothing; `created` of replies and models.
TELLS_THE_DATE = {
    *("text/render_worker.py", "calibration_file.py", "hub/fetch.py"),
    *("server/http/generation.py", "server/served.py"),
}
WALL = {"time", "time_ns", "ctime", "localtime", "gmtime", "now", "utcnow", "today"}


@pytest.mark.parametrize("jump", [DAY_S, -DAY_S], ids=["ahead", "back"])
def test_a_jump_of_the_wall_clock_ends_no_reply_and_makes_no_negative_time(monkeypatch, jump):
    llm = loaded()
    expected = llm.generate(PROMPTS[0], **SAMPLED)
    wall = time.time
    jumps = itertools.accumulate(itertools.repeat(jump))
    monkeypatch.setattr(time, "time", lambda: wall() + next(jumps))
    for prompt, options in ((PROMPTS[0], SAMPLED), (PROMPTS[1], SAMPLED)):
        reply = llm.generate(prompt, timeout=600, **options)
        assert reply.finish_reason == "length"
        assert reply.timings.first_token_s > 0 and reply.timings.generation_s > 0
    assert llm.generate(PROMPTS[0], timeout=600, **SAMPLED).token_ids == expected.token_ids
    with pytest.raises(mtp_mlx.TimedOut):
        llm.generate(PROMPTS[0], timeout=0.1, **LONG)


def test_nothing_of_the_package_reads_the_wall_clock():
    readers = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Attribute)
                and node.attr in WALL
                and ast.unparse(node.value).split(".")[-1] in ("time", "datetime", "date")
            ):
                readers.add(path.relative_to(PACKAGE).as_posix())
    assert readers == TELLS_THE_DATE


def test_the_clock_of_deadlines_is_one_that_stands_still_in_sleep():
    assert time.get_clock_info("monotonic").implementation in (
        "clock_gettime(CLOCK_MONOTONIC)",
        "mach_absolute_time()",
    )
