"""`mtp-mlx chat` on a real terminal: keys in, screens out. Needs tmux."""

import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.tmux import Terminal, needs_tmux

pytestmark = needs_tmux

STORY = "Tell me a story about a fox."
DRAFT = "\x1b[4m\x1b[36m"  # underlined, cyan; as tmux spells it


@pytest.fixture
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("t")  # short: a socket's name has a limit


@pytest.fixture
def terminal(folder) -> Iterator[Terminal]:
    opened = Terminal(folder)
    yield opened
    opened.close()


def after(text: str, mark: str) -> str:
    return text.rsplit(mark, 1)[-1]


def talked(terminal: Terminal, message: str) -> str:
    """Send a message; the screen below it once the reply is complete."""
    terminal.type(message)
    ended = terminal.wait_for(lambda text: is_answered(text, message), message)
    return after(ended, message)


def is_answered(text: str, message: str) -> bool:
    below = after(text, message) if message in text else ""
    return "TTFT" in below and text.rstrip().endswith("›")


def saved(terminal: Terminal, name: str = "*") -> list[dict]:
    """The lines of the only chat that is kept."""
    (path,) = (terminal.folder / "XDG_DATA_HOME/mtp-mlx/chats").glob(f"{name}.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_chat_is_held_kept_and_continued(terminal):
    terminal.chat("--system-prompt", "Be kind.", "--seed", "5")
    below = talked(terminal, STORY)
    assert "The end." in below
    for word in (" tok · ", " tok/s · drafts ", " accepted, ", "tok/round", "TTFT", " MiB"):
        assert word in below
    assert DRAFT in terminal.styled
    terminal.type("/why")
    why = after(terminal.wait("costs ", at_prompt=True), "/why")
    for word in ("drafts by round   3 ×", "by position", "not measured"):
        assert word in why
    terminal.type("/save fox")
    terminal.wait("chat fox, kept in", at_prompt=True)
    terminal.type("/tokens")
    terminal.wait("of 4,096 tokens used", at_prompt=True)
    head, turn = saved(terminal)
    assert (head["system"], head["model"], turn["user"]) == ("Be kind.", "tiny", STORY)
    terminal.type("/bye")
    assert terminal.code() == 0

    terminal.chat("--continue")
    again = terminal.text
    assert "going on with chat fox, 1 turn; the last:" in again
    assert "".join(turn["reply"].split()) in "".join(again.split())
    terminal.keys("Up")
    terminal.wait("› /bye")
    terminal.keys("C-c")  # empties the line
    terminal.type("/undo")
    terminal.wait("taken back: Tell me", at_prompt=True)
    assert len(saved(terminal)) == 1
    terminal.keys("C-d")
    assert terminal.code() == 0
    history = terminal.folder / "XDG_DATA_HOME/mtp-mlx/history"
    for path in (history, next(history.parent.glob("chats/*"))):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_several_lines_are_one_message(terminal):
    editor = terminal.folder / "editor"
    editor.write_text('#!/bin/sh\necho "What is 2 plus 3?" > "$1"\n')
    editor.chmod(0o700)
    terminal.run("-c", f"import os; os.environ['VISUAL'] = {str(editor)!r}; {START}", "chat")
    terminal.wait("/help", at_prompt=True)
    terminal.type('"""')
    terminal.type("Say")
    talked(terminal, 'hi."""')
    terminal.keys("One", "M-Enter")
    talked(terminal, "two")
    terminal.paste("first line\nsecond line\n  third")
    terminal.wait("third")
    talked(terminal, " and a typed end")
    terminal.keys("C-g")
    terminal.wait("2 plus 3?")
    terminal.keys("Enter")
    terminal.wait_for(lambda text: is_answered(text, "2 plus 3?"))
    assert [turn["user"] for turn in saved(terminal)[1:]] == [
        "Say\nhi.",
        "One\ntwo",
        "first line\nsecond line\n  third and a typed end",
        "What is 2 plus 3?",
    ]
    terminal.type("/he")
    assert "perhaps /help" in terminal.wait("there is no command /he", at_prompt=True)
    terminal.keys("/he", "Tab")
    terminal.wait("› /help")
    terminal.keys("C-c")
    terminal.type("q")
    terminal.wait_for(lambda text: is_answered(text, "› q"))
    assert len(saved(terminal)) == 6


FAKED = "import runpy; runpy.run_module('tests.cli.fake_chat', run_name='__main__')"
START = "from mtp_mlx.cli.main import main; import sys; main(sys.argv[1:])"


def test_an_interrupt_while_the_model_loads_leaves_with_130(folder):
    terminal = Terminal(folder, MTP_MLX_CALIBRATION="on")  # measures for two seconds
    try:
        terminal.run("-m", "mtp_mlx", "chat")
        terminal.wait("loading tiny")
        terminal.keys("C-c")
        assert terminal.code() == 130
        assert "Traceback" not in terminal.text
        assert "interrupted" in terminal.text
        terminal.type("echo it ec''hoes")
        terminal.wait("it echoes")
    finally:
        terminal.close()


@pytest.mark.slow
def test_an_interrupt_while_the_prompt_is_read_stops_the_reply(terminal):
    terminal.chat()
    terminal.paste("word " * 1100)
    terminal.keys("Enter")
    terminal.wait("reading 1,1")
    terminal.keys("C-c")
    terminal.wait("stopped before the first token", at_prompt=True)
    assert saved(terminal)[1] == {"user": "word " * 1100}
    assert "The end." in talked(terminal, STORY)
    assert [turn["user"] for turn in saved(terminal)[1:]] == [STORY]


def test_an_interrupt_stops_the_reply_and_keeps_the_chat(terminal):
    terminal.chat("--num-draft-tokens", "0")
    terminal.type(STORY)
    terminal.wait("Once upon")
    terminal.keys("C-c")
    below = after(terminal.wait(" · stopped", at_prompt=True), STORY)
    turn = saved(terminal)[1]
    assert (turn["user"], turn["finish_reason"]) == (STORY, "cancelled")
    assert turn["reply"].startswith("Once upon")
    assert turn["reply"].split() == below.split(" tok ")[0].split()[:-1]

    terminal.type("/retry")
    terminal.wait("The end.", at_prompt=True)
    (_, retried) = saved(terminal)
    assert (retried["user"], retried["finish_reason"]) == (STORY, "stop")
    terminal.keys("C-c")
    terminal.wait("Ctrl-C again leaves")
    terminal.keys("C-c")
    assert terminal.code() == 0


def test_a_resize_while_a_reply_is_written_loses_no_word(terminal):
    terminal.chat("--num-draft-tokens", "0")
    terminal.type(STORY)
    terminal.wait("Once upon")
    terminal.resize(44, 20)
    terminal.wait_for(lambda text: is_answered(text, STORY))
    below = after(terminal.text, STORY).split(" tok ")[0].split()[:-1]
    assert saved(terminal)[1]["reply"].split() == below
    assert all(len(row) <= 44 for row in terminal.screen.split("\n"))


HOSTILE = [
    [["Look: a[i] * b[0] ", "prefill"]],
    [["[/bold] [red]x[/red] ", "draft"], ["\x1b[31mred\x1b]0;title\x07 \x9b2J ", "target"]],
    [["\u202eback ", "draft"], ["__init__ \\(x\\) ", "target"]],
    [["`a * b` **bold**\n\n", "plain"]],
    [["```py\n", "draft"], ["x = a[i]\n```\n", "target"]],
]


def fake(terminal: Terminal, replies: list, *arguments: str) -> None:
    terminal.run("-m", "tests.cli.fake_chat", json.dumps(replies), "chat", *arguments)
    terminal.wait("/help for more", at_prompt=True)


def test_hostile_text_of_a_model_is_shown_and_not_obeyed(terminal):
    fake(terminal, [HOSTILE, HOSTILE, HOSTILE])
    below = talked(terminal, "go on")
    assert "12.0 tok/s (plain ~50) · drafts 3/6 accepted, 2.5 tok/round\nTTFT 0.25 s" in below
    shown = " ".join(below.split())
    assert shown.startswith(
        "Look: a[i] * b[0] [/bold] [red]x[/red] ␛[31mred␛]0;title␇ \\u{9b}2J "
        "\\u{202e}back __init__ \\(x\\) a * b bold py x = a[i]"
    )
    styled = after(terminal.styled, "go on")
    assert f"{DRAFT}[/bold] [red]x[/red]" in styled
    assert "\x1b[1mbold" in styled
    assert "\x1b[31m" not in styled
    terminal.type("/set color_drafts off")
    terminal.wait("color_drafts: off", at_prompt=True)
    assert talked(terminal, "once more").split()[:4] == below.split()[:4]
    assert DRAFT not in after(terminal.styled, "once more")
    assert saved(terminal)[1]["reply"] == "".join(text for part in HOSTILE for text, _ in part)


def test_an_error_does_not_end_the_chat_and_a_dead_engine_does(terminal):
    said = [[["Half a ", "prefill"]], "fail"]
    fake(terminal, [said, [[["Fine.", "prefill"]]], ["fail"], ["full"], ["gone"]])
    terminal.type("one")
    terminal.wait("mtp-mlx: the target gave NaN", at_prompt=True)
    assert "Fine." in talked(terminal, "two")
    terminal.type("/retry")  # which fails: the reply there was stays
    terminal.wait_for(lambda text: text.count("mtp-mlx: the target gave NaN") == 2)
    terminal.type("long")
    full = terminal.wait("the context is 4,096, or /undo", at_prompt=True)
    assert "the chat so far is kept" in full
    terminal.type("three")
    assert terminal.code() == 70
    assert "mtp-mlx chat --continue goes on with it" in terminal.text
    assert "Traceback" not in terminal.text
    assert [row.get("user") for row in saved(terminal)[1:]] == ["one", "two", "three"]


def test_without_colours_the_text_is_plain(folder):
    terminal = Terminal(folder, NO_COLOR="1")
    try:
        fake(terminal, [HOSTILE])
        below = talked(terminal, "go on")
        assert "**bold**" in below
        assert "\x1b[36m" not in terminal.styled
        assert "\x1b[4m" not in terminal.styled
    finally:
        terminal.close()


def test_where_nothing_can_be_kept_one_line_says_so(folder):
    closed = folder / "closed"
    closed.write_text("a file where a folder should be")
    terminal = Terminal(folder)
    said = [[["Fine.", "prefill"]]]
    try:
        code = f"import os; os.environ['XDG_DATA_HOME'] = {str(closed)!r}; {FAKED}"
        terminal.run("-c", code, json.dumps([said, said]), "chat")
        terminal.wait("typed messages are not kept", at_prompt=True)
        talked(terminal, "one")
        assert "Fine." in talked(terminal, "two")
        assert terminal.text.count("the chat is not kept") == 1
        terminal.keys("Up")
        terminal.wait("› two")
    finally:
        terminal.close()
