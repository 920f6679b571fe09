"""The process that owns the socket: what it answers itself, restarts, signals, the ready file.

Its child acts a script here and loads nothing; test_serve.py has the real one.
"""

import errno
import json
import os
import random
import signal
import socket
import stat
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from mtp_mlx import __version__
from mtp_mlx.errors import MtpError
from mtp_mlx.server.process import listen
from tests.server.running import (
    answered,
    connect,
    get,
    is_listening,
    post,
    request,
    serving,
    wait_until,
)

LOADING = "sleep=60"
SERVING = "ready serve"
CHAT = "/v1/chat/completions"


@pytest.fixture
def loading(tmp_path):
    with serving(tmp_path, LOADING) as server:
        wait_until(lambda: is_listening(server.port), server.process)
        yield server


def test_while_the_model_loads_requests_are_told_so(loading):
    answer = loading.ask(post(CHAT, {"messages": []}))
    assert (answer.status, answer.code) == (503, "model_loading")
    assert 1 <= int(answer.headers["retry-after"]) <= 5
    assert answer.body["error"]["type"] == "server_error"
    assert answer.headers["content-type"] == "application/json"
    assert loading.ask(get("/ready")).code == "model_loading"
    answer = loading.ask(get("/health"))
    assert (answer.status, answer.body) == (503, {"status": "loading"})
    assert not loading.ready_file.exists()


def test_while_the_model_loads_nothing_that_is_sent_does_harm(loading):
    odd = [
        b"",
        b"\r\n\r\n",
        b"\xff" * 100,
        b"GET\r\n\r\n",
        b"GET / HTTP/3\r\n\r\n",
        b"GET x HTTP/1.1\r\n\r\n",
    ]
    for data in odd:
        with connect(loading.port) as client:
            client.sendall(data + b"\r\n\r\n")
            assert answered(client).status == 400
    with connect(loading.port) as client, suppress(ConnectionError):
        client.sendall(b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 20_000)
        assert answered(client).status == 431
    assert loading.ask(get("/", method="HEAD")).raw_body == b""
    assert loading.ask(get("/health")).status == 503


def test_while_the_model_loads_a_client_that_still_sends_reads_its_answer(loading):
    start = request("POST", CHAT, {"content-length": str(4 << 20)})
    with connect(loading.port) as client:
        client.sendall(start)
        for _ in range(64):
            client.sendall(b"x" * (1 << 16))
        assert answered(client).status == 503


def test_while_the_model_loads_silent_clients_keep_nobody_out(loading):
    silent = [connect(loading.port) for _ in range(300)]  # more than the server lets in
    try:
        wait_until(lambda: sum(map(is_closed, silent)) >= 40)
        for client in silent[:100]:
            client.close()
        wait_until(lambda: answers(loading))
    finally:
        for client in silent:
            client.close()


def is_closed(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def answers(server) -> bool:
    with suppress(ConnectionError, AssertionError):
        return server.ask(get("/health")).status == 503
    return False


def test_the_ready_file_appears_whole_and_goes_with_the_server(tmp_path):
    (tmp_path / "ready.json").write_text("of an earlier run")
    with serving(tmp_path, "sleep=0.2 ready serve") as server:
        wait_until(lambda: not server.ready_file.exists(), server.process)
        assert server.ready() == {
            "url": f"http://127.0.0.1:{server.port}",
            "pid": server.process.pid,
            "model": "scripted",
            "draft_model": None,
            "version": __version__,
        }
        assert stat.S_IMODE(server.ready_file.stat().st_mode) == 0o600
        assert server.ask(get("/")).body["pid"] in server.children()
        server.process.terminate()
        assert server.end() == 0
        assert not server.ready_file.exists()


def test_port_0_is_a_free_port_that_the_ready_file_names(tmp_path):
    with serving(tmp_path, SERVING, "--port", "0") as server:
        port = int(server.ready()["url"].rpartition(":")[2])
        assert port not in (0, server.port)
        assert is_listening(port)


# --- children that die ---------------------------------------------------------------------------


def test_a_child_that_dies_is_replaced_and_newcomers_are_told(tmp_path):
    with serving(tmp_path, "sleep=0.3 ready serve") as server:
        server.ready()
        first = server.ask(get("/")).body["pid"]
        os.kill(first, signal.SIGABRT)
        wait_until(lambda: server.status() == 503)
        answer = server.ask(post(CHAT, {}))
        assert (answer.status, answer.code) == (503, "engine_restarting")
        assert server.ask(get("/health")).body == {"status": "restarting"}
        wait_until(lambda: server.status() == 200, server.process)
        assert server.ask(get("/")).body["pid"] != first
        assert "SIGABRT" in server.log and "memory" in server.log
        server.process.terminate()
        assert server.end() == 0


def test_a_program_that_a_child_leaves_behind_holds_nothing_up(tmp_path):
    """It keeps the child's pipe and output open."""
    with serving(tmp_path, "hold=20 ready serve") as server:
        server.ready()
        first = server.ask(get("/")).body["pid"]
        os.kill(first, signal.SIGABRT)
        wait_until(lambda: server.log.count("serving") == 2, server.process, limit_s=10)
        assert server.ask(get("/")).body["pid"] != first
        server.process.terminate()
        assert server.end(4) == 0


def test_a_failed_engine_is_told_of_before_its_process_has_ended(tmp_path):
    with serving(tmp_path, "ready sleep=0.2 broken stuck") as server:
        server.ready()
        [first] = server.children()
        wait_until(lambda: server.status() == 503)
        assert server.ask(get("/ready")).code == "engine_restarting"
        assert server.children() == [first]
        wait_until(lambda: server.log.count("serving") == 2, server.process, limit_s=10)
        assert "cosmic ray" in server.log
        assert not is_running(first)


def test_the_fourth_death_within_a_minute_ends_the_server(tmp_path):
    with serving(tmp_path, "say=a-last-word ready sleep=0.2 abort") as server:
        assert server.end() == 70
        assert server.log.count("serving") == 4
        error = server.ready()["error"]
        assert (error["code"], error["exit_code"]) == ("engine_stopped", 70)
        assert "4 times" in error["message"] and "SIGABRT" in error["message"]
        assert "a-last-word" in error["log"]
        assert server.log.splitlines()[-1].startswith("mtp-mlx: the engine failed 4 times")


def test_a_child_that_cannot_load_again_ends_the_server(tmp_path):
    with serving(tmp_path, f"once={tmp_path / 'mark'} ready sleep=0.3 abort") as server:
        assert server.end() == 70
        assert server.log.count("serving") == 1
        assert "SIGABRT" in server.ready()["error"]["message"]


def test_a_load_that_fails_ends_with_its_line_and_its_code(tmp_path):
    with serving(tmp_path, "fail") as server:
        assert server.end() == 4
        error = server.ready()["error"]
        assert (error["code"], error["exit_code"]) == ("insufficient_memory", 4)
        assert server.log == "mtp-mlx: it takes 9 GB, and 1 GB is free\n"


def test_a_child_that_dies_while_it_loads_for_the_first_time_is_not_tried_again(tmp_path):
    with serving(tmp_path, "say=loading abort") as server:
        assert server.end() == 70
        assert server.log.count("\nloading") + server.log.startswith("loading") == 1
        assert "SIGABRT while it loaded" in server.ready()["error"]["message"]


# --- the end -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_meanwhile_newcomers_are_refused(tmp_path, number):
    with serving(tmp_path, "ready close say=closed sleep=1") as server:
        server.ready()
        [child] = server.children()
        server.process.send_signal(number)
        sent = time.monotonic()
        wait_until(lambda: "closed" in server.log, server.process)  # till then both accept
        assert server.ask(get("/health")).body == {"status": "shutting_down"}
        answer = server.ask(post(CHAT, {}))
        assert (answer.status, answer.code) == (503, "shutting_down")
        assert is_running(child)
        assert server.end() == 0
        assert 0.9 < time.monotonic() - sent < 2
        assert not is_running(child)


@pytest.mark.parametrize(("end", "told"), [("abort", "SIGABRT"), ("broken", "cosmic ray")])
def test_a_child_that_dies_while_it_drains_is_told_of(tmp_path, end, told):
    with serving(tmp_path, f"ready close {end}") as server:
        server.ready()
        server.process.terminate()
        assert server.end() == 0
        assert told in server.log


def test_a_child_that_does_not_drain_is_ended(tmp_path):
    with serving(tmp_path, "ready stuck", "--drain", "0.3") as server:
        server.ready()
        [child] = server.children()
        server.process.terminate()
        assert server.end(0.3 + 2) == 0
        assert not is_running(child)


def test_a_second_signal_ends_within_a_second(tmp_path):
    with serving(tmp_path, "ready serve=30", "--drain", "30") as server:
        server.ready()
        [child] = server.children()
        server.process.terminate()
        wait_until(lambda: "shutting down" in server.log)
        server.process.terminate()
        assert server.end(1) == 130
        assert not is_running(child)


@pytest.mark.parametrize("script", [LOADING, "ready sleep=0.1 abort"])
def test_a_signal_while_nothing_serves_ends_at_once(tmp_path, script):
    with serving(tmp_path, script) as server:
        wait_until(lambda: is_listening(server.port), server.process)
        server.process.terminate()
        assert server.end(1.5) == 0


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_may_come_at_any_moment(tmp_path, number):
    draw = random.Random(number)
    for trial in range(25):
        folder = tmp_path / str(trial)
        folder.mkdir()
        with serving(folder, "sleep=0.1 ready serve=0.05") as server:
            wait_until(lambda s=server: is_listening(s.port), server.process)
            time.sleep(draw.random() * 0.6)
            for _ in range(1 + trial % 2):
                server.process.send_signal(number)
            assert server.end(3) in (0, 130), server.log
            assert "Traceback" not in server.log
            assert not server.ready_file.exists() or "error" in server.ready()
            wait_until(lambda s=server: not is_listening(s.port), limit_s=2)


def test_a_terminal_that_closes_changes_nothing(tmp_path):
    with serving(tmp_path, SERVING) as server:
        server.ready()
        for _ in range(3):
            server.process.send_signal(signal.SIGHUP)
        time.sleep(0.1)
        assert server.ask(get("/")).status == 200
        assert server.process.poll() is None


def test_when_the_parent_is_killed_the_child_ends_and_the_port_is_free(tmp_path):
    with serving(tmp_path, SERVING) as server:
        server.ready()
        [child] = server.children()
        server.process.kill()
        wait_until(lambda: not is_running(child), limit_s=2)
        assert not is_listening(server.port)
        (tmp_path / "again").mkdir()
        with serving(tmp_path / "again", SERVING, "--port", server.port) as again:
            assert again.ready()["url"] == f"http://127.0.0.1:{server.port}"


def test_the_server_ends_with_the_process_that_wants_it(tmp_path):
    owner = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with serving(tmp_path, SERVING, "--parent-pid", owner.pid) as server:
        server.ready()
        [child] = server.children()
        owner.kill()
        owner.wait()
        owner.stdin.close()
        assert server.end(2) == 0
        assert not is_running(child)


def test_a_process_that_wants_a_server_and_is_gone_gets_none(tmp_path):
    gone = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True
    )
    with serving(tmp_path, LOADING, "--parent-pid", gone.stdout.decode().strip()) as server:
        assert server.end(3) == 0
        assert "Traceback" not in server.log


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# --- before anything is loaded -------------------------------------------------------------------


def test_a_port_that_is_taken_is_one_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with serving(tmp_path, "say=loaded", "--port", port) as server:
            assert server.end() == 1
            assert server.log.count("\n") == 1 and str(port) in server.log
            assert "--port 0" in server.log and "Traceback" not in server.log
            assert server.ready()["error"]["exit_code"] == 1


@pytest.mark.parametrize("number", [errno.EACCES, errno.EADDRNOTAVAIL])
def test_an_address_that_may_not_be_had_is_one_line(monkeypatch, number):
    def refuse(listener, address):
        listener.close()
        raise OSError(number, "the system's own words")

    monkeypatch.setattr(listen, "_bound", refuse)
    with pytest.raises(MtpError) as caught:
        listen.listen("127.0.0.1", 80)
    assert str(caught.value) == (
        f"port 80 of 127.0.0.1 cannot be listened on: {os.strerror(number)}; "
        "--port 0 takes a free one"
    )
    assert caught.value.exit_code == 1


def test_a_reader_of_stderr_that_never_reads_stops_nothing(tmp_path):
    reading, writing = os.pipe()
    try:
        with serving(tmp_path, "fill=4000000 ready serve", stderr=writing) as server:
            server.ready()
            assert server.ask(get("/")).status == 200
            server.process.terminate()
            assert server.end(4) == 0
    finally:
        os.close(reading)
        os.close(writing)


def test_the_log_in_json_is_an_object_a_line(tmp_path):
    with serving(tmp_path, SERVING, "--log-json") as server:
        server.ready()
        server.process.terminate()
        assert server.end() == 0
        said = [json.loads(line) for line in server.log.splitlines()]
        assert [each["phase"] for each in said] == ["ready", "shutting_down"]
        assert said[0]["url"].endswith(str(server.port))


def test_the_parent_imports_neither_mlx_nor_the_server_it_starts(tmp_path):
    code = (
        "import sys\n"
        "import mtp_mlx.cli.main, mtp_mlx.cli.serve\n"
        "print([name for name in ('mlx', 'numpy', 'starlette', 'uvicorn', 'pydantic', 'anyio',"
        " 'tokenizers', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
