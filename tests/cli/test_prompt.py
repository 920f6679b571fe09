"""Where a prompt comes from: words, -p, a pipe, and both."""

import os
import pty
import subprocess
import sys
from contextlib import ExitStack

import click
import pytest

from mtp_mlx.cli.prompt import LIMIT_BYTES, read_prompt
from tests.api_pairs import copy_target, folders, loaded


@pytest.fixture
def pipe(tmp_path, monkeypatch):
    """Puts bytes on stdin."""
    with ExitStack() as files:

        def put(data: bytes) -> None:
            (tmp_path / "stdin").write_bytes(data)
            file = files.enter_context(open(tmp_path / "stdin", encoding="ascii"))
            monkeypatch.setattr("sys.stdin", file)

        yield put


@pytest.mark.parametrize(
    ("words", "option", "piped", "expected"),
    [
        (("sky",), None, b"", "sky"),
        (("why", "is  the", "sky"), None, b"", "why is  the sky"),
        ((), "the sky", b"", "the sky"),
        ((), None, b"the sky\n", "the sky"),
        ((), "-", b"the sky\r\n\n", "the sky"),
        ((), None, "\n ð blue\n".encode(), "\n ð blue"),
        (("and", "why"), None, b"the sky\nthe sea\n", "the sky\nthe sea\n\nand why"),
        (("and", "why"), "-", b"the sky\n", "the sky\n\nand why"),
        ((), "and why", b"the sky\n", "the sky\n\nand why"),
        (("sky",), "-", b"\n", "sky"),
        ((" x ",), None, b" \n", " \n\n x "),
    ],
)
def test_a_prompt_is_what_is_piped_in_then_the_words(pipe, words, option, piped, expected):
    pipe(piped)
    assert read_prompt(words, option) == expected


@pytest.mark.parametrize("piped", [b"", b"\n", b" \t\r\n", "\u2003\n".encode()])
def test_an_empty_prompt_names_the_ways_to_give_one(pipe, piped):
    pipe(piped)
    for words, option in (((), None), ((), "-"), (("",), None), ((), "")):
        with pytest.raises(click.UsageError, match="empty; give it as words, with -p, or through"):
            read_prompt(words, option)


def test_bytes_that_are_no_text_are_named_by_their_place(pipe):
    pipe(b"sky\xff")
    with pytest.raises(click.UsageError, match="not UTF-8: byte 0xff at offset 3; convert"):
        read_prompt((), None)


def test_a_prompt_without_end_is_cut_off(pipe):
    pipe(b"x" * (LIMIT_BYTES + 1))
    with pytest.raises(click.UsageError, match="longer than 16,777,216 bytes"):
        read_prompt((), None)


def test_a_closed_stdin_is_no_prompt(monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    assert read_prompt(("sky",), None) == "sky"
    with pytest.raises(click.UsageError, match="stdin is closed"):
        read_prompt((), "-")


READ = "import sys; from mtp_mlx.cli.prompt import read_prompt; print(read_prompt(('sky',), None))"
# As nohup leaves it: a device that cannot be read.
UNREADABLE = f"import os, sys; sys.stdin = os.fdopen(os.open(os.devnull, os.O_WRONLY), 'w'); {READ}"


def test_a_terminal_is_not_waited_for_nor_is_what_nohup_leaves():
    terminal, reading = pty.openpty()
    for code, stdin in ((READ, reading), (UNREADABLE, None)):
        child = subprocess.run(
            [sys.executable, "-c", code], stdin=stdin, capture_output=True, timeout=60
        )
        assert (child.returncode, child.stdout) == (0, b"sky\n")
    os.close(terminal)
    os.close(reading)


@pytest.mark.parametrize("rest", [[], ["-"], ["on", "the", "sea"]])
def test_a_piped_prompt_is_a_message_of_the_chat(cli, pipe, rest):
    target, drafter = folders()
    pipe(b"the sky\n")
    words = ["-p", "-"] if rest == ["-"] else rest
    options = ("--model", target, "--draft-model", drafter, "--seed", 3, "-m", 4, "--json")
    answer = cli("generate", *words, *options)
    text = "\n\n".join(["the sky", *(["on the sea"] if len(rest) > 1 else [])])
    with loaded().stream([{"role": "user", "content": text}], max_tokens=1) as stream:
        assert answer.body["prompt_token_ids"] == list(stream.prompt_ids)


def test_a_system_prompt_comes_before_the_message(cli):
    target, drafter = folders()
    options = ("--model", target, "--draft-model", drafter, "-m", 2, "--json")
    answer = cli("generate", "sky", "-s", "Be brief.", *options)
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "sky"}]
    with loaded().stream(messages, max_tokens=1) as stream:
        assert answer.body["prompt_token_ids"] == list(stream.prompt_ids)


def test_a_model_without_template_says_how_to_go_on(cli, tmp_path):
    target = copy_target(tmp_path)
    for name in ("chat_template.jinja", "tokenizer_config.json"):
        (target / name).unlink(missing_ok=True)
    options = ("--model", target, "--no-draft", "-m", 2, "--json")
    refused = cli("generate", "sky", *options)
    assert refused.code == 2
    assert refused.body["error"]["code"] == "no_chat_template"
    assert "--ignore-chat-template" in refused.err
    assert cli("generate", "sky", "--ignore-chat-template", *options).code == 0
