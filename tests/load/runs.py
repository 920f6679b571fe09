"""The runs of a load test against a server on loopback. Each returns its counts, and raises
AssertionError, naming the request, where an answer is not what was promised."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from tests.load.asked import Asked, key_of
from tests.load.client import Outcome, ask, leave, read_slowly, send_raw, status

Golden = dict[tuple, tuple[str, str]]
IDLE_S = 5.0  # until all is free after the last request
REFUSED_S = 1.0  # a full queue says so at once
MALFORMED = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n"
    b'content-type: application/json\r\ncontent-length: 7\r\n\r\n{"mess"',
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n"
    b"content-type: text/plain\r\ncontent-length: 2\r\n\r\n{}",
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n"
    b"content-length: 2\r\n\r\n{}",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 40 + b"\r\n\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: -5\r\n\r\n",
    b"GET /v1/../../etc/passwd HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n",
)


@dataclass(frozen=True)
class Target:
    """A server, and the K/V bytes that it sets aside when it has nothing to do."""

    port: int
    idle_kv_bytes: int

    @staticmethod
    def at(port: int) -> "Target":
        """Of one that has nothing to do."""
        found = asyncio.run(status(port))
        return Target(port, found["memory"]["kv_reserved_bytes"])


@dataclass
class Report:
    """What a run found."""

    name: str
    counts: Counter = field(default_factory=Counter)
    seconds: float = 0.0
    tokens_s: float | None = None
    first_s: list[float] = field(default_factory=list)

    def row(self) -> str:
        """One line of a table."""
        counts = ", ".join(f"{count} {what}" for what, count in sorted(self.counts.items()))
        first = sorted(self.first_s)
        middle = f"; first byte p50 {first[len(first) // 2]:.2f} s" if first else ""
        return f"{self.name:<8} {self.seconds:7.1f} s  {counts}{middle}"


async def steady(target: Target, requests: Sequence[Asked], golden: Golden, streams: int) -> Report:
    """So many streams of requests, each with the next as soon as one is answered: all are complete,
    and equal to the golden text."""
    report, start = Report("steady"), time.monotonic()
    await _by_workers(streams, requests, lambda each: _equal(target.port, each, golden, report))
    report.seconds = time.monotonic() - start
    await wait_until_idle(target)
    return report


async def burst(target: Target, requests: Sequence[Asked], golden: Golden) -> Report:
    """All at once: each is answered with its text, or within a second that the queue is full."""
    report, start = Report("burst"), time.monotonic()
    outcomes = await asyncio.gather(*(ask(target.port, each.sent, each.path) for each in requests))
    for each, outcome in zip(requests, outcomes, strict=True):
        if outcome.status == 503:
            assert (outcome.code, outcome.is_whole) == ("queue_full", True), outcome
            assert int(outcome.headers["retry-after"]) >= 1, outcome
            report.counts["refused"] += 1
        else:
            check(each, outcome, golden, report)
    report.seconds = time.monotonic() - start
    await wait_until_idle(target)
    return report


async def churn(
    target: Target, requests: Sequence[Asked], golden: Golden, *, streams: int = 8, seed: int = 0
) -> Report:
    """Of the clients 40 % hang up at a random moment, half of those with RST, 5 % send something
    malformed and 5 % read slowly; the others get their text, and in the end nothing is held."""
    report, start = Report("churn"), time.monotonic()
    draw = random.Random(seed)
    share = [draw.random() for _ in requests]
    moments = [draw.random() for _ in requests]
    port = target.port
    before = await status(port)

    async def one(each: tuple[Asked, float, float]) -> None:
        asked, kind, moment = each
        if kind < 0.4:
            await leave(port, asked.sent, _moment(asked, moment), with_reset=kind < 0.2)
            report.counts["left"] += 1
        elif kind < 0.45:
            outcome = await send_raw(port, MALFORMED[int(moment * len(MALFORMED))])
            assert 400 <= outcome.status < 500, outcome
            report.counts["malformed"] += 1
        elif kind < 0.5:
            outcome = await read_slowly(port, asked.sent, asked.path, pause_s=0.01, piece_bytes=512)
            check(asked, outcome, golden, report)
            report.counts["slow"] += 1
        else:
            await _equal(port, asked, golden, report)

    await _by_workers(streams, list(zip(requests, share, moments, strict=True)), one)
    report.seconds = time.monotonic() - start
    await wait_until_idle(target)
    after = await status(port)
    report.counts["cancelled"] = after["requests"]["cancelled"] - before["requests"]["cancelled"]
    return report


def _moment(asked: Asked, moment: float) -> Callable[[int], bool]:
    """When to hang up: at once, after some time (it waits, or its prompt is read), or after some
    bytes of the reply."""
    if moment < 0.2:
        return lambda read: True
    if moment < 0.6 or not asked.is_stream:
        until = time.monotonic() + 3 * moment**3
        return lambda read: time.monotonic() >= until
    return lambda read: read >= 4000 * (moment - 0.6)


async def _equal(port: int, each: Asked, golden: Golden, report: Report) -> None:
    """Ask, until there is room; the text must be the golden one."""
    while True:
        outcome = await ask(port, each.sent, each.path)
        if outcome.code != "queue_full":
            break
        report.counts["asked again"] += 1
        await asyncio.sleep(0.05)
    check(each, outcome, golden, report)


def check(each: Asked, outcome: Outcome, golden: Golden, report: Report) -> None:
    """The answer to `each` is whole, and the golden one."""
    assert outcome.status == 200 and outcome.is_whole and outcome.code is None, (each, outcome)
    assert (outcome.text, outcome.finish) == golden[key_of(each)], (each, outcome)
    report.counts["equal"] += 1
    if outcome.first_s is not None and each.is_stream:
        report.first_s.append(outcome.first_s)


async def _by_workers(count: int, work: Sequence, do: Callable[..., Awaitable[None]]) -> None:
    """Do all the work, so much of it at once."""
    left = iter(work)

    async def worker() -> None:
        for each in left:
            await do(each)

    await asyncio.gather(*(worker() for _ in range(count)))


async def wait_until_idle(target: Target, limit_s: float = IDLE_S) -> None:
    """Returns when no row, no place in the queue and no K/V is held; fails when that lasts."""
    deadline = time.monotonic() + limit_s
    while held := _held(await status(target.port), target.idle_kv_bytes):
        assert time.monotonic() < deadline, f"held after all have left: {held}"
        await asyncio.sleep(0.02)


def _held(found: dict, idle_kv_bytes: int) -> dict:
    """What is in use, empty when nothing is."""
    values = {name: found[name] for name in ("running", "prefilling", "waiting", "rows")}
    values["kv_bytes"] = found["memory"]["kv_reserved_bytes"] - idle_kv_bytes
    return {name: value for name, value in values.items() if value}
