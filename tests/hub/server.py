"""A hub on loopback: it speaks as much of the protocol as a download needs, and fails on demand.

Weights are answered as the real hub does it: a redirect that tells size and sha256, then the bytes
from another place, with ranges.
"""

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mtp_mlx.embedded import HERE

BLOCK = 1 << 14
# What a repository also holds and nobody may fetch.
UNWANTED = {
    "README.md": b"# a model",
    ".gitattributes": b"*",
    "modeling.py": b"raise SystemExit",
    "pytorch_model.bin": b"pickle",
    "original/model.safetensors": b"another form",
}


def git_digest(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass
class Repo:
    """A repository of one commit. token: the only one that opens it; gated: its terms count."""

    files: dict[str, bytes]
    licence: str | None = "apache-2.0"
    token: str | None = None
    gated: bool = False

    @property
    def commit(self) -> str:
        names = "".join(f"{name}{git_digest(data)}" for name, data in sorted(self.files.items()))
        return hashlib.sha1(names.encode()).hexdigest()

    def siblings(self) -> list[dict]:
        found = []
        for name, data in self.files.items():
            entry: dict = {"rfilename": name, "size": len(data), "blobId": git_digest(data)}
            if name.endswith((".safetensors", ".bin")):
                sha256 = hashlib.sha256(data).hexdigest()
                entry["lfs"] = {"size": len(data), "sha256": sha256, "pointerSize": 134}
            found.append(entry)
        return found


def files_of(name: str, mark: str) -> dict[str, bytes]:
    """The files of a built-in model, and some that are not wanted. mark: makes them differ."""
    real = {path.name: path.read_bytes() for path in (HERE / name).iterdir() if path.is_file()}
    return {**real, **UNWANTED, "mark.json": json.dumps({"mark": mark}).encode()}


@dataclass
class Faults:
    """What goes wrong. Of a weight file: `cut` ends it early, `shorten` says so too, `flip` changes
    a byte, `rate` limits bytes a second. `status` is the answer to everything else."""

    status: int | None = None
    retry_after: str | None = None
    cut: Callable[[], int | None] = lambda: None
    shorten: int = 0
    flip: bool = False
    rate: float | None = None
    html: bool = False


@dataclass
class Hub:
    repos: dict[str, Repo]
    faults: Faults = field(default_factory=Faults)
    requests: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments: object) -> None:
                pass

            def do_HEAD(self) -> None:
                self.answer()

            def do_GET(self) -> None:
                self.answer()

            def handle(self) -> None:
                with suppress(ConnectionError):  # the client was killed, or has given up
                    super().handle()

            def answer(self) -> None:
                hub.answer(self)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> "Hub":
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def fetched(self) -> set[str]:
        """Names of the files that were asked for."""
        return {line.rsplit("/", 1)[1] for line in self.requests if "/resolve/" in line}

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = unquote(urlsplit(request.path).path)
        self.requests.append(f"{request.command} {path}")
        if self.faults.status is not None:
            headers = {"Retry-After": self.faults.retry_after} if self.faults.retry_after else {}
            send(request, self.faults.status, b"{}", headers)
        elif self.faults.html:
            send(request, 200, b"<html>log in first</html>")
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            self.tell(request, found[1], found[2] or "main")
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self.resolve(request, found[1], found[2], found[3])
        elif found := re.fullmatch(r"/cdn/([^/]+/[^/]+)/(.+)", path):
            self.weights(request, self.repos[found[1]].files[found[2]])
        else:
            send(request, 404, b"{}")

    def repo(self, request: BaseHTTPRequestHandler, repo_id: str) -> Repo | None:
        repo = self.repos.get(self.spelled(repo_id))
        given = request.headers.get("Authorization")
        if repo is None or (repo.token and given != f"Bearer {repo.token}"):
            code = "GatedRepo" if repo is not None and repo.gated else "RepoNotFound"
            send(request, 401, b"{}", {"X-Error-Code": code})
            return None
        return repo

    def spelled(self, repo_id: str) -> str:
        """The name as its owner spells it: the hub takes any case."""
        same = (name for name in self.repos if name.casefold() == repo_id.casefold())
        return next(same, repo_id)

    def tell(self, request: BaseHTTPRequestHandler, repo_id: str, revision: str) -> None:
        repo = self.repo(request, repo_id)
        if repo is None:
            return
        if revision not in ("main", "v1", repo.commit):
            send(request, 404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return
        body = {
            "id": self.spelled(repo_id),
            "sha": repo.commit,
            "siblings": repo.siblings(),
            "cardData": {"license": repo.licence},
        }
        send(request, 200, json.dumps(body).encode())

    def resolve(self, request: BaseHTTPRequestHandler, repo_id: str, rev: str, name: str) -> None:
        repo = self.repo(request, repo_id)
        if repo is None:
            return
        data = repo.files[name]
        headers = {"X-Repo-Commit": repo.commit, "ETag": f'"{git_digest(data)}"'}
        if not name.endswith(".safetensors"):
            send(request, 200, data, headers)
            return
        sha256 = hashlib.sha256(data).hexdigest()
        headers |= {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(data))}
        # Another host, as the real one's weights have: the library follows no HEAD to it.
        host = f"http://localhost:{self.server.server_address[1]}"
        headers |= {"Location": f"{host}/cdn/{repo_id}/{name}"}
        send(request, 302, b"", headers)

    def weights(self, request: BaseHTTPRequestHandler, data: bytes) -> None:
        """The bytes of a file, from where a range begins, with the faults of the moment."""
        wanted = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        begin = int(wanted[1]) if wanted else 0
        sent = bytes([data[0] ^ 1]) + data[1:] if self.faults.flip else data
        sent = sent[begin : len(sent) - self.faults.shorten]
        request.send_response(206 if wanted else 200)
        request.send_header("Content-Length", str(len(sent)))
        if wanted:
            whole = len(data) - self.faults.shorten
            request.send_header("Content-Range", f"bytes {begin}-{whole - 1}/{whole}")
        request.end_headers()
        end = self.faults.cut()
        left = sent if end is None else sent[: max(end - begin, 0)]
        for at in range(0, len(left), BLOCK):
            request.wfile.write(left[at : at + BLOCK])
            if self.faults.rate:
                request.wfile.flush()
                time.sleep(BLOCK / self.faults.rate)
        if len(left) < len(sent):
            request.close_connection = True


def send(
    request: BaseHTTPRequestHandler,
    status: int,
    body: bytes,
    headers: dict[str, str] | None = None,
) -> None:
    request.send_response(status)
    for name, value in (headers or {}).items():
        request.send_header(name, value)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    if request.command == "GET":
        request.wfile.write(body)


TARGET, DRAFTER = "mlx-community/gemma-4-e4b-it-4bit", "google/gemma-4-E4B-it-assistant"


def tiny_hub() -> Hub:
    """A hub with the built-in pair under the names that e4b-4bit stands for."""
    return Hub(
        {TARGET: Repo(files_of("tiny", "a")), DRAFTER: Repo(files_of("tiny-assistant", "b"))}
    )


def cached(cache: Path, repo_id: str) -> Path:
    return cache / f"models--{repo_id.replace('/', '--')}"
