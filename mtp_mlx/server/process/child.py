"""The engine's process: `-m mtp_mlx.server.process.child CONTROL LISTENER`, two sockets' numbers.

It loads the model, serves it on the listening socket, and ends when the parent says so, or is no
longer there to say it. Signals but SIGKILL are the parent's to obey.
"""

import contextlib
import faulthandler
import logging
import os
import signal
import socket
import sys
import threading
import time
from typing import BinaryIO

from mtp_mlx.api import LLM, load
from mtp_mlx.errors import EngineStopped, MtpError
from mtp_mlx.server.http.app import make_app
from mtp_mlx.server.http.run import Server
from mtp_mlx.server.process.begin import serve_telling
from mtp_mlx.server.process.launch import Failed, Launch, Order, Ready, read_order
from mtp_mlx.server.process.log import ToLines, configure
from mtp_mlx.server.served import Served
from mtp_mlx.server.settings import ServerSettings

WATCH_S = 0.5
STALL_S = 60.0  # without a step: something to look at in the log
FLUSH_S = 0.5  # for what clients are told of an engine that has failed
LEAVE_S = 1.0

logger = logging.getLogger("mtp_mlx.server")


def main() -> None:
    """Serve, and leave with the exit code of what went wrong."""
    faulthandler.enable()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    numbers = [int(number) for number in sys.argv[1:]]
    for number in numbers:
        os.set_inheritable(number, False)  # a compiler that MLX runs would keep them open
    control, listener = (socket.socket(fileno=number) for number in numbers)
    lines = control.makefile("rb")
    told = lines.readline()
    if not told:
        return  # the parent has gone already
    launch = Launch.of(told)
    configure(ToLines(_say), launch.log_level, as_json=launch.logs_json)
    try:
        Child(launch, control, lines, listener).serve()
    except MtpError as error:
        with contextlib.suppress(OSError):  # the parent has gone
            control.sendall(Failed.of(error).line())
        sys.stdout.flush()
        os._exit(error.exit_code)  # sys.exit waits for threads, which may be stuck


class Child:
    """One process's work, from loading to the end."""

    def __init__(
        self, launch: Launch, control: socket.socket, lines: BinaryIO, listener: socket.socket
    ) -> None:
        self._launch = launch
        self._control = control
        self._lines = lines
        self._listener = listener
        self._server: Server | None = None

    def serve(self) -> None:
        """Load and serve, until there is an order to end. Raises MtpError where there is nothing to
        serve, and EngineStopped when there no longer is."""
        threading.Thread(target=self._obey, name="mtp-mlx-orders", daemon=True).start()
        with load(**self._launch.loading) as llm:
            if llm.note:
                logger.warning("%s", llm.note)
            llm.prepare("hello", **self._launch.sampling)  # raises for a default that is none
            llm.warm()
            served = self._served(llm)
            settings = _settings(self._launch)
            server = Server(make_app(llm, served, settings), settings)

            def tell() -> None:
                self._server = server
                threading.Thread(target=self._watch, args=(llm, server), daemon=True).start()
                self._control.sendall(Ready(served.id, served.draft_model).line())

            serve_telling(server, self._listener, tell)
            stopped = llm.snapshot().stopped
        if stopped is not None:
            raise EngineStopped(stopped)

    def _served(self, llm: LLM) -> Served:
        return Served.of(
            llm,
            names=self._launch.names,
            limits=self._launch.limits,
            accept_any_model=self._launch.accepts_any_model,
            sampling=self._launch.sampling,
        )

    def _obey(self) -> None:
        """The thread that reads orders, from the first to the end of the pipe."""
        while True:
            try:
                order = read_order(self._lines.readline())
            except (OSError, ValueError):  # the parent was killed, and so the pipe reset
                order = Order.STOP
            if self._server is None:  # it still loads: nobody waits for anything
                os._exit(0)
            if order is Order.STOP:
                self._server.stop()
                time.sleep(LEAVE_S)
                os._exit(0)
            self._server.drain()

    def _watch(self, llm: LLM, server: Server) -> None:
        """The thread that sees an engine that has ended, or that makes no step."""
        has_told = False
        while (seen := llm.snapshot()).stopped is None:
            stalled_s = seen.stalled_s(time.monotonic())
            if stalled_s > STALL_S and not has_told:
                logger.error("no step of the engine has ended for %.0f s; threads:", stalled_s)
                faulthandler.dump_traceback()
            has_told = stalled_s > STALL_S
            time.sleep(WATCH_S)
        time.sleep(FLUSH_S)
        server.stop()


def _settings(launch: Launch) -> ServerSettings:
    return ServerSettings(
        limits=launch.limits,
        api_keys=tuple(bytes.fromhex(digest) for digest in launch.key_digests),
        allowed_hosts=frozenset(launch.allowed_hosts),
        allowed_origins=frozenset(launch.allowed_origins),
        ui=launch.has_page,
        metrics_prefix=launch.metrics_prefix,
    )


def _say(line: bytes) -> None:
    os.write(2, line + b"\n")


if __name__ == "__main__":
    main()
