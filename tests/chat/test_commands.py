"""What a typed line means."""

import pytest

from mtp_mlx.chat.commands import COMMANDS, Command, Message, help_lines, is_open_quote, parse
from mtp_mlx.errors import RequestError


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_known_and_explained(name):
    assert parse(f"/{name}") == Command(name, "")
    assert parse(f"/{name}  some text ") == Command(name, "some text")
    assert any(label.startswith(f"/{name}") and said for label, said in help_lines())


@pytest.mark.parametrize(
    "text",
    ["q", "h", "help", "r", "/usr/bin is a path", "//", " /help", "a /help", "/x\nmore", "1/2"],
)
def test_these_are_messages(text):
    assert parse(text) == Message(text)


@pytest.mark.parametrize("text", ["", " ", "\n\n", '""""""', '"""\n\n"""'])
def test_nothing_is_nothing(text):
    assert parse(text) is None


def test_quotes_hold_a_message_of_several_lines():
    assert parse('"""\none\n  /two\n"""') == Message("one\n  /two")
    assert parse('"""one"""') == Message("one")


def test_a_command_may_have_several_lines():
    assert parse("/system one\ntwo") == Command("system", "one\ntwo")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("/hlep", "perhaps /help"),
        ("/sa", "perhaps /save"),
        ("/Retry", "perhaps /retry"),
        ("/quux", "see /help"),
        ("/", "see /help"),
    ],
)
def test_an_unknown_command_says_the_nearest(text, hint):
    with pytest.raises(RequestError, match=hint) as caught:
        parse(text)
    assert "a blank before it makes it a message" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "is_open"),
    [
        ('"""', True),
        ('"""one\ntwo', True),
        ('"""one"""', False),
        ('""""', True),
        ('""""""', False),
        ('"one', False),
        ('one """', False),
    ],
)
def test_triple_quotes_stay_open_until_they_are_closed(text, is_open):
    assert is_open_quote(text) == is_open
