"""How a reply looks on a terminal: accepted drafts tinted and underlined, control characters shown.

Model text is never read as markup: it is made visible first, and style codes go around it.
"""

import os
import sys
from collections.abc import Callable
from itertools import groupby
from typing import TYPE_CHECKING

import click

from mtp_mlx.reply import Chunk
from mtp_mlx.text.visible import visible

if TYPE_CHECKING:
    from mtp_mlx.api import LLM

RESET = "\x1b[0m"
ERASE_LINE = "\r\x1b[K"

Mark = Callable[[str], str]


def is_terminal() -> bool:
    """Does stdout end at a terminal?"""
    return sys.stdout is not None and sys.stdout.isatty()


def can_style() -> bool:
    """May stdout be styled? Only a terminal, no dumb one, without NO_COLOR (no-color.org)."""
    return is_terminal() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def show_progress(message: str) -> None:
    """The one line on stderr that says what is done now; nothing where that is no terminal."""
    if sys.stderr is not None and sys.stderr.isatty():
        print(ERASE_LINE + message, end="", file=sys.stderr, flush=True)


def show_note(llm: "LLM") -> None:
    """On stderr, what is to be known of this load, such as that all takes longer here."""
    if llm.note:
        click.echo(f"mtp-mlx: {llm.note}", err=True)


def tint(text: str) -> str:
    """One line of text in cyan and underlined, the style reset at its end."""
    return click.style(text, fg="cyan", underline=True)


def dim(text: str) -> str:
    """One line of text in a fainter colour."""
    return click.style(text, dim=True)


def bracket(text: str) -> str:
    """One line of text between marks, for output without style."""
    return f"‹{text}›"


def unmarked(text: str) -> str:
    """The text as it is."""
    return text


def painted(chunk: Chunk, mark: Mark, *, is_raw: bool = False, is_all: bool = False) -> str:
    """A chunk as it is printed: its accepted drafts marked, line by line, or all of it.

    is_raw: control characters of the model are passed on instead of being shown.
    """
    show = unmarked if is_raw else visible
    if is_all:
        return _mark_lines(show(chunk.text), mark)
    if not chunk.tokens:
        return show(chunk.text)
    parts = []
    for from_draft, tokens in groupby(chunk.tokens, key=lambda token: token.from_draft):
        text = show("".join(token.text for token in tokens))
        parts.append(_mark_lines(text, mark) if from_draft else text)
    return "".join(parts)


def _mark_lines(text: str, mark: Mark) -> str:
    return "\n".join(mark(line) if line else "" for line in text.split("\n"))
