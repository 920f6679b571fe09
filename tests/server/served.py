"""A real server on loopback for tests, and clients on raw sockets."""

import contextlib
import json
import logging
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import BinaryIO

import mtp_mlx
from mtp_mlx.api import LLM
from mtp_mlx.server.http.app import App, make_app
from mtp_mlx.server.http.desk import Desk
from mtp_mlx.server.http.run import Server
from mtp_mlx.server.served import Served
from mtp_mlx.server.settings import ServerSettings

PATIENCE_S = 20.0
HEAD = "Host: 127.0.0.1\r\nContent-Type: application/json\r\n"
SKY = [{"role": "user", "content": "What is the capital of France?"}]


@cache
def tiny() -> LLM:
    """The built-in pair, shared by all modules: leave no request in it."""
    return mtp_mlx.load("tiny", dtype="float32", max_num_seqs=4)


@cache
def endless() -> LLM:
    """The same pair, whose replies end at max_tokens alone, and whose prompts are read in chunks of
    8 tokens."""
    llm = mtp_mlx.load("tiny", dtype="float32", max_num_seqs=2, prefill_chunk=8)
    nothing = (llm.config.vocab_size - 1,)
    llm._defaults = replace(llm._defaults, eos_ids=nothing)
    return llm


@contextlib.contextmanager
def stuck(llm: LLM) -> Iterator[None]:
    """The engine takes no step."""
    entered, go_on = threading.Event(), threading.Event()

    def hold(runtime, engine) -> None:
        entered.set()
        assert go_on.wait(PATIENCE_S)

    thread = threading.Thread(target=llm._worker.call, args=(hold,))
    thread.start()
    assert entered.wait(PATIENCE_S)
    try:
        yield
    finally:
        go_on.set()
        thread.join(PATIENCE_S)


class Log(logging.Handler):
    """What the server wrote."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(logging.Formatter("%(message)s").format(record))


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self):
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return self.json()["error"]["code"]


@dataclass
class Here:
    """A running server."""

    app: App
    server: Server
    port: int
    log: Log
    idle_kv: int

    def connect(self, receive_bytes: int | None = None) -> socket.socket:
        sock = socket.socket()
        if receive_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        sock.settimeout(PATIENCE_S)
        try:
            sock.connect(("127.0.0.1", self.port))
        except OSError:
            sock.close()
            raise
        return sock

    def raw(self, data: bytes) -> Answer:
        """Send these bytes, read one reply."""
        with self.connect() as sock:
            send(sock, data)
            return read(sock)

    def ask(self, method: str, path: str, headers: str = HEAD, body: bytes | None = None) -> Answer:
        """One request, one reply."""
        return self.raw(request(method, path, headers, body))

    def post(self, path: str, body: object, headers: str = HEAD) -> Answer:
        return self.ask("POST", path, headers, json.dumps(body).encode())

    @property
    def llm(self) -> LLM:
        return self.app.serving().served.llm

    @property
    def desk(self) -> Desk:
        return self.app.serving().desk

    @property
    def connections(self) -> int:
        """Open ones."""
        return self.server.connections

    def is_idle(self) -> bool:
        """Is no row, queue entry or byte of a row's K/V taken?"""
        stats = self.llm.stats()
        return (
            self.desk.in_flight == 0 and stats.is_idle and stats.kv_reserved_bytes == self.idle_kv
        )


@contextlib.contextmanager
def serving(settings: ServerSettings | None = None, llm: LLM | None = None) -> Iterator[Here]:
    settings = settings or ServerSettings()
    llm = llm or tiny()
    app = make_app(llm, Served.of(llm, limits=settings.limits), settings)
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    server, log = Server(app, settings), Log()
    logger = logging.getLogger("mtp_mlx.server")
    before = logger.level
    logger.addHandler(log)
    logger.setLevel(logging.INFO)
    thread = threading.Thread(target=server.run, args=(listening,))
    thread.start()
    try:
        yield Here(app, server, port, log, llm.stats().kv_reserved_bytes)
    finally:
        server.stop()
        thread.join(PATIENCE_S)
        logger.removeHandler(log)
        logger.setLevel(before)
        assert not thread.is_alive()


def request(method: str, path: str, headers: str = HEAD, body: bytes | None = None) -> bytes:
    length = "" if body is None else f"Content-Length: {len(body)}\r\n"
    return f"{method} {path} HTTP/1.1\r\n{headers}{length}\r\n".encode("latin-1") + (body or b"")


def chat(stream: bool = False, **options: object) -> bytes:
    """A whole request for a reply to SKY."""
    body = {"messages": SKY, "temperature": 0, "stream": stream, **options}
    return request("POST", "/v1/chat/completions", HEAD, json.dumps(body).encode())


def send(sock: socket.socket, data: bytes) -> None:
    """Send all of it, unless the server has hung up, which a reply explains."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        sock.sendall(data)


def finish(sockets: list[socket.socket]) -> list[int]:
    """Read a reply from each, and hang up; their statuses."""
    statuses = []
    for sock in sockets:
        with sock:
            statuses.append(read(sock).status)
    return statuses


def read(sock: socket.socket, method: str = "GET") -> Answer:
    """One reply with a Content-Length, or all there is until the end."""
    with sock.makefile("rb") as file:
        return read_from(file, method)


def read_from(file: BinaryIO, method: str = "GET") -> Answer:
    """The same where another reply may follow."""
    first = file.readline()
    assert first.startswith(b"HTTP/1.1 "), first
    headers = {}
    while (line := file.readline().strip()) != b"":
        name, _, value = line.partition(b":")
        assert name.lower().decode() not in headers, line
        headers[name.lower().decode()] = value.strip().decode("latin-1")
    if method == "HEAD":
        body = b""
    elif "content-length" in headers:
        body = file.read(int(headers["content-length"]))
    elif headers.get("transfer-encoding") == "chunked":
        body = b"".join(chunks(file))
    else:
        body = b""
    return Answer(int(first.split()[1]), headers, body)


def chunks(file) -> Iterator[bytes]:
    while (size := int(file.readline(), 16)) > 0:
        yield file.read(size)
        file.readline()
    file.readline()


def events(body: bytes) -> list[dict]:
    """The data frames of a stream that ended as it should."""
    lines = [line for line in body.decode().split("\n\n") if line and not line.startswith(":")]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line[6:]) for line in lines[:-1]]


def reset(sock: socket.socket) -> None:
    """Hang up with RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def until(condition, seconds: float = PATIENCE_S) -> float:
    """Wait for it; the seconds it took."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, "it did not come true"
        time.sleep(0.002)
    return time.monotonic() - start
