"""A child without a model, for tests of its parent: does what its script, the model's name, says.

Its words: `sleep=SECONDS` · `say=TEXT` · `fill=N` says N characters · `fail` does not load ·
`abort` · `once=FILE` goes on in the first child alone, and aborts in later ones · `ready` serves ·
`serve=SECONDS` waits for an order, and ends as long after one to drain · `close` waits for an
order, and accepts no more · `hold=SECONDS` starts a program that has its sockets and output, and
runs so long · `broken` accepts no more, and says why · `stuck` does not end.
"""

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mtp_mlx.errors import DoesNotFit, EngineStopped
from mtp_mlx.server.process.launch import Failed, Launch, Order, Ready, read_order


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    listener = socket.socket(fileno=int(sys.argv[2]))
    lines = control.makefile("rb")
    acting = Acting(control, listener, lines)
    for word in Launch.of(lines.readline()).loading["model"].split():
        name, _, value = word.partition("=")
        vars(Acting)[name](acting, value)


@dataclass(frozen=True)
class Acting:
    """A method a word."""

    control: socket.socket
    listener: socket.socket
    lines: BinaryIO

    def sleep(self, seconds: str) -> None:
        time.sleep(float(seconds))

    def say(self, text: str) -> None:
        print(text, flush=True)

    def fill(self, count: str) -> None:
        print("x" * int(count), flush=True)

    def fail(self, _: str) -> None:
        error = DoesNotFit("it takes 9 GB, and 1 GB is free")
        self.control.sendall(Failed.of(error).line())
        os._exit(error.exit_code)

    def abort(self, _: str) -> None:
        os.abort()

    def once(self, path: str) -> None:
        if Path(path).exists():
            os.abort()
        Path(path).touch()

    def ready(self, _: str) -> None:
        threading.Thread(target=_serve, args=(self.listener,), daemon=True).start()
        self.control.sendall(Ready("scripted", None).line())

    def serve(self, drain_s: str) -> None:
        if read_order(self.lines.readline()) is Order.DRAIN:
            self.listener.close()
            time.sleep(float(drain_s or 0))
        os._exit(0)

    def close(self, _: str) -> None:
        self.lines.readline()
        self.listener.close()

    def hold(self, seconds: str) -> None:
        given = self.control.fileno(), self.listener.fileno()
        subprocess.Popen(["sleep", seconds], pass_fds=given)

    def broken(self, _: str) -> None:
        self.listener.close()
        self.control.sendall(Failed.of(EngineStopped("cosmic ray")).line())

    def stuck(self, _: str) -> None:
        time.sleep(1000)


def _serve(listener: socket.socket) -> None:
    """Answer every connection with the process's number. The socket does not block: that would
    block the parent too."""
    while listener.fileno() >= 0 and select.select([listener], [], [], 0.1):
        with contextlib.suppress(OSError), listener.accept()[0] as connection:
            connection.settimeout(5)
            connection.recv(1 << 16)
            body = json.dumps({"pid": os.getpid()}).encode()
            head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body)


if __name__ == "__main__":
    main()
