"""`mtp-mlx serve` as a process, for tests: started, asked over HTTP, and always ended."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.interrupts import heed_interrupts

ROOT = Path(__file__).resolve().parents[2]
REAL = (sys.executable, "-m", "mtp_mlx")
SCRIPTED = (sys.executable, "-m", "tests.server.scripted_serve")
LIMIT_S = 40.0


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return self.json["error"]["code"]


class Serving:
    """A server's process; `url` waits until there is one."""

    def __init__(self, process: subprocess.Popen, ready_file: Path, port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self._ready_file = ready_file
        self._log = log

    @property
    def log(self) -> str:
        """What it has said on stderr so far."""
        return self._log.read_text(encoding="utf-8")

    def ready(self) -> dict:
        """What the ready file says, once it is there."""
        wait_until(self._ready_file.exists, self.process)
        return json.loads(self._ready_file.read_text(encoding="utf-8"))

    def has_ready_file(self) -> bool:
        return self._ready_file.exists()

    def get(self, path: str, **headers: str) -> Answer:
        return ask(self.port, head("GET", path, **headers))

    def post(self, path: str, body: dict, **headers: str) -> Answer:
        data = json.dumps(body).encode()
        start = head("POST", path, content_type="application/json", **headers)
        return ask(self.port, with_body(start, data))

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self, limit_s: float = LIMIT_S) -> int:
        return self.process.wait(limit_s)

    def children(self) -> list[int]:
        """Its child processes."""
        listed = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True
        )
        return [int(number) for number in listed.stdout.split()]


@contextmanager
def serving(
    folder: Path, *arguments: object, command: tuple[str, ...] = SCRIPTED, **environment: str
) -> Iterator[Serving]:
    """A server on a free port of loopback; killed at the end if it still runs."""
    port = free_port()
    ready_file, log = folder / "ready.json", folder / "log.txt"
    given = ["--port", str(port), "--ready-file", str(ready_file), *map(str, arguments)]
    with open(log, "ab") as errors:
        process = subprocess.Popen(
            [*command, "serve", *given],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            cwd=ROOT,
            env={**os.environ, **environment},
            preexec_fn=heed_interrupts,
        )
    try:
        yield Serving(process, ready_file, port, log)
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(
    is_so: Callable[[], bool], process: subprocess.Popen | None = None, limit_s: float = LIMIT_S
) -> None:
    """Returns when `is_so`; fails when that takes too long."""
    deadline = time.monotonic() + limit_s
    while not is_so():
        if process is not None and process.poll() is not None and not is_so():
            raise AssertionError(f"the process ended with {process.returncode}")
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


def head(method: str, path: str, **headers: str) -> bytes:
    """The lines of a request, without the empty one."""
    lines = [f"{method} {path} HTTP/1.1"]
    given = {"host": "127.0.0.1", "connection": "close", **headers}
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in given.items()]
    return "\r\n".join([*lines, ""]).encode()


def with_body(start: bytes, body: bytes = b"") -> bytes:
    return start + b"content-length: %d\r\n\r\n" % len(body) + body


def connect(port: int, limit_s: float = LIMIT_S) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=limit_s)


def ask(port: int, request: bytes, limit_s: float = LIMIT_S) -> Answer:
    """Send a request on a connection of its own, and read to the end of the connection."""
    if not request.endswith(b"\r\n\r\n") and b"\r\n\r\n" not in request:
        request += b"\r\n"
    with connect(port, limit_s) as connection:
        connection.sendall(request)
        return read_answer(connection)


def read_answer(connection: socket.socket) -> Answer:
    """What comes until the other side closes."""
    data = b""
    while piece := connection.recv(1 << 16):
        data += piece
    assert data, "the connection was closed without an answer"
    start, _, body = data.partition(b"\r\n\r\n")
    first, *lines = start.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (l.partition(":") for l in lines)}
    return Answer(int(first.split()[1]), headers, body)
