"""An engine that ends, stands still or kills its thread, as the server around it shows that: rows
D4, D5, D6."""

import json
import select
import sys
import threading
import time
from contextlib import suppress
from types import SimpleNamespace

import pytest

import mtp_mlx
from mtp_mlx.engine.engine import Engine
from mtp_mlx.server.process import child as module
from mtp_mlx.server.process.child import Child
from tests.server.running import post
from tests.server.running import serving as started
from tests.server.served import PATIENCE_S, chat, read, send, serving, until
from tests.server.shown import snapshot

LIMIT_S = 2.0
# A reply that no token ends.
ENDLESS = {"max_tokens": 3000, "temperature": 0, "logit_bias": {"1": -100, "106": -100}}


class Panic(BaseException):
    """No Exception."""


def test_an_engine_whose_thread_ends_is_told_of_at_once(monkeypatch):
    llm = mtp_mlx.load("tiny", dtype="float32", max_num_seqs=2)
    with serving(llm=llm) as here:
        streams = [here.connect() for _ in range(3)]  # one of them waits for a row
        for sock in streams:
            send(sock, chat(stream=True, **ENDLESS))
        until(lambda: len(select.select(streams, [], [], 0)[0]) == 2)
        whole = here.connect()
        send(whole, chat(**ENDLESS))
        until(lambda: here.desk.in_flight == 4)

        def end(engine):
            raise Panic

        monkeypatch.setattr(Engine, "step", end)
        begun = time.monotonic()
        answers = [read(sock) for sock in (*streams, whole)]
        assert time.monotonic() - begun < LIMIT_S
        for sock in (*streams, whole):
            sock.close()
        assert sorted(answer.status for answer in answers) == [200, 200, 503, 503]
        for answer in answers:
            last = answer.body.decode().strip().split("\n\n")[-1].removeprefix("data: ")
            assert json.loads(last)["error"]["code"] == "engine_stopped"
            assert b"Panic" not in answer.body
        health = here.ask("GET", "/health")
        assert (health.status, health.json()) == (503, {"status": "stopped"})
        assert here.ask("GET", "/ready").code == "engine_stopped"
        again = here.raw(chat())
        assert (again.status, again.code) == (503, "engine_stopped")
        assert "Panic" in here.ask("GET", "/v1/status").json()["stopped"]
        assert here.desk.in_flight == 0


@pytest.fixture
def quick(monkeypatch):
    for name in ("WATCH_S", "FLUSH_S"):
        monkeypatch.setattr(module, name, 0.001)


def watch(shown: list) -> int:
    """How often a child's thread tells its server to stop, that sees these snapshots."""
    left, stops = iter(shown), []
    llm = SimpleNamespace(snapshot=lambda: next(left))
    server = SimpleNamespace(stop=lambda: stops.append(1))
    Child(None, None, None, None)._watch(llm, server)
    assert next(left, None) is None, "it did not look at all of them"
    return len(stops)


@pytest.mark.usefixtures("quick")
def test_where_nothing_moves_for_a_minute_the_log_has_every_thread_once(capfd, caplog):
    now = time.monotonic()
    well, stuck = snapshot(), snapshot(last_step_at=now - 61)
    ended = snapshot(stopped="cosmic ray")
    go_on = threading.Event()

    def stands_still() -> None:
        assert go_on.wait(PATIENCE_S)

    # The last one that began: of more than a hundred threads only the newest are listed.
    thread = threading.Thread(target=stands_still)
    thread.start()
    try:
        assert watch([well, stuck, stuck, well, stuck, ended]) == 1
    finally:
        go_on.set()
        thread.join(PATIENCE_S)
    assert capfd.readouterr().err.count(" in stands_still\n") == 2
    assert len([each for each in caplog.records if each.levelname == "ERROR"]) == 2


@pytest.mark.usefixtures("quick")
def test_an_engine_that_has_ended_ends_its_server(capfd):
    assert watch([snapshot(), snapshot(stopped="cosmic ray")]) == 1
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_a_child_whose_engine_ends_says_why_and_another_takes_its_place(tmp_path):
    """Three steps that fail within a minute end the engine, the engine its process, which leaves
    with 70; the parent starts another, at most three times."""
    command = (sys.executable, "-m", "tests.server.failing_serve")
    asked = post("/v1/chat/completions", {"messages": [{"role": "user", "content": "sky"}]})
    with started(tmp_path, "tiny", command=command) as server:
        server.ready()
        codes = set()
        while server.process.poll() is None:
            with suppress(OSError, AssertionError):  # it may have closed before it answered
                codes.add(server.ask(asked).code)
            time.sleep(0.05)
        assert server.end() == 70
        assert {"engine_stopped", "engine_restarting"} <= codes
        assert "3 times in 60 s" in server.log and "cosmic ray" in server.log
        error = json.loads(server.ready_file.read_text())["error"]
        assert error["exit_code"] == 70 and "4 times" in error["message"]
