"""One connection: uvicorn's HTTP/1.1 protocol with the timers and bounds that it lacks.

uvicorn waits for ever for a first request and for a reader that stops; it answers a malformed
request with plain text; and it stops reading, so that it misses a disconnect, while a second
request waits behind the one it works on.
"""

import asyncio
import json
import socket
import struct
import sys
from http import HTTPStatus

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from mtp_mlx import __version__
from mtp_mlx.server.errors import Refused, error_answer
from mtp_mlx.server.http.guard import MALFORMED
from mtp_mlx.server.limits import Limits

SERVER = f"mtp-mlx/{__version__}"
PIPELINED_BYTES = 64 << 10  # of requests that wait behind the one at work
SLOW_READER = "slow_reader"  # in the state of a request: its client did not read
LINGER_S = 2.0  # a client that still sends what was refused has so long to read the reply

CROWDED = "too many connections are open; try again"
SLOW = "the headers of the request were not complete after {:g} s"
LARGE = "the headers of the request are larger than {:,} bytes"


class Connection(H11Protocol):
    """See the module's text; `limits` is set by the subclass that `of` makes."""

    limits: Limits

    @classmethod
    def of(cls, limits: Limits) -> type["Connection"]:
        """The protocol under these limits, as uvicorn makes one a connection."""
        return type("LimitedConnection", (cls,), {"limits": limits})

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict,
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._header_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._linger_timer: asyncio.TimerHandle | None = None
        self._unread = 0  # bytes that waited when the write timer was set
        self._is_deaf = False

    # --- life ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # All that waits for a reader waits in the kernel, where it is bounded; more stops the
        # writer, and starts its timer.
        transport.set_write_buffer_limits(high=0)
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.limits.stream_bytes)
            # asyncio does so for sockets made with TCP's number, which many listeners are not.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if len(self.connections) > 2 * self.limits.connections:
            transport.abort()  # too many even to be told
            return
        if len(self.connections) > self.limits.connections:
            self._refuse(Refused(503, "queue_full", CROWDED, retry_after_s=1))
            return
        self._arm_header_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._header_timer, self._write_timer, self._linger_timer):
            if timer is not None:
                timer.cancel()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def eof_received(self) -> None:
        """Who sends no more has gone; what it has not read must not keep its row."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.abort()

    # --- reading -------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._is_deaf:
            return
        waiting = len(self.conn.trailing_data[0])
        if self.conn.their_state is h11.DONE and waiting + len(data) > PIPELINED_BYTES:
            self.cycle.keep_alive, self._is_deaf = False, True
            return
        super().data_received(data)
        self._after_reading()

    def handle_events(self) -> None:
        super().handle_events()
        if self.conn.their_state is h11.DONE:
            self.flow.resume_reading()  # or a disconnect would not be seen

    def _after_reading(self) -> None:
        if self.conn.their_state is not h11.SEND_BODY and self._linger_timer is not None:
            self._linger_timer.cancel()
            self._linger_timer = None
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._arm_header_timer()
        elif self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _arm_header_timer(self) -> None:
        if self._header_timer is None:
            self._header_timer = self.loop.call_later(self.limits.header_s, self._headers_late)

    def _headers_late(self) -> None:
        self._header_timer = None
        if self.transport.is_closing():
            return
        if self.conn.trailing_data[0]:
            self._refuse(Refused(408, "body_timeout", SLOW.format(self.limits.header_s)))
        else:
            self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """Answer what h11 does not take; uvicorn calls it while it handles h11's error."""
        fault = sys.exception()
        hint = fault.error_status_hint if isinstance(fault, h11.RemoteProtocolError) else 400
        if hint == 431:
            text = LARGE.format(self.limits.header_bytes)
            self._refuse(Refused(431, "headers_too_large", text))
        else:
            self._refuse(Refused(400, "invalid_value", MALFORMED))

    def _refuse(self, error: Refused) -> None:
        """Answer without the application, and close; nothing where a reply has begun."""
        self._is_deaf = True
        if self.cycle is not None and not self.cycle.response_complete:
            if self.cycle.response_started:
                self.transport.abort()
                return
            self.cycle.disconnected = True  # for the application, which waits for the body
            self.cycle.message_event.set()
        answer = error_answer(error)
        body = json.dumps(answer.body).encode()
        headers = {
            "content-type": "application/json",
            "content-length": str(len(body)),
            "connection": "close",
            "server": SERVER,
            **answer.headers,
        }
        lines = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.transport.write("\r\n".join([*lines, "", ""]).encode() + body)
        self._linger()

    def _linger(self) -> None:
        """Let the client read its reply before the connection goes: closing while it still sends
        would throw the reply away."""
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._linger_timer = self.loop.call_later(LINGER_S, self.transport.abort)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY and not self.transport.is_closing():
            self._linger_timer = self.loop.call_later(LINGER_S, self.transport.abort)

    # --- writing -------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._write_timer is None:
            self._arm_write_timer()

    def _arm_write_timer(self) -> None:
        self._unread = self.transport.get_write_buffer_size()
        self._write_timer = self.loop.call_later(self.limits.write_s, self._write_late)

    def _write_late(self) -> None:
        """Cut off who stands still; a large reply may take a steady reader longer."""
        left = self.transport.get_write_buffer_size()
        if self._unread - left >= self.limits.stream_bytes:
            self._arm_write_timer()
            return
        if self.scope is not None:
            self.scope["state"][SLOW_READER] = True
        sock = self.transport.get_extra_info("socket")
        if sock is not None:  # the kernel shall not keep what nobody reads
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
