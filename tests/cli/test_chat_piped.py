"""`mtp-mlx chat` without a terminal: one message in, its reply out."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import mtp_mlx.api
from tests.bad_input.files import copy_pair

SPOKEN = ("--seed", "3", "-m", "6")


@pytest.fixture
def piped(cli, monkeypatch, tmp_path):
    """The command line with text on stdin, and chats in a folder of its own."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))

    def call(text: str, *arguments: object):
        source = tmp_path / "stdin"
        source.write_text(text)
        with source.open() as stdin:
            monkeypatch.setattr("sys.stdin", stdin)
            return cli("chat", *arguments)

    return call


def chat_file(tmp_path: Path, name: str) -> list[dict]:
    path = tmp_path / "mtp-mlx" / "chats" / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_whole_of_stdin_is_one_message(piped, tmp_path):
    plain = piped("What is\n2 plus 3?\n", *SPOKEN)
    answer = piped("What is\n2 plus 3?\n", *SPOKEN, "--json")
    assert (plain.code, answer.code) == (0, 0)
    assert plain.out == answer.body["text"] + "\n"
    assert answer.body["seed"] == 3
    assert {"model", "prompt_token_ids", "spec", "usage", "timings"} <= set(answer.body)
    assert not (tmp_path / "mtp-mlx").exists(), "a chat without a name is not kept"


def test_a_named_chat_goes_on_from_run_to_run(piped, tmp_path):
    first = piped("hello", *SPOKEN, "--session", "one", "-s", "Be kind.", "--json")
    second = piped("and now", *SPOKEN, "--continue", "--json")
    third = piped("a third", *SPOKEN, "--session", "one", "--json")
    head, *turns = chat_file(tmp_path, "one")
    assert (head["system"], head["model"], head["draft_model"]) == ("Be kind.", "tiny", "auto")
    assert [turn["user"] for turn in turns] == ["hello", "and now", "a third"]
    bodies = [first.body, second.body, third.body]
    assert [turn["reply"] for turn in turns] == [body["text"] for body in bodies]
    lengths = [len(body["prompt_token_ids"]) for body in bodies]
    assert lengths == sorted(lengths) and len(set(lengths)) == 3


def test_a_chat_goes_on_with_its_own_model(piped, tmp_path):
    piped("hello", "tiny-moe", *SPOKEN, "--no-draft", "--session", "one")
    body = piped("hello", *SPOKEN, "--session", "one", "--json").body
    assert (body["model"], body["draft_model"]) == ("tiny-moe", None)
    other = piped("hello", "tiny", "--draft-model", "auto", *SPOKEN, "--session", "one", "--json")
    assert (other.body["model"], other.body["draft_model"]) == ("tiny", "tiny-assistant")


@pytest.mark.parametrize(
    ("text", "arguments", "words"),
    [
        ("", [], "chat needs a terminal, or a message through a pipe"),
        ("  \n", ["--json"], "mtp-mlx generate"),
        ("hi", ["tiny", "--model", "tiny-moe"], "tiny and --model tiny-moe contradict"),
        ("hi", ["--continue"], "no chat to go on with yet"),
        ("hi", ["--continue", "--session", "x"], "not both"),
        ("hi", ["--session", "../x"], "no name of a chat"),
        ("hi", ["--kv-bits", "4"], "the cache is not quantised"),
        ("hi", ["--temp", "-1"], "temperature must be a number"),
    ],
)
def test_what_cannot_be_done_is_one_line(piped, text, arguments, words):
    answer = piped(text, *arguments)
    assert answer.code == 2
    assert words in answer.err
    assert answer.err.count("\n") == 1


def test_a_damaged_chat_is_refused_and_kept_as_it_is(piped, tmp_path):
    path = tmp_path / "mtp-mlx" / "chats" / "one.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("no chat")
    answer = piped("hi", "--session", "one", "--json")
    assert answer.code == 2
    assert "one.jsonl: line 1: not JSON" in answer.body["error"]["message"]
    assert path.read_text() == "no chat"


def test_a_chat_that_somebody_else_changed_meanwhile_is_said(piped, tmp_path, monkeypatch):
    piped("hello", *SPOKEN, "--session", "one")
    file = tmp_path / "mtp-mlx" / "chats" / "one.jsonl"
    real = mtp_mlx.api.load

    def load(**options):
        file.write_text(file.read_text() + '{"user": "from elsewhere"}\n')
        return real(**options)

    monkeypatch.setattr(mtp_mlx.api, "load", load)
    answer = piped("and now", *SPOKEN, "--session", "one")
    assert answer.code == 0 and "chat one was changed elsewhere; this one is now" in answer.err
    name = answer.err.split()[-1]
    assert [turn["user"] for turn in chat_file(tmp_path, name)[1:]] == ["hello", "and now"]
    assert chat_file(tmp_path, "one")[-1] == {"user": "from elsewhere"}


def test_a_model_without_a_template_is_said_and_generate_works(piped, tmp_path):
    target, drafter = copy_pair(tmp_path, "31b")
    (target / "chat_template.jinja").unlink()
    names = ("--draft-model", drafter, "-m", "2")
    answer = piped("hi", target, *names, "--json")
    assert (answer.code, answer.body["error"]["code"]) == (2, "no_chat_template")
    assert "mtp-mlx generate --ignore-chat-template" in answer.body["error"]["message"]


def test_a_message_longer_than_the_context_is_one_line_and_keeps_the_chat(piped, tmp_path):
    piped("hello", *SPOKEN, "--session", "one")
    before = chat_file(tmp_path, "one")
    answer = piped("word " * 5000, *SPOKEN, "--session", "one")
    assert answer.code == 2
    assert "the context is 4,096" in answer.err
    assert chat_file(tmp_path, "one") == before


def test_a_user_without_a_home_can_talk_but_not_keep(piped, monkeypatch):
    def homeless():
        raise OSError("no folder for chats")

    monkeypatch.setattr("mtp_mlx.cli.chat.data_folder", homeless)
    assert piped("hi", *SPOKEN).code == 0
    answer = piped("hi", *SPOKEN, "--session", "one")
    assert (answer.code, answer.err) == (1, "mtp-mlx: no folder for chats\n")


def test_hostile_text_is_shown_on_a_pipe_too():
    rounds = [[["\x1b[31m[/bold] a[i]\x9b", "prefill"]]]
    result = subprocess.run(
        [sys.executable, "-m", "tests.cli.fake_chat", json.dumps([rounds]), "chat"],
        input="hi",
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "␛[31m[/bold] a[i]\\u{9b}\n"
