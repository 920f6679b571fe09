"""Another program's server on loopback: streams of words, and whatever fault a test wants."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Standin:
    """`asked`: the bodies that came. Replies are `before`, which are deltas, and `words`, one an
    event, with `status`; `models` are listed; `raw` takes the place of a reply, `usage` that of
    its counts."""

    url: str = ""
    words: tuple[str, ...] = ("a ", "stand-in ", "speaks")
    before: tuple[dict, ...] = ()
    models: object = field(default_factory=lambda: {"data": [{"id": "stand-in"}]})
    status: int = 200
    has_usage: bool = True
    usage: object = None
    pause_s: float = 0.0
    raw: bytes | None = None
    asked: list[dict] = field(default_factory=list)

    def events(self) -> Iterator[bytes]:
        """Of one reply."""
        for delta in (*self.before, *({"content": word} for word in self.words)):
            time.sleep(self.pause_s)
            yield json.dumps({"choices": [{"delta": delta}]}).encode()
        if self.has_usage:
            count = len(self.before) + len(self.words)
            usage = self.usage or {"prompt_tokens": 7, "completion_tokens": count}
            yield json.dumps({"choices": [], "usage": usage}).encode()
        yield b"[DONE]"


@contextmanager
def running(**options) -> Iterator[Standin]:
    """A server that answers as `options` say until the block ends."""
    standin = Standin(**options)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(200 if self.path == "/v1/models" else 404, json.dumps(standin.models))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            standin.asked.append({"path": self.path} | body)
            if standin.status != 200:
                self._send(standin.status, '{"error": {"message": "no room"}}')
                return
            self.send_response(200)
            self.end_headers()
            if standin.raw is not None:
                self.wfile.write(standin.raw)
                return
            for event in standin.events():
                self.wfile.write(b"data: " + event + b"\n\n")

        def _send(self, status: int, text: str) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            """Nothing is logged."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        standin.url = f"http://127.0.0.1:{server.server_port}"
        yield standin
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
