"""The parent's side of a child: started with the listening socket, told what to serve, listened to.

A session of its own keeps the terminal's signals from it: the parent says when it ends. Should the
parent be killed, the child reads the end of its pipe.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from mtp_mlx.errors import MtpError
from mtp_mlx.server.process.key_file import VARIABLE
from mtp_mlx.server.process.launch import (
    MAX_LINE_BYTES,
    Failed,
    Launch,
    Order,
    Ready,
    order_line,
    read_report,
)
from mtp_mlx.server.process.relay import Relay

# -P: no module is taken from the folder that the user happens to be in.
CHILD = (sys.executable, "-P", "-m", "mtp_mlx.server.process.child")
LAST_S = 1.0  # after its end, for what it has said last to be read
PACKAGE_FOLDER = str(Path(__file__).resolve().parents[3])


class Spawned:
    """A child process. Made by `start`."""

    def __init__(
        self,
        transport: asyncio.SubprocessTransport,
        output: "_Output",
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._transport = transport
        self._output = output
        self._reader = reader
        self._writer = writer
        loop = asyncio.get_running_loop()
        output.exited.add_done_callback(lambda _: loop.call_later(LAST_S, self._let_go))

    @staticmethod
    async def start(
        command: Sequence[str], listener: socket.socket, launch: Launch, relay: Relay
    ) -> "Spawned":
        """Start a child and tell it what to serve. Raises MtpError where there can be none."""
        ours, theirs = socket.socketpair()
        with theirs:
            numbers = (theirs.fileno(), listener.fileno())
            try:
                transport, output = await asyncio.get_running_loop().subprocess_exec(
                    lambda: _Output(relay),
                    *command,
                    *map(str, numbers),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.STDOUT,
                    pass_fds=numbers,
                    start_new_session=True,
                    env=_environment(),
                )
            except OSError as error:
                ours.close()
                raise MtpError(f"the engine's process cannot be started: {error}") from error
        reader, writer = await asyncio.open_connection(sock=ours, limit=MAX_LINE_BYTES)
        writer.write(launch.line())
        return Spawned(transport, output, reader, writer)

    async def report(self) -> Ready | Failed | None:
        """What it says once it has loaded, or has failed to; None: it ended and said nothing."""
        try:
            return read_report(await self._reader.readline())
        except (OSError, ValueError):
            return None

    def order(self, order: Order) -> None:
        """Tell it how to end. Nothing for one that has ended."""
        with contextlib.suppress(OSError):
            self._writer.write(order_line(order))

    def kill(self) -> None:
        """End it at once. Nothing for one that has ended."""
        with contextlib.suppress(ProcessLookupError):
            self._transport.kill()

    async def end(self) -> int:
        """Its exit status, once it has ended and all its output is passed on."""
        await self._output.ended
        self._let_go()
        status = self._transport.get_returncode()
        assert status is not None
        return status

    def _let_go(self) -> None:
        """Wait for no more of it. What it has started itself may live on, and hold its pipes: their
        end is not its end."""
        self._writer.close()
        self._transport.close()


class _Output(asyncio.SubprocessProtocol):
    """What a process writes, passed on. `exited`: itself; `ended`: its output too."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self._relay.pass_on(data)

    def process_exited(self) -> None:
        self.exited.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._relay.end_output()
        self.ended.set_result(None)


def how_it_ended(status: int) -> str:
    """An exit status in words."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"


def _environment() -> dict[str, str]:
    """Ours, with this package in reach, and without keys: the child knows their digests."""
    folders = [PACKAGE_FOLDER, *filter(None, [os.environ.get("PYTHONPATH")])]
    kept = {name: value for name, value in os.environ.items() if name != VARIABLE}
    return {**kept, "PYTHONPATH": os.pathsep.join(folders)}
