"""No path, traceback or name of a class in any reply; which routes there are: B26, B28."""

import json
import re
import socket

import pytest

from mtp_mlx.server.http import generation, routes
from mtp_mlx.server.http.app import App
from mtp_mlx.server.settings import ServerSettings
from mtp_mlx.server.wire.openapi import document
from tests.server.served import HEAD, chat, events, read, request, send, serving, until

LEAKS = re.compile(
    rb"Traceback|File \\\\?\"|line \d+, in |\.py\b|site-packages|mtp_mlx[./]|/tmp/|/usr/|/root/"
    rb"|(Error|Exception|Refused|Warning)\(|[a-z]+Error\b|0x[0-9a-f]{6}|starlette|uvicorn|pydantic"
)
SECRET = "secret-of-the-caller"


@pytest.fixture(scope="module")
def here():
    with serving() as here:
        yield here


def says_nothing(answer) -> None:
    head = " ".join(f"{name}: {value}" for name, value in answer.headers.items())
    assert not LEAKS.search(answer.body), answer.body
    assert not LEAKS.search(head.encode("latin-1")), head


BODIES = (
    b"{",
    b"\xff",
    b"[1]",
    b'{"messages": 5}',
    b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
    b'{"messages": [{"role": "/etc/passwd", "content": {}}]}',
    b'{"messages": [], "model": "../../etc/passwd"}',
    b'{"messages": [{"role": "user", "content": "a"}], "temperature": "hot"}',
    b'{"messages": [{"role": "user", "content": "a"}], "seed": 1e300}',
    b'{"messages": [{"role": "user", "content": "a"}], "tools": [{"function": {"name": []}}]}',
    b'{"messages": [{"role": "user", "content": "a"}], "stop": [[]]}',
    b'{"messages": [{"role": "user", "content": "a"}], "response_format": {"type": "xml"}}',
    b'{"messages": [{"role": "user", "content": "a"}], "logit_bias": {"x": 1}}',
    b'{"prompt": [1, 2, 99999999]}',
    b'{"prompt": {"a": 1}}',
)
PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/tokenize", "/v1/detokenize")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_a_bad_body_is_explained_without_our_insides(here, path, body):
    answer = here.ask("POST", path, HEAD, body)
    assert answer.status < 500
    assert answer.headers["content-type"] == "application/json"
    assert answer.status >= 400 or path == "/v1/tokenize"  # where some of it means nothing
    assert answer.status == 200 or set(answer.json()["error"]) == {
        "message",
        "type",
        "param",
        "code",
    }
    says_nothing(answer)


def test_neither_do_good_replies_tell_where_files_lie(here):
    for path in ("/v1/models", "/v1/status", "/health", "/ready", "/metrics", "/nowhere"):
        says_nothing(here.ask("GET", path))
    says_nothing(here.raw(chat(max_tokens=3)))


class Boom(Exception):
    pass


def explode(*arguments):
    raise Boom(f"{SECRET} in /etc/passwd")


@pytest.mark.parametrize("stream", [True, False])
def test_a_fault_of_ours_is_told_in_the_log_alone(here, monkeypatch, stream):
    monkeypatch.setattr(generation, "make_answer", explode)
    headers = f"{HEAD}X-Request-Id: find-me-{stream}\r\n"
    body = json.dumps({"messages": [{"role": "user", "content": "sky"}], "stream": stream})
    answer = here.ask("POST", "/v1/chat/completions", headers, body.encode())
    assert (answer.status, answer.code) == (500, "internal")
    assert answer.headers["x-should-retry"] == "false"
    assert answer.headers["x-request-id"] == f"find-me-{stream}"
    assert SECRET.encode() not in answer.body
    says_nothing(answer)
    until(lambda: any("Traceback" in line and SECRET in line for line in here.log.lines))
    (told,) = [line for line in here.log.lines if f"find-me-{stream} failed" in line]
    assert "explode" in told
    until(here.is_idle)


def test_a_fault_in_an_open_stream_is_its_last_frame(here, monkeypatch):
    frames = generation.Streamed._frames
    sent = []

    def fail_later(self, piece):
        sent.append(piece)
        return frames(self, piece) if len(sent) < 3 else explode()

    monkeypatch.setattr(generation.Streamed, "_frames", fail_later)
    answer = here.raw(chat(stream=True, max_tokens=30))
    assert answer.status == 200
    last = answer.body.decode().strip().split("\n\n")[-1]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "internal"
    says_nothing(answer)
    until(here.is_idle)


def test_a_row_that_fails_says_nothing_of_the_fault(here, monkeypatch):
    from mtp_mlx.job import Job

    monkeypatch.setattr(Job, "_feed_tokens", explode)
    for stream in (True, False):
        answer = here.raw(chat(stream=stream, max_tokens=3))
        assert (answer.status, answer.code) == (500, "internal")
        assert answer.headers["x-should-retry"] == "false"
        says_nothing(answer)
    until(here.is_idle)


def test_an_engine_that_fails_is_not_asked_again(here, monkeypatch):
    from mtp_mlx.engine.engine import Engine

    monkeypatch.setattr(Engine, "step", explode)
    answer = here.raw(chat(max_tokens=3))
    assert (answer.status, answer.code) == (503, "engine_stopped")
    assert answer.headers["x-should-retry"] == "false"  # it may fail for this request
    says_nothing(answer)
    monkeypatch.undo()
    assert here.raw(chat(max_tokens=3)).status == 200
    until(here.is_idle)


def test_text_of_requests_is_not_logged(here):
    text = "words-of-the-caller"
    before = len(here.log.lines)
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": 2, "user": text}
    assert here.post("/v1/chat/completions?key=" + text, body).status == 200
    until(lambda: len(here.log.lines) > before)
    assert not [line for line in here.log.lines if text in line]


def test_the_routes_are_those_of_the_document():
    """And so there is none that loads, pulls, removes, stops or flushes anything."""
    for ui in (True, False):
        app = App(ServerSettings(ui=ui))
        built = {
            (method.lower(), route.path.replace(":path", ""))
            for route in routes.router(app).routes
            for method in route.methods - {"HEAD"}
        }
        told = {
            (method, path)
            for path, methods in document(has_page=ui)["paths"].items()
            for method in methods
        }
        assert built - {("get", "/page/{name}")} == told
        assert len(told) == 15 + ui


@pytest.mark.parametrize("path", sorted(routes.ELSEWHERE))
def test_paths_of_other_servers_name_what_to_use(here, path):
    for method in ("GET", "POST"):
        answer = here.ask(method, path)
        assert (answer.status, answer.code) == (404, "not_found")
        assert path in answer.json()["error"]["message"]


CONTROLS = ("/v1/load", "/v1/unload", "/shutdown", "/api/pull", "/api/delete", "/v1/cache", "/docs")


@pytest.mark.parametrize("path", CONTROLS)
def test_nothing_can_be_controlled(here, path):
    for method in ("GET", "POST", "DELETE", "PUT"):
        assert here.ask(method, path).code == "not_found"


def test_the_same_under_the_names_of_mlx_lm(here):
    assert here.ask("GET", "/models").json() == here.ask("GET", "/v1/models").json()
    one = here.ask("GET", "/v1/models/tiny").json()
    assert one["object"] == "model"
    assert here.ask("GET", "/models/tiny").json() == one
    answer = here.ask("GET", "/v1/models/meta/other")
    assert (answer.status, answer.code) == (404, "model_not_found")
    body = {"messages": [{"role": "user", "content": "sky"}], "max_tokens": 2, "temperature": 0}
    texts = {
        here.post(path, body).json()["choices"][0]["message"]["content"]
        for path in ("/chat/completions", "/v1/chat/completions")
    }
    assert len(texts) == 1
    assert here.post("/completions", {"prompt": "The sky", "max_tokens": 2}).status == 200


@pytest.mark.parametrize("path", PATHS)
def test_what_a_body_refers_to_is_never_fetched(here, path):
    with socket.create_server(("127.0.0.1", 0)) as canary:
        canary.setblocking(False)
        url = f"http://127.0.0.1:{canary.getsockname()[1]}/a.png"
        part = {"type": "image_url", "image_url": {"url": url}}
        schema = {"type": "json_schema", "json_schema": {"schema": {"$ref": url}}}
        for fields in (
            {"messages": [{"role": "user", "content": [part]}]},
            {"messages": [{"role": "user", "content": url}], "response_format": schema},
            {"messages": [{"role": "user", "content": url}], "model": url},
            {"prompt": url, "response_format": schema},
            {"prompt": url, "model": url},
            {"tokens": [5], "model": url},
        ):
            assert here.post(path, {"max_tokens": 2, **fields}).status in (200, 400, 404)
        with pytest.raises(BlockingIOError):
            canary.accept()


@pytest.mark.parametrize("stream", [True, False])
def test_a_prompt_beyond_the_context_is_refused_with_both_counts(here, stream):
    context, before = here.llm.config.max_positions, here.llm.stats().prompt_tokens
    long = "a fox and a hen " * context
    for path, fields in (
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": long}]}),
        ("/v1/completions", {"prompt": long}),
        ("/v1/completions", {"prompt": [5] * context}),
    ):
        answer = here.post(path, {**fields, "stream": stream})
        assert (answer.status, answer.code) == (400, "context_length_exceeded")
        counts = re.findall(r"\d[\d,]*", answer.json()["error"]["message"])
        length, most = (int(count.replace(",", "")) for count in counts)
        assert length >= most == context
    assert here.is_idle() and here.llm.stats().prompt_tokens == before


@pytest.mark.parametrize("text", ["\0", "\ufffe\uffff", "a\0b", "e" + "\u0301" * 20, "\u202e\x1b["])
def test_odd_characters_are_characters(here, text):
    for path, fields in (
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": text}]}),
        ("/v1/completions", {"prompt": text}),
    ):
        assert here.post(path, {**fields, "max_tokens": 2}).status == 200


@pytest.mark.parametrize("count", [50_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_marks_without_end_are_read_beside_the_others(here, count):
    """On a thread: meanwhile the event loop answers."""
    body = json.dumps({"prompt": "e" + "\u0301" * count, "max_tokens": 2}).encode()
    with here.connect() as sock:
        send(sock, request("POST", "/v1/completions", HEAD, body))
        assert here.ask("GET", "/health").status == 200
        assert read(sock).code == "context_length_exceeded"


def test_ignored_fields_are_listed(here):
    body = {"messages": [{"role": "user", "content": "sky"}], "max_tokens": 2, "mirostat": 1}
    for stream in (True, False):
        answer = here.post("/v1/chat/completions", {**body, "stream": stream})
        assert answer.headers["x-ignored-fields"] == "mirostat"


def test_stream_and_whole_say_the_same(here):
    options = {"temperature": 0.8, "seed": 11, "n": 2, "max_tokens": 25}
    whole = here.raw(chat(**options)).json()
    streamed = events(here.raw(chat(stream=True, **options)).body)
    for index, choice in enumerate(whole["choices"]):
        parts = [e["choices"][0] for e in streamed if e["choices"][0]["index"] == index]
        text = "".join(part["delta"].get("content") or "" for part in parts)
        assert text == choice["message"]["content"]
        assert parts[-1]["finish_reason"] == choice["finish_reason"]


def test_metrics_are_of_prometheus(here):
    answer = here.ask("GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert b"mtp_mlx:request_success_total" in answer.body


def test_a_page_that_is_there_is_served_under_its_policy(monkeypatch):
    from mtp_mlx.server.http.static import Page, policy

    html = b"<html><style>a{}</style><script>let a</script><script src=page/a.js></script></html>"
    page = Page({"index.html": html, "a.js": b"1"}, policy(html))
    monkeypatch.setattr(Page, "read", staticmethod(lambda: page))
    with serving() as here:
        first = here.ask("GET", "/")
        assert (first.status, first.body) == (200, html)
        assert first.headers["content-type"] == "text/html; charset=utf-8"
        found = first.headers["content-security-policy"]
        assert "default-src 'none'" in found and "connect-src 'self'" in found
        assert found.count("'sha256-") == 2 and "unsafe" not in found
        assert here.ask("GET", "/page/a.js").headers["content-type"].startswith("text/javascript")
        assert here.ask("GET", "/page/b.js").code == "not_found"
    with serving(ServerSettings(ui=False)) as here:
        assert here.ask("GET", "/").code == here.ask("GET", "/page/a.js").code == "not_found"


def test_two_requests_in_one_write_are_two_replies(here):
    both = request("GET", "/health") * 2
    with here.connect() as sock:
        sock.sendall(both)
        until(lambda: sock.recv(1 << 16, 2).count(b'{"status":"ok"}') == 2)
