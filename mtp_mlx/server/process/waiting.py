"""What the parent answers itself while no child serves: 503, and why.

It reads no more of a request than its head and trusts nothing in it: a head may have so many bytes
and take so long, all connections are counted, and a body is thrown away, so that a client that is
still sending reads the answer in place of a reset.
"""

import asyncio
import json
import secrets
import socket
from collections.abc import Callable
from enum import Enum

from mtp_mlx import __version__
from mtp_mlx.server.errors import Answer, Refused, error_answer
from mtp_mlx.server.limits import Limits

END_OF_HEAD = b"\r\n\r\n"
LINGER_S = 2.0  # for a client that still sends its body
VERSIONS = (b"HTTP/1.0", b"HTTP/1.1")
HEALTH = b"/health"
REASONS = {400: "Bad Request", 431: "Request Header Fields Too Large", 503: "Service Unavailable"}


Answers = Callable[[bytes], Answer]  # to a path


class State(Enum):
    """Why no child serves: status of /health, code of a refusal, its message, when to ask again."""

    LOADING = ("loading", "model_loading", "the model is being loaded", 2)
    RESTARTING = ("restarting", "engine_restarting", "the engine failed and is started again", 2)
    LEAVING = ("shutting_down", "shutting_down", "the server is shutting down", 5)


class Waiting:
    """Answers on the listening socket between `open` and `close`."""

    def __init__(self, listener: socket.socket, limits: Limits) -> None:
        self._listener = listener
        self._limits = limits
        self._server: asyncio.Server | None = None
        self._opening = asyncio.Lock()  # a signal may open it while it is opened
        self._connections: set[_Connection] = set()
        self.state = State.LOADING

    async def open(self, state: State) -> None:
        """Answer from now on, with this reason."""
        self.state = state
        async with self._opening:
            if self._server is None:
                self._server = await asyncio.get_running_loop().create_server(
                    lambda: _Connection(self._connections, self._answer, self._limits),
                    sock=self._listener.dup(),  # it is closed with the server
                    backlog=self._limits.connections * 2,
                )

    def close(self) -> None:
        """Accept no more: somebody else does. Connections that are open get their answer."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def drop(self) -> None:
        """Close, and end all connections."""
        self.close()
        for connection in list(self._connections):
            connection.drop()

    def _answer(self, path: bytes) -> Answer:
        status, code, message, again_s = self.state.value
        if path == HEALTH:
            return Answer(503, {"status": status}, {"retry-after": str(again_s)})
        return error_answer(Refused(503, code, message, retry_after_s=again_s))


class _Connection(asyncio.Protocol):
    """One connection: a head in, an answer out, the rest ignored."""

    def __init__(self, others: "set[_Connection]", answer: Answers, limits: Limits) -> None:
        self._others = others
        self._answer = answer
        self._limits = limits
        self._head = bytearray()
        self._ignored = 0
        self._is_answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._limits.header_s, transport.abort)
        self._others.add(self)
        if len(self._others) > self._limits.connections:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._is_answered:
            self._ignored += len(data)
            if self._ignored > self._limits.body_bytes:
                self._transport.abort()
            return
        searched = max(0, len(self._head) - len(END_OF_HEAD))
        self._head += data
        end = self._head.find(END_OF_HEAD, searched)
        if 0 <= end <= self._limits.header_bytes:
            self._reply(*self._read(bytes(self._head[:end])))
        elif end >= 0 or len(self._head) > self._limits.header_bytes:
            large = Refused(431, "headers_too_large", "the request's headers are too large")
            self._reply(error_answer(large), has_body=True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self._others.discard(self)

    def drop(self) -> None:
        self._transport.abort()

    def _read(self, head: bytes) -> tuple[Answer, bool]:
        """The answer to a head, and whether its body may be sent."""
        match head.partition(b"\r\n")[0].split(b" "):
            case [method, target, version] if version in VERSIONS and target[:1] in (b"/", b"*"):
                return self._answer(target.partition(b"?")[0]), method != b"HEAD"
        return error_answer(Refused(400, "invalid_request", "this is no HTTP/1.1 request")), True

    def _reply(self, answer: Answer, has_body: bool) -> None:
        self._is_answered = True
        self._head.clear()
        body = json.dumps(answer.body).encode()
        headers = {
            **answer.headers,
            "content-type": "application/json",
            "content-length": str(len(body)),
            "connection": "close",
            "server": f"mtp-mlx/{__version__}",
            "x-request-id": f"req_{secrets.token_hex(12)}",
        }
        lines = [f"HTTP/1.1 {answer.status} {REASONS[answer.status]}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self._transport.write(
            "\r\n".join(lines).encode() + END_OF_HEAD + (body if has_body else b"")
        )
        self._transport.write_eof()
        self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(LINGER_S, self._transport.abort)
