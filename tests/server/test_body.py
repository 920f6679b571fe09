"""Bodies: rows B1 to B6 of the fault matrix, on raw sockets."""

import dataclasses
import gzip
import json
import re
import time
from pathlib import Path

import pytest

from mtp_mlx import server
from mtp_mlx.server.errors import Refused
from mtp_mlx.server.http.body import depth, parse
from mtp_mlx.server.limits import Limits
from mtp_mlx.server.settings import ServerSettings
from tests.server.served import HEAD, SKY, read, request, send, serving

CHAT = "/v1/chat/completions"
# Short, so that the tests are; the defaults are checked by their values.
QUICK = ServerSettings(
    limits=Limits(body_bytes=100_000, body_idle_s=0.3, body_s=0.8, header_s=0.4, keep_alive_s=0.5)
)


@pytest.fixture(scope="module")
def here():
    with serving(QUICK) as here:
        yield here


def test_the_limits_are_those_that_are_promised():
    limits = Limits()
    assert (limits.body_bytes, limits.body_idle_s, limits.body_s) == (8 << 20, 15, 60)
    assert (limits.header_bytes, limits.header_lines, limits.header_s) == (16 << 10, 64, 15)
    assert (limits.json_depth, limits.connections, limits.keep_alive_s) == (64, 256, 30)
    assert (limits.queue, limits.queue_s, limits.request_s, limits.stall_s) == (32, 120, 600, 60)
    assert (limits.write_s, limits.stream_bytes, limits.stuck_s) == (30, 256 << 10, 30)


def test_every_limit_that_can_be_set_is_looked_at():
    files = Path(server.__file__).parent.rglob("*.py")
    text = "".join(file.read_text(encoding="utf-8") for file in files)
    for each in dataclasses.fields(Limits):
        assert re.search(rf"\blimits\.{each.name}\b", text), each.name


NOT_JSON = (
    b"",
    b"  \n",
    b"{",
    b"[]",
    b'"text"',
    b"7",
    b"null",
    b"{]}",
    b'{"messages": [}',
    b"{'a': 1}",
    b'{"a": 1,}',
    b'{"a": 1} {"b": 2}',
    b'\xef\xbb\xbf{"a": 1}',
    b'{"a": "\xff\xfe"}',
    b'{"a": "\xc3"}',
    b'{"a": "\n"}',
    b'{"a": NaN}',
    b'{"a": Infinity}',
    b'{"a": -Infinity}',
    b'{"a": 1e999}',
    b'{"a": -1e999}',
    b'{"a": ' + b"9" * 5000 + b"}",
    b'{"a": 0.' + b"1" * 5000 + b"}",
    b'{"a": 1, "a": 2}',
    b'{"a": {"b": 1, "b": 1}}',
    b"{\x00}",
)


@pytest.mark.parametrize("body", NOT_JSON, ids=lambda body: repr(body[:20]))
def test_what_is_no_json_object_is_400(here, body):
    answer = here.ask("POST", CHAT, HEAD, body)
    assert (answer.status, answer.code) == (400, "invalid_json")
    assert len(answer.json()["error"]["message"]) < 250


DEEP = (
    b"[" * 50_000,
    b'{"a":' * 15_000 + b"1" + b"}" * 15_000,
    b'{"messages": ' + b"[" * 64 + b"]" * 64 + b"}",
    b'{"\\\\": "\\"", "b": ' + b"[" * 64 + b"]" * 64 + b"}",
    b'{"a": "\\\\\\"[", "b":' + b"[" * 40_000,
)


@pytest.mark.parametrize("body", DEEP, ids=range(len(DEEP)))
def test_what_is_nested_deeply_is_not_parsed(here, body):
    answer = here.ask("POST", CHAT, HEAD, body)
    assert (answer.status, answer.code) == (400, "invalid_json")
    assert "nested deeper than 64" in answer.json()["error"]["message"]


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' * 100_000, b"[" * (1 << 20)])
def test_a_nesting_of_any_depth_is_counted_and_not_followed(body):
    with pytest.raises(Refused, match="nested deeper than 64"):
        parse(body, 64)


def test_brackets_in_strings_nest_nothing():
    text = r'{"a": "[[[{{{ \" [[[ \\", "b": [{"\\\"[": "]"}], "c": "\u005b["}'
    assert json.loads(text)
    assert depth(text.encode()) == 3
    assert depth(b"") == depth(b'"[') == 0
    assert depth(b"[[]][") == 2


def test_the_scan_is_linear():
    start = time.perf_counter()
    for body in (b"[]" * (1 << 20), b'"\\"' * (1 << 19), b"\\" * (2 << 20), b'"' * (2 << 20)):
        depth(body)
    assert time.perf_counter() - start < 5


def test_a_nesting_of_64_is_parsed(here):
    deep = json.loads("[" * 60 + "]" * 60)
    answer = here.post("/v1/detokenize", {"tokens": deep})
    assert answer.code == "invalid_value"


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "identity, gzip"])
def test_a_compressed_body_is_not_unpacked(here, encoding):
    headers = f"{HEAD}Content-Encoding: {encoding}\r\n"
    answer = here.ask("POST", CHAT, headers, gzip.compress(b"{}" * 1000))
    assert (answer.status, answer.code) == (415, "unsupported_media_type")


KINDS = ("", "text/json", "application/jsonp", "application/json, text/plain", "json", "*/*")


@pytest.mark.parametrize("kind", KINDS)
def test_other_media_types_are_not_taken(here, kind):
    answer = here.ask("POST", CHAT, f"Host: localhost\r\nContent-Type: {kind}\r\n", b"{}")
    assert (answer.status, answer.code) == (415, "unsupported_media_type")


def test_json_is_taken_however_its_type_is_spelled(here):
    body = json.dumps({"tokens": []}).encode()
    for kind in ("application/json; charset=utf-8", "Application/JSON"):
        headers = f"Host: localhost\r\nContent-Type: {kind}\r\n"
        assert here.ask("POST", "/v1/detokenize", headers, body).status == 200


def test_a_body_that_says_it_is_too_large_is_not_read(here):
    answer = here.raw(f"POST {CHAT} HTTP/1.1\r\n{HEAD}Content-Length: 100001\r\n\r\n".encode())
    assert (answer.status, answer.code) == (413, "body_too_large")
    huge = f"POST {CHAT} HTTP/1.1\r\n{HEAD}Content-Length: {10**19}\r\n\r\n".encode()
    assert here.raw(huge).code == "body_too_large"


def test_a_body_that_is_too_large_is_refused_and_the_connection_goes_on(here):
    with here.connect() as sock:
        send(sock, request("POST", CHAT, HEAD, b" " * 100_001))
        assert read(sock).code == "body_too_large"
        send(sock, request("GET", "/health"))
        assert read(sock).status == 200


def test_chunks_without_end_are_cut_off(here):
    piece = b"4000\r\n" + b" " * 0x4000 + b"\r\n"
    with here.connect() as sock:
        send(sock, f"POST {CHAT} HTTP/1.1\r\n{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode())
        start = time.monotonic()
        try:
            while time.monotonic() - start < 5:
                sock.sendall(piece)
        except OSError:
            pass  # hung up
        assert time.monotonic() - start < 8
    with here.connect() as sock:
        send(sock, f"POST {CHAT} HTTP/1.1\r\n{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode())
        send(sock, piece * 7)
        assert read(sock).code == "body_too_large"


@pytest.mark.parametrize("chunk", [b"zz\r\n{}\r\n", b"-1\r\n", b"2\r\n{}x", b"1" * 40 + b"\r\n"])
def test_chunks_that_are_none_are_400(here, chunk):
    head = f"POST {CHAT} HTTP/1.1\r\n{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode()
    answer = here.raw(head + b"1\r\n{\r\n" + chunk)
    assert (answer.status, answer.code) == (400, "invalid_value")
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("sent", [b"", b'{"messages"'])
def test_a_body_that_stops_is_408(here, sent):
    with here.connect() as sock:
        start = time.monotonic()
        send(sock, f"POST {CHAT} HTTP/1.1\r\n{HEAD}Content-Length: 50\r\n\r\n".encode() + sent)
        answer = read(sock)
        assert 0.25 < time.monotonic() - start < 2
        assert (answer.status, answer.code) == (408, "body_timeout")
        assert answer.headers["x-should-retry"] == "false"
        assert sock.recv(1) == b""


def test_a_body_that_drips_is_408_too(here):
    with here.connect() as sock:
        start = time.monotonic()
        send(sock, f"POST {CHAT} HTTP/1.1\r\n{HEAD}Content-Length: 500\r\n\r\n".encode())
        sock.setblocking(False)
        while time.monotonic() - start < 5:
            try:
                if sock.recv(1, 2):  # peeks
                    break
            except BlockingIOError:
                send(sock, b" ")
                time.sleep(0.1)
        assert 0.7 < time.monotonic() - start < 3
        sock.setblocking(True)
        assert read(sock).code == "body_timeout"


@pytest.mark.parametrize("sent", [b"", b"GET /health HTTP/1.1\r\nHost: loc"])
def test_headers_that_do_not_come_end_the_connection(here, sent):
    with here.connect() as sock:
        start = time.monotonic()
        send(sock, sent)
        if sent:
            answer = read(sock)
            assert (answer.status, answer.code) == (408, "body_timeout")
        assert sock.recv(1) == b""
        assert 0.3 < time.monotonic() - start < 2


def test_headers_of_a_second_request_are_timed_as_well(here):
    with here.connect() as sock:
        send(sock, request("GET", "/health"))
        assert read(sock).status == 200
        start = time.monotonic()
        while time.monotonic() - start < 0.9:
            send(sock, b"GET /health HTTP/1.1\r\nx: " if time.monotonic() - start < 0.1 else b"a")
            time.sleep(0.1)
        assert read(sock).code == "body_timeout"


def test_a_connection_that_nobody_uses_is_closed(here):
    with here.connect() as sock:
        send(sock, request("GET", "/health"))
        assert read(sock).status == 200
        start = time.monotonic()
        assert sock.recv(1) == b""
        assert 0.4 < time.monotonic() - start < 2


def test_who_expects_100_gets_it_only_where_the_body_is_wanted(here):
    head = f"{HEAD}Expect: 100-continue\r\nContent-Length: "
    with here.connect() as sock:
        send(sock, f"POST /v1/detokenize HTTP/1.1\r\n{head}14\r\n\r\n".encode())
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n".replace(b"Continue", b"Continue")
        send(sock, b'{"tokens": []}')
        assert read(sock).status == 200
    assert here.raw(f"POST {CHAT} HTTP/1.1\r\n{head}999999\r\n\r\n".encode()).status == 413


def test_ids_there_and_back(here):
    ids = here.post("/v1/tokenize", {"prompt": "The sky"}).json()
    assert ids["count"] == len(ids["tokens"]) > 2
    text = here.post("/v1/detokenize", {"tokens": ids["tokens"][1:]}).json()
    assert text == {"prompt": "The sky"}
    answer = here.post("/v1/tokenize", {"messages": SKY, "nobodys": 1})
    assert answer.json()["count"] > ids["count"]
    assert answer.headers["x-ignored-fields"] == "nobodys"
    for body in ({}, {"prompt": 5}, {"prompt": "a", "messages": SKY}, {"messages": []}):
        assert here.post("/v1/tokenize", body).code == "invalid_value"
    for tokens in (None, 5, "a", [-1], [10**9], [1.5], [True], [None]):
        assert here.post("/v1/detokenize", {"tokens": tokens}).code == "invalid_value"
