"""`mtp-mlx serve` as a process, for tests: started, asked over HTTP, and always ended."""

import json
import os
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
    """What came until the connection's end."""

    status: int
    headers: dict[str, str]
    raw_body: bytes

    @property
    def body(self) -> dict:
        return json.loads(self.raw_body)

    @property
    def code(self) -> str:
        return self.body["error"]["code"]


@dataclass(frozen=True)
class Serving:
    """A server's process."""

    process: subprocess.Popen
    port: int
    ready_file: Path
    log_file: Path

    @property
    def log(self) -> str:
        """What it has said on stderr so far."""
        return self.log_file.read_text(encoding="utf-8")

    def ready(self) -> dict:
        """What the ready file says, once it is there."""
        wait_until(self.ready_file.exists, self.process)
        return json.loads(self.ready_file.read_text(encoding="utf-8"))

    def ask(self, data: bytes) -> Answer:
        """The answer to a request on a connection of its own."""
        with connect(self.port) as client:
            client.sendall(data)
            return answered(client)

    def status(self) -> int | None:
        """That of an answer to GET /; None where the child that had the connection has died."""
        try:
            return self.ask(get("/")).status
        except (Unanswered, ConnectionError):
            return None

    def end(self, limit_s: float = LIMIT_S) -> int:
        """Its exit code."""
        return self.process.wait(limit_s)

    def children(self) -> list[int]:
        """The processes that it has started."""
        listed = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        if listed.exists():
            return [int(number) for number in listed.read_text().split()]
        found = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True)
        return [int(number) for number in found.stdout.split()]


@contextmanager
def serving(
    folder: Path,
    model: str | None,
    *arguments: object,
    command: tuple[str, ...] = SCRIPTED,
    stderr: int | None = None,
    **environment: str,
) -> Iterator[Serving]:
    """A server on a free port of loopback; killed at the end if it still runs."""
    port = free_port()
    ready_file, log_file = folder / "ready.json", folder / "log.txt"
    named = () if model is None else (model,)
    own = ["serve", *named, "--port", port, "--ready-file", ready_file]
    with open(log_file, "wb") as log:
        process = subprocess.Popen(
            [*command, *map(str, (*own, *arguments))],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log if stderr is None else stderr,
            cwd=ROOT,
            env={**os.environ, **environment},
            preexec_fn=heed_interrupts,
        )
    try:
        yield Serving(process, port, ready_file, log_file)
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(
    is_so: Callable[[], bool], process: subprocess.Popen | None = None, limit_s: float = LIMIT_S
) -> None:
    """Returns when `is_so`; fails when that takes too long, or the process has ended."""
    deadline = time.monotonic() + limit_s
    while not is_so():
        has_ended = process is not None and process.poll() is not None
        assert not has_ended or is_so(), f"the process has ended with {process.returncode}"
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S)


def request(method: str, path: str, headers: dict[str, str], body: bytes = b"") -> bytes:
    """A whole request, after which the connection is closed."""
    given = {"host": "127.0.0.1", "connection": "close", **headers}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


def get(path: str, method: str = "GET") -> bytes:
    return request(method, path, {})


def post(path: str, body: dict) -> bytes:
    data = json.dumps(body).encode()
    headers = {"content-type": "application/json", "content-length": str(len(data))}
    return request("POST", path, headers, data)


class Unanswered(AssertionError):
    """Nothing came before the connection's end."""


def answered(client: socket.socket) -> Answer:
    """Reads to the connection's end."""
    data = b""
    while piece := client.recv(1 << 16):
        data += piece
    if not data:
        raise Unanswered("the connection was closed without an answer")
    start, _, body = data.partition(b"\r\n\r\n")
    first, *lines = start.decode("latin-1").split("\r\n")
    pairs = (line.partition(": ") for line in lines)
    return Answer(int(first.split()[1]), {name.lower(): value for name, _, value in pairs}, body)


@contextmanager
def ready_at(folder: Path, *arguments: object) -> Iterator[str]:
    """The address of a real server of the built-in pair, which ends in good order."""
    with serving(folder, "tiny", *arguments, command=REAL) as server:
        yield server.ready()["url"]
        server.process.terminate()
        assert server.end() == 0, server.log
