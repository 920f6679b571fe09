"""What a client sends too much of is not kept: rows B3 and B5, in bytes that Python holds."""

import gc
import tracemalloc
from collections.abc import Callable

import pytest

from mtp_mlx.server.http import connection
from mtp_mlx.server.limits import MIB, Limits
from mtp_mlx.server.settings import ServerSettings
from tests.server.served import (
    HEAD,
    PATIENCE_S,
    Here,
    read,
    read_from,
    request,
    send,
    serving,
    until,
)

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
    """Send a head, and pieces, all of which the server takes; then read the status."""
    with here.connect() as sock:
        send(sock, head)
        for _ in range(SENT // len(piece)):
            sock.sendall(piece)
        return read(sock).status


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
def test_a_flood_is_refused_and_not_kept(here, monkeypatch, name):
    monkeypatch.setattr(connection, "LINGER_S", PATIENCE_S)  # on a slow machine too
    head, piece, status = FLOODS[name]
    found = []
    held = most_held(lambda: found.append(flood(here, head.encode(), piece)))
    assert held < ROOM, f"{held / MIB:.1f} MiB"
    assert found == [status]
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


NEXT = f"GET /health HTTP/1.1\r\n{HEAD}Connection: close\r\n\r\n".encode()
# What is said of a body's length, what follows the head, the first reply's code, and the status of
# the reply to what is left.
LENGTHS = {
    "none": ("", NEXT, "invalid_json", 200),
    "zero": ("Content-Length: 0\r\n", NEXT, "invalid_json", 200),
    "right": ("Content-Length: 2\r\n", b"{}" + NEXT, "invalid_value", 200),
    "too short": ("Content-Length: 2\r\n", b'{"a": 1}' + NEXT, "invalid_json", 400),
    "too long": ("Content-Length: 4\r\n", b"{}" + NEXT, "invalid_json", 405),  # T /health
}


@pytest.mark.parametrize("name", LENGTHS)
def test_the_next_request_begins_where_the_length_says(here, name):
    length, rest, code, status = LENGTHS[name]
    with here.connect() as sock, sock.makefile("rb") as file:
        send(sock, f"{POST}{length}\r\n".encode() + rest)
        answers = []
        while file.peek(1):  # till it hangs up
            answers.append(read_from(file))
    assert [answer.status for answer in answers] == [400, status]
    assert answers[0].code == code
