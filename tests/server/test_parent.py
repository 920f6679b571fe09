"""The process that owns the socket: what it answers itself, restarts, signals, the ready file."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time

import pytest

from mtp_mlx import __version__
from tests.server.running import (
    SCRIPTED,
    ask,
    connect,
    head,
    read_answer,
    serving,
    wait_until,
    with_body,
)

SOON_S = 0.5  # newcomers are refused within
CHAT = "/v1/chat/completions"


def test_while_the_model_loads_the_server_says_so(tmp_path):
    with serving(tmp_path, "sleep=30") as server:
        wait_until(lambda: is_open(server.port), server.process)
        answer = server.post(CHAT, {"messages": []})
        assert (answer.status, answer.code) == (503, "model_loading")
        assert 1 <= int(answer.headers["retry-after"]) <= 5
        assert answer.json["error"]["type"] == "server_error"
        health = server.get("/health")
        assert (health.status, health.json) == (503, {"status": "loading"})
        assert not server.has_ready_file()
        server.send(signal.SIGTERM)
        assert server.end(2) == 0


def test_the_ready_file_appears_whole_and_goes_with_the_server(tmp_path):
    with serving(tmp_path, "ready serve") as server:
        ready = server.ready()
        assert ready == {
            "url": f"http://127.0.0.1:{server.port}",
            "pid": server.process.pid,
            "model": "scripted",
            "draft_model": None,
            "version": __version__,
        }
        assert stat.S_IMODE((tmp_path / "ready.json").stat().st_mode) == 0o600
        assert server.get("/").json["pid"] in server.children()
        server.send(signal.SIGTERM)
        assert server.end() == 0
        assert not server.has_ready_file()


def test_a_child_that_dies_is_replaced_and_newcomers_are_told(tmp_path):
    mark = tmp_path / "mark"
    with serving(tmp_path, f"sleep=0.3 ready serve --mark {mark}".split(" --")[0]) as server:
        server.ready()
        first = server.get("/").json["pid"]
        open_one = connect(server.port)
        os.kill(first, signal.SIGABRT)
        assert open_one.recv(1) == b""
        answer = server.get("/")
        assert (answer.status, answer.code) == (503, "engine_restarting")
        assert server.get("/health").json == {"status": "restarting"}
        wait_until(lambda: server.get("/").status == 200, server.process)
        assert server.get("/").json["pid"] not in (first, server.process.pid)
        assert "SIGABRT" in server.log


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
