"""How many are let in, how long they may take, and how a server stops: rows C4, C5, C7, C9, C10."""

import json
import os
import select
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mtp_mlx.api import LLM
from mtp_mlx.server.http import connection
from mtp_mlx.server.http.app import App
from mtp_mlx.server.http.run import Server
from mtp_mlx.server.limits import Limits
from mtp_mlx.server.settings import ServerSettings
from tests.server.served import (
    HEAD,
    PATIENCE_S,
    chat,
    endless,
    events,
    finish,
    read,
    request,
    reset,
    send,
    serving,
    stuck,
    tiny,
    until,
)

FEW = Limits(queue=2, connections=40, ping_s=0.1, stuck_s=0.3)


@pytest.fixture(scope="module")
def here():
    with limited(FEW) as here:
        yield here


def limited(limits: Limits):
    """A server of two rows under these limits."""
    return serving(ServerSettings(limits=limits), endless())


def test_a_full_queue_answers_at_once(here):
    llm = here.llm
    with stuck(llm):
        sockets = [here.connect() for _ in range(4)]
        for sock in sockets:
            send(sock, chat(max_tokens=3))
        until(lambda: here.desk.in_flight == 4)
        start = time.monotonic()
        answer = here.raw(chat(max_tokens=3))
        assert time.monotonic() - start < 0.3
        assert (answer.status, answer.code) == (503, "queue_full")
        assert (answer.headers["retry-after"], answer.headers["x-queue-depth"]) == ("1", "2")
        assert "x-should-retry" not in answer.headers
        assert here.ask("GET", "/ready").code == "queue_full"
        assert here.ask("GET", "/health").status == 200
    assert finish(sockets) == [200] * 4
    until(here.is_idle)
    assert here.ask("GET", "/ready").status == 200
    assert b"queue_rejections_total" in here.desk.metrics.exposition()


def test_choices_count_each(here):
    assert here.raw(chat(max_tokens=3, n=2)).status == 200
    assert here.raw(chat(max_tokens=3, n=3)).code == "invalid_value"  # two rows
    with stuck(here.llm):
        first = here.connect()
        send(first, chat(max_tokens=3, n=2))
        until(lambda: here.desk.in_flight == 2)
        second = here.connect()
        send(second, chat(max_tokens=3))
        until(lambda: here.desk.in_flight == 3)
        assert here.raw(chat(max_tokens=3, n=2)).code == "queue_full"
    assert finish([first, second]) == [200] * 2
    until(here.is_idle)


@pytest.mark.parametrize("stream", [True, False])
def test_who_waits_too_long_is_never_begun(stream):
    with limited(replace(FEW, queue_s=1.0)) as here:
        check_queue_time(here, stream)


def check_queue_time(here, stream):
    busy = [here.connect() for _ in range(2)]
    for sock in busy:
        send(sock, chat(stream=True, max_tokens=4000, num_draft_tokens=0))
    until(lambda: here.llm.stats().running == 2)
    read_before = here.llm.stats().prompt_tokens
    start = time.monotonic()
    answer = here.raw(chat(stream=stream, max_tokens=3))
    assert time.monotonic() - start > 0.9
    if stream:
        assert answer.status == 200  # a comment came first
        assert b": queue 1\n\n" in answer.body
        assert last_error(answer.body)["code"] == "queue_timeout"
    else:
        assert (answer.status, answer.code) == (503, "queue_timeout")
        assert answer.headers["retry-after"] == "1"
    for sock in busy:
        reset(sock)
    until(here.is_idle)
    assert here.llm.stats().prompt_tokens == read_before


def last_error(body: bytes) -> dict:
    """The error that ended a stream: the last frame, and a mapping."""
    frames = [line for line in body.decode().split("\n\n") if line.startswith("data: ")]
    error = json.loads(frames[-1][6:])["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


@pytest.mark.parametrize("stream", [True, False])
def test_a_reply_that_takes_too_long_is_cut_off(stream):
    with limited(replace(FEW, request_s=1.0)) as here:
        start = time.monotonic()
        answer = here.raw(chat(stream=stream, max_tokens=4000, num_draft_tokens=0))
        assert time.monotonic() - start > 0.9
        if stream:
            assert answer.body.count(b"data: ") > 3
            assert last_error(answer.body)["code"] == "timeout"
        else:
            assert (answer.status, answer.code) == (503, "timeout")
            assert answer.headers["x-should-retry"] == "false"
        until(here.is_idle)


@pytest.mark.parametrize("stream", [True, False])
def test_a_reply_that_stalls_is_given_up(stream):
    with limited(replace(FEW, stall_s=0.6)) as here, here.connect() as sock:
        send(sock, chat(stream=stream, max_tokens=3000))
        until(lambda: here.llm.stats().running == 1)
        with stuck(here.llm):
            answer = read(sock)
            if stream:
                assert last_error(answer.body)["code"] == "timeout"
                assert b": tokens " in answer.body
            else:
                assert (answer.status, answer.code) == (503, "timeout")
                assert answer.headers["x-should-retry"] == "false"
            assert here.desk.in_flight == 1  # the row is taken as long as the engine is stuck
        until(here.is_idle)


def test_health_tells_that_nothing_moves(here):
    with here.connect() as sock:
        send(sock, chat(stream=True, max_tokens=3000))
        until(lambda: here.llm.stats().running == 1)
        assert here.ask("GET", "/health").json() == {"status": "ok"}
        with stuck(here.llm):
            until(lambda: here.ask("GET", "/health").status == 503)
            answer = here.ask("GET", "/health")
            assert answer.json() == {"status": "stuck"}
            assert here.ask("GET", "/ready").status == 503
            assert here.ask("GET", "/v1/status").json()["last_round_age_s"] > 0.3
        reset(sock)
    until(here.is_idle)
    assert here.ask("GET", "/health").status == 200


def test_an_idle_engine_is_well(here):
    time.sleep(0.4)
    assert here.ask("GET", "/health").status == 200


def test_comments_while_a_prompt_is_read(here):
    text = [{"role": "user", "content": "a fox and an owl " * 90}]
    answer = here.raw(chat(stream=True, messages=text, max_tokens=2))
    assert answer.status == 200
    comments = [line for line in answer.body.decode().split("\n\n") if line.startswith(": prefill")]
    assert comments
    done, total = map(int, comments[-1].removeprefix(": prefill ").split("/"))
    assert 0 < done < total
    assert events(answer.body)
    until(here.is_idle)


def test_status_names_rows_by_the_ids_of_requests(here):
    with here.connect() as sock:
        headers = f"{HEAD}X-Request-Id: mine-7\r\n"
        body = json.dumps(
            {"messages": [{"role": "user", "content": "sky"}], "stream": True, "max_tokens": 3000}
        )
        send(sock, request("POST", "/chat/completions", headers, body.encode()))
        until(lambda: here.llm.stats().running == 1)
        until(lambda: len(here.ask("GET", "/v1/status").json()["rows"]) == 1)
        (row,) = here.ask("GET", "/v1/status").json()["rows"]
        assert row["id"] == "mine-7"
        reset(sock)
    until(here.is_idle)


def test_what_is_too_large_for_ever_is_400(monkeypatch, here):
    from mtp_mlx.engine.memory import Memory
    from mtp_mlx.errors import DoesNotFit

    def never(self, tokens):
        raise DoesNotFit("the row would take 1 byte more than there is")

    monkeypatch.setattr(Memory, "check", never)
    for stream in (True, False):
        answer = here.raw(chat(stream=stream, max_tokens=3))
        assert (answer.status, answer.code) == (400, "insufficient_memory")
    until(here.is_idle)


def slowly(self, prompt, **options):
    time.sleep(0.6)
    raise AssertionError("nobody waits for it any more")


@pytest.mark.parametrize("stream", [True, False])
def test_a_prompt_that_takes_too_long_to_read_is_given_up(monkeypatch, stream):
    monkeypatch.setattr(LLM, "prepare", slowly)
    with limited(replace(FEW, stall_s=0.2)) as here:
        answer = here.raw(chat(stream=stream))
        assert (answer.status, answer.code) == (503, "timeout")
        assert here.desk.in_flight == 0


def test_who_leaves_while_the_prompt_is_read_gives_its_place_back(monkeypatch, here):
    monkeypatch.setattr(LLM, "prepare", slowly)
    sock = here.connect()
    send(sock, chat())
    until(lambda: here.desk.in_flight == 1)
    reset(sock)
    assert until(lambda: here.desk.in_flight == 0) < 0.5
    until(lambda: " 499 " in here.log.lines[-1])


# --- connections ---------------------------------------------------------------------------


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no /proc here")


def test_a_thousand_requests_on_one_connection(here):
    with here.connect() as sock:
        for index in range(1000):
            send(sock, request("GET", "/health" if index % 2 else "/nowhere"))
            assert read(sock).status == (200 if index % 2 else 404)


@needs_proc
def test_more_connections_than_allowed_are_told_so_and_all_are_closed(here):
    until(lambda: not here.connections)
    before = descriptors()
    sockets = [here.connect() for _ in range(50)]
    until(lambda: len(select.select(sockets, [], [], 0.1)[0]) == 10)
    for sock in select.select(sockets, [], [], 0)[0]:
        answer = read(sock)
        assert (answer.status, answer.code) == (503, "queue_full")
        assert answer.headers["connection"] == "close"
    send(sockets[0], request("GET", "/health"))
    assert read(sockets[0]).status == 200  # who is in, is served
    for sock in sockets:
        sock.close()
    until(lambda: descriptors() <= before + 2)


def test_far_too_many_connections_are_not_even_told(monkeypatch):
    monkeypatch.setattr(connection, "LINGER_S", PATIENCE_S)
    with limited(replace(FEW, connections=6)) as here:
        sockets, told, dropped = [], [], 0
        for number in range(1, 18):
            sockets.append(here.connect())
            if number > 6:
                try:
                    told.append(read(sockets[-1]).code)
                except (ConnectionError, AssertionError):  # closed, and nothing said
                    dropped += 1
        assert (told, dropped) == (["queue_full"] * 6, 5)
        for sock in sockets:
            sock.close()
        until(lambda: not here.connections)
        assert here.ask("GET", "/health").status == 200


# --- the end -------------------------------------------------------------------------------


def test_a_drain_lets_replies_end_and_nobody_in():
    with serving(llm=tiny()) as here:
        with here.connect() as sock:
            send(sock, chat(stream=True, max_tokens=40))
            until(lambda: here.desk.in_flight == 1)
            with stuck(here.llm):
                here.server.drain()
                until(lambda: here.desk.is_draining)
                answer = here.raw(chat())
                assert (answer.status, answer.code) == (503, "shutting_down")
                assert answer.headers["retry-after"] == "5"
                assert here.ask("GET", "/ready").code == "shutting_down"
            assert events(read(sock).body)
        assert here.server.join(5)
        with pytest.raises(ConnectionRefusedError):
            here.connect()


@pytest.mark.parametrize("how", ["drain", "stop"])
def test_a_server_may_be_stopped_before_it_runs(how):
    settings = ServerSettings()
    server = Server(App(settings), settings)
    server.drain() if how == "drain" else server.stop()
    server.run(socket.create_server(("127.0.0.1", 0)))
    assert server.join(0)


@pytest.mark.parametrize("how", ["drain", "stop"])
@pytest.mark.parametrize("stream", [True, False])
def test_what_is_cut_off_is_told_so(how, stream):
    with limited(replace(FEW, drain_s=0.3)) as here:
        with here.connect() as sock:
            send(sock, chat(stream=stream, max_tokens=4000, num_draft_tokens=0))
            until(lambda: here.llm.stats().running == 1)
            if stream:
                assert sock.recv(1, socket.MSG_PEEK)
            if how == "drain":
                here.server.drain()
            else:
                here.server.stop()
            answer = read(sock)
            if stream:
                assert last_error(answer.body)["code"] == "shutting_down"
            else:
                assert (answer.status, answer.code) == (503, "shutting_down")
        assert here.server.join(5)
        assert here.is_idle()


def test_while_the_model_is_loaded_health_says_so():
    settings = ServerSettings()
    app = App(settings)
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    server = Server(app, settings)
    thread = threading.Thread(target=server.run, args=(listening,))
    thread.start()

    def ask(data: bytes):
        with socket.create_connection(("127.0.0.1", port)) as sock:
            send(sock, data)
            return read(sock)

    try:
        answer = ask(request("GET", "/health"))
        assert (answer.status, answer.json()) == (503, {"status": "loading"})
        for data in (chat(), request("GET", "/ready"), request("GET", "/v1/models")):
            answer = ask(data)
            assert (answer.status, answer.code) == (503, "model_loading")
            assert answer.headers["retry-after"] == "2"
    finally:
        server.stop()
        thread.join(10)
