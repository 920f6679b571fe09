"""Who is let in: how many requests are at work, and when no more may come."""

import asyncio
from dataclasses import dataclass, field

from mtp_mlx.server.errors import RESTART_S, STOPPING, TRANSIENT_S, Refused
from mtp_mlx.server.http.exchange import Exchange
from mtp_mlx.server.limits import Limits
from mtp_mlx.server.metrics import Metrics


@dataclass(eq=False)
class Ticket:
    """One request that was let in, with as many replies to write; `id` is its name."""

    id: str
    count: int
    exchange: Exchange | None = None


@dataclass
class Desk:
    """Admission. `slots` rows are decoded together; so many replies beyond them may wait."""

    slots: int
    limits: Limits
    metrics: Metrics
    is_draining: bool = False
    is_cut_off: bool = False
    _open: dict[Ticket, None] = field(default_factory=dict)
    _settling: set[asyncio.Task[None]] = field(default_factory=set)
    _idle: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def in_flight(self) -> int:
        """Replies that are being written or waited for."""
        return sum(ticket.count for ticket in self._open)

    @property
    def waiting(self) -> int:
        """Replies beyond the slots."""
        return max(self.in_flight - self.slots, 0)

    def check(self, count: int = 1) -> None:
        """Raises Refused where so many more replies would not be let in now."""
        if self.is_draining:
            raise self._refused("shutting_down", STOPPING, RESTART_S)
        if self.in_flight + count > self.slots + self.limits.queue:
            raise self._refused(
                "queue_full",
                f"{self.in_flight} replies are being written or wait, of at most "
                f"{self.slots} + {self.limits.queue}; try again",
                TRANSIENT_S,
            )

    def _refused(self, code: str, message: str, retry_s: int) -> Refused:
        depth = {"x-queue-depth": str(self.waiting)}
        return Refused(503, code, message, retry_after_s=retry_s, headers=depth)

    def enter(self, request_id: str, count: int) -> Ticket:
        """Let a request in, or raise Refused at once."""
        self.check(count)
        ticket = Ticket(request_id, count)
        self._open[ticket] = None
        return ticket

    def begin(self, ticket: Ticket, exchange: Exchange) -> None:
        """The request's jobs are submitted."""
        ticket.exchange = exchange
        if self.is_cut_off:
            self._cut_off(exchange)

    def leave(self, ticket: Ticket) -> None:
        """The request is over; its place is free once its rows are."""
        if ticket.exchange is None:
            self._close(ticket)
            return
        task = asyncio.create_task(self._settle(ticket, ticket.exchange))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def _settle(self, ticket: Ticket, exchange: Exchange) -> None:
        try:
            await exchange.settle()
            exchange.report(self.metrics)
        finally:
            self._close(ticket)

    def _close(self, ticket: Ticket) -> None:
        del self._open[ticket]
        if not self._open:
            self._idle.set()

    def names(self) -> dict[int, str]:
        """What requests of the engine are called here: the request's id, numbered where it has
        several replies."""
        found = {}
        for ticket in self._open:
            jobs = ticket.exchange.jobs if ticket.exchange is not None else ()
            for index, job in enumerate(jobs):
                found[job.request_id] = ticket.id if ticket.count == 1 else f"{ticket.id}/{index}"
        return found

    def place(self, exchange: Exchange) -> int:
        """Where a request waits, 1 for the next; 0 where it runs."""
        if exchange.has_started:
            return 0
        before = [ticket.exchange for ticket in self._open]
        before = before[: before.index(exchange)]
        return 1 + sum(other is not None and not other.has_started for other in before)

    async def drain(self) -> None:
        """Let nobody in; returns when all have left, or were told to, after `drain_s`."""
        self.is_draining = True
        if not await self._is_idle(self.limits.drain_s):
            self.cut_off()
            await self._is_idle(1.0)

    def cut_off(self) -> None:
        """Let nobody in, and end what is open; its clients are told."""
        self.is_draining = self.is_cut_off = True
        for ticket in self._open:
            if ticket.exchange is not None:
                self._cut_off(ticket.exchange)

    def _cut_off(self, exchange: Exchange) -> None:
        exchange.end(Refused(503, "shutting_down", STOPPING, retry_after_s=RESTART_S), "shutdown")

    async def _is_idle(self, seconds: float) -> bool:
        self._idle.clear()
        if self._open:
            try:
                async with asyncio.timeout(seconds):
                    await self._idle.wait()
            except TimeoutError:
                return False
        return True
