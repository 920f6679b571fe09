"""Moments of the process that owns the socket that no client can aim at."""

import asyncio
import socket

import pytest

from mtp_mlx.server.limits import Limits
from mtp_mlx.server.process.waiting import State, Waiting


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener


def test_who_opens_twice_at_once_answers_once(listener):
    """A second server would answer on, after the first is closed."""

    async def open_and_close() -> None:
        waiting = Waiting(listener, Limits())
        await asyncio.gather(waiting.open(State.RESTARTING), waiting.open(State.LEAVING))
        assert waiting.state is State.LEAVING
        waiting.close()
        with socket.create_connection(listener.getsockname()):
            await asyncio.sleep(0.05)
            listener.accept()[0].close()

    asyncio.run(open_and_close())
