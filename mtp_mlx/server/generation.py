"""The generating routes: a body in, a whole reply or a stream out."""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.types import Receive, Scope, Send

from mtp_mlx.job import Job
from mtp_mlx.server.body import read_object
from mtp_mlx.server.client import Client, ClientGone
from mtp_mlx.server.desk import Ticket
from mtp_mlx.server.errors import Refused
from mtp_mlx.server.exchange import Exchange
from mtp_mlx.server.frames import DONE, EVENT_STREAM, comment, frame
from mtp_mlx.server.serving import Serving
from mtp_mlx.server.served import Served
from mtp_mlx.server.standin import Ask, ChatAnswer

Reader = Callable[[dict[str, Any], Served], Ask]


@dataclass(frozen=True)
class Generation:
    """The endpoint of one kind of request."""

    serving: Callable[[], Serving]
    read: Reader

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        serving = self.serving()
        serving.desk.check()
        ask = self.read(await read_object(scope, receive, serving.limits), serving.served)
        ticket = serving.desk.enter(len(ask.choices))
        client = Client(receive)
        try:
            llm = serving.served.llm
            jobs = await serving.beside(
                client, lambda: [llm.prepare(prompt, **options) for prompt, options in ask.choices]
            )
            serving.desk.check(0)
            exchange = Exchange(llm, jobs, serving.limits)
            ticket.exchange = exchange
            client.when_gone(lambda: exchange.end(ClientGone()))
            answer = ChatAnswer(ask, f"chatcmpl-{scope['state']['request_id']}", int(time.time()))
            writer = write_stream if ask.stream else write_whole
            await writer(serving, ask, answer, exchange, send)
        finally:
            client.stop()
            serving.desk.leave(ticket)


async def write_whole(serving, ask, answer, exchange, send) -> None:
    async for _ in exchange.pieces():
        pass
    body = json.dumps(answer.whole([job.reply() for job in exchange.jobs]), ensure_ascii=False, allow_nan=False).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def write_stream(serving, ask, answer, exchange, send) -> None:
    is_open = False

    async def write(data: bytes, more: bool = True) -> None:
        nonlocal is_open
        if not is_open:
            is_open = True
            headers = [(b"content-type", EVENT_STREAM.encode()), (b"x-accel-buffering", b"no")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": data, "more_body": more})

    async for piece in exchange.pieces():
        if piece is None:
            await write(comment("working"))
        else:
            await write(frame(answer.chunk(piece.index, piece.chunk)))
    if ask.include_usage:
        await write(frame(answer.usage([job.reply() for job in exchange.jobs])))
    await write(DONE, more=False)
