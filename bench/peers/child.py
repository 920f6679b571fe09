"""The process of one engine: it loads one pair, stays up, and runs one job at a time.

It needs MLX and the engine, and nothing of ours. Reads JSON lines from stdin: what to load, then
jobs; answers each with one.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import mlx.core as mx

from bench.peers.job import Done, Drafts, Job
from bench.peers.meter import Counts, Meter

MAX_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


class Engine(Protocol):
    """A loaded pair. `distribution`: what it is installed as. `note`: what to know of this run."""

    distribution: str
    meter: Meter
    note: str | None

    def run(self, prompts: list[list[int]], tokens: int, drafts: Drafts) -> Iterator["Arrival"]:
        """Ids as they reach the host."""
        ...


Arrival = tuple[int, list[int]]  # row, and its next ids


@dataclass(frozen=True)
class Mark:
    """A moment of a job: by the clock, by the time of all cores, ids so far, and the counters."""

    at: float
    cpu: float
    tokens: int
    counts: Counts


class TooShort(ValueError):
    """The replies asked for leave no round in which all rows decode."""

    def __init__(self, job: Job) -> None:
        rows = len(job.prompts)
        super().__init__(
            f"{job.tokens} ids a row, {rows} rows, drafts {job.drafts}: a row has all its ids "
            "before all rows decode; ask for more tokens"
        )


def play(engine: Engine, job: Job) -> Done:
    """Run a job, with the clock or the counters on.

    The clock runs on to the last id. Counted is as long as all rows decode: rows with drafts end
    one by one, and rounds of fewer rows would pass for rounds of all. Raises TooShort where a row
    of a counted run has all its ids before that.
    """
    mx.clear_cache()
    mx.reset_peak_memory()
    texts: list[list[int]] = [[] for _ in job.prompts]

    def mark() -> Mark:
        tokens = sum(map(len, texts))
        return Mark(time.perf_counter(), time.process_time(), tokens, engine.meter.counts)

    with engine.meter.counting() if job.counts else nullcontext():
        first, ended = None, None
        started = time.perf_counter()
        for row, ids in engine.run(job.prompts, job.tokens, job.drafts):
            texts[row] += ids
            if first is None and all(texts):
                first = mark()
            is_last = ended is None and len(texts[row]) == job.tokens
            if job.counts and is_last and first is None:
                raise TooShort(job)
            is_beside = ended is not None and ended.counts.forwards == engine.meter.counts.forwards
            if job.counts and (is_last or is_beside):  # to the end of the first row's last round
                ended = mark()
        whole_s = time.perf_counter() - started
        ended = mark() if ended is None else ended
    short = {len(text) for text in texts} - {job.tokens}
    if short or first is None:
        raise RuntimeError(f"replies of {sorted(short)} ids instead of {job.tokens}")
    seen = ended.counts - first.counts if job.counts else Counts()
    if job.counts and not seen.forwards:
        raise TooShort(job)
    return Done(
        texts=texts,
        whole_s=whole_s,
        decode_tokens=ended.tokens - first.tokens,
        decode_s=ended.at - first.at,
        decode_cpu_s=ended.cpu - first.cpu,
        peak_bytes=mx.get_peak_memory(),
        **asdict(seen),
    )


def about(engine: Engine) -> dict[str, Any]:
    """What runs here."""
    return {
        "version": version(engine.distribution),
        "mlx": version("mlx"),
        "python": sys.version.split()[0],
        "device": str(mx.default_device()),
        "note": engine.note,
    }


def check_preloaded(library: str | None) -> None:
    """Raises where a library that should have been preloaded is not: the loader only warns."""
    if library is not None:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8")
        if library not in maps:
            raise RuntimeError(f"{library} is not loaded")


def serve(load: Callable[[str, str], Engine]) -> None:
    """Answer on what was stdout; whatever an engine prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(value: dict[str, Any]) -> None:
        usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAX_RSS_UNIT
        answers.write(json.dumps({**value, "max_rss_bytes": usage}) + "\n")
        answers.flush()

    asked = json.loads(sys.stdin.readline())
    try:
        check_preloaded(asked["blas"])
    except RuntimeError as error:
        sys.exit(str(error))
    engine = load(asked["target"], asked["drafter"])
    answer(about(engine))
    for line in sys.stdin:
        try:
            answer(asdict(play(engine, Job(**json.loads(line)))))
        except TooShort as error:
            answer({"error": str(error)})
