"""A client on raw sockets, for many requests at once: it sends, reads, hangs up, and reads slowly.

Nothing of the server's own libraries is used, so that both sides cannot agree on a mistake.
"""

import asyncio
import json
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field

LIMIT_S = 120.0
CHAT = "/v1/chat/completions"


@dataclass
class Outcome:
    """What became of a request. `status` 0: there was no answer; `is_whole`: to its end."""

    status: int = 0
    code: str | None = None
    text: str = ""
    finish: str | None = None
    is_whole: bool = False
    seconds: float = 0.0
    first_s: float | None = None
    headers: dict[str, str] = field(default_factory=dict)


class Hung(Exception):
    """There was no end to an answer within LIMIT_S."""


async def ask(port: int, body: dict, path: str = CHAT) -> Outcome:
    """The whole answer to a request, on a connection of its own."""
    return await read_slowly(port, body, path, pause_s=0.0)


async def read_slowly(
    port: int, body: dict, path: str = CHAT, *, pause_s: float, piece_bytes: int = 1 << 16
) -> Outcome:
    """The same, read in pieces of so many bytes with pauses between them."""
    outcome, start = Outcome(), time.monotonic()
    try:
        async with asyncio.timeout(LIMIT_S):
            reader, writer = await _connect(port, None if piece_bytes > 4096 else 4096)
            try:
                writer.write(request("POST", path, body))
                data = bytearray()
                while piece := await reader.read(piece_bytes):
                    if outcome.first_s is None:
                        outcome.first_s = time.monotonic() - start
                    data += piece
                    if pause_s:
                        await asyncio.sleep(pause_s)
            finally:
                writer.close()
    except TimeoutError:
        raise Hung(f"no end of the answer within {LIMIT_S} s") from None
    outcome.seconds = time.monotonic() - start
    fill(outcome, bytes(data))
    return outcome


async def leave(port: int, body: dict, when: Callable[[int], bool], *, with_reset: bool) -> None:
    """Send a request and hang up, with FIN or RST, as soon as `when` says so of the bytes that were
    read; it is asked before the first and after each piece, and every few milliseconds."""
    reader, writer = await _connect(port)
    sock = writer.get_extra_info("socket")
    read = 0
    try:
        writer.write(request("POST", CHAT, body))
        while not when(read):
            try:
                async with asyncio.timeout(0.005):
                    piece = await reader.read(1 << 12)
            except TimeoutError:
                continue
            if not piece:
                break
            read += len(piece)
        if with_reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
    finally:
        writer.close()


async def send_raw(port: int, data: bytes) -> Outcome:
    """The answer to whatever `data` is."""
    outcome = Outcome()
    reader, writer = await _connect(port)
    try:
        writer.write(data)
        async with asyncio.timeout(LIMIT_S):
            fill(outcome, await reader.read(-1))
    except TimeoutError:
        raise Hung("no answer to a malformed request") from None
    finally:
        writer.close()
    return outcome


async def status(port: int) -> dict:
    """GET /v1/status"""
    reader, writer = await _connect(port)
    try:
        writer.write(b"GET /v1/status HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
        async with asyncio.timeout(LIMIT_S):
            data = await reader.read(-1)
    finally:
        writer.close()
    return json.loads(data.partition(b"\r\n\r\n")[2])


def request(method: str, path: str, body: dict) -> bytes:
    data = json.dumps(body).encode()
    lines = (
        f"{method} {path} HTTP/1.1",
        "host: 127.0.0.1",
        "connection: close",
        "content-type: application/json",
        f"content-length: {len(data)}",
    )
    return "\r\n".join([*lines, "", ""]).encode() + data


def fill(outcome: Outcome, data: bytes) -> None:
    """Read an answer's bytes into `outcome`."""
    start, found, body = data.partition(b"\r\n\r\n")
    if not found:
        return
    first, *lines = start.decode("latin-1").split("\r\n")
    outcome.status = int(first.split()[1])
    pairs = (line.partition(": ") for line in lines)
    outcome.headers = {name.lower(): value for name, _, value in pairs}
    if outcome.headers.get("transfer-encoding") == "chunked":
        body = unchunked(body)
    if outcome.headers.get("content-type", "").startswith("text/event-stream"):
        _fill_stream(outcome, body)
    else:
        _fill_whole(outcome, body)


def unchunked(body: bytes) -> bytes:
    """The content of a chunked body, as far as it came."""
    parts = []
    while body:
        size, _, body = body.partition(b"\r\n")
        count = int(size or b"0", 16)
        parts.append(body[:count])
        body = body[count + 2 :]
        if not count:
            break
    return b"".join(parts)


def _fill_stream(outcome: Outcome, body: bytes) -> None:
    frames = [each for each in body.decode().split("\n\n") if each.startswith("data: ")]
    outcome.is_whole = bool(frames) and frames[-1] == "data: [DONE]"
    for each in frames[: -1 if outcome.is_whole else None]:
        said = json.loads(each.removeprefix("data: "))
        if "error" in said:
            outcome.code = said["error"]["code"]
            outcome.is_whole = True
        for choice in said.get("choices", ()):
            delta = choice.get("delta", {"content": choice.get("text")})
            outcome.text += delta.get("content") or ""
            outcome.finish = choice["finish_reason"] or outcome.finish


def _fill_whole(outcome: Outcome, body: bytes) -> None:
    length = outcome.headers.get("content-length")
    outcome.is_whole = length is not None and int(length) == len(body)
    if not outcome.is_whole:
        return
    said = json.loads(body)
    if "error" in said:
        outcome.code = said["error"]["code"]
        return
    [choice] = said["choices"]
    outcome.text = choice["text"] if "text" in choice else choice["message"]["content"] or ""
    outcome.finish = choice["finish_reason"]


async def _connect(
    port: int, receive_bytes: int | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    sock = socket.socket()
    try:
        if receive_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        return await asyncio.open_connection(sock=sock, limit=1 << 20)
    except BaseException:
        sock.close()
        raise
