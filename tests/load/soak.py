"""Serving for minutes: does what the server holds grow?"""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from tests.load.asked import drawn
from tests.load.client import ask, leave
from tests.load.forms import FULL
from tests.load.runs import Target, wait_until_idle

WARM_REQUESTS = 300  # before the start is measured: caches and pools fill
STREAMS = 8


@dataclass(frozen=True)
class Soaked:
    """A child's figures after the warm-up and in the end, each when nothing ran."""

    requests: int
    seconds: float
    start_bytes: int
    end_bytes: int
    start_files: int
    end_files: int
    start_threads: int
    end_threads: int

    @property
    def growth(self) -> float:
        """Resident memory in the end, as a share of that after the warm-up."""
        return self.end_bytes / self.start_bytes

    def row(self) -> str:
        """One line of a table."""
        return (
            f"soak     {self.seconds:7.1f} s  {self.requests} requests; RSS "
            f"{self.start_bytes >> 20} -> {self.end_bytes >> 20} MiB ({self.growth:.3f}), files "
            f"{self.start_files} -> {self.end_files}, threads {self.start_threads} -> "
            f"{self.end_threads}"
        )


async def soak(target: Target, child: int, seconds: float, seed: int = 0) -> Soaked:
    """Eight streams of requests, one in ten of which is left early. `child`: the engine's pid."""
    process, draw = psutil.Process(child), random.Random(seed)
    requests, port = drawn(seed, 400, 400, FULL.lengths), target.port
    begin, count = time.monotonic(), 0

    async def worker(is_over: Callable[[], bool]) -> None:
        nonlocal count
        while not is_over():
            asked = draw.choice(requests)
            count += 1
            if draw.random() < 0.1:
                moment = time.monotonic() + draw.random()
                await leave(
                    port, asked.sent, lambda _, at=moment: time.monotonic() >= at, with_reset=True
                )
            else:
                outcome = await ask(port, asked.sent, asked.path)
                assert (outcome.status, outcome.is_whole, outcome.code) == (200, True, None), (
                    outcome
                )

    async def run(is_over: Callable[[], bool]) -> tuple[int, int, int]:
        await asyncio.gather(*(worker(is_over) for _ in range(STREAMS)))
        await wait_until_idle(target)
        return process.memory_info().rss, process.num_fds(), process.num_threads()

    first = await run(lambda: count >= WARM_REQUESTS)
    last = await run(lambda: time.monotonic() >= begin + seconds)
    pairs = [value for pair in zip(first, last, strict=True) for value in pair]
    return Soaked(count, time.monotonic() - begin, *pairs)
