"""The replies to one request as they are written: pieces, faults and deadlines in one mailbox."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from mtp_mlx.api import LLM
from mtp_mlx.errors import DoesNotFit, EngineStopped, MtpError
from mtp_mlx.job import Job
from mtp_mlx.reply import Chunk
from mtp_mlx.server.errors import RESTART_S, TRANSIENT_S, Refused
from mtp_mlx.server.limits import Limits
from mtp_mlx.server.metrics import Metrics, Why
from mtp_mlx.streams import AsyncStream

TICKS = 8  # at most so many looks within the time that counts as a stall
SHORTEST_S = 0.001


def follow(llm: LLM, jobs: Sequence[Job]) -> list[AsyncStream]:
    """Submit the jobs. Raises Refused where no engine is there to take them."""
    try:
        return llm.follow(*jobs)
    except EngineStopped:
        raise Refused(
            503, "engine_stopped", "the engine has stopped; try again", retry_after_s=RESTART_S
        ) from None


@dataclass(frozen=True)
class Piece:
    """A chunk of choice `index`; None: this choice has ended."""

    index: int
    chunk: Chunk | None


class Exchange:
    """Jobs that were submitted together, one a choice."""

    def __init__(self, llm: LLM, jobs: Sequence[Job], limits: Limits) -> None:
        self.jobs = jobs
        self.why: Why | None = None  # it was ended early, by whom
        self._limits = limits
        self._mailbox: asyncio.Queue[Piece | Exception] = asyncio.Queue()
        self._streams = follow(llm, jobs)
        self._pumps = [
            asyncio.create_task(self._pump(index, stream))
            for index, stream in enumerate(self._streams)
        ]
        self._began = self._said = time.monotonic()

    @property
    def has_started(self) -> bool:
        """Has every choice got its row?"""
        return all(job.progress is not None or job.is_done for job in self.jobs)

    async def pieces(self) -> AsyncIterator[Piece | None]:
        """Pieces as they come, None where none came for `ping_s`. Raises what ends the request."""
        left = len(self.jobs)
        while left:
            now = time.monotonic()
            self._check(now)
            try:
                async with asyncio.timeout(self._patience(now)):
                    item = await self._mailbox.get()
            except TimeoutError:
                if time.monotonic() - self._said >= self._limits.ping_s:
                    self._said = time.monotonic()
                    yield None
                continue
            if isinstance(item, Exception):
                raise item
            left -= item.chunk is None
            self._said = time.monotonic()
            yield item

    def end(self, error: Exception, why: Why) -> None:
        """End all choices; who reads the pieces gets the error."""
        self.why = self.why or why
        self._mailbox.put_nowait(error)
        for stream in self._streams:
            stream.abandon()

    async def settle(self) -> None:
        """Returns when no choice has a row, K/V or a place in the queue."""
        for stream in self._streams:
            stream.abandon()
        for pump in self._pumps:
            pump.cancel()
        for stream in self._streams:
            await stream.aclose()

    def report(self, metrics: Metrics) -> None:
        """Count the choices, once they have settled."""
        for job, stream in zip(self.jobs, self._streams, strict=True):
            metrics.finished(job.reply(), gaps=stream.gaps, why=self.why)

    async def _pump(self, index: int, stream: AsyncStream) -> None:
        try:
            async for chunk in stream:
                if chunk.finish_reason not in ("error", "cancelled"):
                    self._mailbox.put_nowait(Piece(index, chunk))
        except DoesNotFit as error:  # not even alone: it would never be begun
            self._mailbox.put_nowait(Refused(400, error.code, str(error)))
        except MtpError as error:
            self._mailbox.put_nowait(error)
        else:
            self._mailbox.put_nowait(Piece(index, None))

    def _silent_s(self) -> float:
        """Seconds since the engine last said anything of a choice that runs."""
        running = [job for job in self.jobs if job.progress is not None and not job.is_done]
        return min((job.silent_s for job in running), default=0.0)

    def _patience(self, now: float) -> float:
        """Seconds until something may be due."""
        limits = self._limits
        due = [
            self._said + limits.ping_s,
            self._began + limits.request_s,
            now + max(limits.stall_s - self._silent_s(), limits.stall_s / TICKS),
        ]
        if not self.has_started:
            due.append(self._began + limits.queue_s)
        return max(min(due) - now, SHORTEST_S)

    def _check(self, now: float) -> None:
        """Raises Refused where a deadline has passed."""
        limits = self._limits
        if not self.has_started and now - self._began >= limits.queue_s:
            self.why = "queue_time"
            raise Refused(
                503,
                "queue_timeout",
                f"the request has waited {limits.queue_s:g} s and was not begun; try again",
                retry_after_s=TRANSIENT_S,
            )
        if now - self._began >= limits.request_s:
            self.why = "request_time"
            raise Refused(
                503,
                "timeout",
                f"the reply was not complete after {limits.request_s:g} s; ask for fewer tokens",
            )
        if self._silent_s() >= limits.stall_s:
            self.why = "stall"
            raise Refused(503, "timeout", f"the reply made no progress for {limits.stall_s:g} s")
