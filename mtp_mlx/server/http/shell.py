"""What surrounds every request: its id, the checks, the reply to a fault, one line in the log.

A plain ASGI application: `receive` is handed on as it is, so that a disconnect is seen behind it.
"""

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mtp_mlx.fields import shown_name
from mtp_mlx.server.errors import RESTART_S, STOPPING, Answer, Refused, error_answer
from mtp_mlx.server.http.client import ClientGone
from mtp_mlx.server.http.connection import SERVER
from mtp_mlx.server.http.frames import EVENT_STREAM, frame
from mtp_mlx.server.http.guard import METHODS, Guard, request_id

LOG = logging.getLogger("mtp_mlx.server")
BEGUN = "begun"  # in the state of a request: the model was asked
EXPLAINED_IN_LOG = frozenset({"internal", "engine_stopped"})
GONE = 499  # in the log: the client left before its reply was complete
LOGGED_PATH = 80  # characters
ALWAYS = [
    (b"server", SERVER.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
]


class Shell:
    """The outermost application."""

    def __init__(self, inner: ASGIApp, guard: Guard, refused: Callable[[str], None]) -> None:
        """`refused` hears the code of each request that got an error and was not begun."""
        self._inner = inner
        self._guard = guard
        self._refused = refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # no lifespan, no WebSocket
        reply = Outgoing(scope, send, self._guard)
        try:
            self._guard.check(scope)
            if scope["method"] == "OPTIONS":
                await reply.empty(204)
            else:
                await self._inner(scope, receive, reply.send)
        except ClientGone:
            reply.status = GONE
        except asyncio.CancelledError:
            await self._fail(
                reply, Refused(503, "shutting_down", STOPPING, retry_after_s=RESTART_S)
            )
        except Exception as error:
            await self._fail(reply, error)
        finally:
            reply.log()

    async def _fail(self, reply: "Outgoing", error: BaseException) -> None:
        answer = error_answer(error)
        code = answer.body["error"]["code"]
        if not reply.has_begun:
            self._refused(code)
        if code in EXPLAINED_IN_LOG:
            LOG.error("%s failed", reply.id, exc_info=error)
        await reply.fail(answer)


class Outgoing:
    """One reply on its way."""

    def __init__(self, scope: Scope, send: Send, guard: Guard) -> None:
        given = request_id(scope["headers"])
        self.id = given.decode() if given is not None else f"req_{secrets.token_hex(12)}"
        self.status = 0
        self._scope = scope
        self._send = send
        self._cors = guard.cors(scope)
        self._is_stream = self._is_complete = False
        self._started = time.monotonic()
        scope["state"]["request_id"] = self.id

    async def send(self, message: Message) -> None:
        """Hand a message on, with the headers of every reply."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = list(message.get("headers", ()))
            self._is_stream = (b"content-type", EVENT_STREAM.encode()) in headers
            taken = {name for name, _ in headers}
            headers += [(name, value) for name, value in ALWAYS if name not in taken]
            headers += [(b"x-request-id", self.id.encode()), *self._cors]
            message = {**message, "headers": headers}
        else:
            self._is_complete = not message.get("more_body", False)
        await self._send(message)

    async def empty(self, status: int) -> None:
        """A reply without a body."""
        headers = [(b"allow", METHODS)]
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": b""})

    @property
    def has_begun(self) -> bool:
        """Was the model asked?"""
        return BEGUN in self._scope["state"]

    async def fail(self, answer: Answer) -> None:
        """Answer a fault; in a stream that is open, as its last frame."""
        if self._is_complete:
            return
        if not self.status:
            body = json.dumps(answer.body).encode()
            length = str(len(body)).encode()
            headers = [(b"content-type", b"application/json"), (b"content-length", length)]
            headers += [(name.encode(), value.encode()) for name, value in answer.headers.items()]
            start = {"type": "http.response.start", "status": answer.status, "headers": headers}
            await self.send(start)
            await self.send({"type": "http.response.body", "body": body})
        elif self._is_stream:
            self.status = answer.status  # in the log
            await self.send({"type": "http.response.body", "body": frame(answer.body)})

    def log(self) -> None:
        """One line: no text of a request or reply."""
        milliseconds = 1000 * (time.monotonic() - self._started)
        path = shown_name(self._scope["path"][:LOGGED_PATH])
        method = shown_name(self._scope["method"][:16])
        LOG.info("%s %s %s %d %.0f ms", self.id, method, path, self.status, milliseconds)
