"""Ctrl-C while a chat goes on."""

import os
import signal
import time

import pytest

from mtp_mlx.cli.interrupts import Interrupts
from mtp_mlx.cli.repl import loaded
from mtp_mlx.text.template import NoChatTemplate
from tests.api_pairs import loaded as model
from tests.api_pairs import prompt_ids
from tests.bad_input.files import copy_pair


@pytest.fixture
def before():
    """The handler before the chat: it notes that it was called."""
    called = []
    old = signal.signal(signal.SIGINT, lambda number, frame: called.append(number))
    yield called
    signal.signal(signal.SIGINT, old)


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_it_stops_the_reply_and_nothing_else(before):
    with Interrupts() as interrupts:
        press()
        with interrupts.reply() as pressed:
            stream = model().stream(prompt_ids(), max_tokens=400, stop="never said", seed=1)
            pressed.stops(stream.abandon)
            next(stream)
            press()
            assert [chunk.finish_reason for chunk in stream][-1] == "cancelled"
        press()
    assert before == []
    press()
    assert before == [signal.SIGINT]


def test_one_that_came_before_the_reply_began_is_obeyed(before):
    stopped = []
    with Interrupts() as interrupts, interrupts.reply() as pressed:
        press()
        pressed.stops(lambda: stopped.append(time.monotonic()))
    assert len(stopped) == 1


def test_one_for_the_last_reply_does_not_stop_the_next(before):
    stopped = []
    with Interrupts() as interrupts:
        for _ in range(2):
            with interrupts.reply() as pressed:
                pressed.stops(lambda: stopped.append(1))
            press()
    assert stopped == []


def test_while_a_model_loads_it_does_what_it_did_before(before):
    with Interrupts() as interrupts:
        with interrupts.leaving():
            press()
        press()
    assert before == [signal.SIGINT]


def test_a_model_without_a_template_cannot_chat(tmp_path, capsys):
    target, drafter = copy_pair(tmp_path, "31b")
    (target / "chat_template.jinja").unlink()
    with pytest.raises(NoChatTemplate, match="has no chat template"):
        loaded({"model": target, "draft_model": drafter})
