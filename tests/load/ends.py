"""Ends under load: SIGTERM in mid-stream, and an engine that aborts."""

import asyncio
import os
import signal
import time
from collections.abc import Sequence

from tests.load.asked import Asked
from tests.load.client import Outcome, ask
from tests.load.runs import Golden, Report, check
from tests.server.running import Serving

AGAIN_S = 60.0  # until a new child has loaded


async def drained(server: Serving, requests: Sequence[Asked], golden: Golden) -> Report:
    """SIGTERM while all are being answered: they get their text, newcomers a 503, and the process
    ends with 0."""
    report, start = Report("drain"), time.monotonic()
    running = [asyncio.ensure_future(ask(server.port, each.sent, each.path)) for each in requests]
    await asyncio.sleep(0.3)
    server.process.terminate()
    await asyncio.sleep(0.1)
    late = await ask(server.port, requests[0].sent, requests[0].path)
    assert (late.status, late.code) == (503, "shutting_down"), late
    report.counts["refused"] += 1
    for each, outcome in zip(requests, await asyncio.gather(*running), strict=True):
        check(each, outcome, golden, report)
    assert await asyncio.to_thread(server.end) == 0
    report.seconds = time.monotonic() - start
    return report


async def aborted(server: Serving, requests: Sequence[Asked], golden: Golden) -> Report:
    """SIGABRT to the engine's process while all are being answered: their connections close, others
    get a 503 until it serves again, and then their text."""
    report, start = Report("abort"), time.monotonic()
    [child] = server.children()
    running = [asyncio.ensure_future(_tried(server.port, each)) for each in requests]
    await asyncio.sleep(0.3)
    os.kill(child, signal.SIGABRT)
    for outcome in await asyncio.gather(*running):
        report.counts["whole" if outcome.is_whole else "cut"] += 1
    for each in requests:
        while (outcome := await _tried(server.port, each)).code == "engine_restarting":
            assert outcome.status == 503 and time.monotonic() - start < AGAIN_S, outcome
            report.counts["told to ask again"] += 1
            await asyncio.sleep(0.1)
        check(each, outcome, golden, report)
    report.seconds = time.monotonic() - start
    return report


async def _tried(port: int, each: Asked) -> Outcome:
    """What came; nothing where the connection was reset."""
    try:
        return await ask(port, each.sent, each.path)
    except ConnectionError:
        return Outcome()
