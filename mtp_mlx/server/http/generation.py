"""The generating routes: a body in, a whole reply or a stream out."""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Receive, Scope, Send

from mtp_mlx.reply import Reply
from mtp_mlx.server.http.body import read_object
from mtp_mlx.server.http.client import Client, ClientGone
from mtp_mlx.server.http.connection import SLOW_READER
from mtp_mlx.server.http.desk import Desk
from mtp_mlx.server.http.exchange import Exchange, Piece
from mtp_mlx.server.http.frames import DONE, EVENT_STREAM, comment, frame
from mtp_mlx.server.http.serving import Serving
from mtp_mlx.server.http.shell import BEGUN
from mtp_mlx.server.metrics import Why
from mtp_mlx.server.served import Served
from mtp_mlx.server.wire.answer import Answer
from mtp_mlx.server.wire.answers import make_answer
from mtp_mlx.server.wire.asks import Ask

Reader = Callable[[dict[str, Any], Served], Ask]
Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Generation:
    """The endpoint of one kind of request, which `read` reads."""

    serving: Callable[[], Serving]
    read: Reader

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        serving = self.serving()
        serving.desk.check()  # before the body, which may be large
        body = await read_object(scope, receive, serving.limits)
        client = Client(receive)
        try:
            ask = await serving.beside(client, lambda: self.read(body, serving.served))
            await answer(serving, client, ask, scope, send)
        finally:
            client.stop()


async def answer(serving: Serving, client: Client, ask: Ask, scope: Scope, send: Send) -> None:
    """Generate what was asked for. The request's place is held until its rows are free."""
    llm, desk, state = serving.served.llm, serving.desk, scope["state"]
    ticket = desk.enter(state["request_id"], len(ask.choices))
    try:
        jobs = await serving.beside(
            client, lambda: [llm.prepare(choice.prompt, **choice.options) for choice in ask.choices]
        )
        exchange = Exchange(llm, jobs, serving.limits)
        desk.begin(ticket, exchange)
        state[BEGUN] = True
        client.when_gone(lambda: exchange.end(ClientGone(), why_gone(scope)))
        reply = make_answer(ask, state["request_id"], int(time.time()), serving.served)
        ignored = ask.ignored_header
        headers = [] if ignored is None else [(b"x-ignored-fields", ignored.encode("latin-1"))]
        if ask.stream:
            stream = Streamed(exchange, reply, desk, headers, send)
            await stream.write(ask.include_usage)
        else:
            await write_whole(exchange, reply, headers, send)
    finally:
        desk.leave(ticket)


def why_gone(scope: Scope) -> Why:
    """Why a client is gone."""
    return "slow_reader" if SLOW_READER in scope["state"] else "client"


async def write_whole(exchange: Exchange, reply: Answer, headers: Headers, send: Send) -> None:
    """The whole reply at once."""
    async for piece in exchange.pieces():
        if piece is not None and piece.chunk is not None:
            reply.keep(piece.index, piece.chunk)
    body = await asyncio.to_thread(whole_body, reply, [job.reply() for job in exchange.jobs])
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *headers,
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def whole_body(reply: Answer, replies: list[Reply]) -> bytes:
    """The JSON of a whole reply, which may be long: scores of every token of a prompt."""
    return json.dumps(reply.whole(replies), ensure_ascii=False, allow_nan=False).encode()


@dataclass
class Streamed:
    """A stream of frames. It is opened by its first one, so that what is refused before is answered
    with its own status; then a fault is its last frame (see shell.py)."""

    exchange: Exchange
    reply: Answer
    desk: Desk
    headers: Headers
    send: Send
    _is_open: bool = field(default=False, init=False)

    async def write(self, include_usage: bool) -> None:
        """All frames; a comment where there is nothing else to send for a while."""
        jobs = self.exchange.jobs
        async for piece in self.exchange.pieces():
            data = self._comment() if piece is None else self._frames(piece)
            if data:
                await self._send(data)
        usage = frame(self.reply.usage([job.reply() for job in jobs])) if include_usage else b""
        await self._send(usage + DONE, more=False)

    def _frames(self, piece: Piece) -> bytes:
        if piece.chunk is None:
            return frame(self.reply.last(piece.index, self.exchange.jobs[piece.index].reply()))
        return b"".join(frame(found) for found in self.reply.chunk(piece.index, piece.chunk))

    def _comment(self) -> bytes:
        place = self.desk.place(self.exchange)
        if place:
            return comment(f"queue {place}")
        reading = [job.progress for job in self.exchange.jobs if job.progress is not None]
        unread = [each for each in reading if each.done < each.total]
        if unread:
            return comment(f"prefill {unread[0].done}/{unread[0].total}")
        return comment(f"tokens {sum(job.usage.completion_tokens for job in self.exchange.jobs)}")

    async def _send(self, data: bytes, more: bool = True) -> None:
        if not self._is_open:
            self._is_open = True
            headers = [
                (b"content-type", EVENT_STREAM.encode()),
                (b"x-accel-buffering", b"no"),
                *self.headers,
            ]
            await self.send({"type": "http.response.start", "status": 200, "headers": headers})
        await self.send({"type": "http.response.body", "body": data, "more_body": more})
