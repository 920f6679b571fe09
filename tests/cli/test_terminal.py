"""What a terminal gets: tint, control characters, interrupts. A model's text is never obeyed."""

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mtp_mlx.cli.terminal import bracket, painted, tint, unmarked
from mtp_mlx.reply import Chunk, Token
from tests.cli.answer import Answer
from tests.interrupts import heed_interrupts

ROOT = Path(__file__).resolve().parents[2]
ON, OFF = "\x1b[36m\x1b[4m", "\x1b[0m"
TRAPS = "a[i] * b[0] [/bold] [red]x[/] 😀 *é* \x1b[31mred\x1b]0;title\x07 \u202eabc"
SHOWN = "a[i] * b[0] [/bold] [red]x[/] 😀 *é* ␛[31mred␛]0;title␇ \\u{202e}abc"
ROUNDS = [
    [["Hello", "prefill"]],
    [[" big", "draft"], [" wide\nold", "draft"], [" world", "target"]],
]
TEXT = "Hello big wide\nold world\n"
STATS = """\
tokens          4, prompt 1
first token     0.25 s
tokens/s        12.0
drafts accepted 3 of 6
by position     2/2 1/2 0/2
tokens a round  2.50
last round      drafts 3,2
experts a layer 5.2; 38% of the drafts' choices read anyway
seed            5
peak memory     3.0 MiB
"""
TINTED = f"Hello{ON} big wide{OFF}\n{ON}old{OFF} world\n"


def chunk(*tokens: tuple[str, str]) -> Chunk:
    made = tuple(Token(0, text, origin, 0) for text, origin in tokens)
    return Chunk("".join(text for text, _ in tokens), made)


def command(rounds: list, *rest: str) -> list[str]:
    return [sys.executable, "-m", "tests.cli.fake", json.dumps(rounds), "generate", "sky", *rest]


def settings(**environment: str) -> dict:
    plain = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    changes = {"TERM": "xterm", "PYTHONIOENCODING": "utf-8"} | environment
    return {"cwd": ROOT, "env": plain | changes, "stdin": subprocess.DEVNULL}


def read_all(terminal: int) -> str:
    """What was written to a terminal until its last writer closed it."""
    written = b""
    while True:
        try:
            part = os.read(terminal, 4096)
        except OSError:  # Linux's answer where others give an empty read
            part = b""
        if not part:
            return written.decode().replace("\r\n", "\n")
        written += part


def on_terminal(rounds: list, *rest: str, **environment: str) -> Answer:
    """Exit code, what a terminal shows of stdout, and stderr."""
    terminal, writing = pty.openpty()
    child = subprocess.Popen(
        command(rounds, *rest),
        stdout=writing,
        stderr=subprocess.PIPE,
        preexec_fn=heed_interrupts,
        text=True,
        **settings(**environment),
    )
    os.close(writing)
    with child:
        if "hang" in rounds:
            assert child.stderr.readline() == "hanging\n"
            child.send_signal(signal.SIGINT)
        out = read_all(terminal)
        os.close(terminal)
        errors = child.stderr.read()
    return Answer(child.returncode, out, errors)


def in_pipe(rounds: list, *rest: str) -> Answer:
    done = subprocess.run(command(rounds, *rest), capture_output=True, timeout=60, **settings())
    return Answer(done.returncode, done.stdout.decode(), done.stderr.decode())


# --- one chunk -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", [tint, bracket, unmarked])
def test_text_of_the_target_is_printed_unharmed(mark):
    assert painted(chunk((TRAPS, "target")), mark) == SHOWN
    assert painted(chunk((TRAPS, "target")), mark, is_raw=True) == TRAPS
    assert painted(Chunk(TRAPS, ()), mark) == SHOWN


def test_a_draft_is_styled_around_its_own_text():
    assert painted(chunk((TRAPS, "draft")), tint) == f"{ON}{SHOWN}{OFF}"
    assert painted(chunk((TRAPS, "draft")), tint, is_raw=True) == f"{ON}{TRAPS}{OFF}"
    assert painted(chunk((TRAPS, "draft")), unmarked) == SHOWN
    assert painted(chunk((" a", "draft"), ("b", "draft"), ("c", "target")), bracket) == "‹ ab›c"


def test_no_style_crosses_a_line_end():
    assert painted(chunk(("\na\n\nb\n", "draft")), tint) == f"\n{ON}a{OFF}\n\n{ON}b{OFF}\n"
    assert painted(chunk(("", "draft")), tint) == ""


# --- a process -----------------------------------------------------------------------------------


def test_a_terminal_shows_accepted_drafts_tinted_and_underlined():
    assert on_terminal(ROUNDS) == Answer(0, TINTED, "")


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"NO_COLOR": "0"}, {"TERM": "dumb"}])
def test_without_colour_nothing_is_styled(environment):
    assert on_terminal(ROUNDS, **environment) == Answer(0, TEXT, "")


def test_an_empty_no_color_is_none():
    assert on_terminal(ROUNDS, NO_COLOR="") == Answer(0, TINTED, "")


def test_a_pipe_gets_plain_text():
    assert in_pipe(ROUNDS) == Answer(0, TEXT, "")


def test_traps_are_printed_unharmed():
    rounds = [[[TRAPS, "prefill"]], [[TRAPS, "draft"]]]
    assert in_pipe(rounds) == Answer(0, SHOWN + SHOWN + "\n", "")
    assert on_terminal(rounds) == Answer(0, f"{SHOWN}{ON}{SHOWN}{OFF}\n", "")
    assert on_terminal(rounds, NO_COLOR="1") == Answer(0, SHOWN + SHOWN + "\n", "")


def test_raw_keeps_escapes_and_leaves_the_terminal_as_it_was():
    rounds = [[[TRAPS, "prefill"]]]
    assert in_pipe(rounds, "--raw") == Answer(0, TRAPS + "\n", "")
    assert on_terminal(rounds, "--raw") == Answer(0, f"{TRAPS}{OFF}\n", "")


def test_json_holds_the_exact_text():
    answer = in_pipe([[[TRAPS, "prefill"]]], "--json")
    assert (answer.code, answer.err, answer.body["text"]) == (0, "", TRAPS)
    assert answer.out.isascii()


def test_an_interrupt_resets_the_style_and_the_line():
    answer = on_terminal([*ROUNDS, "hang"])
    assert answer == Answer(130, TINTED.rstrip("\n") + f"{OFF}\n", "interrupted\n")
    plain = on_terminal([*ROUNDS, "hang"], NO_COLOR="1")
    assert plain == Answer(130, TEXT, "interrupted\n")
    raw = on_terminal([*ROUNDS, "hang"], "--raw", NO_COLOR="1")
    assert raw == Answer(130, TEXT.rstrip("\n") + f"{OFF}\n", "interrupted\n")


def test_a_fault_in_mid_reply_begins_its_own_line():
    answer = on_terminal([*ROUNDS, "fail"])
    assert answer.out == TINTED
    assert (answer.code, answer.err) == (1, "mtp-mlx: the target gave NaN or infinity\n")


def test_figures_go_to_stderr():
    answer = in_pipe(ROUNDS, "--stats", "--seed", "5")
    assert (answer.code, answer.out) == (0, TEXT)
    assert answer.err == STATS
