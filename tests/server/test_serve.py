"""`mtp-mlx serve` with the built-in pair: the real child, its streams, its end, its faults."""

import json
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from mtp_mlx.cli.main import main
from tests.server.running import (
    REAL,
    Serving,
    answered,
    connect,
    get,
    is_listening,
    post,
    request,
    serving,
    wait_until,
)

CHAT = "/v1/chat/completions"
STORY = [{"role": "user", "content": "Tell me a story about a fox and a hen."}]
ASKED = {"messages": STORY, "temperature": 0, "max_tokens": 200}
# So hot that the ends of a reply are rare.
LONG = {"messages": STORY, "temperature": 50, "top_k": 0, "top_p": 1, "max_tokens": 3000}


def begun(server: Serving, **body: object) -> socket.socket:
    """A connection on which a streamed reply has begun."""
    client = connect(server.port)
    client.sendall(post(CHAT, {**body, "stream": True}))
    seen = b""
    while b"data: " not in seen:
        piece = client.recv(1 << 10)
        assert piece, seen
        seen += piece
    return client


def rest(client: socket.socket) -> str:
    """What still comes, to the connection's end."""
    data = b""
    with client, suppress(ConnectionError):
        while piece := client.recv(1 << 16):
            data += piece
    return data.decode()


def last_frame(text: str) -> str:
    """The data of a stream's last frame."""
    return [line for line in text.splitlines() if line.startswith("data: ")][-1][6:]


def test_a_server_serves_drains_on_sigterm_and_leaves_nothing(tmp_path):
    with serving(tmp_path, "tiny", command=REAL) as server:
        ready = server.ready()
        assert (ready["model"], ready["draft_model"]) == ("tiny", "tiny-assistant")
        assert server.ask(get("/ready")).status == 200
        assert server.ask(post(CHAT, ASKED)).status == 200
        [child] = server.children()
        if sys.platform == "linux":  # what each has mapped, says who loads what
            mapped = [Path(f"/proc/{pid}/maps").read_text() for pid in (server.process.pid, child)]
            assert ["libmlx" in each for each in mapped] == [False, True]
        stories = [begun(server, **ASKED) for _ in range(3)]
        server.process.terminate()
        for story in stories:
            assert last_frame(rest(story)) == "[DONE]"
        assert server.end(4) == 0
        assert not server.ready_file.exists()
        assert not is_listening(server.port)
        assert not Path(f"/proc/{child}").exists()
        assert "Traceback" not in server.log


def test_streams_that_do_not_make_it_end_with_an_error(tmp_path):
    with serving(tmp_path, "tiny", "--drain", "0.3", command=REAL) as server:
        server.ready()
        streams = [begun(server, **LONG, seed=seed) for seed in range(6)]
        server.process.terminate()
        sent = time.monotonic()
        ends = [last_frame(rest(stream)) for stream in streams]
        cut = [json.loads(end)["error"] for end in ends if end != "[DONE]"]
        assert cut
        assert {error["code"] for error in cut} == {"shutting_down"}
        assert server.end(4) == 0
        assert time.monotonic() - sent < 2.3


def test_an_abort_closes_streams_and_the_next_child_gives_the_same_text(tmp_path):
    with serving(tmp_path, "tiny", command=REAL) as server:
        server.ready()
        before = server.ask(post(CHAT, ASKED)).body["choices"][0]["message"]["content"]
        [child] = server.children()
        streams = [begun(server, **LONG, seed=seed) for seed in range(3)]
        os.kill(child, signal.SIGABRT)
        ends = [rest(stream) for stream in streams]
        assert not all("[DONE]" in end for end in ends)
        answer = server.ask(post(CHAT, ASKED))
        assert (answer.status, answer.code) == (503, "engine_restarting")
        wait_until(lambda: server.ask(get("/health")).status == 200, server.process)
        after = server.ask(post(CHAT, ASKED)).body["choices"][0]["message"]["content"]
        assert (before, bool(before)) == (after, True)
        assert server.children() != [child]
        server.process.kill()  # and the new child sees that
        [child] = server.children() or [0]
        wait_until(lambda: not is_listening(server.port), limit_s=3)


def test_keys_names_defaults_and_the_log_are_as_asked(tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("first-key\n\nsecond-key\n")
    given = ("--api-key-file", keys, "--served-model-name", "mine", "--temp", "0")
    given += ("--max-tokens", "5", "--log-json", "--no-ui", "--max-num-seqs", "2")
    with serving(tmp_path, "tiny", *given, command=REAL, MTP_MLX_API_KEY="third") as server:
        assert server.ready()["model"] == "mine"
        assert server.ask(get("/v1/models")).status == 401
        bodies = []
        for key in ("first-key", "second-key", "third"):
            body = json.dumps({"model": "mine", "messages": STORY}).encode()
            headers = {
                "authorization": f"Bearer {key}",
                "content-type": "application/json",
                "content-length": str(len(body)),
            }
            with connect(server.port) as client:
                client.sendall(request("POST", CHAT, headers, body))
                bodies.append(answered(client).body)
        texts = {body["choices"][0]["message"]["content"] for body in bodies}
        assert len(texts) == 1  # greedy
        assert {body["usage"]["completion_tokens"] for body in bodies} == {5}
        assert all(isinstance(json.loads(line), dict) for line in server.log.splitlines())
        assert "first-key" not in server.log and "fox" not in server.log


@pytest.mark.parametrize(
    ("model", "options", "code", "words"),
    [
        ("no-such-model", (), 5, "no-such-model"),
        ("tiny", ("--memory-limit", "1MB"), 4, "memory"),
        ("tiny", ("--no-draft", "--num-draft-tokens", "3"), 2, "no drafter"),
    ],
)
def test_what_cannot_be_loaded_is_one_line_and_a_code(tmp_path, model, options, code, words):
    with serving(tmp_path, model, *options, command=REAL) as server:
        assert server.end() == code
        assert server.log.startswith("mtp-mlx: ") and words in server.log
        assert server.log.count("\n") == 1
        error = server.ready()["error"]
        assert (error["exit_code"], words in error["message"]) == (code, True)


def test_a_model_of_the_users_own_naming_has_that_name_for_clients(tmp_path):
    config = tmp_path / "config.toml"
    config.write_text('[defaults]\nmodel = "work"\n[models."work"]\nalias = "tiny"\n')
    with serving(tmp_path, None, "--no-draft", command=REAL, MTP_MLX_CONFIG=str(config)) as server:
        ready = server.ready()
        assert (ready["model"], ready["draft_model"]) == ("work", None)
        names = [each["id"] for each in server.ask(get("/v1/models")).body["data"]]
        assert "work" in names


# --- what the parent refuses by itself -----------------------------------------------------------


def refused(capsys, *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as left:
        main(["serve", *arguments])
    return left.value.code, capsys.readouterr().err


@pytest.fixture(autouse=True)
def interrupts():
    """main ignores Ctrl-C on its way out."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        ((), 2, "mtp-mlx serve tiny"),
        (("tiny", "--model", "tiny-moe"), 2, "contradict"),
        (("tiny", "--host", "0.0.0.0", "--port", "0"), 2, "--api-key-file"),
        (("tiny", "--host", "no.such.host.invalid"), 1, "no.such.host.invalid"),
        (("tiny", "--host", "192.0.2.7"), 1, "192.0.2.7"),
        (("tiny", "--port", "70000"), 2, "70000"),
        (("tiny", "--temp", "-1", "--port", "0"), 2, "temperature"),
        (("tiny", "--top-p", "7", "--port", "0"), 2, "top_p"),
        (("tiny", "--num-draft-tokens", "9", "--port", "0"), 2, "num_draft_tokens"),
        (("tiny", "--api-key-file", "/no/such/file"), 2, "/no/such/file"),
        (("tiny", "--api-key-file", os.devnull), 2, os.devnull),
        (("tiny", "--allowed-origins", "*"), 2, "'*'"),
        (("tiny", "--allowed-origins", "https://app.example/path"), 2, "origin"),
        (("tiny", "--queue-timeout", "0"), 2, "queue-timeout"),
        (("tiny", "--parent-pid", "0"), 2, "parent-pid"),
        (("tiny", "--api-key", "secret"), 2, "--api-key"),
    ],
)
def test_what_cannot_be_served_is_refused_before_anything_is_loaded(capsys, arguments, code, word):
    found, said = refused(capsys, *arguments)
    assert found == code
    assert word in said and said.count("\n") == 1


def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(capsys, tmp_path, monkeypatch):
    keys = tmp_path / "keys"
    keys.write_text("good\nbad key\n")
    code, said = refused(capsys, "tiny", "--api-key-file", str(keys))
    assert code == 2 and "key 2" in said and "bad" not in said
    monkeypatch.setenv("MTP_MLX_API_KEY", " , ")
    code, said = refused(capsys, "tiny")
    assert code == 2 and "MTP_MLX_API_KEY" in said


def test_a_ready_file_that_is_no_file_is_refused_and_left(tmp_path):
    with serving(tmp_path, "tiny", "--ready-file", str(tmp_path), command=REAL) as server:
        assert server.end(20) == 2
    assert "is there and is no file" in server.log and tmp_path.is_dir()
