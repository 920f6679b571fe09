"""Moments of the process that owns the socket that no client can aim at."""

import asyncio
import signal
import socket

import pytest

from mtp_mlx.server.limits import Limits
from mtp_mlx.server.process import parent as module
from mtp_mlx.server.process.launch import Launch
from mtp_mlx.server.process.parent import Parent, Wishes
from mtp_mlx.server.process.relay import Relay
from mtp_mlx.server.process.waiting import State, Waiting


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener


class Dead:
    """A child that has ended and said nothing."""

    async def report(self) -> None:
        return None

    async def end(self) -> int:
        return -signal.SIGABRT

    def kill(self) -> None:
        pass


def test_a_signal_while_a_death_is_seen_to_is_not_forgotten(monkeypatch, listener):
    async def start(*_) -> Dead:
        return Dead()

    async def signalled(waiting: Waiting, state: State) -> None:
        if parent._code is None:
            parent._leave()

    monkeypatch.setattr(module.Spawned, "start", start)
    monkeypatch.setattr(Waiting, "open", signalled)
    parent = Parent(listener, Launch(loading={}), Wishes(), Relay())
    asyncio.run(parent._serve_once())
    assert (parent._code, parent._failed) == (0, None)


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
