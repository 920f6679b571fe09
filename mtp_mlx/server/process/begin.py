"""Serving, and a word to somebody once it can be told to end."""

import asyncio
import socket
from collections.abc import Callable

from mtp_mlx.server.http.run import Server


def serve_telling(server: Server, listener: socket.socket, tell: Callable[[], None]) -> None:
    """Serve on this thread until the end. `tell` is called in the event loop when it runs: who
    connects from then on waits for the few moments that uvicorn needs, at most."""
    asyncio.run(_serve(server, listener, tell))


async def _serve(server: Server, listener: socket.socket, tell: Callable[[], None]) -> None:
    serving = asyncio.ensure_future(server.serve(listener))
    await asyncio.sleep(0)  # it begins, and heeds `stop` from here on
    tell()
    await serving
