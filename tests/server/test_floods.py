"""What a client sends too much of is not kept: rows B3 and B5, in bytes that Python holds."""

import gc
import tracemalloc
from collections.abc import Callable
from contextlib import suppress

import pytest

from mtp_mlx.server.limits import MIB, Limits
from mtp_mlx.server.settings import ServerSettings
from tests.server.served import HEAD, Here, read, request, send, serving, until

CHAT = "/v1/chat/completions"
BODY = MIB
SENT = 48 * MIB
# Of headers, however long; a body may fill its limit besides, and a buffer grows by an eighth.
ROOM = 5 * MIB


@pytest.fixture(scope="module")
def here():
    with serving(ServerSettings(limits=Limits(body_bytes=BODY))) as here:
        yield here


def most_held(work: Callable[[], None]) -> int:
    """The most that Python held while it worked, beyond what it held before."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        work()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def flood(here: Here, head: bytes, piece: bytes) -> int:
    """Send a head, and pieces until enough was sent or the server hangs up; the status."""
    with here.connect() as sock:
        send(sock, head)
        with suppress(OSError):
            for _ in range(SENT // len(piece)):
                sock.sendall(piece)
        with suppress(OSError):
            return read(sock).status
        return 0  # it hung up, and the reply was lost with what nobody read


POST = f"POST {CHAT} HTTP/1.1\r\n{HEAD}"
FLOODS = {
    "one header": (f"GET /health HTTP/1.1\r\n{HEAD}x: ", b"a" * (1 << 18), 431),
    "headers": (f"GET /health HTTP/1.1\r\n{HEAD}", b"x-a: 1\r\n" * (1 << 15), 431),
    "a line": ("GET /", b"a" * (1 << 18), 431),
    "chunks": (
        f"{POST}Transfer-Encoding: chunked\r\n\r\n",
        b"40000\r\n" + b" " * (1 << 18) + b"\r\n",
        413,
    ),
    "one chunk": (f"{POST}Transfer-Encoding: chunked\r\n\r\nfffffff\r\n", b" " * (1 << 18), 413),
    "a long body": (f"{POST}Content-Length: {10**9}\r\n\r\n", b" " * (1 << 18), 413),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_is_refused_and_not_kept(here, name):
    head, piece, status = FLOODS[name]
    found = []
    held = most_held(lambda: found.append(flood(here, head.encode(), piece)))
    assert held < ROOM, f"{held / MIB:.1f} MiB"
    assert found[0] in (status, 0)
    assert here.ask("GET", "/health").status == 200


def test_a_body_of_the_limit_is_taken_and_let_go(here):
    text = b'{"prompt": 5, "nobodys": "' + b"a" * (BODY - 28) + b'"}'
    assert len(text) == BODY
    data = request("POST", "/v1/tokenize", body=text)
    assert here.raw(data).code == "invalid_value"
    tracemalloc.start()
    try:
        assert here.raw(data).code == "invalid_value"
        until(lambda: not here.connections)
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < MIB / 2
        assert tracemalloc.get_traced_memory()[1] > BODY, "it never was here"
    finally:
        tracemalloc.stop()
    assert here.raw(request("POST", "/v1/tokenize", body=text + b" ")).code == "body_too_large"


LENGTHS = {
    "none": ("", b'{"messages": []}', 400),
    "too short": ("Content-Length: 2\r\n", b'{}{"messages": []}', 400),
    "zero": ("Content-Length: 0\r\n", b'{"messages": []}', 400),
}


@pytest.mark.parametrize("name", LENGTHS)
def test_a_length_that_lies_makes_no_request_of_the_rest(here, name):
    length, body, status = LENGTHS[name]
    with here.connect() as sock:
        send(sock, f"{POST}{length}\r\n".encode() + body + b"\r\n\r\n")
        answer = read(sock)
        assert answer.status == status
        rest = b""
        with suppress(OSError):
            while piece := sock.recv(1 << 16):  # it hangs up
                rest += piece
        assert not rest or rest.startswith(b"HTTP/1.1 400 "), rest
