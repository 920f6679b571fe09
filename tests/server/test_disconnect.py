"""Clients that leave, or do not read: rows C1 to C3 of the fault matrix. How soon is counted in
test_rounds.py."""

import contextlib
import json
import random
import re
import threading
import time

import pytest

from mtp_mlx.server.limits import Limits
from mtp_mlx.server.settings import ServerSettings
from tests.server.served import (
    chat,
    endless,
    events,
    read,
    request,
    reset,
    send,
    serving,
    stuck,
    tiny,
    until,
)

LONG = "a fox and an owl " * 25
PHASES = ("queue", "prefill", "decode")


@pytest.fixture(scope="module")
def here():
    limits = Limits(write_s=0.5, stream_bytes=4096, ping_s=0.05)
    with serving(ServerSettings(limits=limits), endless()) as here:
        yield here


def long_request(stream: bool) -> bytes:
    prompt = [{"role": "user", "content": LONG}]
    return chat(stream=stream, messages=prompt, max_tokens=3000, cache=False)


def leave(sock, how: str) -> None:
    if how == "reset":
        reset(sock)
    else:
        sock.close()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("how", ["fin", "reset"])
@pytest.mark.parametrize("phase", PHASES)
def test_who_leaves_frees_all_that_was_taken(here, phase, how, stream):
    check_leaving(here, phase, how, stream)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("phase", PHASES)
def test_two_hundred_who_leave_in_each_phase(here, phase):
    draw = random.Random(phase)
    for _ in range(200):
        check_leaving(here, phase, draw.choice(("fin", "reset")), draw.random() < 0.5)


def check_leaving(here, phase: str, how: str, stream: bool) -> None:
    cancelled = here.desk.metrics.cancelled
    others = [here.connect() for _ in range(2 if phase == "queue" else 0)]
    for sock in others:
        send(sock, long_request(True))
    if others:
        until(lambda: here.llm.stats().running + here.llm.stats().prefilling == 2)
    sock = here.connect()
    send(sock, long_request(stream))
    wanted = {"queue": "waiting", "prefill": "prefilling", "decode": "running"}[phase]

    def is_there() -> bool:
        stats = here.llm.stats()
        return {
            "waiting": stats.waiting,
            "prefilling": stats.prefilling,
            "running": stats.running,
        }[wanted] > 0

    until(is_there)
    leave(sock, how)
    if others:
        until(lambda: here.desk.in_flight == 2)
        assert here.llm.stats().waiting == 0
        for other in others:
            reset(other)
    until(here.is_idle)
    until(lambda: here.desk.metrics.cancelled == cancelled + 1 + len(others))
    until(lambda: " 499 " in here.log.lines[-1])


def test_who_leaves_before_the_engine_heard_of_it_is_never_begun(here):
    before = here.llm.stats().prompt_tokens
    with stuck(here.llm):
        sock = here.connect()
        send(sock, long_request(False))
        until(lambda: here.desk.in_flight == 1)
        reset(sock)
        # Only what is seen while the engine stands still can be heard of before it begins.
        until(lambda: all(t.exchange is not None and t.exchange.why for t in here.desk._open))
    until(here.is_idle)
    assert here.llm.stats().prompt_tokens <= before + 8  # a chunk at most


def test_half_a_connection_is_none(here):
    """A client that will send no more is taken for gone; none of the known clients does it."""
    import socket

    with here.connect() as sock:
        send(sock, long_request(True))
        sock.shutdown(socket.SHUT_WR)
        until(lambda: sock.recv(1 << 16) == b"")
    until(here.is_idle)


def test_a_disconnect_is_seen_behind_a_second_request(here):
    sock = here.connect()
    send(sock, long_request(True) + request("GET", "/health"))
    until(lambda: here.llm.stats().running == 1)
    reset(sock)
    until(here.is_idle)


def trials(here, count: int, seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(count):
        with_neighbour = draw.random() < 0.5
        sockets = [here.connect() for _ in range(1 + with_neighbour)]
        for sock in sockets:
            send(sock, long_request(draw.random() < 0.5))
        time.sleep(draw.random() * 0.15)
        for sock in sockets:
            if draw.random() < 0.5:
                sock.settimeout(0.01)
                with contextlib.suppress(TimeoutError):
                    sock.recv(draw.randrange(1, 2000))
            leave(sock, draw.choice(("fin", "reset")))
        until(here.is_idle)


def test_random_moments(here):
    trials(here, 30, 1)


@pytest.mark.slow
def test_random_moments_at_length(here):
    trials(here, 200, 2)


def test_others_keep_their_text_while_many_leave():
    options = {"temperature": 0.7, "seed": 5, "max_tokens": 60}
    prompt = [{"role": "user", "content": "Tell a story about a fox."}]
    golden = tiny().chat(prompt, **options).text
    with serving() as here:
        stop = threading.Event()

        def churn(seed: int) -> None:
            draw = random.Random(seed)
            while not stop.is_set():
                sock = here.connect()
                send(sock, chat(stream=True, max_tokens=200))
                time.sleep(draw.random() * 0.05)
                leave(sock, draw.choice(("fin", "reset")))

        threads = [threading.Thread(target=churn, args=(seed,)) for seed in range(2)]
        for thread in threads:
            thread.start()
        try:
            for stream in (False, True):
                answer = here.raw(chat(stream=stream, messages=prompt, **options))
                assert answer.status == 200
                if stream:
                    deltas = [event["choices"][0]["delta"] for event in events(answer.body)]
                    text = "".join(delta.get("content", "") for delta in deltas)
                else:
                    text = answer.json()["choices"][0]["message"]["content"]
                assert text == golden
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        until(here.is_idle)


def test_a_reader_that_stops_is_cut_off_and_others_are_not(here):
    cut = here.desk.metrics.cancelled
    slow = here.connect(receive_bytes=2048)
    send(slow, chat(stream=True, max_tokens=3000, spec_trace=True))
    until(lambda: here.llm.stats().running == 1)
    start = time.monotonic()
    answer = here.raw(chat(max_tokens=20))
    assert answer.status == 200  # beside it
    until(here.is_idle)
    assert time.monotonic() - start < 8
    assert here.desk.metrics.cancelled == cut + 1
    assert b'why="slow_reader"}' in here.desk.metrics.exposition()
    slow.close()


def test_a_reader_of_a_byte_at_a_time_is_cut_off(here):
    slow = here.connect(receive_bytes=2048)
    send(slow, chat(stream=True, max_tokens=3000, spec_trace=True))
    until(lambda: here.llm.stats().running == 1)
    received = 0
    while not here.is_idle():
        received += len(slow.recv(1))
        time.sleep(0.02)
    with pytest.raises(ConnectionResetError):  # once it has read what its own side keeps
        while received < 100_000:
            received += len(slow.recv(1000))
    assert received < 50_000
    slow.close()


def test_who_reads_a_large_reply_steadily_gets_all_of_it(here):
    """It takes longer than a reader may stand still."""
    with here.connect(receive_bytes=8192) as slow:
        body = json.dumps({"prompt": "hello world " * 8000, "return_token_strs": True}).encode()
        send(slow, request("POST", "/v1/tokenize", body=body))
        received = slow.recv(4096)
        length = int(re.search(rb"content-length: (\d+)", received)[1])
        start = time.monotonic()
        while (left := length + received.index(b"\r\n\r\n") + 4 - len(received)) > 0:
            time.sleep(0.05)
            piece = slow.recv(min(left, 8192))
            assert piece, "the connection was cut"
            received += piece
        assert time.monotonic() - start > here.app.settings.limits.write_s


def test_a_short_reply_that_nobody_reads_keeps_no_connection(here):
    """It fits into the kernel; then its connection is idle, and idle ones end."""
    with here.connect(receive_bytes=2048) as sock:
        send(sock, chat(max_tokens=5))
        until(here.is_idle)
        assert read(sock).status == 200
