"""D18: a process that ends with replies under way ends at once, with its own status, in silence."""

import subprocess
import sys

import pytest

from tests.api_pairs import folders
from tests.bad_input.engines import SOON_S

BEGIN = """
import asyncio, contextlib, sys, threading, mtp_mlx
LONG = dict(max_tokens=2000, temperature=0)
def load(**options): return mtp_mlx.load(sys.argv[1], draft_model=sys.argv[2], **options)
"""
# How a process leaves its replies, and the status and the last words that it must end with.
LEAVING = {
    "streams unread": ("""
llm = load()
streams = [llm.stream([2, 9 + i], **LONG) for i in range(4)]
next(streams[0])
""", 0, ""),
    "more streams than rows, in prefill": ("""
llm = load(max_num_seqs=2)
streams = [llm.stream([2, *[9 + i] * 300], **LONG) for i in range(5)]
""", 0, ""),
    "sys.exit inside a stream": ("""
llm = load()
with llm.stream([2, 9], **LONG) as stream:
    for number, _ in enumerate(stream):
        if number == 3: sys.exit(7)
""", 7, ""),
    "an error of the caller": ("""
llm = load()
for _ in llm.stream([2, 9], **LONG): raise LookupError("of the caller")
""", 1, "LookupError: of the caller"),
    "threads that wait": ("""
llm = load()
begun = threading.Barrier(4)
def read():
    stream = llm.stream([2, 9], **LONG)
    next(stream); begun.wait()
    with contextlib.suppress(mtp_mlx.EngineStopped): list(stream)
def generate():
    begun.wait()
    with contextlib.suppress(mtp_mlx.EngineStopped): llm.generate([2, 9], **LONG)
for target in (read, read, generate): threading.Thread(target=target, daemon=True).start()
begun.wait()
""", 0, ""),
    "an event loop that ends": ("""
llm = load()
async def begin():
    stream = llm.astream([2, 9], **LONG)
    await anext(stream)
    return stream
stream = asyncio.run(begin())
""", 0, ""),
    "four models": ("""
models = [load(), load(), load(backend="numpy"), load()]
streams = [llm.stream([2, 9], **LONG) for llm in models]
for stream in streams: next(stream)
""", 0, ""),
    "a stream whose model is gone": ("""
stream = load().stream([2, 9], **LONG)
next(stream)
""", 0, ""),
    "a load that failed": ("""
try: load(dtype="float8")
except mtp_mlx.RequestError: pass
llm = load()
next(llm.stream([2, 9], **LONG))
""", 0, ""),
    "closed by a handler at exit": ("""
import atexit
llm = load()
atexit.register(llm.close)
stream = llm.stream([2, 9], **LONG)
next(stream)
atexit.register(stream.cancel)
""", 0, ""),
}  # fmt: skip


QUICK = (
    "streams unread",
    "sys.exit inside a stream",
    "threads that wait",
    "an event loop that ends",
    "four models",
    "a load that failed",
)


def leave(name: str) -> None:
    """Run one process to its end."""
    code, status, last = LEAVING[name]
    arguments = [sys.executable, "-c", BEGIN + code, *map(str, folders())]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=SOON_S)
    assert done.returncode == status, (done.returncode, done.stderr)
    lines = done.stderr.splitlines()
    assert (lines[-1] if lines else "") == last, done.stderr
    assert "terminate called" not in done.stderr
    assert done.stderr.count("Traceback") == bool(last)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in LEAVING],
)
def test_a_process_may_end_whatever_is_under_way(name):
    leave(name)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", LEAVING)
def test_fifty_of_fifty_processes_end_well(name):
    for _ in range(50):
        leave(name)
