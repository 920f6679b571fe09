"""uvicorn around the application, on a socket that listens already; signals are the caller's."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Generator
from typing import cast

import uvicorn

from mtp_mlx.server.http.app import App
from mtp_mlx.server.http.connection import Connection
from mtp_mlx.server.settings import ServerSettings

STOP_S = 2  # for replies that are cut off to be sent


class _Quiet(uvicorn.Server):
    """uvicorn's server without signal handlers of its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


class Server:
    """Serves one application until `stop`, or until it is drained."""

    def __init__(self, app: App, settings: ServerSettings) -> None:
        limits = settings.limits
        self._app = app
        self._uvicorn = _Quiet(
            uvicorn.Config(
                app,
                http=Connection.of(limits),
                ws="none",
                lifespan="off",
                loop="asyncio",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=cast(int, limits.keep_alive_s),  # a timer's seconds
                timeout_graceful_shutdown=STOP_S,
                h11_max_incomplete_event_size=limits.header_bytes,
                backlog=limits.connections,
            )
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asked: list[Callable[[], None]] = []
        self._draining: asyncio.Task[None] | None = None
        self._ended = threading.Event()

    async def serve(self, listening: socket.socket) -> None:
        """Serve on this socket, which is closed in the end; returns when stopped."""
        self._loop = asyncio.get_running_loop()
        for action in self._asked:  # before there was a loop
            action()
        try:
            await self._uvicorn.serve(sockets=[listening])
        finally:
            self._app.close()
            self._ended.set()

    def run(self, listening: socket.socket) -> None:
        """The same in an event loop of its own, on this thread."""
        asyncio.run(self.serve(listening))

    def drain(self) -> None:
        """Let no request in, and stop when those at work are done, or `drain_s` have passed; from
        any thread, or a signal handler."""
        self._soon(self._start_drain)

    def stop(self) -> None:
        """Stop at once: replies at work are cut off, with an error; from any thread."""
        self._soon(self._stop)

    def join(self, seconds: float | None = None) -> bool:
        """Wait until it has stopped; False if it has not."""
        return self._ended.wait(seconds)

    @property
    def connections(self) -> int:
        """Connections that are open."""
        return len(self._uvicorn.server_state.connections)

    def _soon(self, action: Callable[[], None]) -> None:
        self._asked.append(action)
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(action)

    def _start_drain(self) -> None:
        if self._draining is None:
            self._draining = asyncio.ensure_future(self._drain())

    async def _drain(self) -> None:
        await self._app.drain()
        self._uvicorn.should_exit = True

    def _stop(self) -> None:
        self._app.cut_off()
        self._uvicorn.should_exit = True


def serve_app(app: App, listening: socket.socket, settings: ServerSettings) -> None:
    """Serve on this thread until the process ends or something stops it."""
    Server(app, settings).run(listening)
