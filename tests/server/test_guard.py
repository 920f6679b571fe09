"""Host, Origin, keys, headers: rows B5, B23 to B27 of the fault matrix, on raw sockets."""

import pytest

from mtp_mlx.server.settings import ServerSettings, digest
from tests.server.served import HEAD, SKY, chat, read, request, send, serving, until

KEY = "s3cret-key"
LOCKED = ServerSettings(
    api_keys=(digest("another"), digest(KEY)),
    allowed_hosts=frozenset({"mac.example:8080", "box", "FD00:0::1"}),
    allowed_origins=frozenset({"https://app.example"}),
)


@pytest.fixture(scope="module")
def here():
    with serving() as here:
        yield here


@pytest.fixture(scope="module")
def locked():
    with serving(LOCKED) as here:
        yield here


def head(host: str = "127.0.0.1", **headers: str) -> str:
    lines = [f"Host: {host}", "Content-Type: application/json"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "".join(f"{line}\r\n" for line in lines)


GOOD_HOSTS = ("127.0.0.1", "localhost", "LOCALHOST:1", "127.0.0.1:65535", "[::1]", "[::1]:8080")
BAD_HOSTS = (
    *("evil.com", "evil.com:8080", "127.0.0.1.evil.com", "localhost.evil.com", "localhost."),
    *("127.0.0.1:", "127.0.0.1:80:80", "::1", "", "127.0.0.2", "0.0.0.0", "127.0.0.1:8x", "box"),
    *("192.168.1.2", "a@localhost", "localhost#", "localhost/", "2130706433", "127.1"),
)


@pytest.mark.parametrize("host", GOOD_HOSTS)
def test_a_name_of_loopback_is_served(here, host):
    assert here.ask("GET", "/health", head(host)).status == 200


@pytest.mark.parametrize("host", BAD_HOSTS)
def test_any_other_host_is_refused_as_a_rebound_name_would_be(here, host):
    answer = here.ask("GET", "/health", head(host))
    assert (answer.status, answer.code) == (403, "forbidden_host")


def test_a_host_that_was_allowed_is_served_with_the_port_it_was_given(locked):
    for host in ("box", "BOX:99", "mac.example:8080"):
        assert locked.ask("GET", "/health", head(host)).status == 200
    for host in ("[fd00::1]", "[fd00::1]:8080"):  # an address, as --host names it
        assert locked.ask("GET", "/health", head(host)).status == 200
    for host in ("mac.example", "mac.example:80", "fd00::1"):
        assert locked.ask("GET", "/health", head(host)).code == "forbidden_host"


def test_without_a_host_or_with_two_nothing_is_served(here):
    assert here.raw(b"GET /health HTTP/1.1\r\n\r\n").status == 400
    assert here.raw(b"GET /health HTTP/1.1\r\nHost: box\r\nHost: localhost\r\n\r\n").status == 400
    assert here.raw(b"GET /health HTTP/1.0\r\n\r\n").code == "forbidden_host"


ORIGINS = ("https://evil.com", "null", "http://localhost:1", "http://127.0.0.1", "file://", "")


@pytest.mark.parametrize("origin", ORIGINS)
def test_a_page_of_elsewhere_may_not_call(here, origin):
    host = f"127.0.0.1:{here.port}"
    for method in ("GET", "OPTIONS"):
        answer = here.ask(method, "/health", head(host, Origin=origin))
        assert (answer.status, answer.code) == (403, "forbidden_origin")
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_our_own_page_may_call(here):
    host = f"127.0.0.1:{here.port}"
    answer = here.ask("GET", "/health", head(host, Origin=f"http://{host}"))
    assert answer.status == 200
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_a_page_that_was_allowed_may_call_and_read(locked):
    asked = {"Access_Control_Request_Headers": "authorization, x-stainless-os"}
    origin = head(Origin="https://app.example", **asked)
    preflight = locked.ask("OPTIONS", "/v1/chat/completions", origin)
    assert (preflight.status, preflight.body) == (204, b"")
    assert preflight.headers["access-control-allow-origin"] == "https://app.example"
    assert preflight.headers["access-control-allow-headers"] == "authorization, x-stainless-os"
    assert "POST" in preflight.headers["access-control-allow-methods"]
    answer = locked.ask("GET", "/v1/models", origin)
    assert answer.code == "invalid_api_key"  # and the page may read so
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    assert "access-control-allow-credentials" not in answer.headers
    for other in ("https://app.example.evil.com", "https://app.exampl", "http://app.example"):
        assert locked.ask("GET", "/health", head(Origin=other)).code == "forbidden_origin"


@pytest.mark.parametrize("path", ["/", "/v1/chat/completions", "/nowhere", "/health", "*"])
def test_options_is_answered_on_every_path(here, path):
    answer = here.ask("OPTIONS", path)
    assert (answer.status, answer.body) == (204, b"")
    assert "POST" in answer.headers["allow"]


def test_a_form_that_a_page_may_send_unasked_is_not_taken(here):
    body = b'{"messages": [{"role": "user", "content": "sky"}]}'
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        headers = f"Host: localhost\r\nContent-Type: {kind}\r\n"
        answer = here.ask("POST", "/v1/chat/completions", headers, body)
        assert (answer.status, answer.code) == (415, "unsupported_media_type")


WRONG_KEYS = (
    {},
    {"Authorization": "Bearer wrong"},
    {"Authorization": f"Bearer {KEY[:-1]}"},
    {"Authorization": f"Bearer {KEY}x"},
    {"Authorization": f"Basic {KEY}"},
    {"Authorization": KEY},
    {"Authorization": "Bearer"},
    {"Authorization": "Bearer \xe9\xff"},
    {"x_api_key": ""},
    {"x_api_key": KEY.upper()},
    {"x_api_key": KEY, "Authorization": "Bearer wrong"},
    {"authorization": "Bearer wrong", "Authorization": f"Bearer {KEY}"},
)


def test_every_wrong_key_gets_the_same_answer(locked):
    answers = [locked.ask("GET", "/v1/models", head(**given)) for given in WRONG_KEYS]
    assert {answer.status for answer in answers} == {401}
    assert {answer.headers["www-authenticate"] for answer in answers} == {"Bearer"}
    assert len({answer.body for answer in answers}) == 1


@pytest.mark.parametrize(
    "given",
    [
        {"Authorization": f"Bearer {KEY}"},
        {"Authorization": f"bearer  {KEY}"},
        {"x_api_key": KEY},
        {"x_api_key": "another", "Authorization": f"Bearer {KEY}"},
    ],
)
def test_a_right_key_opens(locked, given):
    assert locked.ask("GET", "/v1/models", head(**given)).status == 200


def test_all_but_health_and_the_page_needs_the_key(locked):
    for path in ("/v1/models", "/ready", "/metrics", "/v1/status", "/openapi.json", "/nowhere"):
        assert locked.ask("GET", path).status == 401, path
    assert locked.post("/v1/chat/completions", {"messages": SKY}).status == 401
    assert locked.ask("GET", "/health").json() == {"status": "ok"}


def test_no_key_is_in_the_log(locked):
    locked.ask("GET", "/v1/models", head(Authorization=f"Bearer {KEY}"))
    until(lambda: any(" 200 " in line for line in locked.log.lines))
    assert not [line for line in locked.log.lines if KEY in line]


def test_keys_are_compared_whole(monkeypatch, here):
    """Each key given with each key known, as digests of one length, whatever matched before."""
    from mtp_mlx.server.http import guard

    compared = []
    monkeypatch.setattr(guard.hmac, "compare_digest", lambda a, b: compared.append((a, b)) or True)
    checks = guard.Guard(LOCKED)
    checks._check_key([(b"authorization", b"Bearer " + KEY.encode()), (b"x-api-key", b"")])
    assert [len(a) for a, _ in compared] == [32] * 4
    assert {b for _, b in compared} == set(LOCKED.api_keys)


def test_too_many_and_too_large_headers(here):
    many = HEAD + "".join(f"x-{i}: 1\r\n" for i in range(80))
    assert here.ask("GET", "/health", many).code == "headers_too_large"
    large = HEAD + f"x-large: {'a' * (17 << 10)}\r\n"
    answer = here.ask("GET", "/health", large)
    assert (answer.status, answer.code) == (431, "headers_too_large")
    assert answer.headers["connection"] == "close"
    fits = HEAD + "".join(f"x-{i}: {'a' * 200}\r\n" for i in range(60))
    assert here.ask("GET", "/health", fits).status == 200


def test_a_flood_of_headers_is_not_kept(here):
    """10,000 headers, and one of 1 MB: refused while they come."""
    for flood in ("".join(f"x-{i}: 1\r\n" for i in range(10_000)), f"x: {'a' * (1 << 20)}\r\n"):
        answer = here.ask("GET", "/health", HEAD + flood)
        assert (answer.status, answer.code) == (431, "headers_too_large")


@pytest.mark.parametrize(
    "framing",
    [
        "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n",
        "Content-Length: 2\r\nContent-Length: 3\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 0x2\r\n",
        "Content-Length: +2\r\n",
        "Content-Length: 1e1\r\n",
        "Content-Length: \r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding : chunked\r\n",
    ],
)
def test_a_body_has_one_length_or_the_connection_ends(here, framing):
    data = f"POST /v1/chat/completions HTTP/1.1\r\n{HEAD}{framing}\r\n".encode()
    with here.connect() as sock:
        send(sock, data + b"2\r\n{}\r\n0\r\n\r\nGET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = read(sock)
        assert answer.status == 400
        assert answer.headers["connection"] == "close"
        assert answer.code == "invalid_value"
        assert b"HTTP/1.1" not in sock.recv(1 << 16)  # what was smuggled behind it is not answered


@pytest.mark.parametrize(
    "line",
    [
        "GET /v1/../admin HTTP/1.1",
        "GET //health HTTP/1.1",
        "GET /health/ HTTP/1.1",
        "GET /%2e%2e/etc/passwd HTTP/1.1",
        "GET /v1/models/../../etc/passwd HTTP/1.1",
        "GET http://evil.com/ HTTP/1.1",
        "GET /HEALTH HTTP/1.1",
        "GET /page/../app.py HTTP/1.1",
        "GET /page/%2e%2e/app.py HTTP/1.1",
        "GET /page/%00 HTTP/1.1",
    ],
)
def test_a_path_is_taken_as_it_is(here, line):
    answer = here.raw(f"{line}\r\n{HEAD}\r\n".encode())
    assert answer.status == 404
    assert answer.code in ("not_found", "model_not_found")


@pytest.mark.parametrize("method", ["TRACE", "DELETE", "PUT", "PATCH", "CONNECT", "BREW"])
def test_other_methods_are_named_as_such(here, method):
    answer = here.ask(method, "/v1/chat/completions")
    assert (answer.status, answer.code) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "OPTIONS, POST"


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"GET /health\r\n\r\n",
        b"GET /health HTTP/2.0\r\nHost: localhost\r\n\r\n",
        b"GET /\xc3\xa9 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nbad header: 1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nx: a\x00b\r\n\r\n",
        b"\r\n\r\n\r\n\x00",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_what_is_no_http_gets_a_plain_error(here, data):
    answer = here.raw(data)
    assert (answer.status, answer.code) == (400, "invalid_value")
    assert answer.headers["connection"] == "close"


def test_http_1_0_and_head(here):
    with here.connect() as sock:
        send(sock, b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n")
        assert read(sock).json() == {"status": "ok"}
        assert sock.recv(1) == b""
    with here.connect() as sock:
        send(sock, request("HEAD", "/health"))
        answer = read(sock, "HEAD")
        assert (answer.status, answer.headers["content-length"]) == (200, "15")


def test_pipelined_requests_are_answered_in_order(here):
    with here.connect() as sock:
        send(sock, chat(max_tokens=3) + request("GET", "/health") + request("GET", "/nowhere"))
        assert "choices" in read_exact(sock)
        assert read_exact(sock) == {"status": "ok"}
        assert read_exact(sock)["error"]["code"] == "not_found"


def read_exact(sock):
    """One JSON reply, and not a byte more."""
    import json

    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(1)
    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    body = b""
    while len(body) < length:
        body += sock.recv(length - len(body))
    return json.loads(body)


@pytest.mark.parametrize("given", ["abc-123_X", "a" * 64])
def test_a_good_request_id_comes_back(here, given):
    assert here.ask("GET", "/health", head(X_Request_Id=given)).headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["a b", "a" * 65, "", "\x1b[31m", "<b>", "é", "a,b"])
def test_any_other_is_replaced(here, given):
    answer = here.raw(f"GET /health HTTP/1.1\r\n{head(X_Request_Id=given)}\r\n".encode("latin-1"))
    assert answer.headers.get("x-request-id") != given
    if answer.status == 200:
        assert answer.headers["x-request-id"].startswith("req_")


def test_control_characters_are_spelled_out_in_the_log(here):
    here.ask("GET", "/%0d%0a%1b%5b31mforged%20200%20line%e2%80%ae")
    until(lambda: any("forged" in line for line in here.log.lines))
    (line,) = [line for line in here.log.lines if "forged" in line]
    assert line.isprintable()


def test_every_reply_names_the_server_and_an_id(here):
    for answer in (here.ask("GET", "/health"), here.ask("GET", "/nowhere"), here.raw(b"x\r\n\r\n")):
        assert answer.headers["server"].startswith("mtp-mlx/")
    assert here.ask("GET", "/nowhere").headers["x-content-type-options"] == "nosniff"
