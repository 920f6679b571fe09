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
CHUNK = 1 << 16
OUTPUT_S = 1.0
PACKAGE_FOLDER = str(Path(__file__).resolve().parents[3])


class Spawned:
    """A child process. Made by `start`."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        relay: Relay,
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._output = asyncio.ensure_future(_pass_on(process, relay))

    @staticmethod
    async def start(
        command: Sequence[str], listener: socket.socket, launch: Launch, relay: Relay
    ) -> "Spawned":
        """Start a child and tell it what to serve. Raises MtpError where there can be none."""
        ours, theirs = socket.socketpair()
        with theirs:
            numbers = (theirs.fileno(), listener.fileno())
            try:
                process = await asyncio.create_subprocess_exec(
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
        return Spawned(process, reader, writer, relay)

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
            self._process.kill()

    async def end(self) -> int:
        """Its exit status, once it has ended and all its output is passed on."""
        status = await self._process.wait()
        with contextlib.suppress(TimeoutError):  # something of its own lives on, and holds the pipe
            await asyncio.wait_for(self._output, OUTPUT_S)
        self._writer.close()
        return status


def how_it_ended(status: int) -> str:
    """An exit status in words."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"


async def _pass_on(process: asyncio.subprocess.Process, relay: Relay) -> None:
    assert process.stdout is not None
    while data := await process.stdout.read(CHUNK):
        relay.pass_on(data)
    relay.end_output()


def _environment() -> dict[str, str]:
    """Ours, with this package in reach, and without keys: the child knows their digests."""
    folders = [PACKAGE_FOLDER, *filter(None, [os.environ.get("PYTHONPATH")])]
    kept = {name: value for name, value in os.environ.items() if name != VARIABLE}
    return {**kept, "PYTHONPATH": os.pathsep.join(folders)}
