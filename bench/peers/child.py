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
from dataclasses import asdict
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


def play(engine: Engine, job: Job) -> Done:
    """Run a job, with the clock or the counters on."""
    mx.clear_cache()
    mx.reset_peak_memory()
    texts: list[list[int]] = [[] for _ in job.prompts]
    without = set(range(len(texts)))
    before, tokens, first, cpu = Counts(), 0, 0.0, 0.0
    with engine.meter.counting() if job.counts else nullcontext():
        started = time.perf_counter()
        for row, ids in engine.run(job.prompts, job.tokens, job.drafts):
            texts[row] += ids
            if row in without:
                without.remove(row)
                if not without:
                    first, cpu = time.perf_counter(), time.process_time()
                    tokens, before = sum(map(len, texts)), engine.meter.counts
        ended, cpu_ended = time.perf_counter(), time.process_time()
    short = {len(text) for text in texts} - {job.tokens}
    if short:
        raise RuntimeError(f"replies of {sorted(short)} ids instead of {job.tokens}")
    seen = engine.meter.counts - before if job.counts else Counts()
    return Done(
        texts=texts,
        whole_s=ended - started,
        decode_tokens=sum(map(len, texts)) - tokens,
        decode_s=ended - first,
        decode_cpu_s=cpu_ended - cpu,
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
        answer(asdict(play(engine, Job(**json.loads(line)))))
